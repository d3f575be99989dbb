//! A stream of bytes that only looks random: the same for an entry on every replica.

use blake3::OutputReader;

/// Keeps this stream apart from whatever else is derived from the same 32 bytes.
const DOMAIN: &[u8] = b"balsa wasi random_get";

/// blake3 in keyed mode, as an extendable output. Made when first asked for, as most calls never do.
pub(in crate::wasm) struct Random {
    seed: [u8; 32],
    stream: Option<Box<OutputReader>>,
}

impl Random {
    pub(in crate::wasm) fn new(seed: [u8; 32]) -> Self {
        Self { seed, stream: None }
    }

    /// The next bytes of the stream.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        let seed = &self.seed;
        let stream = self.stream.get_or_insert_with(|| {
            let mut hasher = blake3::Hasher::new_keyed(seed);
            hasher.update(DOMAIN);
            Box::new(hasher.finalize_xof())
        });
        stream.fill(bytes);
    }
}
