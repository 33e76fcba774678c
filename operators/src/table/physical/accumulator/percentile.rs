//! Approximate percentiles in bounded memory: the quantile summary of Greenwald and Khanna
//! ("Space-efficient online computation of quantile summaries", 2001). A sample represents itself
//! and the values just below it, and records the uncertainty of its rank.
//!
//! The result is exact for up to 4 × accuracy distinct values. For more values, a rank is off by at
//! most count / accuracy.

use crate::table::expr::cell::Cell;
use crate::table::expr::functions::canonical_double;
use crate::table::physical::accumulator::growing::GrowingValue;
use crate::table::types::DataType;
use crate::table::value::Value;
use std::borrow::Cow;

/// The number of buffered values at which they are merged into the samples.
const FRESH_MAX: usize = 1024;

/// An approximation of a value distribution from which quantiles are read.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantileSummary {
    accuracy: usize,
    count: u64,
    /// Whether no two different values have been merged into one sample.
    exact: bool,
    /// The samples in ascending order.
    samples: Vec<Sample>,
    /// Values that are not merged into the samples yet. Inserting one value into a long list costs
    /// as much as inserting many, so values are inserted in batches.
    fresh: Vec<i128>,
    /// The values added since the last write; `None` if additions are not tracked.
    added: Option<Vec<i128>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    /// The value, mapped to a number with the same order.
    key: i128,
    /// The number of values that this sample represents: itself and those above the previous
    /// sample.
    weight: u64,
    /// The number of additional values that may be below the sample: the uncertainty of its rank.
    unsure: u64,
}

/// Maps a value to a number, so that the order of numbers is that of the values. All NaNs have the
/// same number, the largest.
fn key(cell: Cell<'_>) -> i128 {
    match cell {
        Cell::Long(v) => i128::from(v),
        Cell::Decimal(v) => v,
        Cell::Double(v) => {
            let bits = canonical_double(v).to_bits() as i64;
            i128::from(if bits < 0 { !bits ^ i64::MIN } else { bits })
        }
        _ => 0,
    }
}

fn value(key: i128, data_type: &DataType) -> Value {
    match data_type {
        DataType::Float | DataType::Double => {
            let key = key as i64;
            let bits = if key < 0 { !(key ^ i64::MIN) } else { key };
            Value::Double(f64::from_bits(bits as u64))
        }
        DataType::Decimal(..) => Value::Decimal(key),
        _ => Value::Long(key as i64),
    }
}

impl QuantileSummary {
    /// Creates an empty summary.
    pub fn new(accuracy: usize) -> Self {
        let (samples, fresh) = (Vec::new(), Vec::new());
        Self { accuracy, count: 0, exact: true, samples, fresh, added: None }
    }

    /// The number of values added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds a value.
    pub fn add(&mut self, cell: Cell<'_>) {
        let key = key(cell);
        if let Some(added) = &mut self.added {
            added.push(key);
        }
        self.add_key(key);
    }

    fn add_key(&mut self, key: i128) {
        self.count += 1;
        self.fresh.push(key);
        if self.fresh.len() >= FRESH_MAX {
            self.merge_buffered();
        }
    }

    /// Merges the buffered values into the samples. Call this before reading the summary.
    pub fn merge_buffered(&mut self) {
        if self.fresh.is_empty() {
            return;
        }
        let mut fresh = std::mem::take(&mut self.fresh);
        if let [key] = *fresh {
            self.insert(key);
        } else {
            fresh.sort_unstable();
            self.insert_sorted(&fresh);
        }
        fresh.clear();
        self.fresh = fresh;
        if self.samples.len() > self.accuracy * 4 {
            self.compress();
        }
    }

    /// Returns the summary with its buffered values merged, copying it only if necessary.
    pub fn with_buffered_merged(&self) -> Cow<'_, Self> {
        let mut merged = Cow::Borrowed(self);
        if !self.fresh.is_empty() {
            merged.to_mut().merge_buffered();
        }
        merged
    }

    fn insert(&mut self, key: i128) {
        let at = self.samples.partition_point(|sample| sample.key <= key);
        match at.checked_sub(1).map(|at| &mut self.samples[at]) {
            Some(same) if same.key == key => same.weight += 1,
            _ => {
                let next = self.samples.get(at).filter(|_| at > 0 && !self.exact);
                let unsure = next.map_or(0, |next| next.weight + next.unsure - 1);
                self.samples.insert(at, Sample { key, weight: 1, unsure });
            }
        }
    }

    /// Inserts sorted values in one pass over the samples.
    fn insert_sorted(&mut self, fresh: &[i128]) {
        let mut merged: Vec<Sample> = Vec::with_capacity(self.samples.len() + fresh.len());
        let mut samples = self.samples.iter().copied().peekable();
        for key in fresh {
            while let Some(sample) = samples.next_if(|sample| sample.key <= *key) {
                merged.push(sample);
            }
            match merged.last_mut() {
                Some(same) if same.key == *key => same.weight += 1,
                last => {
                    let next = samples.peek().filter(|_| last.is_some() && !self.exact);
                    let unsure = next.map_or(0, |next| next.weight + next.unsure - 1);
                    merged.push(Sample { key: *key, weight: 1, unsure });
                }
            }
        }
        merged.extend(samples);
        self.samples = merged;
    }

    /// Merges another summary.
    pub fn merge(&mut self, other: &Self) {
        self.merge_buffered();
        let other = other.with_buffered_merged();
        let mut merged: Vec<Sample> = Vec::with_capacity(self.samples.len() + other.samples.len());
        let exact = self.exact && other.exact;
        let (mut a, mut b) = (self.samples.iter().peekable(), other.samples.iter().peekable());
        loop {
            // The lower sample is taken next. The next sample of the other summary may represent
            // values below the lower sample, so the rank of the lower sample becomes less certain.
            let (sample, behind) = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) if x.key <= y.key => (a.next(), b.peek().copied()),
                (Some(_), None) => (a.next(), None),
                (_, Some(_)) => (b.next(), a.peek().copied()),
                (None, None) => break,
            };
            let Some(mut sample) = sample.copied() else { break };
            if let (Some(behind), false) = (behind, exact) {
                sample.unsure += behind.weight + behind.unsure - 1;
            }
            match merged.last_mut() {
                Some(last) if last.key == sample.key && exact => last.weight += sample.weight,
                _ => merged.push(sample),
            }
        }
        self.count += other.count;
        self.exact = exact;
        self.samples = merged;
        if self.samples.len() > self.accuracy * 4 {
            self.compress();
        }
    }

    /// Merges samples into their successors as long as the uncertainty stays within the limit. The
    /// first and the last sample are preserved.
    fn compress(&mut self) {
        let most = 2 * self.count / self.accuracy as u64;
        let mut kept: Vec<Sample> = Vec::with_capacity(self.accuracy * 2);
        for (i, sample) in self.samples.iter().enumerate().rev() {
            match kept.last_mut() {
                Some(next) if i > 0 && next.weight + next.unsure + sample.weight <= most => {
                    next.weight += sample.weight;
                    self.exact = false;
                }
                _ => kept.push(*sample),
            }
        }
        kept.reverse();
        self.samples = kept;
    }

    /// The value at a fraction of the ranks; NULL if there are no values. Call
    /// [`merge_buffered`](Self::merge_buffered) first.
    pub fn at(&self, fraction: f64, data_type: &DataType) -> Value {
        let wanted = ((fraction * self.count as f64).ceil() as u64).max(1);
        let (mut rank, mut best) = (0, (u64::MAX, 0));
        for sample in &self.samples {
            rank += sample.weight;
            if self.exact && rank >= wanted {
                return value(sample.key, data_type);
            }
            let off = rank.abs_diff(wanted).max((rank + sample.unsure).abs_diff(wanted));
            if off < best.0 {
                best = (off, sample.key);
            }
        }
        if self.samples.is_empty() { Value::Null } else { value(best.1, data_type) }
    }

    /// Appends the summary in the encoding of checkpoints.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let merged = self.with_buffered_merged();
        out.extend_from_slice(&(self.accuracy as u32).to_le_bytes());
        out.push(u8::from(merged.exact));
        out.extend_from_slice(&(merged.samples.len() as u32).to_le_bytes());
        for sample in &merged.samples {
            out.extend_from_slice(&sample.key.to_le_bytes());
            out.extend_from_slice(&sample.weight.to_le_bytes());
            out.extend_from_slice(&sample.unsure.to_le_bytes());
        }
    }

    /// Decodes a summary; `None` if the bytes are damaged.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let accuracy =
            u32::from_le_bytes(crate::table::physical::accumulator::encoding::take(bytes)?)
                as usize;
        *self = Self::new(accuracy.max(1));
        let [exact] = crate::table::physical::accumulator::encoding::take::<1>(bytes)?;
        self.exact = exact != 0;
        let samples =
            u32::from_le_bytes(crate::table::physical::accumulator::encoding::take(bytes)?);
        for _ in 0..samples {
            let key =
                i128::from_le_bytes(crate::table::physical::accumulator::encoding::take(bytes)?);
            let weight =
                u64::from_le_bytes(crate::table::physical::accumulator::encoding::take(bytes)?);
            let unsure =
                u64::from_le_bytes(crate::table::physical::accumulator::encoding::take(bytes)?);
            self.samples.push(Sample { key, weight, unsure });
            self.count = self.count.checked_add(weight)?;
        }
        Some(())
    }
}

impl GrowingValue for QuantileSummary {
    fn track(&mut self) {
        self.added.get_or_insert_default();
    }

    fn has_added(&self) -> bool {
        self.added.as_ref().is_some_and(|added| !added.is_empty())
    }

    fn write_added(&mut self, out: &mut Vec<u8>) {
        for key in self.added.iter_mut().flat_map(|added| added.drain(..)) {
            out.extend_from_slice(&key.to_le_bytes());
        }
    }

    fn read_added(&mut self, bytes: &[u8]) -> Option<()> {
        let (keys, []) = bytes.as_chunks::<16>() else { return None };
        keys.iter().for_each(|key| self.add_key(i128::from_le_bytes(*key)));
        Some(())
    }

    fn whole_bytes(&self) -> Option<usize> {
        Some(9 + (self.samples.len() + self.fresh.len()) * 32)
    }

    fn write_whole(&mut self, out: &mut Vec<u8>) {
        self.merge_buffered();
        self.encode(out);
        self.added.iter_mut().for_each(Vec::clear);
    }

    fn read_whole(&mut self, mut bytes: &[u8]) -> Option<()> {
        self.decode(&mut bytes)
    }

    fn heap_bytes(&self) -> usize {
        let added = self.added.as_ref().map_or(0, Vec::capacity);
        self.samples.capacity() * size_of::<Sample>() + (self.fresh.capacity() + added) * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::env::random::SplitMix;

    #[test]
    fn percentiles_are_exact_for_few_values_and_approximate_for_many() {
        for (count, accuracy, off) in [(1000i64, 1000, 0.0), (100_000, 1000, 0.002)] {
            let mut numbers: Vec<i64> = (1..=count).collect();
            let mut dice = SplitMix(7);
            for at in (1..numbers.len()).rev() {
                numbers.swap(at, dice.below(at as u64 + 1) as usize);
            }
            let mut percentiles = QuantileSummary::new(accuracy);
            numbers.iter().for_each(|n| percentiles.add(Cell::Double(*n as f64 - 500.0)));
            percentiles.merge_buffered();
            for fraction in [0.0, 0.01, 0.5, 0.99, 1.0] {
                let Value::Double(found) = percentiles.at(fraction, &DataType::Double) else {
                    panic!("a double")
                };
                let exact = (fraction * count as f64).ceil().max(1.0) - 500.0;
                assert!((found - exact).abs() <= off * count as f64, "{fraction}: {found} {exact}");
            }
        }
    }
}
