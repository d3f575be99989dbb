//! Anything as a request of a real module.

use proptest::prelude::*;

use super::{KVSTORE, TINY, config, load, mutated, mutations, run};
use crate::command::Outcome;
use crate::proto::command as pb;
use crate::testing::hostile_wasm;
use crate::wasm::Module;

/// Sends `request` to each method. Its outcome is one that can be replicated, and is the same the next time.
fn ask(module: &Module, request: &[u8]) {
    for method in module.methods() {
        let request = || bytes::Bytes::copy_from_slice(request);
        let (first, second) = (run(module, method, request()), run(module, method, request()));
        assert_eq!((&first.outcome, first.fuel_used), (&second.outcome, second.fuel_used), "{}", method.path);
        assert_eq!(Outcome::try_from(pb::Outcome::from(&first.outcome)).unwrap(), first.outcome);
    }
}

fn all() -> impl Iterator<Item = Module> {
    [TINY.to_vec(), KVSTORE.to_vec(), hostile_wasm()].into_iter().map(|wasm| load(&wasm))
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn arbitrary_requests(request in prop::collection::vec(any::<u8>(), 0..256)) {
        all().for_each(|module| ask(&module, &request));
    }

    /// Field 1 and 2 as bytes, 3 and 4 as numbers: what most messages begin with.
    #[test]
    fn requests_that_are_nearly_right(
        (key, value) in (prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..40)),
        numbers in prop::collection::vec(any::<u64>(), 2),
        mutations in prop::option::of(mutations()),
    ) {
        let mut request = Vec::new();
        for (tag, bytes) in [(0x0a, &key), (0x12, &value)] {
            request.extend([tag, bytes.len() as u8]);
            request.extend(bytes);
        }
        for (tag, number) in [0x18, 0x20].into_iter().zip(numbers) {
            request.push(tag);
            prost::encoding::encode_varint(number, &mut request);
        }
        let request = mutated(request, &mutations.unwrap_or_default());
        all().for_each(|module| ask(&module, &request));
    }
}
