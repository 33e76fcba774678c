//! ASOF joins with a table: finds the table row of a key whose value is closest to that of a stream
//! row.
//!
//! The rows of each key are sorted by value, and rows of equal value are in the table's order. Rows
//! whose value is NULL are left out. A binary search finds the closest row. If the rest of the
//! condition is not true for it, the next closest rows are tried in turn, in steps. Among rows of equal
//! value, `>=` and `>` take the last row, `<=` and `<` the first, as Spark does on one thread.

use super::table_index::NONE;
use crate::table::expr::Resolved;
use crate::table::expr::compile::{Compiled, Cx, Semantics, compile, fold, write_field};
use crate::table::expr::functions::order_values;
use crate::table::physical::stages::Scratch;
use crate::table::plan::Closest;
use crate::table::row::{Row, RowWriter};
use crate::table::types::DataType;
use crate::table::value::Value;
use millstream_engine::error::EngineError;
use std::cmp::Ordering;

/// Evaluates an expression over the rows of one side to an owned value.
pub(super) struct ValueOf {
    compiled: Compiled,
    data_type: DataType,
    out: Vec<u8>,
}

impl ValueOf {
    pub fn new(expr: &Resolved, width: usize, semantics: Semantics) -> Self {
        let compiled = compile(&fold(expr.clone(), semantics), width, semantics);
        Self { compiled, data_type: expr.data_type.clone(), out: Vec::new() }
    }

    fn of(&mut self, cx: Cx<'_>) -> Result<Value, EngineError> {
        self.out.clear();
        let mut writer = RowWriter::new(&mut self.out, 1);
        write_field(&self.compiled, cx, &mut writer, 0)?;
        Ok(Row(&self.out).value(0, 1, &self.data_type))
    }
}

/// The rows of a table, sorted by key and value.
#[derive(Default)]
pub(super) struct SortedRows {
    /// The value of each row, by the row's index.
    values: Vec<Value>,
    /// The indices of the rows. The rows of a key are adjacent and sorted by value.
    sorted: Vec<u32>,
    /// The range of a key's rows in `sorted`, stored at the index of the key's first row.
    keys: Vec<(u32, u32)>,
}

impl SortedRows {
    /// Sorts `rows` by key and value. `firsts` are the indices of the first row of each key, and
    /// `next` links each row to the next row of its key.
    pub fn new(
        rows: &[Vec<u8>],
        (firsts, next): (impl Iterator<Item = u32>, &[u32]),
        value_of: &mut ValueOf,
    ) -> Result<Self, EngineError> {
        let mut scratch = Scratch::default();
        let mut values = Vec::with_capacity(rows.len());
        for row in rows {
            scratch.reset();
            values.push(value_of.of(scratch.cx(Row(row)))?);
        }
        let (mut sorted, mut keys) = (Vec::with_capacity(rows.len()), vec![(0, 0); rows.len()]);
        for first in firsts {
            let (begin, mut at) = (sorted.len(), first);
            while at != NONE {
                if values[at as usize] != Value::Null {
                    sorted.push(at);
                }
                at = next[at as usize];
            }
            // The sort is stable, so rows of equal value keep the table's order.
            let of_key = &mut sorted[begin..];
            of_key.sort_by(|a, b| order_values(&values[*a as usize], &values[*b as usize]));
            keys[first as usize] = (begin as u32, sorted.len() as u32);
        }
        Ok(Self { values, sorted, keys })
    }

    /// The rows of a key that match a value, the closest row first. `first` is the index of the
    /// key's first row.
    pub fn closest(
        &self,
        first: u32,
        value: &Value,
        closest: Closest,
    ) -> impl Iterator<Item = u32> + use<'_> {
        let (begin, end) = match first {
            NONE => (0, 0),
            first => self.keys[first as usize],
        };
        let rows = &self.sorted[begin as usize..end as usize];
        let is_before = |row: &u32| {
            let order = order_values(&self.values[*row as usize], value);
            match closest {
                Closest::AtOrBefore | Closest::After => order != Ordering::Greater,
                Closest::Before | Closest::AtOrAfter => order == Ordering::Less,
            }
        };
        let cut = if *value == Value::Null { 0 } else { rows.partition_point(is_before) };
        let (before, after) = match closest {
            Closest::AtOrBefore | Closest::Before => (&rows[..cut], &rows[..0]),
            _ if *value == Value::Null => (&rows[..0], &rows[..0]),
            Closest::AtOrAfter | Closest::After => (&rows[..0], &rows[cut..]),
        };
        before.iter().rev().chain(after).copied()
    }
}

/// The stream side of an ASOF join with a table: the comparison and the value to compare.
pub(super) struct ClosestRow {
    pub closest: Closest,
    /// Computes the value of a stream row.
    value_of: ValueOf,
}

impl ClosestRow {
    pub fn new(closest: Closest, value_of: ValueOf) -> Self {
        Self { closest, value_of }
    }

    /// The value of a stream row, which is compared with the values of the table.
    pub fn value(&mut self, cx: Cx<'_>) -> Result<Value, EngineError> {
        self.value_of.of(cx)
    }
}
