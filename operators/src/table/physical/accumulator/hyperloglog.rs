//! HyperLogLog: an approximate count of distinct values, in 512 bytes at the default precision.
//!
//! Registers and hash function are those of Spark. Small counts are estimated from the number of
//! empty registers. For other counts the estimator is that of Ertl ("New cardinality estimation
//! algorithms for HyperLogLog sketches", 2017), which needs no correction tables. So results other
//! than small ones can differ from Spark's.
//!
//! A sketch of high precision starts as a sparse table of its non-zero registers, so a key with few
//! values takes little memory. Checkpoints store either form; older checkpoints store all
//! registers.

use crate::table::physical::accumulator::encoding::take;
use crate::table::physical::accumulator::growing::GrowingValue;
use hashbrown::HashTable;

/// The highest precision at which all registers are allocated at once, which takes 512 bytes.
const DENSE_PRECISION_MAX: u8 = 9;
/// A sparse table becomes a dense array when more than 1/`SPARSE_PART` of the registers are
/// non-zero.
const SPARSE_PART: usize = 16;
/// A flag on the precision byte in a checkpoint: only the non-zero registers follow.
const SPARSE: u8 = 0x80;

/// The registers: for each part of the hash space, the highest rank of a hash in this part.
#[derive(Clone, Debug)]
enum Registers {
    /// The index and rank of each non-zero register.
    Sparse(HashTable<(u32, u8)>),
    All(Box<[u8]>),
}

fn hash_of(index: u32) -> u64 {
    u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Registers {
    fn new(precision: u8) -> Self {
        match precision <= DENSE_PRECISION_MAX {
            true => Self::All(vec![0; 1 << precision].into()),
            false => Self::Sparse(HashTable::new()),
        }
    }

    fn get(&self, index: u32) -> u8 {
        match self {
            Self::All(all) => all.get(index as usize).copied().unwrap_or(0),
            Self::Sparse(table) => {
                table.find(hash_of(index), |entry| entry.0 == index).map_or(0, |entry| entry.1)
            }
        }
    }

    /// Sets a register to a rank if the rank is higher. Returns whether the register changed.
    #[inline]
    fn raise(&mut self, index: u32, rank: u8, precision: u8) -> bool {
        let table = match self {
            Self::All(all) => {
                let register = &mut all[index as usize];
                let raises = *register < rank;
                *register = rank.max(*register);
                return raises;
            }
            Self::Sparse(table) => table,
        };
        if rank == 0 {
            return false;
        }
        if let Some(entry) = table.find_mut(hash_of(index), |entry| entry.0 == index) {
            let raises = entry.1 < rank;
            entry.1 = rank.max(entry.1);
            return raises;
        }
        table.insert_unique(hash_of(index), (index, rank), |entry| hash_of(entry.0));
        if table.len() > (1 << precision) / SPARSE_PART {
            let mut all: Box<[u8]> = vec![0; 1 << precision].into();
            table.iter().for_each(|(index, rank)| all[*index as usize] = *rank);
            *self = Self::All(all);
        }
        true
    }

    /// Calls `call` with the index and rank of each non-zero register.
    fn each(&self, mut call: impl FnMut(u32, u8)) {
        match self {
            Self::All(all) => {
                let set = all.iter().enumerate().filter(|(_, rank)| **rank > 0);
                set.for_each(|(index, rank)| call(index as u32, *rank));
            }
            Self::Sparse(table) => table.iter().for_each(|(index, rank)| call(*index, *rank)),
        }
    }
}

impl PartialEq for Registers {
    fn eq(&self, other: &Self) -> bool {
        let sorted = |registers: &Self| {
            let mut found = Vec::new();
            registers.each(|index, rank| found.push((index, rank)));
            found.sort_unstable();
            found
        };
        sorted(self) == sorted(other)
    }
}

/// The encoded size of a register with its index, in bytes.
const REGISTER: usize = 4 + 1;

/// A HyperLogLog sketch, which estimates a number of distinct values.
#[derive(Clone, Debug, PartialEq)]
pub struct HyperLogLog {
    precision: u8,
    registers: Registers,
    /// The indices of the registers raised since the last write; `None` if additions are not
    /// tracked.
    raised: Option<Vec<u32>>,
}

impl HyperLogLog {
    /// The precision for a relative standard deviation: the number of index bits, from 4 to 21.
    pub fn precision(deviation: f64) -> u8 {
        ((2.0 * (1.106 / deviation).log2()).ceil() as u8).clamp(4, 21)
    }

    /// Creates an empty sketch.
    pub fn new(precision: u8) -> Self {
        Self { precision, registers: Registers::new(precision), raised: None }
    }

    /// Adds the hash of a value.
    pub fn add(&mut self, hash: u64) {
        let index = (hash >> (64 - self.precision)) as usize;
        let rest = hash << self.precision | 1 << (self.precision - 1);
        let rank = rest.leading_zeros() as u8 + 1;
        self.raise(index as u32, rank);
    }

    #[inline]
    fn raise(&mut self, index: u32, rank: u8) {
        if self.registers.raise(index, rank, self.precision)
            && let Some(raised) = &mut self.raised
        {
            raised.push(index);
        }
    }

    /// Merges a sketch of the same precision.
    pub fn merge(&mut self, other: &Self) {
        other.registers.each(|index, rank| self.raise(index, rank));
    }

    /// Estimates the number of distinct values.
    pub fn estimate(&self) -> u64 {
        let registers = 1u32 << self.precision;
        let m = f64::from(registers);
        let most = 64 - usize::from(self.precision) + 1;
        let mut counts = vec![0u32; most + 1];
        counts[0] = registers;
        self.registers.each(|_, rank| {
            counts[0] -= 1;
            counts[usize::from(rank).min(most)] += 1;
        });
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

    /// Appends the sketch in the encoding of checkpoints.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let table = match &self.registers {
            Registers::All(all) => {
                out.push(self.precision);
                return out.extend_from_slice(all);
            }
            Registers::Sparse(table) => table,
        };
        out.push(self.precision | SPARSE);
        out.extend_from_slice(&(table.len() as u32).to_le_bytes());
        for (index, rank) in table {
            out.extend_from_slice(&index.to_le_bytes());
            out.push(*rank);
        }
    }

    /// Decodes a sketch and advances `bytes` past it. `None` if the bytes are damaged; the sketch
    /// may have changed then.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let [form] = take::<1>(bytes)?;
        let precision = (form & !SPARSE).clamp(4, 21);
        if form & SPARSE == 0 {
            let (registers, rest) = bytes.split_at_checked(1 << precision)?;
            *bytes = rest;
            *self = Self { precision, registers: Registers::All(registers.into()), raised: None };
            return Some(());
        }
        *self = Self::new(precision);
        let length = (u32::from_le_bytes(take(bytes)?) as usize).checked_mul(REGISTER)?;
        let (registers, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        self.read_added(registers)
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
            out.push(self.registers.get(index));
        }
    }

    fn read_added(&mut self, bytes: &[u8]) -> Option<()> {
        let (raised, []) = bytes.as_chunks::<REGISTER>() else { return None };
        for [a, b, c, d, rank] in raised {
            let index = u32::from_le_bytes([*a, *b, *c, *d]);
            if index >= 1 << self.precision {
                return None;
            }
            self.registers.raise(index, *rank, self.precision);
        }
        Some(())
    }

    fn whole_bytes(&self) -> Option<usize> {
        Some(match &self.registers {
            Registers::All(all) => 1 + all.len(),
            Registers::Sparse(table) => 1 + 4 + table.len() * REGISTER,
        })
    }

    fn write_whole(&mut self, out: &mut Vec<u8>) {
        self.encode(out);
        self.raised.iter_mut().for_each(Vec::clear);
    }

    fn read_whole(&mut self, mut bytes: &[u8]) -> Option<()> {
        self.decode(&mut bytes)
    }

    fn heap_bytes(&self) -> usize {
        let registers = match &self.registers {
            Registers::All(all) => all.len(),
            Registers::Sparse(table) => table.capacity() * size_of::<(u32, u8)>(),
        };
        registers + self.raised.as_ref().map_or(0, |raised| raised.capacity() * 4)
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
    fn few_values_take_little_memory_at_any_precision() {
        let precision = HyperLogLog::precision(0.003);
        let mut dice = SplitMix(1);
        let (mut sketch, mut parts) = (HyperLogLog::new(precision), HyperLogLog::new(precision));
        let mut all = HyperLogLog {
            precision,
            registers: Registers::All(vec![0; 1 << precision].into()),
            raised: None,
        };
        sketch.track();
        assert!(sketch.heap_bytes() < 100);
        for count in 1..=40_000u64 {
            let hash = dice.next();
            sketch.add(hash);
            all.add(hash);
            if count.is_power_of_two() || count == 40_000 {
                assert_eq!(sketch.estimate(), all.estimate(), "{count}");
                let (mut part, mut sparse, mut dense) = (Vec::new(), Vec::new(), Vec::new());
                sketch.write_added(&mut part);
                parts.read_added(&part).unwrap();
                sketch.encode(&mut sparse);
                assert_eq!(sketch.whole_bytes(), Some(sparse.len()));
                // Older checkpoints have this encoding: all registers, without the flag `SPARSE`.
                all.encode(&mut dense);
                for bytes in [sparse, dense] {
                    let mut again = HyperLogLog::new(4);
                    again.decode(&mut &bytes[..]).unwrap();
                    assert_eq!((again.precision, &again.registers), (precision, &all.registers));
                    assert!(again.decode(&mut &bytes[..bytes.len() - 1]).is_none());
                }
                assert_eq!(parts.registers, all.registers);
                let mut merged = HyperLogLog::new(precision);
                merged.merge(&sketch);
                assert_eq!(merged.registers, all.registers);
            }
            if count == 100 {
                assert!(sketch.heap_bytes() < 8_000, "{}", sketch.heap_bytes());
            }
        }
        assert!(matches!(sketch.registers, Registers::All(_)));
    }

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
