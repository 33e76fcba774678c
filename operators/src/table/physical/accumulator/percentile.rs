//! Percentiles in bounded memory: values with weights, neighbours merged when there are too many.
//!
//! Up to four times the accuracy's number of different values the result is exact. Beyond, no
//! sample stands for more than 1 / accuracy of the count, by which a rank may be wrong.

use crate::table::expr::cell::Cell;
use crate::table::types::DataType;
use crate::table::value::Value;

/// The summary.
#[derive(Clone, Debug, PartialEq)]
pub struct Percentiles {
    accuracy: usize,
    count: u64,
    /// Sorted up to `sorted`: an order key, and how many values it stands for.
    samples: Vec<(i128, u64)>,
}

/// A number that has the order of the value.
fn key(cell: Cell<'_>) -> i128 {
    match cell {
        Cell::Long(v) => i128::from(v),
        Cell::Decimal(v) => v,
        Cell::Double(v) => {
            let bits = if v == 0.0 { 0 } else { v.to_bits() as i64 };
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

impl Percentiles {
    /// One that has seen nothing.
    pub fn new(accuracy: usize) -> Self {
        Self { accuracy, count: 0, samples: Vec::new() }
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes a value in.
    pub fn add(&mut self, cell: Cell<'_>) {
        let key = key(cell);
        self.count += 1;
        let at = self.samples.partition_point(|(other, _)| *other <= key);
        match at.checked_sub(1).map(|at| &mut self.samples[at]) {
            Some((other, weight)) if *other == key => *weight += 1,
            _ => self.samples.insert(at, (key, 1)),
        }
        if self.samples.len() > self.accuracy * 4 {
            self.compress();
        }
    }

    /// Merges neighbours that together stand for no more than their share of the count. Of two
    /// that are left side by side the sum is more, so at most twice the accuracy are left.
    fn compress(&mut self) {
        let most = (self.count / self.accuracy as u64).max(1);
        let mut merged: Vec<(i128, u64)> = Vec::with_capacity(self.accuracy * 2 + 1);
        for (key, weight) in &self.samples {
            match merged.last_mut() {
                // The larger stands for both.
                Some(last) if last.1 + weight <= most => *last = (*key, last.1 + weight),
                _ => merged.push((*key, *weight)),
            }
        }
        self.samples = merged;
    }

    /// The value at a fraction of the ranks: the smallest that so many are not larger than.
    pub fn at(&self, fraction: f64, data_type: &DataType) -> Value {
        let wanted = ((fraction * self.count as f64).ceil() as u64).max(1);
        let mut below = 0;
        for (key, weight) in &self.samples {
            below += weight;
            if below >= wanted {
                return value(*key, data_type);
            }
        }
        self.samples.last().map_or(Value::Null, |(key, _)| value(*key, data_type))
    }

    /// Appends it as it stands in a checkpoint.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.accuracy as u32).to_le_bytes());
        out.extend_from_slice(&(self.samples.len() as u32).to_le_bytes());
        for (key, weight) in &self.samples {
            out.extend_from_slice(&key.to_le_bytes());
            out.extend_from_slice(&weight.to_le_bytes());
        }
    }

    /// The inverse of [`encode`](Self::encode); `None` if the bytes end too early.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let accuracy = u32::from_le_bytes(super::take(bytes)?) as usize;
        let samples = u32::from_le_bytes(super::take(bytes)?);
        *self = Self::new(accuracy.max(1));
        for _ in 0..samples {
            let key = i128::from_le_bytes(super::take(bytes)?);
            let weight = u64::from_le_bytes(super::take(bytes)?);
            self.samples.push((key, weight));
            self.count = self.count.checked_add(weight)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::random::SplitMix;

    #[test]
    fn exact_for_few_and_near_for_many() {
        for (count, accuracy, off) in [(1000i64, 1000, 0.0), (100_000, 1000, 0.002)] {
            let mut numbers: Vec<i64> = (1..=count).collect();
            let mut dice = SplitMix(7);
            for at in (1..numbers.len()).rev() {
                numbers.swap(at, dice.below(at as u64 + 1) as usize);
            }
            let mut percentiles = Percentiles::new(accuracy);
            numbers.iter().for_each(|n| percentiles.add(Cell::Double(*n as f64 - 500.0)));
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
