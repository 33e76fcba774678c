//! The results of window functions for the rows of a partition.

use super::counter::differences;
use super::frame::{Frames, Keys};
use super::sliding::aggregates;
use super::{Compute, Expression, HeldRow};
use crate::table::physical::stages::Scratch;
use crate::table::value::Value;
use millstream_engine::error::EngineError;

impl Compute {
    /// The results of the function for the rows of a partition, which are in order.
    pub fn results(
        &self,
        rows: &[HeldRow],
        keys: &Keys<'_>,
        frames: &Frames,
        scratch: &mut Scratch,
    ) -> Result<Vec<Value>, EngineError> {
        let count = rows.len();
        let each = |value: &dyn Fn(usize) -> Value| (0..count).map(value).collect();
        Ok(match self {
            Self::RowNumber => each(&|row| Value::Long(row as i64 + 1)),
            Self::Rank => each(&|row| Value::Long(keys.peers(row).start as i64 + 1)),
            Self::DenseRank => {
                let mut rank = 0;
                let mut next = |row: usize| {
                    rank += i64::from(keys.peers(row).start == row);
                    Value::Long(rank)
                };
                (0..count).map(&mut next).collect()
            }
            Self::PercentRank => each(&|row| {
                let others = count.saturating_sub(1);
                Value::Double(match others {
                    0 => 0.0,
                    _ => keys.peers(row).start as f64 / others as f64,
                })
            }),
            Self::CumulativeDistribution => {
                each(&|row| Value::Double(keys.peers(row).end as f64 / count as f64))
            }
            Self::Tile(tiles) => each(&|row| Value::Long(tile(row as i64, count as i64, *tiles))),
            Self::Shifted { value, offset, default, ignores_nulls } => {
                let values = Values::of(value, rows, scratch)?;
                let mut results = Vec::with_capacity(count);
                for (row, held) in rows.iter().enumerate() {
                    let at = match ignores_nulls {
                        true if *offset != 0 => values.shifted(row, *offset),
                        _ => usize::try_from(row as i64 + *offset).ok().filter(|at| *at < count),
                    };
                    results.push(match at {
                        Some(at) => values.all[at].clone(),
                        None => default.value(scratch, &held.row)?,
                    });
                    scratch.reset();
                }
                results
            }
            Self::Nth { value, n, ignores_nulls } => {
                let values = Values::of(value, rows, scratch)?;
                let (mut results, mut frame) = (Vec::with_capacity(count), 0..0);
                for row in 0..count {
                    frame = frames.next(&frame, row, keys, scratch)?;
                    let n = usize::try_from(*n - 1).unwrap_or(usize::MAX);
                    let at = match ignores_nulls {
                        true => {
                            let from = values.present.partition_point(|at| *at < frame.start);
                            from.checked_add(n).and_then(|at| values.present.get(at)).copied()
                        }
                        false => frame.start.checked_add(n),
                    };
                    let found = at.filter(|at| frame.contains(at));
                    results.push(found.map_or(Value::Null, |at| values.all[at].clone()));
                    scratch.reset();
                }
                results
            }
            Self::CounterDifference { value, start } => {
                differences(value, start.as_ref(), rows, scratch)?
            }
            Self::Aggregate { function, merges } => {
                aggregates(function, *merges, (rows, keys, frames), scratch)?
            }
        })
    }
}

/// The number of the tile of a row: the first tiles have one row more if the rows cannot be divided
/// evenly.
fn tile(row: i64, count: i64, tiles: i64) -> i64 {
    let (size, larger) = (count / tiles, count % tiles);
    let in_larger = larger * (size + 1);
    if row < in_larger {
        row / (size + 1) + 1
    } else {
        larger + (row - in_larger) / size.max(1) + 1
    }
}

/// The values of an expression for the rows of a partition.
struct Values {
    all: Vec<Value>,
    /// The rows whose value is not NULL.
    present: Vec<usize>,
}

impl Values {
    fn of(
        expression: &Expression,
        rows: &[HeldRow],
        scratch: &mut Scratch,
    ) -> Result<Self, EngineError> {
        let mut all = Vec::with_capacity(rows.len());
        for held in rows {
            all.push(expression.value(scratch, &held.row)?);
            scratch.reset();
        }
        let present = (0..all.len()).filter(|at| all[*at] != Value::Null).collect();
        Ok(Self { all, present })
    }

    /// The row with the value a number of rows after a row, or before it if the number is negative.
    /// Rows with NULL do not count.
    fn shifted(&self, row: usize, offset: i64) -> Option<usize> {
        let at = if offset > 0 {
            self.present.partition_point(|at| *at <= row) as i64 + offset - 1
        } else {
            self.present.partition_point(|at| *at < row) as i64 + offset
        };
        usize::try_from(at).ok().and_then(|at| self.present.get(at)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_differ_by_one_row_at_most() {
        let tiles =
            |count, tiles| (0..count).map(|row| tile(row, count, tiles)).collect::<Vec<_>>();
        assert_eq!(tiles(7, 3), [1, 1, 1, 2, 2, 3, 3]);
        assert_eq!(tiles(2, 5), [1, 2]);
        assert_eq!(tiles(4, 2), [1, 1, 2, 2]);
    }
}
