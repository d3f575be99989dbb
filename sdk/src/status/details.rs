//! Details that clients of gRPC know: messages of `google/rpc/error_details.proto`.
//!
//! They are written here by hand, since they are few and small, and a module holds only those that it uses. Any other message
//! goes in by [`Status::with_detail`].

use std::collections::BTreeMap;
use std::time::Duration;

use prost::{Message, Name};

use super::{Any, Status};

/// `google.rpc.ErrorInfo`: the cause of an error, for a program to act on.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ErrorInfo {
    /// What happened, in `UPPER_SNAKE_CASE`, one of a list that the module's documentation gives.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// Whose list that is: the module's package, say.
    #[prost(string, tag = "2")]
    pub domain: String,
    /// What else there is to know, in `lowerCamelCase`.
    #[prost(btree_map = "string, string", tag = "3")]
    pub metadata: BTreeMap<String, String>,
}

/// `google.rpc.BadRequest`: which fields of the request are wrong.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BadRequest {
    /// One for each mistake.
    #[prost(message, repeated, tag = "1")]
    pub field_violations: Vec<FieldViolation>,
}

/// `google.rpc.BadRequest.FieldViolation`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FieldViolation {
    /// The field's path in the request, as the `.proto` spells it: `transfer.amount`, `entries[2].account`.
    #[prost(string, tag = "1")]
    pub field: String,
    /// What is wrong with it.
    #[prost(string, tag = "2")]
    pub description: String,
}

/// `google.rpc.PreconditionFailure`: what the state is not.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PreconditionFailure {
    /// One for each condition that does not hold.
    #[prost(message, repeated, tag = "1")]
    pub violations: Vec<PreconditionViolation>,
}

/// `google.rpc.PreconditionFailure.Violation`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PreconditionViolation {
    /// The kind of condition, of the module's own: `BALANCE`.
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// What it is about: `accounts/alice`.
    #[prost(string, tag = "2")]
    pub subject: String,
    /// How it fails, and how it could be mended.
    #[prost(string, tag = "3")]
    pub description: String,
}

/// `google.rpc.RetryInfo`: when it may be worth trying again.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RetryInfo {
    /// How long to wait at least.
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<RetryDelay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct RetryDelay {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// What is left of a second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

macro_rules! names {
    ($($message:ident),+) => {$(
        impl Name for $message {
            const NAME: &'static str = stringify!($message);
            const PACKAGE: &'static str = "google.rpc";
        }
    )+};
}

names!(ErrorInfo, BadRequest, PreconditionFailure, RetryInfo);

impl Status {
    /// INVALID_ARGUMENT for one field of the request: `Status::invalid_field("amount", "is negative")`. The message names it,
    /// and so does a [`BadRequest`].
    pub fn invalid_field(field: &str, description: &str) -> Self {
        Self::invalid_argument(format!("{field}: {description}")).with_field_violation(field, description)
    }

    /// Adds a field to the [`BadRequest`].
    pub fn with_field_violation(self, field: impl Into<String>, description: impl Into<String>) -> Self {
        let violation = FieldViolation { field: field.into(), description: description.into() };
        self.with_more(&BadRequest { field_violations: vec![violation] })
    }

    /// Adds a condition to the [`PreconditionFailure`].
    pub fn with_precondition_violation(
        self,
        r#type: impl Into<String>,
        subject: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        let violation =
            PreconditionViolation { r#type: r#type.into(), subject: subject.into(), description: description.into() };
        self.with_more(&PreconditionFailure { violations: vec![violation] })
    }

    /// Adds an [`ErrorInfo`]:
    ///
    /// ```
    /// # use balsa_sdk::Status;
    /// let status = Status::failed_precondition("alice has 3, and 5 are asked for")
    ///     .with_error_info("OVERDRAFT", "ledger.v1", [("account", "alice"), ("balance", "3")]);
    /// ```
    pub fn with_error_info<'a>(
        self,
        reason: impl Into<String>,
        domain: impl Into<String>,
        metadata: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        self.with_detail(&ErrorInfo { reason: reason.into(), domain: domain.into(), metadata })
    }

    /// Adds a [`RetryInfo`]: before that, trying again is of no use.
    pub fn with_retry_delay(self, delay: Duration) -> Self {
        let delay = RetryDelay { seconds: delay.as_secs() as i64, nanos: delay.subsec_nanos() as i32 };
        self.with_detail(&RetryInfo { retry_delay: Some(delay) })
    }

    /// The first detail of this type, if there is one that decodes.
    pub fn detail<M: Message + Name + Default>(&self) -> Option<M> {
        let type_url = type_url::<M>();
        let detail = self.details.iter().find(|detail| detail.type_url == type_url)?;
        M::decode(detail.value.as_slice()).ok()
    }

    /// Adds to the detail of this type, or adds it: encodings of a message, one behind the other, are an encoding of the
    /// message with all their repeated fields.
    fn with_more<M: Message + Name>(mut self, more: &M) -> Self {
        let type_url = type_url::<M>();
        match self.details.iter_mut().find(|detail| detail.type_url == type_url) {
            Some(detail) => {
                more.encode(&mut detail.value).expect("a Vec takes everything");
                self
            }
            None => self.with_any(Any { type_url, value: more.encode_to_vec() }),
        }
    }
}

/// Not `M::type_url()`: its default has no host, and clients look for this one.
pub(super) fn type_url<M: Name>() -> String {
    format!("type.googleapis.com/{}", M::full_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Code;

    #[test]
    fn fields_are_collected_in_one_bad_request() {
        let status = Status::invalid_field("name", "is empty").with_field_violation("amount", "is negative");
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "name: is empty"));
        assert_eq!(status.details().len(), 1);
        assert_eq!(status.details()[0].type_url, "type.googleapis.com/google.rpc.BadRequest");
        let fields: Vec<_> = status.detail::<BadRequest>().unwrap().field_violations;
        let fields: Vec<_> = fields.iter().map(|f| (f.field.as_str(), f.description.as_str())).collect();
        assert_eq!(fields, [("name", "is empty"), ("amount", "is negative")]);
    }

    #[test]
    fn details_of_several_types_stand_side_by_side() {
        let status = Status::failed_precondition("overdraft")
            .with_precondition_violation("BALANCE", "accounts/alice", "3 is less than 5")
            .with_error_info("OVERDRAFT", "ledger.v1", [("balance", "3")])
            .with_precondition_violation("LIMIT", "accounts/alice", "0 is less than 5")
            .with_retry_delay(Duration::from_millis(1_500));
        assert_eq!(status.details().len(), 3);
        assert_eq!(status.detail::<PreconditionFailure>().unwrap().violations.len(), 2);
        let info = status.detail::<ErrorInfo>().unwrap();
        assert_eq!((info.reason.as_str(), info.metadata["balance"].as_str()), ("OVERDRAFT", "3"));
        let delay = status.detail::<RetryInfo>().unwrap().retry_delay.unwrap();
        assert_eq!((delay.seconds, delay.nanos), (1, 500_000_000));
        assert_eq!(status.detail::<BadRequest>(), None);
    }
}
