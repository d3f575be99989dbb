//! Request metadata: what a client may ask for beside its message.
//!
//! One pass over the headers, since a typical request has half a dozen and each lookup by name would hash. What is not
//! ours is ignored, as gRPC asks; what is ours and malformed is refused, because a consistency or a key that is silently
//! dropped is a promise silently broken. A query ignores an `idempotency-key` and a command the read options: an
//! interceptor may set them on every call.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::service::Consistency;

/// Headers as they were sent, each at most once.
#[derive(Debug, Default)]
pub(super) struct Metadata<'a> {
    encoding: Option<&'a HeaderValue>,
    timeout: Option<&'a HeaderValue>,
    key: Option<&'a HeaderValue>,
    consistency: Option<&'a HeaderValue>,
    min_index: Option<&'a HeaderValue>,
}

/// What is wrong with a request's metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Invalid {
    #[error("{0} was sent more than once")]
    Repeated(&'static str),
    #[error("grpc-timeout is not one to eight digits and a unit of H, M, S, m, u or n")]
    Timeout,
    #[error("balsa-consistency is neither `linearizable` (the default) nor `stale`")]
    Consistency,
    #[error("balsa-min-index is not a log index: a number from a reply's balsa-index")]
    MinIndex,
    #[error("idempotency-key is empty; leave it out or send 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes")]
    KeyEmpty,
    #[error("idempotency-key has {0} bytes, above the limit of {IDEMPOTENCY_KEY_BYTES_MAX}")]
    KeyTooLong(usize),
    #[error("idempotency-key holds something else than visible ASCII")]
    KeyNotAscii,
    #[error("idempotency-key was sent more than once")]
    KeyRepeated,
    #[error("grpc-encoding is not `identity`; this server does not decompress")]
    Encoding,
}

impl<'a> Metadata<'a> {
    pub(super) fn read(headers: &'a HeaderMap) -> Result<Self, Invalid> {
        let mut found = Self::default();
        for (name, value) in headers {
            let (slot, name) = match name.as_str() {
                "grpc-encoding" => (&mut found.encoding, "grpc-encoding"),
                "grpc-timeout" => (&mut found.timeout, "grpc-timeout"),
                "idempotency-key" => (&mut found.key, "idempotency-key"),
                "balsa-consistency" => (&mut found.consistency, "balsa-consistency"),
                "balsa-min-index" => (&mut found.min_index, "balsa-min-index"),
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(if name == "idempotency-key" { Invalid::KeyRepeated } else { Invalid::Repeated(name) });
            }
        }
        Ok(found)
    }

    /// Messages come as they are; a request that announces a compression is refused before its body is read.
    pub(super) fn check_encoding(&self) -> Result<(), Invalid> {
        match self.encoding {
            Some(encoding) if encoding != "identity" => Err(Invalid::Encoding),
            _ => Ok(()),
        }
    }

    /// How long the client waits.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, Invalid> {
        self.timeout.map(|value| parse_timeout(value.as_bytes()).ok_or(Invalid::Timeout)).transpose()
    }

    /// The idempotency key. A UUIDv7 gets the whole promise, since its age can be told; any other text is an opaque key,
    /// remembered for the window and no longer. Which of the two it is, apply decides.
    pub(super) fn key(&self) -> Result<Option<String>, Invalid> {
        let Some(value) = self.key else { return Ok(None) };
        match value.as_bytes() {
            [] => Err(Invalid::KeyEmpty),
            key if key.len() > IDEMPOTENCY_KEY_BYTES_MAX => Err(Invalid::KeyTooLong(key.len())),
            key if !key.iter().all(u8::is_ascii_graphic) => Err(Invalid::KeyNotAscii),
            key => Ok(Some(String::from_utf8(key.to_vec()).expect("visible ASCII is UTF-8"))),
        }
    }

    /// How fresh a query's answer must be.
    pub(super) fn consistency(&self) -> Result<Consistency, Invalid> {
        let min_index =
            self.min_index.map_or(Ok(0), |value| parse_number(value.as_bytes()).ok_or(Invalid::MinIndex))?;
        match self.consistency.map(HeaderValue::as_bytes) {
            // A linearizable read sees every index that was ever acknowledged.
            None | Some(b"linearizable") => Ok(Consistency::Linearizable),
            Some(b"stale") => Ok(Consistency::Stale { min_index }),
            Some(_) => Err(Invalid::Consistency),
        }
    }
}

/// Whether this is gRPC with protobuf messages at all; anything else is answered in plain HTTP.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(http::header::CONTENT_TYPE);
    let rest = content_type.and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b';' || rest.starts_with(b"+proto"))
}

/// Decimal digits and nothing else; `u64::from_str` would take a plus sign.
fn parse_number(digits: &[u8]) -> Option<u64> {
    let fold = |sum: u64, digit: &u8| {
        let value = char::from(*digit).to_digit(10)?;
        sum.checked_mul(10)?.checked_add(u64::from(value))
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, fold) }
}

/// `100m`: a number of at most eight digits and its unit, as gRPC's protocol defines it.
fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.len() > 8 {
        return None;
    }
    let number = parse_number(digits)?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
        pairs.iter().map(|(name, text)| (name.parse().unwrap(), value(text))).collect()
    }

    fn key(value: &str) -> Result<Option<String>, Invalid> {
        Metadata::read(&headers(&[("idempotency-key", value)])).unwrap().key()
    }

    #[test]
    fn a_key_is_visible_ascii_of_at_most_128_bytes() {
        let uuid = "0197a0c2-5b1e-7abc-8def-001122334455";
        assert_eq!(key(uuid).unwrap().as_deref(), Some(uuid));
        assert_eq!(key("order-17/pay").unwrap().as_deref(), Some("order-17/pay"), "an opaque key");
        assert!(key(&"k".repeat(128)).is_ok());
        assert_eq!(key(&"k".repeat(129)), Err(Invalid::KeyTooLong(129)));
        assert_eq!(key(""), Err(Invalid::KeyEmpty));
        assert_eq!(key("two words"), Err(Invalid::KeyNotAscii));
        assert_eq!(key("schlüssel"), Err(Invalid::KeyNotAscii));
    }

    #[test]
    fn what_is_sent_twice_is_refused() {
        let mut twice = headers(&[("idempotency-key", "a")]);
        twice.append("idempotency-key", HeaderValue::from_static("a"));
        assert_eq!(Metadata::read(&twice).unwrap_err(), Invalid::KeyRepeated);
        let mut twice = headers(&[("balsa-min-index", "1")]);
        twice.append("balsa-min-index", HeaderValue::from_static("2"));
        assert_eq!(Metadata::read(&twice).unwrap_err(), Invalid::Repeated("balsa-min-index"));
    }

    #[test]
    fn a_read_is_linearizable_unless_stale_is_asked_for() {
        let read = |pairs: &[_]| Metadata::read(&headers(pairs)).unwrap().consistency();
        assert_eq!(read(&[]), Ok(Consistency::Linearizable));
        let both = [("balsa-consistency", "linearizable"), ("balsa-min-index", "7")];
        assert_eq!(read(&both), Ok(Consistency::Linearizable));
        assert_eq!(read(&[("balsa-consistency", "stale")]), Ok(Consistency::Stale { min_index: 0 }));
        let stale = [("balsa-consistency", "stale"), ("balsa-min-index", "7")];
        assert_eq!(read(&stale), Ok(Consistency::Stale { min_index: 7 }));
        assert_eq!(read(&[("balsa-consistency", "eventual")]), Err(Invalid::Consistency));
        for bad in ["", "-1", "+1", "1.5", "99999999999999999999"] {
            assert_eq!(read(&[("balsa-min-index", bad)]), Err(Invalid::MinIndex), "{bad}");
        }
    }

    #[test]
    fn timeouts_are_read_as_grpc_defines_them() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("123456789n", None),
            ("1", None),
            ("S", None),
            ("", None),
            ("+1S", None),
            ("1s", None),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn only_grpc_with_protobuf_is_grpc() {
        let is_grpc = |value| is_grpc(&headers(&[("content-type", value)]));
        assert!(is_grpc("application/grpc"));
        assert!(is_grpc("application/grpc+proto"));
        assert!(is_grpc("application/grpc;charset=utf-8"));
        assert!(!is_grpc("application/grpc-web"));
        assert!(!is_grpc("application/grpc+json"));
        assert!(!is_grpc("text/html"));
    }

    proptest! {
        #[test]
        fn random_values_never_panic(name in 0usize..5, value in prop::collection::vec(32u8..=255, 0..40)) {
            let names = ["grpc-timeout", "idempotency-key", "balsa-consistency", "balsa-min-index", "content-type"];
            let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
            let headers = HeaderMap::from_iter([(names[name].parse().unwrap(), value)]);
            let metadata = Metadata::read(&headers).unwrap();
            let _ = (metadata.timeout(), metadata.key(), metadata.consistency(), is_grpc(&headers));
        }
    }
}
