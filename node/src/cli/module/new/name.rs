//! What a module may be called, and what else is called after it.

use std::fmt;
use std::str::FromStr;

use super::lock;

/// Bytes of a name: what `balsa.toml` takes, in which it will stand.
const BYTES_MAX: usize = 63;
/// Rust's own words, and crates that every Rust program has. cargo refuses them, too, later and less clearly.
const RUST: [&str; 57] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "union",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];
/// Packages that a node serves itself.
const RESERVED: [&str; 2] = ["balsa", "grpc"];
/// What the project's code calls something else.
const TAKEN: [&str; 16] = [
    "AddRequest",
    "AddResponse",
    "Code",
    "Context",
    "Err",
    "GetRequest",
    "GetResponse",
    "Host",
    "Map",
    "Module",
    "Ok",
    "Result",
    "Self",
    "Status",
    "String",
    "View",
];

/// A name that can be a crate's, a module's, a protobuf package's and, in another form, a service's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

/// Why a name cannot be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Too long, or not there.
    #[error("'{name}' has {} characters; a module's name has 1 to {BYTES_MAX}", .name.chars().count())]
    Length {
        /// The name.
        name: String,
    },
    /// A character.
    #[error("'{name}' has {found:?} in it; a module's name has lower-case letters, digits, - and _{}", suggest(.name))]
    Character {
        /// The name.
        name: String,
        /// What it must not have.
        found: char,
    },
    /// The first character.
    #[error("'{0}' does not begin with a letter, as the name of a crate must")]
    Start(String),
    /// A word of Rust's.
    #[error("'{0}' is a word of Rust's or the name of one of its own crates; choose another, such as {0}-module")]
    Rust(String),
    /// The node's own.
    #[error("'{0}' would be the package of the service, and a node serves {0}.* itself; choose another name")]
    Reserved(String),
    /// A dependency's.
    #[error("'{0}' is the name of a crate that every module is built from; choose another, such as my-{0}")]
    Dependency(String),
}

/// A name like it that would do.
fn suggest(name: &str) -> String {
    let better: String = name.to_lowercase().replace([' ', '.', '/'], "-");
    if better.parse::<Name>().is_ok() { format!(", such as {better}") } else { String::new() }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let owned = || name.to_owned();
        if name.is_empty() || name.len() > BYTES_MAX {
            return Err(NameError::Length { name: owned() });
        }
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if let Some(found) = name.chars().find(|c| !good(*c)) {
            return Err(NameError::Character { name: owned(), found });
        }
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Err(NameError::Start(owned()));
        }
        let parsed = Self(owned());
        match parsed.snake().as_str() {
            word if RUST.contains(&word) => Err(NameError::Rust(owned())),
            word if RESERVED.contains(&word) => Err(NameError::Reserved(owned())),
            word if lock::names().any(|other| other.replace('-', "_") == word) => Err(NameError::Dependency(owned())),
            _ => Ok(parsed),
        }
    }
}

impl Name {
    /// As crates are called in Rust, and as the file of the module is: `work_queue`.
    pub(super) fn snake(&self) -> String {
        self.0.replace('-', "_")
    }

    /// The protobuf package: `work_queue.v1`.
    pub(super) fn package(&self) -> String {
        format!("{}.v1", self.snake())
    }

    /// The service: `WorkQueue`.
    pub(super) fn service(&self) -> String {
        let words = self.0.split(['-', '_']).filter(|word| !word.is_empty());
        let service: String = words.map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        if TAKEN.contains(&service.as_str()) { service + "Service" } else { service }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_called_after_the_name() {
        let name: Name = "work-queue_2".parse().unwrap();
        assert_eq!((name.snake().as_str(), name.package().as_str()), ("work_queue_2", "work_queue_2.v1"));
        assert_eq!(name.service(), "WorkQueue2");
        assert_eq!("status".parse::<Name>().unwrap().service(), "StatusService");
    }

    #[test]
    fn a_name_that_cannot_be_one_is_refused_with_what_could() {
        for (name, said) in [
            ("", "'' has 0 characters; a module's name has 1 to 63"),
            (
                "My Queue",
                "'My Queue' has 'M' in it; a module's name has lower-case letters, digits, - and _, such as my-queue",
            ),
            ("änderung", "'änderung' has 'ä' in it; a module's name has lower-case letters, digits, - and _"),
            ("../up", "'../up' has '.' in it; a module's name has lower-case letters, digits, - and _"),
            ("2nd", "'2nd' does not begin with a letter, as the name of a crate must"),
            (
                "match",
                "'match' is a word of Rust's or the name of one of its own crates; choose another, such as match-module",
            ),
            (
                "balsa",
                "'balsa' would be the package of the service, and a node serves balsa.* itself; choose another name",
            ),
            (
                "balsa-sdk",
                "'balsa-sdk' is the name of a crate that every module is built from; choose another, such as my-balsa-sdk",
            ),
            (
                "prost",
                "'prost' is the name of a crate that every module is built from; choose another, such as my-prost",
            ),
        ] {
            assert_eq!(name.parse::<Name>().unwrap_err().to_string(), said);
        }
        assert!("a".repeat(63).parse::<Name>().is_ok());
        assert!("a".repeat(64).parse::<Name>().is_err());
    }
}
