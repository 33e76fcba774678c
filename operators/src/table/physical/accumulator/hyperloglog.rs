//! HyperLogLog: the approximate number of distinct values, in a few hundred bytes.
//!
//! Registers and hash are Spark's, and small counts are estimated from empty registers as in Spark.
//! For large counts the estimator is Ertl's ("New cardinality estimation algorithms for HyperLogLog
//! sketches", 2017), which needs no correction tables. It may differ from Spark's by less than one
//! per cent.

use crate::table::physical::accumulator::growing::GrowingValue;

/// The sketch.
#[derive(Clone, Debug, PartialEq)]
pub struct HyperLogLog {
    precision: u8,
    registers: Box<[u8]>,
    /// Registers that were raised since they were last written, if a checkpoint asks for them.
    raised: Option<Vec<u32>>,
}

impl HyperLogLog {
    /// Index bits for a relative standard deviation.
    pub fn precision(deviation: f64) -> u8 {
        ((2.0 * (1.106 / deviation).log2()).ceil() as u8).clamp(4, 21)
    }

    /// One that has seen nothing.
    pub fn new(precision: u8) -> Self {
        Self { precision, registers: vec![0; 1 << precision].into(), raised: None }
    }

    /// Takes a value's hash in.
    pub fn add(&mut self, hash: u64) {
        let index = (hash >> (64 - self.precision)) as usize;
        let rest = hash << self.precision | 1 << (self.precision - 1);
        let rank = rest.leading_zeros() as u8 + 1;
        self.raise(index, rank);
    }

    #[inline]
    fn raise(&mut self, index: usize, rank: u8) {
        let register = &mut self.registers[index];
        if *register < rank {
            *register = rank;
            if let Some(raised) = &mut self.raised {
                raised.push(index as u32);
            }
        }
    }

    /// Takes in what another one of the same precision has seen.
    pub fn merge(&mut self, other: &Self) {
        for (index, rank) in other.registers.iter().enumerate() {
            self.raise(index, *rank);
        }
    }

    /// About how many different values there were.
    pub fn estimate(&self) -> u64 {
        let m = self.registers.len() as f64;
        let most = 64 - usize::from(self.precision) + 1;
        let mut counts = vec![0u32; most + 1];
        for register in &*self.registers {
            counts[usize::from(*register).min(most)] += 1;
        }
        let empty = f64::from(counts[0]);
        if empty > 0.0 {
            let by_empty = m * (m / empty).ln();
            if by_empty <= 0.8 * m {
                return by_empty.round() as u64;
            }
        }
        let mut z = m * tau((m - f64::from(counts[most])) / m);
        for count in counts[1..most].iter().rev() {
            z = 0.5 * (z + f64::from(*count));
        }
        z += m * sigma(empty / m);
        (m * m / (2.0 * std::f64::consts::LN_2) / z).round() as u64
    }

    /// Appends it as it stands in a checkpoint.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.precision);
        out.extend_from_slice(&self.registers);
    }

    /// The inverse of [`encode`](Self::encode); `None` if the bytes end too early.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let [precision] = crate::table::physical::accumulator::encoding::take::<1>(bytes)?;
        let length = 1usize << precision.clamp(4, 21);
        let (registers, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        *self = Self { precision, registers: registers.into(), raised: None };
        Some(())
    }
}

impl GrowingValue for HyperLogLog {
    fn track(&mut self) {
        self.raised.get_or_insert_default();
    }

    fn has_added(&self) -> bool {
        self.raised.as_ref().is_some_and(|raised| !raised.is_empty())
    }

    fn write_added(&mut self, out: &mut Vec<u8>) {
        for index in self.raised.iter_mut().flat_map(|raised| raised.drain(..)) {
            out.extend_from_slice(&index.to_le_bytes());
            out.push(self.registers[index as usize]);
        }
    }

    fn read_added(&mut self, bytes: &[u8]) -> Option<()> {
        let (raised, []) = bytes.as_chunks::<5>() else { return None };
        for [a, b, c, d, rank] in raised {
            let index = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
            let register = self.registers.get_mut(index)?;
            *register = (*register).max(*rank);
        }
        Some(())
    }

    fn whole_bytes(&self) -> Option<usize> {
        Some(1 + self.registers.len())
    }

    fn write_whole(&mut self, out: &mut Vec<u8>) {
        self.encode(out);
        self.raised.iter_mut().for_each(Vec::clear);
    }

    fn read_whole(&mut self, mut bytes: &[u8]) -> Option<()> {
        self.decode(&mut bytes)
    }

    fn heap_bytes(&self) -> usize {
        self.registers.len() + self.raised.as_ref().map_or(0, |raised| raised.capacity() * 4)
    }
}

fn sigma(x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut x, mut y, mut z) = (x, 1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut x, mut y, mut z) = (x, 1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::env::random::SplitMix;

    #[test]
    fn the_error_is_within_three_deviations() {
        for count in [0u64, 1, 10, 100, 1000, 100_000] {
            let (mut sketch, mut dice) =
                (HyperLogLog::new(HyperLogLog::precision(0.05)), SplitMix(count));
            for _ in 0..count {
                let hash = dice.next();
                sketch.add(hash);
                sketch.add(hash);
            }
            let error = (sketch.estimate() as f64 - count as f64).abs();
            assert!(error <= 0.15 * count as f64, "{count}: {}", sketch.estimate());
        }
    }
}
