//! A reader of OpenMetrics' text, as strict as a test wants it: by this crate's tests, and by those in `tests/cluster`, which include
//! this file.

use std::collections::{BTreeMap, BTreeSet};

/// A metric with all its series.
#[derive(Debug, Default, Clone)]
#[allow(dead_code)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) unit: Option<String>,
    pub(crate) samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
#[allow(dead_code)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

#[allow(dead_code)]
impl Family {
    /// The names of labels that any of its series has, but for a histogram's `le`.
    pub(crate) fn labels(&self) -> BTreeSet<String> {
        let labels = self.samples.iter().flat_map(|sample| sample.labels.keys());
        labels.filter(|label| *label != "le").cloned().collect()
    }

    /// As a query names its samples.
    pub(crate) fn sample_names(&self, name: &str) -> Vec<String> {
        match self.kind.as_str() {
            "counter" => vec![format!("{name}_total")],
            "histogram" => ["bucket", "count", "sum"].map(|suffix| format!("{name}_{suffix}")).into(),
            _ => vec![name.to_owned()],
        }
    }
}

/// The families of an exposition, by name; panics at whatever breaks a rule of the format or of Prometheus' naming.
pub(crate) fn read(text: &str) -> BTreeMap<String, Family> {
    let text = text.strip_suffix("# EOF\n").expect("the text ends with # EOF");
    let (mut families, mut current) = (BTreeMap::<String, Family>::new(), String::new());
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
            if what == "HELP" {
                assert!(!families.contains_key(name), "{name} comes twice");
                current = name.to_owned();
            }
            assert_eq!(name, current, "{line}");
            let family = families.entry(current.clone()).or_default();
            match what {
                "HELP" => rest.clone_into(&mut family.help),
                "TYPE" => rest.clone_into(&mut family.kind),
                "UNIT" => family.unit = Some(rest.to_owned()),
                other => panic!("{other}: {line}"),
            }
            continue;
        }
        let sample = sample(line);
        let family = families.get_mut(&current).expect("a sample comes after its family's comments");
        assert!(
            family.sample_names(&current).contains(&sample.name),
            "{line} is no sample of the {} {current}",
            family.kind
        );
        assert!(seen.insert((sample.name.clone(), sample.labels.clone())), "{line} comes twice");
        assert!(sample.value.is_finite() && (family.kind == "gauge" || sample.value >= 0.0), "{line}");
        family.samples.push(sample);
    }
    families.iter().for_each(|(name, family)| check(name, family));
    families
}

fn check(name: &str, family: &Family) {
    let is_name =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    assert!(is_name(name) && name.starts_with(['b', 'p']), "{name}");
    assert!(["counter", "gauge", "histogram"].contains(&family.kind.as_str()), "{name} is a {:?}", family.kind);
    assert!(family.help.len() > 4 && family.help.ends_with('.'), "{name}'s help: {:?}", family.help);
    assert!(!name.ends_with("_total"), "{name}: the suffix is the sample's");
    // The base units that there are; a name that ends in one is not something else.
    for unit in ["seconds", "bytes"] {
        assert_eq!(name.ends_with(unit), family.unit.as_deref() == Some(unit), "{name} is in {:?}", family.unit);
    }
    for other in ["_ms", "_us", "_ns", "_millis", "_kb", "_mb", "_percent", "_minutes"] {
        assert!(!name.ends_with(other), "{name} is not in a base unit");
    }
    let shapes: BTreeSet<_> = family
        .samples
        .iter()
        .map(|sample| sample.labels.keys().filter(|label| *label != "le").collect::<Vec<_>>())
        .collect();
    assert!(shapes.len() <= 1, "{name}'s series have different labels: {shapes:?}");
    if family.kind == "histogram" {
        check_buckets(name, family);
    }
}

/// Buckets ascend, are cumulative, and the last is all.
fn check_buckets(name: &str, family: &Family) {
    let mut of: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
    let bucket = format!("{name}_bucket");
    for sample in family.samples.iter().filter(|sample| sample.name == bucket) {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le").expect("a bucket has its bound");
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
        of.entry(labels).or_default().push((bound, sample.value));
    }
    for (labels, buckets) in of {
        assert!(buckets.is_sorted_by(|left, right| left.0 < right.0 && left.1 <= right.1), "{name} {labels:?}");
        let (last, all) = *buckets.last().unwrap();
        assert_eq!(last, f64::INFINITY, "{name} {labels:?}");
        let count =
            family.samples.iter().find(|sample| sample.name == format!("{name}_count") && sample.labels == labels);
        assert_eq!(count.unwrap().value, all, "{name} {labels:?}");
    }
}

/// `name{label="value",..} 1`
fn sample(line: &str) -> Sample {
    let Some((name, rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        return Sample { name: name.to_owned(), labels: BTreeMap::new(), value: value.parse().unwrap() };
    };
    let (mut labels, mut rest) = (BTreeMap::new(), rest);
    loop {
        let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        let (mut value, mut characters) = (String::new(), after.char_indices());
        let end = loop {
            match characters.next().unwrap_or_else(|| panic!("{line}")) {
                (at, '"') => break at,
                (_, '\\') => match characters.next().map(|(_, escaped)| escaped) {
                    Some('n') => value.push('\n'),
                    Some(escaped @ ('\\' | '"')) => value.push(escaped),
                    other => panic!("{other:?} after a backslash: {line}"),
                },
                (_, character) => value.push(character),
            }
        };
        assert!(labels.insert(label.to_owned(), value).is_none(), "{label} comes twice: {line}");
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    let value = rest.strip_prefix("} ").unwrap_or_else(|| panic!("{line}"));
    Sample { name: name.to_owned(), labels, value: value.parse().unwrap() }
}
