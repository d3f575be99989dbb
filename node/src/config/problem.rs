//! What can be wrong with a configuration, and how it is said.
//!
//! A [`Finding`] is a typed [`Problem`], the place it was found at and, from the problem, what would be right. It is shown the
//! way compilers do, since that is the form people read fastest:
//!
//! ```text
//! error: unknown key `heartbeat_ms` in [raft]
//!  --> balsa.toml:7:1
//!   |
//! 7 | heartbeat_ms = 100
//!   | ^^^^^^^^^^^^
//!   = help: did you mean `heartbeat_interval_ms`?
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};

use super::schema;
use super::template;

/// How many findings are written out; a file that is not meant to be TOML has thousands.
const SHOWN_MAX: usize = 20;
/// Characters of an excerpt; a longer line is cut around what is marked.
const EXCERPT_CHARS: usize = 140;

/// One thing that is wrong, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub problem: Problem,
    /// Where; `None` when it is nowhere, such as a default on this host.
    pub place: Option<Place>,
}

/// Where something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What the line belongs to.
    pub origin: PlaceOrigin,
    /// The line itself, tabs as spaces.
    pub excerpt: String,
    /// The characters of the excerpt that are to blame.
    pub marked: Range<usize>,
}

/// What an excerpt was taken from. The order is the order of the report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlaceOrigin {
    /// A file: its path as it was given; line and column count from 1, columns in characters.
    File {
        /// The path as it was given.
        path: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A command-line argument.
    Argument(&'static str),
}

/// What is wrong. The message says what; [`Problem::help`] says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message of each variant is its documentation")]
pub enum Problem {
    #[error("there is no file {}", path.display())]
    FileMissing { path: PathBuf },
    #[error("{} cannot be read: {reason}", path.display())]
    FileUnreadable { path: PathBuf, reason: String },
    #[error("the file is not UTF-8 text: this byte, 0x{byte:02x}, cannot be read")]
    NotUtf8 { byte: u8 },
    #[error("this is not TOML: {message}")]
    Syntax { message: String },
    #[error("`{key}` is set twice")]
    DuplicateKey { key: String, first_line: Option<usize> },
    #[error("there is no section [{section}]")]
    UnknownSection { section: String, nearest: Option<&'static str> },
    #[error("unknown key `{key}` in {}", title_of(section))]
    UnknownKey { section: &'static str, key: String, meant: Option<Meant> },
    #[error("`{key}` stands outside of any section")]
    KeyOutsideSection { key: String, meant: Option<&'static schema::Key> },
    #[error("`{section}` is {}, but here it is {got}", if *repeated { "a list of sections" } else { "a section" })]
    NotASection { section: &'static str, repeated: bool, got: &'static str },
    #[error("there is no setting for the environment variable {variable}")]
    UnknownVariable { variable: String, nearest: Option<String> },
    #[error("`{}` is {}, but here it is {got}", key.name(), key.kind.expected())]
    WrongType { key: &'static schema::Key, got: String },
    #[error("`{}` is {value}, which is out of range", key.name())]
    OutOfRange { key: &'static schema::Key, value: String },
    #[error("`{}` cannot be {value:?}", key.name())]
    NotAChoice { key: &'static schema::Key, value: String },
    #[error("`{}` cannot be {value:?}: a name has 1 to 63 letters, digits, `-`, `_` and `.`", key.name())]
    BadName { key: &'static schema::Key, value: String },
    #[error("`{}` is {value}, which is not from 0 to 1", key.name())]
    NotAFraction { key: &'static schema::Key, value: String },
    #[error("`{}` cannot be {value:?}", key.name())]
    BadUrl { key: &'static schema::Key, value: String },
    #[error("`{}` must not be empty", key.name())]
    EmptyPath { key: &'static schema::Key },
    #[error("`{}` is not a template: {fault}", key.name())]
    BadTemplate { key: &'static schema::Key, fault: template::Fault },
    #[error("`{}` gives \"{value}\" for {node}: {fault}", key.name())]
    BadAddress { key: &'static schema::Key, value: String, node: String, fault: AddressFault },
    #[error("`{listen}` listens on every address of its host, so others cannot tell from it how to reach a node")]
    NotReachable { listen: &'static str, advertise: &'static str, port: u16 },
    #[error("port {port} is used twice: {first} and {second}")]
    PortUsedTwice { port: u16, first: String, second: String, same_node: bool },
    #[error("`{}` gives {value} for both {first} and {second}", key.name())]
    AdvertisedTwice { key: &'static schema::Key, value: String, first: String, second: String },
    #[error("{first} and {second} are on one host, and `socket` gives both of them \"{socket}\"")]
    SocketTwice { first: String, second: String, socket: String },
    #[error("all {replicas} nodes would have the name \"{name}\"")]
    SameName { replicas: u64, name: String },
    #[error("\"{name}\" is not one of the cluster's nodes, {nodes}")]
    NotInCluster { name: String, nodes: String, from_host: bool },
    #[error("`{low}` must be below `{high}`, but {low_value} >= {high_value}")]
    NotBelow { low: &'static str, low_value: String, high: &'static str, high_value: String, why: &'static str },
    #[error("{first} and {second} are on one host, and `data_dir` gives both of them \"{directory}\"")]
    SharedDirectory { first: String, second: String, directory: String },
    #[error("{replicas} replicas stand no more losses than {}, and each write waits for one more", replicas - 1)]
    EvenReplicas { replicas: u64 },
    #[error("two modules have the {key} \"{value}\"")]
    ModuleTwice { key: &'static str, value: String, first: Option<PlaceOrigin> },
    #[error("this module has no `{key}`")]
    ModuleIncomplete { key: &'static str },
    #[error("there is no module file {}", path.display())]
    ModuleMissing { path: PathBuf },
    #[error("the module file {} {reason}", path.display())]
    ModuleBroken { path: PathBuf, reason: String },
}

/// What an unknown key was probably meant to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meant {
    /// A key of the same section.
    Here(&'static str),
    /// The same name in another section.
    Elsewhere(&'static str),
}

/// Why an address is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message of each variant is its documentation")]
pub enum AddressFault {
    #[error("the port is missing")]
    NoPort,
    #[error("the port must be a number from 1 to 65535")]
    BadPort,
    #[error("the host is missing")]
    NoHost,
    #[error("`{0}` is a name, and a node can only listen on an IP address")]
    NotAnIp(String),
    #[error("an IPv6 address stands in brackets, as in [::1]:6000")]
    Unbracketed,
    #[error("`{0}` is not a host")]
    BadHost(String),
    #[error("leave out `{0}`: it is only host and port")]
    Scheme(String),
    #[error("{0} is every address of a host, and nobody can connect to that")]
    Unspecified(String),
    #[error("the number becomes too large")]
    TooLarge,
}

impl PartialEq for schema::Key {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for schema::Key {}

impl Problem {
    /// Whether the node starts all the same.
    pub fn is_warning(&self) -> bool {
        matches!(self, Self::EvenReplicas { .. } | Self::SharedDirectory { .. })
    }

    /// What would be right.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::DuplicateKey { first_line, .. } => first_line.map(|line| format!("it is first set in line {line}; keep one")),
            Self::UnknownSection { nearest, .. } => Some(unknown_section_help(*nearest)),
            Self::UnknownKey { section, meant, .. } => Some(unknown_key_help(section, meant.as_ref())),
            Self::KeyOutsideSection { meant, .. } => Some(match meant {
                Some(key) => format!("it belongs below the line `{}`", title_of(key.section())),
                None => format!("every key belongs to a section: {}", sections()),
            }),
            Self::NotASection { section, repeated, .. } => Some(match repeated {
                true => format!("write `[[{section}]]` on a line of its own, with two brackets, and its keys below"),
                false => format!("write `[{section}]` on a line of its own, and its keys below"),
            }),
            Self::UnknownVariable { nearest, variable } => Some(match nearest {
                Some(nearest) => format!("did you mean {nearest}?"),
                None if variable.starts_with("BALSA_MODULE__") => "a module is set in the file only".to_owned(),
                None => "settings are BALSA_<SECTION>__<KEY>, such as BALSA_NODE__DATA_DIR; see `balsa config show`".to_owned(),
            }),
            Self::WrongType { key, .. } => Some(example(key)),
            Self::OutOfRange { key, .. } => key.kind.range().map(|(min, max)| {
                format!("it can be {} to {}", key.kind.number(min), key.kind.number(max))
            }),
            Self::NotAChoice { key, value } => Some(choice_help(key, value)),
            Self::NotAFraction { .. } => Some("0 is none, 0.01 one in a hundred, 1 all".to_owned()),
            Self::BadUrl { .. } => Some("it is http:// with a host and a port, such as \"http://otel-collector:4317\"".to_owned()),
            Self::BadTemplate { .. } => Some(template::Variables.to_string()),
            Self::BadAddress { key, .. } => Some(format!("for example \"{}\"", address_example(key))),
            Self::NotReachable { advertise, port, .. } => Some(format!(
                "say how a node is reached: {advertise} = \"HOST:{port}\", where HOST may use {{name}} or {{ordinal}}, such as \
                 \"{{name}}.balsa-headless:{port}\""
            )),
            Self::PortUsedTwice { same_node, port, .. } => Some(match same_node {
                true => "give each of the node's three listeners a port of its own".to_owned(),
                false => format!(
                    "nodes of one host need ports of their own, such as \"127.0.0.1:{{{port} + 100 * ordinal}}\"; if each node has a host \
                     of its own, say so with advertise_peer_addr"
                ),
            }),
            Self::AdvertisedTwice { .. } => Some("use {name} or {ordinal} in it, so that each node has an address of its own".to_owned()),
            Self::SocketTwice { .. } => Some(
                "use {name} or {ordinal} in it, or leave it out: then each node's is in its own data_dir".to_owned(),
            ),
            Self::SameName { .. } => Some("use {ordinal} in `node_name`, such as \"{cluster}-{ordinal}\"".to_owned()),
            Self::NotInCluster { from_host: true, .. } => Some(
                "that is the host's name; say which node this is with `serve --name`, or change `node_name` or `replicas` in [cluster]"
                    .to_owned(),
            ),
            Self::NotInCluster { .. } => Some("nodes are named by `node_name` and counted by `replicas` in [cluster]".to_owned()),
            Self::NotBelow { why, .. } => Some((*why).to_owned()),
            Self::SharedDirectory { .. } => Some(
                "only the first that starts will get it; use {name} in it, such as \"balsa-data/{name}\", or give each node its own \
                 with `serve --data-dir`"
                    .to_owned(),
            ),
            Self::EvenReplicas { replicas } => Some(match replicas {
                9.. => "use an odd number".to_owned(),
                _ => format!("use {} or {}", replicas - 1, replicas + 1),
            }),
            Self::ModuleTwice { key, first, .. } => Some(match first {
                Some(first) => format!("the first of them stands at {first}; each module has a {key} of its own"),
                None => format!("each module has a {key} of its own"),
            }),
            Self::ModuleIncomplete { .. } => {
                Some("a module has both, such as name = \"counter\" and path = \"counter.wasm\"".to_owned())
            }
            Self::ModuleMissing { .. } => Some("a relative path starts from the directory of the configuration file".to_owned()),
            Self::FileMissing { .. }
            | Self::FileUnreadable { .. }
            | Self::NotUtf8 { .. }
            | Self::Syntax { .. }
            | Self::BadName { .. }
            | Self::EmptyPath { .. }
            | Self::ModuleBroken { .. } => None,
        }
    }
}

fn sections() -> String {
    let names: Vec<_> = schema::SECTIONS.iter().map(schema::Section::title).collect();
    names.join(", ")
}

fn title_of(section: &str) -> String {
    schema::section(section).map_or_else(|| format!("[{section}]"), schema::Section::title)
}

fn unknown_section_help(nearest: Option<&str>) -> String {
    match nearest.and_then(schema::section) {
        Some(section) => format!("did you mean {}?", section.title()),
        None => format!("the sections are {}", sections()),
    }
}

fn unknown_key_help(section: &str, meant: Option<&Meant>) -> String {
    match meant {
        Some(Meant::Here(name)) => format!("did you mean `{name}`?"),
        Some(Meant::Elsewhere(other)) => format!("it belongs to {}", title_of(other)),
        None => {
            let names: Vec<_> = schema::keys_of(section).map(|key| format!("`{}`", key.name())).collect();
            format!("the keys of {} are {}", title_of(section), names.join(", "))
        }
    }
}

fn choice_help(key: &schema::Key, value: &str) -> String {
    let schema::Kind::Choice(words) = key.kind else { return String::new() };
    match schema::nearest(value, words.iter().copied()) {
        Some(word) => format!("did you mean \"{word}\"?"),
        None => format!("it can be {}", words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")),
    }
}

fn example(key: &schema::Key) -> String {
    let value = match key.default {
        schema::Default::Number(number) => number.to_string(),
        schema::Default::Text(text) if key.kind == schema::Kind::Fraction => text.to_owned(),
        schema::Default::Text(text) => format!("\"{text}\""),
        schema::Default::Switch(on) => on.to_string(),
        schema::Default::Follows(_) if matches!(key.kind, schema::Kind::Reach) => {
            format!("\"{}\"", address_example(key))
        }
        schema::Default::Follows(_) if key.kind == schema::Kind::Url => "\"http://otel-collector:4317\"".to_owned(),
        schema::Default::Follows(_) => {
            key.kind.range().map_or("\"balsa-0\"".to_owned(), |(least, _)| least.to_string())
        }
        schema::Default::Required if key.kind == schema::Kind::File => "\"counter.wasm\"".to_owned(),
        schema::Default::Required => "\"counter\"".to_owned(),
    };
    format!("for example {} = {value}", key.name())
}

fn address_example(key: &schema::Key) -> &'static str {
    match (key.kind, key.default) {
        (schema::Kind::Listen, schema::Default::Text(text)) => text,
        _ if key.name().contains("client") => "{name}.balsa-headless:6000",
        _ => "{name}.balsa-headless:6001",
    }
}

/// Whether colours are written; `anstream` strips them where no terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    Coloured,
}

impl Look {
    fn paint(self, style: Style, text: impl fmt::Display) -> String {
        match self {
            Self::Plain => text.to_string(),
            Self::Coloured => format!("{style}{text}{style:#}"),
        }
    }
}

const BOLD: Style = Style::new().bold();
const BLUE: Style = AnsiColor::Blue.on_default().bold();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();

impl Finding {
    /// The finding with colours, for `anstream`.
    pub fn coloured(&self) -> String {
        self.render(Look::Coloured)
    }

    /// `balsa.toml:7:1: unknown key ... (did you mean ...?)`.
    pub fn in_a_line(&self) -> String {
        let place = self.place.as_ref().map(|place| format!("{}: ", place.origin)).unwrap_or_default();
        let help = self.problem.help().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{place}{}{help}", self.problem)
    }

    fn render(&self, look: Look) -> String {
        let (word, style) = if self.problem.is_warning() { ("warning", YELLOW) } else { ("error", RED) };
        let mut text = format!("{}{}\n", look.paint(style, word), look.paint(BOLD, format_args!(": {}", self.problem)));
        let gutter = self.place.as_ref().map_or(0, |place| place.render(look, style, &mut text));
        if let Some(help) = self.problem.help() {
            let bar = look.paint(BLUE, format_args!("{:gutter$} =", ""));
            text.push_str(&format!("{bar} help: {help}\n"));
        }
        text
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Look::Plain))
    }
}

impl Place {
    /// A place in `line`, whose bytes `marked` are to blame.
    pub(super) fn new(origin: PlaceOrigin, line: &str, marked: Range<usize>) -> Self {
        let chars = |to: usize| line[..line.floor_char_boundary(to.min(line.len()))].chars().count();
        let (start, end) = (chars(marked.start), chars(marked.end));
        let cut = if end.max(start + 1) > EXCERPT_CHARS { start.saturating_sub(EXCERPT_CHARS / 4) } else { 0 };
        let excerpt =
            line.chars().skip(cut).take(EXCERPT_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let end = end.max(start + 1).min(cut + EXCERPT_CHARS);
        Self { origin, excerpt, marked: start - cut..end - cut }
    }

    /// Appends the excerpt; returns the width of its gutter.
    fn render(&self, look: Look, style: Style, text: &mut String) -> usize {
        let number = match &self.origin {
            PlaceOrigin::File { line, .. } => line.to_string(),
            PlaceOrigin::Environment(_) | PlaceOrigin::Argument(_) => String::new(),
        };
        let gutter = number.len();
        let bar = look.paint(BLUE, format_args!("{:gutter$} |", ""));
        let arrow = look.paint(BLUE, format_args!("{:gutter$}-->", ""));
        let line = look.paint(BLUE, format_args!("{number} |"));
        let (indent, carets) = (" ".repeat(self.marked.start), look.paint(style, "^".repeat(self.marked.len())));
        let excerpt = self.excerpt.trim_end();
        text.push_str(&format!("{arrow} {}\n{bar}\n{line} {excerpt}\n{bar} {indent}{carets}\n", self.origin));
        gutter
    }
}

impl fmt::Display for PlaceOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Argument(flag) => write!(f, "argument {flag}"),
        }
    }
}

/// All that is wrong with a configuration, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// At least one error, and the warnings.
    pub findings: Vec<Finding>,
}

impl ConfigErrors {
    /// One error, which leaves nothing else to look at.
    pub(super) fn only(problem: Problem, place: Option<Place>) -> Self {
        Self { findings: vec![Finding { problem, place }] }
    }

    /// The report with colours, for `anstream`.
    pub fn coloured(&self) -> String {
        self.render(Finding::coloured)
    }

    /// The errors without the warnings.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.problem.is_warning())
    }

    /// The first error in one line, and how many more there are.
    pub fn in_a_line(&self) -> String {
        let mut errors = self.errors();
        let first = errors.next().map(Finding::in_a_line).unwrap_or_default();
        match errors.count() {
            0 => first,
            more => format!("{first}; and {more} more error{}", if more == 1 { "" } else { "s" }),
        }
    }

    fn render(&self, one: impl Fn(&Finding) -> String) -> String {
        let mut text: Vec<_> = self.findings.iter().take(SHOWN_MAX).map(one).collect();
        if let more @ 1.. = self.findings.len().saturating_sub(SHOWN_MAX) {
            text.push(format!("... and {more} more\n"));
        }
        text.join("\n")
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Finding::to_string))
    }
}

/// Findings while they are made.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn push(&mut self, problem: Problem, place: Option<Place>) {
        self.0.push(Finding { problem, place });
    }

    /// The warnings, or everything if any of it is an error.
    pub(super) fn finish(self) -> Result<Vec<Finding>, ConfigErrors> {
        let mut findings = without_echoes(self.0);
        findings.sort_by(|a, b| order(a).cmp(&order(b)));
        let fatal = findings.iter().any(|finding| !finding.problem.is_warning());
        if fatal { Err(ConfigErrors { findings }) } else { Ok(findings) }
    }
}

/// Places first, in the order of the file; what has no place comes last.
fn order(finding: &Finding) -> (bool, Option<&PlaceOrigin>) {
    (finding.place.is_none(), finding.place.as_ref().map(|place| &place.origin))
}

/// What the parser made of a line it could not read says nothing, and neither does what stands below a section's line that it
/// could not read: keep the first syntax error of each line, and of the rest what is about lines it could read.
fn without_echoes(findings: Vec<Finding>) -> Vec<Finding> {
    let is_syntax =
        |finding: &Finding| matches!(finding.problem, Problem::Syntax { .. } | Problem::DuplicateKey { .. });
    let (syntax, rest): (Vec<_>, Vec<_>) = findings.into_iter().partition(is_syntax);
    let mut unreadable = BTreeSet::new();
    let syntax: Vec<_> = syntax.into_iter().filter(|finding| unreadable.insert(line_of(finding))).collect();
    let lost = syntax.iter().filter(|finding| is_title(finding)).filter_map(line_of).min().unwrap_or(usize::MAX);
    let echo = |finding: &Finding| {
        let line = line_of(finding);
        line.is_some() && (unreadable.contains(&line) || is_about_sections(finding) && line > Some(lost))
    };
    let rest: Vec<_> = rest.into_iter().filter(|finding| !echo(finding)).collect();
    syntax.into_iter().chain(rest).collect()
}

/// Whether the line was meant to begin a section.
fn is_title(finding: &Finding) -> bool {
    let place = finding.place.as_ref();
    matches!(finding.problem, Problem::Syntax { .. }) && place.is_some_and(|place| place.excerpt.starts_with('['))
}

fn is_about_sections(finding: &Finding) -> bool {
    matches!(
        finding.problem,
        Problem::UnknownSection { .. } | Problem::KeyOutsideSection { .. } | Problem::NotASection { .. }
    )
}

fn line_of(finding: &Finding) -> Option<usize> {
    match finding.place.as_ref()?.origin {
        PlaceOrigin::File { line, .. } => Some(line),
        PlaceOrigin::Environment(_) | PlaceOrigin::Argument(_) => None,
    }
}
