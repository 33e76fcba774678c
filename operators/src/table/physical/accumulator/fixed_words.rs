//! Accumulators without heap memory, stored in a few 64-bit words. This saves memory in operators
//! with many accumulators: a count takes 8 bytes instead of the 32 of an [`Accumulator`].

use crate::table::expr::compile::{Cx, EvalError};
use crate::table::physical::accumulator::{Accumulator, Function, Wide};

/// The kinds of accumulators that can be stored in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::table::physical) enum FixedWords {
    Count,
    SumLong,
    SumDouble,
    SumDecimal,
    AvgDouble,
    AvgDecimal,
    Bool,
    Long,
    Double,
    Decimal,
}

fn wide(words: &[u64]) -> Wide {
    Wide((i128::from(words[1] as i64) << 64) | i128::from(words[0]))
}

fn put_wide(Wide(value): Wide, words: &mut [u64]) {
    (words[0], words[1]) = (value as u64, (value >> 64) as u64);
}

impl FixedWords {
    /// The kind of an accumulator; `None` if the accumulator may own heap memory.
    pub fn of(accumulator: &Accumulator) -> Option<Self> {
        use Accumulator as A;
        Some(match accumulator {
            A::Count(_) => Self::Count,
            A::SumLong(_) => Self::SumLong,
            A::SumDouble(_) => Self::SumDouble,
            A::SumDecimal(_) => Self::SumDecimal,
            A::AvgDouble(..) => Self::AvgDouble,
            A::AvgDecimal(..) => Self::AvgDecimal,
            A::Bool(_) => Self::Bool,
            A::Long(_) => Self::Long,
            A::Double(_) => Self::Double,
            A::Decimal(_) => Self::Decimal,
            _ => return None,
        })
    }

    /// The number of words. Every nullable value except BOOLEAN has one more word, which is 0 for
    /// NULL.
    pub fn words(self) -> usize {
        match self {
            Self::Count | Self::Bool => 1,
            Self::SumLong | Self::SumDouble | Self::AvgDouble | Self::Long | Self::Double => 2,
            Self::SumDecimal | Self::AvgDecimal | Self::Decimal => 3,
        }
    }

    /// Reads an accumulator from its words. Words of zeros are an accumulator without records.
    #[inline]
    pub fn load(self, words: &[u64]) -> Accumulator {
        use Accumulator as A;
        let long = || (words[1] != 0).then_some(words[0] as i64);
        let double = || (words[1] != 0).then_some(f64::from_bits(words[0]));
        let decimal = || (words[2] != 0).then_some(wide(words));
        match self {
            Self::Count => A::Count(words[0] as i64),
            Self::SumLong => A::SumLong(long()),
            Self::Long => A::Long(long()),
            Self::SumDouble => A::SumDouble(double()),
            Self::Double => A::Double(double()),
            Self::SumDecimal => A::SumDecimal(decimal()),
            Self::Decimal => A::Decimal(decimal()),
            Self::AvgDouble => A::AvgDouble(f64::from_bits(words[0]), words[1] as i64),
            Self::AvgDecimal => A::AvgDecimal(wide(words), words[2] as i64),
            Self::Bool => A::Bool((words[0] != 0).then_some(words[0] == 2)),
        }
    }

    /// Writes an accumulator to words. Its kind must be one that [`of`](Self::of) accepts.
    #[inline]
    pub fn store(accumulator: &Accumulator, words: &mut [u64]) {
        use Accumulator as A;
        match accumulator {
            A::Count(n) => words[0] = *n as u64,
            A::SumLong(v) | A::Long(v) => {
                (words[0], words[1]) = (v.unwrap_or(0) as u64, u64::from(v.is_some()));
            }
            A::SumDouble(v) | A::Double(v) => {
                (words[0], words[1]) = (v.unwrap_or(0.0).to_bits(), u64::from(v.is_some()));
            }
            A::SumDecimal(v) | A::Decimal(v) => {
                put_wide(v.unwrap_or(Wide(0)), words);
                words[2] = u64::from(v.is_some());
            }
            A::AvgDouble(sum, n) => (words[0], words[1]) = (sum.to_bits(), *n as u64),
            A::AvgDecimal(sum, n) => {
                put_wide(*sum, words);
                words[2] = *n as u64;
            }
            A::Bool(v) => words[0] = v.map_or(0, |v| 1 + u64::from(v)),
            _ => unreachable!("`of` gave a kind of words"),
        }
    }
}

impl Function {
    /// Whether the accumulator can be stored in words. [`load`](Self::load),
    /// [`add_words`](Self::add_words) and [`merge_words`](Self::merge_words) require this.
    pub fn is_plain(&self) -> bool {
        self.plain.is_some()
    }

    /// The number of words of the accumulator; 0 if the accumulator cannot be stored in words.
    #[inline]
    pub fn words(&self) -> usize {
        self.plain.map_or(0, FixedWords::words)
    }

    /// Reads the accumulator from the front of `words`.
    #[inline]
    pub fn load(&self, words: &[u64]) -> Accumulator {
        match self.plain {
            Some(plain) => plain.load(words),
            None => unreachable!("only plain functions are kept as words"),
        }
    }

    /// Adds a record to an accumulator that is stored in words.
    #[inline]
    pub fn add_words(&self, words: &mut [u64], cx: Cx<'_>) -> Result<(), Box<EvalError>> {
        if self.counts_all {
            words[0] += 1;
            return Ok(());
        }
        let mut accumulator = self.load(words);
        self.add(&mut accumulator, cx)?;
        FixedWords::store(&accumulator, words);
        Ok(())
    }

    /// Merges `later` into `words`. Both are accumulators of this function.
    #[inline]
    pub fn merge_words(&self, words: &mut [u64], later: &[u64]) -> Result<(), Box<EvalError>> {
        match self.plain {
            Some(FixedWords::Count) => {
                words[0] += later[0];
                return Ok(());
            }
            Some(FixedWords::SumLong) => {
                // NULL is stored as 0, so it does not change the sum.
                let sum = (words[0] as i64).checked_add(later[0] as i64);
                if let Some(sum) = sum {
                    (words[0], words[1]) = (sum as u64, words[1] | later[1]);
                    return Ok(());
                }
            }
            _ => {}
        }
        let mut accumulator = self.load(words);
        self.merge(&mut accumulator, &self.load(later))?;
        FixedWords::store(&accumulator, words);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_are_read_as_they_were_written(
            long: Option<i64>, double: Option<f64>, decimal: Option<i128>, truth: Option<bool>, n: i64,
        ) {
            use Accumulator as A;
            let double = double.filter(|v| !v.is_nan());
            let wide = decimal.map(Wide);
            let (of, sum) = (double.unwrap_or(0.5), wide.unwrap_or(Wide(-1)));
            let all = [
                A::Count(n), A::SumLong(long), A::Long(long), A::SumDouble(double), A::Double(double),
                A::SumDecimal(wide), A::Decimal(wide), A::AvgDouble(of, n), A::AvgDecimal(sum, n),
                A::Bool(truth),
            ];
            for accumulator in all {
                let kind = FixedWords::of(&accumulator).unwrap();
                let mut words = vec![u64::MAX; kind.words()];
                FixedWords::store(&accumulator, &mut words);
                prop_assert_eq!(kind.load(&words), accumulator);
            }
        }
    }
}
