//! One difference, and the sentence that says it.

use std::fmt;

use crate::wasm::module::MethodKind;

/// Something that a client of the old module would notice. Its `Display` is one sentence without a full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The service, or the method through which it is met: `ledger.v1.Ledger/Transfer`.
    pub at: String,
    /// What became of it.
    pub change: Change,
}

/// What became of something that clients rely on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The service or the method is gone.
    Removed,
    /// Command and query.
    Kind {
        /// Before.
        was: MethodKind,
        /// Now.
        is: MethodKind,
    },
    /// One response message and a stream of them.
    Streaming {
        /// Whether it is a stream now.
        is: bool,
    },
    /// The type of a method's request or response.
    Message {
        /// `request` or `response`.
        what: &'static str,
        /// Its full name before.
        was: String,
        /// And now.
        is: String,
    },
    /// A field of a message that can be reached from the method.
    Field {
        /// The message's full name.
        message: String,
        /// The field's number in the old module, or the new one's where it is new.
        number: u32,
        /// Its name, likewise.
        name: String,
        /// What became of it.
        change: FieldChange,
    },
    /// A value of an enum that can be reached from the method.
    Value {
        /// The enum's full name.
        enumeration: String,
        /// The value's number in the old module, or the new one's where it is new.
        number: i32,
        /// Its name, likewise.
        name: String,
        /// What became of it.
        change: ValueChange,
    },
}

/// What became of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldChange {
    /// It is gone, and its number and name are free for something else.
    Removed,
    /// The field of this name has another number.
    Number(u32),
    /// The field of this number has another name.
    Name(String),
    /// Name, old and new, in JSON.
    JsonName(String, String),
    /// Type and cardinality, as a `.proto` would have them.
    Type(String, String),
    /// The oneof it is in, by its name.
    Oneof(Option<String>, Option<String>),
    /// What its absence means, as a `.proto` would have it.
    Default(String, String),
    /// It is new, and `required`.
    Required,
    /// It is new, and takes what was reserved: its number, or its name.
    Reserved(&'static str),
}

/// What became of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueChange {
    /// It is gone, and its number and name are free for something else.
    Removed,
    /// The value of this name has another number.
    Number(i32),
    /// The value of this number has another name.
    Name(String),
    /// It is new, and takes what was reserved: its number, or its name.
    Reserved(&'static str),
}

impl Change {
    pub(super) fn at(self, at: &str) -> Difference {
        Difference { at: at.to_owned(), change: self }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, change } = self;
        match change {
            Change::Removed => write!(f, "{at} is removed"),
            Change::Kind { was, is } => write!(f, "{at} was a {} and is a {}", kind(*was), kind(*is)),
            Change::Streaming { is: true } => write!(f, "{at} answered with one message and answers with a stream"),
            Change::Streaming { is: false } => write!(f, "{at} answered with a stream and answers with one message"),
            Change::Message { what, was, is } => write!(f, "{at}: its {what} was {was} and is {is}"),
            Change::Field { message, number, name, change } => {
                write!(f, "{at}: ")?;
                field(f, message, *number, name, change)
            }
            Change::Value { enumeration, number, name, change } => {
                write!(f, "{at}: ")?;
                value(f, enumeration, *number, name, change)
            }
        }
    }
}

fn kind(kind: MethodKind) -> &'static str {
    match kind {
        MethodKind::Command => "command",
        MethodKind::Query => "query",
    }
}

fn field(f: &mut fmt::Formatter<'_>, of: &str, number: u32, name: &str, change: &FieldChange) -> fmt::Result {
    match change {
        FieldChange::Removed => write!(f, "field {number} `{name}` of {of} is removed and not reserved"),
        FieldChange::Number(is) => write!(f, "field `{name}` of {of} had number {number} and has {is}"),
        FieldChange::Name(is) => write!(f, "field {number} of {of} was called `{name}` and is called `{is}`"),
        FieldChange::JsonName(was, is) => {
            write!(f, "field {number} `{name}` of {of} was `{was}` in JSON and is `{is}`")
        }
        FieldChange::Type(was, is) => write!(f, "field {number} `{name}` of {of} was {was} and is {is}"),
        FieldChange::Oneof(was, is) => {
            write!(f, "field {number} `{name}` of {of} was in {} and is in {}", oneof(was), oneof(is))
        }
        FieldChange::Default(was, is) => {
            write!(f, "field {number} `{name}` of {of} had the default {was} and has {is}")
        }
        FieldChange::Required => write!(f, "field {number} `{name}` of {of} is new and required"),
        FieldChange::Reserved(what) => write!(f, "field {number} `{name}` of {of} takes a {what} that was reserved"),
    }
}

fn oneof(name: &Option<String>) -> String {
    name.as_ref().map_or("no oneof".into(), |name| format!("oneof `{name}`"))
}

fn value(f: &mut fmt::Formatter<'_>, of: &str, number: i32, name: &str, change: &ValueChange) -> fmt::Result {
    match change {
        ValueChange::Removed => write!(f, "value {number} `{name}` of {of} is removed and not reserved"),
        ValueChange::Number(is) => write!(f, "value `{name}` of {of} had number {number} and has {is}"),
        ValueChange::Name(is) => write!(f, "value {number} of {of} was called `{name}` and is called `{is}`"),
        ValueChange::Reserved(what) => write!(f, "value {number} `{name}` of {of} takes a {what} that was reserved"),
    }
}
