//! The random numbers of `java.util.Random`, a linear congruential generator of 48 bits. Spark's
//! sketches and histograms use it, so their results depend on it.

/// The state of a generator.
#[derive(Clone, Debug, PartialEq)]
pub struct JavaRandom(u64);

const MULTIPLIER: u64 = 0x5_DEEC_E66D;
const MASK: u64 = (1 << 48) - 1;

impl JavaRandom {
    /// Creates a generator from a seed.
    pub fn new(seed: i64) -> Self {
        Self((seed as u64 ^ MULTIPLIER) & MASK)
    }

    /// Restores a generator from its state.
    pub fn of_state(state: u64) -> Self {
        Self(state & MASK)
    }

    /// The state, for a checkpoint.
    pub fn state(&self) -> u64 {
        self.0
    }

    fn next(&mut self, bits: u32) -> u64 {
        self.0 = self.0.wrapping_mul(MULTIPLIER).wrapping_add(0xB) & MASK;
        self.0 >> (48 - bits)
    }

    /// A number from 0 to `bound - 1`. `bound` must be positive and no power of two.
    pub fn below(&mut self, bound: u32) -> u32 {
        loop {
            let bits = self.next(31) as u32;
            let number = bits % bound;
            // The last, incomplete range of numbers is rejected.
            if bits - number <= (i32::MAX as u32) - (bound - 1) {
                return number;
            }
        }
    }

    /// A number from 0 to 1, without 1.
    pub fn double(&mut self) -> f64 {
        let bits = (self.next(26) << 27) + self.next(27);
        bits as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_java() {
        // new Random(1).nextInt(Integer.MAX_VALUE), new Random(42).nextDouble()
        assert_eq!(JavaRandom::new(1).below(i32::MAX as u32), 0x5D8D_6AB9);
        assert_eq!(JavaRandom::new(-7).below(i32::MAX as u32), 0x2272_9546);
        assert_eq!(JavaRandom::new(42).double(), 0.727_563_680_032_868_1);
    }
}
