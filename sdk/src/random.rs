//! Deterministic chance: xoshiro256** over the 32 bytes that the leader put into the log entry.
//!
//! A module may use any generator it likes with [`Random::seed`]; this one is small, quick and good enough for sampling,
//! jitter and names. It is not for keys or tokens: every replica knows the seed.

/// A generator of numbers that are the same on every replica. See [`View::random`](crate::View::random).
#[derive(Debug, Clone)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        let mut state = [0; 4];
        for (word, bytes) in state.iter_mut().zip(seed.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        // The generator stands still at all zeros, which no leader will ever draw but a test may set.
        if state == [0; 4] {
            state = [1, 2, 3, 4];
        }
        Self { state }
    }

    /// The next 64 bits.
    pub fn u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number from 0 up to and without `end`; 0 if `end` is 0. Its bias is below `end` in 2^64.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(end)) >> 64) as u64
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.u64().to_le_bytes()[..chunk.len()]);
        }
    }

    /// 32 bytes for a generator of the module's choice.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        // The reference implementation by Blackman and Vigna, started with the state 1, 2, 3, 4.
        let mut seed = [0; 32];
        for (word, value) in seed.chunks_mut(8).zip(1_u64..) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        let mut random = Random::new(seed);
        assert_eq!([random.u64(), random.u64(), random.u64()], [11_520, 0, 1_509_978_240]);
    }

    #[test]
    fn a_seed_of_zeros_does_not_stand_still() {
        let mut random = Random::new([0; 32]);
        assert_ne!(random.u64(), random.u64());
    }

    #[test]
    fn below_stays_below_and_reaches_everything() {
        let mut random = Random::new([7; 32]);
        let mut seen = [false; 6];
        for _ in 0..200 {
            seen[random.below(6) as usize] = true;
        }
        assert_eq!(seen, [true; 6]);
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn fill_covers_lengths_that_are_not_words() {
        let mut bytes = [0; 13];
        Random::new([3; 32]).fill(&mut bytes);
        assert!(bytes[8..].iter().any(|byte| *byte != 0));
    }
}
