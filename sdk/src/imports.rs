//! The host, as functions: the only place that knows how a module reaches it.
//!
//! Compiled to wasm these are the imports of ABI 1 (`ABI.md`); natively they reach the call that a
//! [`testing::Host`](crate::testing::Host) is in the middle of. Both have the same functions with the same meaning.

#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(target_arch = "wasm32")]
mod wasm;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::*;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::*;

#[cfg(target_arch = "wasm32")]
pub use wasm::{call_context as context, enter, enter_init, enter_migrate, input, reply, report_panics, transition};

#[cfg(test)]
mod tests {
    //! Three files say what the imports are: for C, for everybody, and for this crate. They say the same.

    use std::collections::BTreeMap;

    const C_HEADER: &str = include_str!("../balsa.h");
    const DOCUMENT: &str = include_str!("../ABI.md");
    const RUST: &str = include_str!("imports/wasm.rs");

    /// The number of parameters of each import.
    type Imports = BTreeMap<String, usize>;

    /// Parameters between the first `(` of `declaration` and the next `)`.
    fn parameters(declaration: &str) -> usize {
        let (_, list) = declaration.split_once('(').expect("a function has parameters");
        let (list, _) = list.split_once(')').expect("they end");
        list.split(',').filter(|parameter| !parameter.trim().is_empty()).count()
    }

    fn in_c() -> Imports {
        let declarations = C_HEADER.split("BALSA_IMPORT(").skip(3);
        declarations
            .map(|rest| {
                let (name, declaration) = rest.split_once(')').expect("BALSA_IMPORT(name)");
                assert!(declaration.contains(&format!(" balsa_{name}(")), "{name} is declared under its name");
                (name.to_owned(), parameters(declaration))
            })
            .collect()
    }

    fn documented() -> Imports {
        let (_, imports) = DOCUMENT.split_once("## Imports of `balsa_v1`").expect("the section is there");
        let (imports, _) = imports.split_once("\n## ").expect("another follows");
        let titles = imports.lines().filter(|line| line.starts_with('`'));
        titles.map(|line| (line[1..].split('(').next().expect("a name").to_owned(), parameters(line))).collect()
    }

    fn in_rust() -> Imports {
        let functions = RUST.split("pub(super) fn ").skip(1);
        functions.map(|rest| (rest.split('(').next().expect("a name").to_owned(), parameters(rest))).collect()
    }

    #[test]
    fn header_document_and_sdk_have_the_same_imports() {
        assert_eq!(in_c(), documented());
        assert_eq!(in_rust(), documented());
        assert_eq!(documented().len(), 10);
    }

    #[test]
    fn the_header_has_the_flags_of_a_scan() {
        let flags: Vec<_> =
            RUST.lines().filter(|line| line.starts_with("const ") && line.contains(": u32 = ")).collect();
        assert_eq!(flags.len(), 3, "{flags:?}");
        for flag in flags {
            let (name, value) = flag["const ".len()..].split_once(": u32 = ").expect("filtered");
            let line = format!("#define BALSA_SCAN_{name} {}u ", value.trim_end_matches(';'));
            assert!(C_HEADER.contains(&line), "balsa.h lacks: {line}");
        }
    }

    #[test]
    fn the_header_has_the_codes_of_grpc() {
        use crate::Code::*;
        let codes = [
            Cancelled,
            Unknown,
            InvalidArgument,
            DeadlineExceeded,
            NotFound,
            AlreadyExists,
            PermissionDenied,
            ResourceExhausted,
            FailedPrecondition,
            Aborted,
            OutOfRange,
            Unimplemented,
            Internal,
            Unavailable,
            DataLoss,
            Unauthenticated,
        ];
        let (_, list) = C_HEADER.split_once("BALSA_OK = 0,\n").expect("the codes begin with OK");
        let (list, _) = list.split_once('}').expect("and end");
        let listed = list.split(',').map(|entry| entry.trim().replace('_', "").to_lowercase());
        let expected = codes.map(|code| format!("balsa{code:?} = {}", code as u32).to_lowercase());
        assert_eq!(listed.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_document_has_the_limits_of_the_sdk() {
        use crate::limits::*;
        for limit in [STORED_KEY_BYTES_MAX, STORED_BYTES_MAX, RESULT_BYTES_MAX, SCAN_ITEMS_MAX] {
            let mut digits = limit.to_string();
            let length = digits.len();
            for place in (1..=(length - 1) / 3).map(|group| length - 3 * group) {
                digits.insert(place, ' ');
            }
            assert!(DOCUMENT.contains(&digits), "ABI.md lacks {digits}");
        }
        assert!(DOCUMENT.contains(&format!("of at most {STATUS_BYTES_MAX} bytes")));
        assert!(DOCUMENT.contains(&format!("Cut at {} KiB", LOG_BYTES_MAX / 1024)));
    }

    #[test]
    fn the_header_has_the_limits_of_the_sdk() {
        use crate::limits::*;
        for (name, value) in [
            ("STORED_KEY_BYTES_MAX", STORED_KEY_BYTES_MAX),
            ("STORED_BYTES_MAX", STORED_BYTES_MAX),
            ("RESULT_BYTES_MAX", RESULT_BYTES_MAX),
            ("STATUS_BYTES_MAX", STATUS_BYTES_MAX),
            ("LOG_BYTES_MAX", LOG_BYTES_MAX),
        ] {
            let line = format!("#define BALSA_{name} {value}u\n");
            assert!(C_HEADER.contains(&line), "balsa.h lacks: {line}");
        }
    }
}
