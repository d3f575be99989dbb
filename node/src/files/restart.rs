//! What was changed in the file and is not obeyed by this process.

use crate::config::schema::{Default, Key, Obeyed};
use crate::config::{Loaded, Setting, Value};

/// The values that this process started with, of the keys that it obeys for as long as it runs.
#[derive(Debug)]
pub(super) struct Started(Vec<Setting>);

impl Started {
    pub(super) fn with(loaded: &Loaded) -> Self {
        let fixed = |setting: &&Setting| matches!(setting.key.obeyed, Obeyed::AtStart | Obeyed::AtFounding);
        Self(loaded.settings.iter().filter(fixed).cloned().collect())
    }

    /// What `now` has otherwise: `raft.heartbeat_interval_ms: 125 ms -> 250 ms`.
    pub(super) fn changes(&self, now: &Loaded) -> Vec<String> {
        let now: Vec<_> = now.settings.iter().collect();
        let change = |then: &Setting| {
            let now = now.iter().find(|setting| setting.key == then.key).expect("every key has a setting");
            (then.value != now.value).then(|| describe(then, now))
        };
        self.0.iter().filter_map(change).collect()
    }
}

fn describe(then: &Setting, now: &Setting) -> String {
    let Key { path, obeyed, .. } = then.key;
    let note = match obeyed {
        Obeyed::AtFounding => " (and only if no cluster is founded yet)",
        _ => "",
    };
    format!("{path}: {} -> {}{note}", shown(then), shown(now))
}

fn shown(setting: &Setting) -> String {
    match (&setting.value, setting.key.default) {
        (Some(Value::Number(number)), _) => setting.key.kind.number(*number),
        (Some(Value::Text(text)), _) => format!("\"{text}\""),
        (Some(Value::Switch(on)), _) => on.to_string(),
        (None, Default::Follows(words)) => words.to_owned(),
        (None, _) => "not set".to_owned(),
    }
}
