//! Raw settings: for every key of the schema its value, and where that came from.
//!
//! Four layers, each above the one before: the schema's default, the file, the environment, the arguments. A value that is
//! wrong by itself (type, range, choice) is reported here and leaves the key *broken*: it has no value, and later checks that
//! would need one stay silent instead of reporting what follows from it.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use serde::Serialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::problem::{ConfigErrors, Findings, Meant, Place, PlaceOrigin, Problem};
use super::schema::{self, Default, KEYS, Key, Kind};
use super::template::{self, Template};

/// A value as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number, in the key's unit.
    Number(u64),
    /// Text, possibly a template.
    Text(String),
    /// True or false.
    Switch(bool),
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The file; the bytes of the value.
    File(Range<usize>),
    /// This environment variable.
    Environment(String),
    /// This argument.
    Argument(&'static str),
}

/// One key's value.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Which key.
    pub key: &'static Key,
    /// `None`: nothing set it and it has no default, or it is broken.
    pub value: Option<Value>,
    /// Where it came from.
    pub origin: Origin,
}

/// The text of the configuration file.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    text: String,
}

/// All keys' values, in the schema's order.
#[derive(Debug)]
pub struct Settings {
    source: Option<Source>,
    /// Of the sections that there are once.
    all: Vec<Setting>,
    /// Of each `[[module]]`, in the order of the file.
    modules: Vec<Vec<Setting>>,
}

impl Source {
    /// Reads the file. Whatever is wrong here ends the work: there is nothing more to look at.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigErrors> {
        let bytes = fs::read(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => ConfigErrors::only(Problem::FileMissing { path: path.to_owned() }, None),
            _ => ConfigErrors::only(Problem::FileUnreadable { path: path.to_owned(), reason: error.to_string() }, None),
        })?;
        Self::of(path, bytes)
    }

    /// The file at `path` holds `bytes`.
    pub(super) fn of(path: &Path, bytes: Vec<u8>) -> Result<Self, ConfigErrors> {
        let text = String::from_utf8(bytes).map_err(|error| not_utf8(path, &error))?;
        Ok(Self { path: path.to_owned(), text })
    }

    fn place(&self, span: Range<usize>) -> Place {
        let at = self.text.floor_char_boundary(span.start.min(self.text.len()));
        let start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = self.text[at..].find('\n').map_or(self.text.len(), |newline| at + newline);
        let column = self.text[start..at].chars().count() + 1;
        let origin = PlaceOrigin::File { path: self.path.display().to_string(), line: self.line(at), column };
        Place::new(origin, &self.text[start..end], at - start..span.end.clamp(at, end) - start)
    }

    fn line(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }

    /// The key at `span` was given before; or the section, if that is a section's line.
    fn duplicate(&self, span: &Range<usize>) -> Problem {
        let key = self.text.get(span.clone()).unwrap_or_default();
        let number = self.line(span.start);
        let lines: Vec<_> = self.text.lines().take(number).map(str::trim).collect();
        let Some((this, above)) = lines.split_last() else {
            return Problem::DuplicateKey { key: key.to_owned(), first_line: None };
        };
        if this.starts_with('[') {
            let first = above.iter().position(|line| line == this);
            return Problem::DuplicateKey { key: (*this).to_owned(), first_line: first.map(|at| at + 1) };
        }
        let mut paths = paths(&lines);
        let path = paths.pop().flatten();
        let first = paths.iter().position(|above| above.is_some() && *above == path);
        // Otherwise it is given twice within one line, in braces.
        let first_line = first.map_or(number, |at| at + 1);
        Problem::DuplicateKey { key: key.trim_matches(['"', '\'']).to_owned(), first_line: Some(first_line) }
    }

    /// The directory that relative paths in the file start from.
    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

impl Settings {
    /// Every key at its default.
    pub(super) fn defaults(source: Option<Source>) -> Self {
        Self { source, all: defaults(KEYS.iter().filter(|key| !key.is_repeated())), modules: Vec::new() }
    }

    /// Puts the file's values on top.
    pub(super) fn read_file(&mut self, findings: &mut Findings) {
        let Some(source) = self.source.take() else { return };
        let (document, errors) = DeTable::parse_recoverable(&source.text);
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let problem = syntax_problem(&source, error.message(), &span);
            findings.push(problem, Some(source.place(span)));
        }
        for (name, value) in document.get_ref() {
            self.read_section(&source, name, value, findings);
        }
        self.source = Some(source);
    }

    fn read_section(
        &mut self,
        source: &Source,
        name: &Name<'_>,
        value: &Spanned<DeValue<'_>>,
        findings: &mut Findings,
    ) {
        let Some(section) = schema::section(name.get_ref()) else {
            return findings.push(unknown_at_top(name.get_ref(), value.get_ref()), Some(source.place(name.span())));
        };
        match value.get_ref() {
            DeValue::Table(table) if !section.repeated => read_keys(source, section, table, &mut self.all, findings),
            DeValue::Array(modules) if section.repeated && is_tables(modules) => {
                self.read_modules(source, section, modules, findings)
            }
            other => {
                let mixed = section.repeated && matches!(other, DeValue::Array(_));
                let got = if mixed { "a list with something else in it" } else { describe(other) };
                let problem = Problem::NotASection { section: section.name, repeated: section.repeated, got };
                findings.push(problem, Some(source.place(name.span())));
            }
        }
    }

    fn read_modules(&mut self, source: &Source, section: &Section, modules: &DeArray<'_>, findings: &mut Findings) {
        for module in modules {
            let DeValue::Table(table) = module.get_ref() else { continue };
            let mut settings = defaults(schema::keys_of(section.name));
            read_keys(source, section, table, &mut settings, findings);
            let required = schema::keys_of(section.name).filter(|key| matches!(key.default, Default::Required));
            for key in required.filter(|key| !table.contains_key(key.name())) {
                findings.push(Problem::ModuleIncomplete { key: key.name() }, Some(source.place(module.span())));
            }
            self.modules.push(settings);
        }
    }

    /// Puts the environment's values on top. Only `BALSA_<SECTION>__<KEY>` is a setting: Kubernetes and Docker set
    /// `BALSA_PORT` and `BALSA_SERVICE_HOST` for a Service of that name, and the CLI has `BALSA_ENDPOINTS`.
    pub(super) fn read_environment(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
        findings: &mut Findings,
    ) {
        let mut ours: Vec<_> = variables.filter(|(variable, _)| is_setting(variable)).collect();
        ours.sort();
        for (variable, text) in ours {
            let Some(key) = KEYS.iter().find(|key| key.variable().as_deref() == Some(&variable)) else {
                let place = environment_place(&variable, &text, 0..variable.len());
                findings.push(Problem::UnknownVariable { nearest: nearest_variable(&variable), variable }, Some(place));
                continue;
            };
            self.set_text(key, &text, Origin::Environment(variable), findings);
        }
    }

    /// Puts one argument's value on top.
    pub(super) fn read_argument(&mut self, path: &str, flag: &'static str, text: &str, findings: &mut Findings) {
        let key = self.get(path).key;
        self.set_text(key, text, Origin::Argument(flag), findings);
    }

    fn set_text(&mut self, key: &'static Key, text: &str, origin: Origin, findings: &mut Findings) {
        let place = self.place_of(&origin, text, None);
        let value = accept_text(key, text).map_err(|problem| findings.push(problem, place)).ok();
        self.set(key, value, origin);
    }

    fn set(&mut self, key: &'static Key, value: Option<Value>, origin: Origin) {
        set(&mut self.all, key, value, origin);
    }

    /// Those of the sections that there are once, in the schema's order.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.all.iter()
    }

    /// Those of each `[[module]]`, in the order of the file.
    pub fn modules(&self) -> impl Iterator<Item = &[Setting]> {
        self.modules.iter().map(Vec::as_slice)
    }

    /// Where a value came from, in words: `default`, `balsa.toml:7`, `BALSA_LOG__LEVEL` or `--name`.
    pub fn origin(&self, setting: &Setting) -> String {
        match (&setting.origin, &self.source) {
            (Origin::File(span), Some(source)) => format!("{}:{}", source.path.display(), source.line(span.start)),
            (Origin::Environment(variable), _) => variable.clone(),
            (Origin::Argument(flag), _) => (*flag).to_owned(),
            (Origin::Default | Origin::File(_), _) => "default".to_owned(),
        }
    }

    /// The setting of a key of the schema.
    pub(super) fn get(&self, path: &str) -> &Setting {
        self.all
            .iter()
            .find(|setting| setting.key.path == path)
            .unwrap_or_else(|| panic!("{path} is not in the schema"))
    }

    /// A number; `None` if it is broken.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        match self.get(path).value {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        }
    }

    /// Text; `None` if it is broken or not set.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        match &self.get(path).value {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A template; one that cannot be read is reported.
    pub(super) fn template(&self, path: &str, findings: &mut Findings) -> Option<Template> {
        let setting = self.get(path);
        let parsed = Template::parse(self.text(path)?);
        let report = |template::Error { fault, at }| {
            findings.push(Problem::BadTemplate { key: setting.key, fault }, self.place_within(path, Some(at)));
        };
        parsed.map_err(report).ok()
    }

    /// A path of the file starts from the file's directory; any other from the current one.
    pub(super) fn resolve(&self, setting: &Setting, value: &str) -> PathBuf {
        match (&self.source, &setting.origin) {
            (Some(source), Origin::File(_)) => source.directory().join(value),
            _ => PathBuf::from(value),
        }
    }

    /// Whether somebody set it.
    pub(super) fn is_set(&self, path: &str) -> bool {
        self.get(path).origin != Origin::Default
    }

    /// The place of the first of these that somebody set.
    pub(super) fn blame(&self, paths: &[&str]) -> Option<Place> {
        let set = paths.iter().find(|path| self.is_set(path))?;
        self.place_within(set, None)
    }

    fn place_within(&self, path: &str, within: Option<Range<usize>>) -> Option<Place> {
        self.place_in(self.get(path), within)
    }

    /// The place of a setting's value.
    pub(super) fn place(&self, setting: &Setting) -> Option<Place> {
        self.place_in(setting, None)
    }

    fn place_in(&self, setting: &Setting, within: Option<Range<usize>>) -> Option<Place> {
        let shown = setting.value.as_ref().map(Value::to_string).unwrap_or_default();
        self.place_of(&setting.origin, &shown, within)
    }

    /// Where a value stands, or where the bytes `within` it do.
    fn place_of(&self, origin: &Origin, text: &str, within: Option<Range<usize>>) -> Option<Place> {
        let inside = within.unwrap_or(0..text.len());
        match origin {
            Origin::Default => None,
            Origin::File(span) => {
                let source = self.source.as_ref()?;
                let literal = source.text.get(span.start + 1..span.end.saturating_sub(1)) == Some(text);
                let whole = inside == (0..text.len());
                let exact = literal && !whole;
                let span =
                    if exact { span.start + 1 + inside.start..span.start + 1 + inside.end } else { span.clone() };
                Some(source.place(span))
            }
            Origin::Environment(variable) => {
                let from = variable.len() + 1;
                Some(environment_place(variable, text, from + inside.start..from + inside.end))
            }
            Origin::Argument(flag) => {
                let from = flag.len() + 1;
                let line = format!("{flag} {text}");
                Some(Place::new(PlaceOrigin::Argument(flag), &line, from + inside.start..from + inside.end))
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
            Self::Switch(on) => on.fmt(f),
        }
    }
}

type Name<'i> = Spanned<std::borrow::Cow<'i, str>>;
type Section = schema::Section;

fn read_keys(source: &Source, section: &Section, table: &DeTable<'_>, into: &mut [Setting], findings: &mut Findings) {
    for (name, value) in table {
        let Some(key) = schema::find(section.name, name.get_ref()) else {
            let problem = Problem::UnknownKey {
                section: section.name,
                key: name.get_ref().to_string(),
                meant: meant(section.name, name.get_ref()),
            };
            findings.push(problem, Some(source.place(name.span())));
            continue;
        };
        let span = value.span();
        let read = accept_toml(key, value.get_ref());
        let value = read.map_err(|problem| findings.push(problem, Some(source.place(span.clone())))).ok();
        set(into, key, value, Origin::File(span));
    }
}

fn set(settings: &mut [Setting], key: &'static Key, value: Option<Value>, origin: Origin) {
    let slot = settings.iter_mut().find(|setting| setting.key == key).expect("every key has a slot");
    *slot = Setting { key, value, origin };
}

fn defaults(keys: impl Iterator<Item = &'static Key>) -> Vec<Setting> {
    keys.map(|key| Setting { key, value: default_of(key), origin: Origin::Default }).collect()
}

/// What each line sets, as `section.key`, as far as that can be seen line by line.
fn paths(lines: &[&str]) -> Vec<Option<String>> {
    let plain = |text: &str| text.replace(['"', '\'', ' ', '\t'], "");
    let mut section = String::new();
    let mut of = |line: &&str| {
        if let Some(title) = line.strip_prefix('[') {
            let name = title.split(']').next().unwrap_or_default();
            section = if plain(name).is_empty() { String::new() } else { format!("{}.", plain(name)) };
            return None;
        }
        let (key, _) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
        Some(format!("{section}{}", plain(key)))
    };
    lines.iter().map(&mut of).collect()
}

fn not_utf8(path: &Path, error: &FromUtf8Error) -> ConfigErrors {
    let at = error.utf8_error().valid_up_to();
    let byte = error.as_bytes()[at];
    let source = Source { path: path.to_owned(), text: String::from_utf8_lossy(error.as_bytes()).into_owned() };
    ConfigErrors::only(Problem::NotUtf8 { byte }, Some(source.place(at..at)))
}

fn default_of(key: &Key) -> Option<Value> {
    match key.default {
        Default::Number(number) => Some(Value::Number(number)),
        Default::Text(text) => Some(Value::Text(text.to_owned())),
        Default::Switch(on) => Some(Value::Switch(on)),
        Default::Follows(_) | Default::Required => None,
    }
}

fn is_setting(variable: &str) -> bool {
    let foreign = variable.starts_with("BALSA_PORT") || variable.contains("_SERVICE_");
    variable.strip_prefix("BALSA_").is_some_and(|rest| rest.contains("__")) && !foreign
}

fn environment_place(variable: &str, text: &str, marked: Range<usize>) -> Place {
    Place::new(PlaceOrigin::Environment(variable.to_owned()), &format!("{variable}={text}"), marked)
}

fn nearest_variable(wrong: &str) -> Option<String> {
    let wrong = wrong.to_lowercase();
    let (section, name) = wrong.strip_prefix("balsa_")?.split_once("__")?;
    let section = schema::nearest(section, schema::SECTIONS.iter().map(|section| section.name))?;
    let key = schema::find(section, name).or_else(|| match meant(section, name)? {
        Meant::Here(name) => schema::find(section, name),
        Meant::Elsewhere(section) => schema::find(section, name),
    });
    key?.variable()
}

fn syntax_problem(source: &Source, message: &str, span: &Range<usize>) -> Problem {
    let marked = source.text.get(span.clone()).unwrap_or_default();
    match message {
        "duplicate key" => source.duplicate(span),
        // The parser takes whatever it does not know for text without quotes.
        _ if message.starts_with("string values must be quoted") && marked.is_empty() => {
            Problem::Syntax { message: "the value is missing".to_owned() }
        }
        _ if message.starts_with("string values must be quoted") => {
            Problem::Syntax { message: format!("`{marked}` is no value; text stands in quotes") }
        }
        _ => Problem::Syntax { message: message.to_owned() },
    }
}

fn unknown_at_top(name: &str, value: &DeValue<'_>) -> Problem {
    match value {
        DeValue::Table(_) | DeValue::Array(_) => {
            let sections = schema::SECTIONS.iter().map(|section| section.name);
            Problem::UnknownSection { section: name.to_owned(), nearest: schema::nearest(name, sections) }
        }
        _ => Problem::KeyOutsideSection { key: name.to_owned(), meant: schema::named(name) },
    }
}

/// The same name in another section is a better guess than a similar one in this.
fn meant(section: &str, name: &str) -> Option<Meant> {
    let elsewhere = schema::named(name);
    let here = schema::nearest(name, schema::keys_of(section).map(Key::name));
    elsewhere.map(|key| Meant::Elsewhere(key.section())).or(here.map(Meant::Here))
}

fn is_tables(array: &DeArray<'_>) -> bool {
    array.iter().all(|item| matches!(item.get_ref(), DeValue::Table(_)))
}

fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn accept_toml(key: &'static Key, value: &DeValue<'_>) -> Result<Value, Problem> {
    match (key.kind, value) {
        (Kind::Integer(..) | Kind::Millis(..) | Kind::Bytes(..), DeValue::Integer(integer)) => {
            let number = u64::from_str_radix(integer.as_str(), integer.radix());
            number.map_err(|_| Problem::OutOfRange { key, value: integer.to_string() }).and_then(|n| in_range(key, n))
        }
        (Kind::Bytes(..), DeValue::String(text)) => accept_text(key, text),
        (Kind::Fraction, DeValue::Integer(integer)) => accept_text(key, integer.as_str()),
        (Kind::Fraction, DeValue::Float(float)) => accept_text(key, float.as_str()),
        (Kind::Switch, DeValue::Boolean(on)) => Ok(Value::Switch(*on)),
        (Kind::Integer(..) | Kind::Millis(..) | Kind::Fraction | Kind::Switch, DeValue::String(_)) => {
            Err(Problem::WrongType { key, got: describe(value).to_owned() })
        }
        (_, DeValue::String(text)) => accept_text(key, text),
        _ => Err(Problem::WrongType { key, got: describe(value).to_owned() }),
    }
}

fn accept_text(key: &'static Key, text: &str) -> Result<Value, Problem> {
    let wrong = || Problem::WrongType { key, got: format!("\"{text}\"") };
    match key.kind {
        Kind::Integer(..) | Kind::Millis(..) => in_range(key, text.replace('_', "").parse().map_err(|_| wrong())?),
        Kind::Bytes(..) => in_range(key, schema::parse_bytes(text).ok_or_else(wrong)?),
        Kind::Switch => text.parse().map(Value::Switch).map_err(|_| wrong()),
        Kind::Choice(words) if !words.contains(&text) => Err(Problem::NotAChoice { key, value: text.to_owned() }),
        Kind::Name if !is_name(text) => Err(Problem::BadName { key, value: text.to_owned() }),
        Kind::Fraction => match text.parse::<f64>().map_err(|_| wrong())? {
            fraction if (0.0..=1.0).contains(&fraction) => Ok(Value::Text(fraction.to_string())),
            _ => Err(Problem::NotAFraction { key, value: text.to_owned() }),
        },
        Kind::Url if !is_url(text) => Err(Problem::BadUrl { key, value: text.to_owned() }),
        Kind::Path | Kind::File if text.is_empty() => Err(Problem::EmptyPath { key }),
        _ => Ok(Value::Text(text.to_owned())),
    }
}

fn in_range(key: &'static Key, number: u64) -> Result<Value, Problem> {
    let (min, max) = key.kind.range().expect("only numbers come here");
    match (min..=max).contains(&number) {
        true => Ok(Value::Number(number)),
        false => Err(Problem::OutOfRange { key, value: key.kind.number(number) }),
    }
}

/// TLS is left to a collector beside the node, or to the network.
fn is_url(text: &str) -> bool {
    let url = text.parse::<http::Uri>().ok().filter(|url| url.scheme() == Some(&http::uri::Scheme::HTTP));
    url.is_some_and(|url| url.port_u16().is_some() && url.path() == "/" && url.query().is_none())
}

/// Names end up in DNS, file names and metric labels.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=63).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['.', '-'])
}
