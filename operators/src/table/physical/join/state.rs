//! Formats the checkpoint entries of a join as text.

use super::buffer::{SEARCH, SUFFIX};
use super::condition::ROW;
use crate::table::datetime::Tz;
use crate::table::row::{Row, decode};
use crate::table::types::Schema;
use millstream_engine::checkpoint::StateLayout;

/// The columns of both sides, as stored in the layout of a join's entries.
pub(super) fn values(sides: [&Schema; 2]) -> Vec<String> {
    let ddl = |schema: &Schema| {
        // Column names are not used: both sides may have the same name, or one that DDL does not
        // accept.
        let column =
            |(i, field): (usize, &crate::table::types::Field)| format!("c{i} {}", field.data_type);
        schema.fields.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
    };
    vec![ROW.to_string(), ddl(sides[0]), ddl(sides[1])]
}

/// The side, the number and the row of an entry as text; `None` if it is not an entry of a join.
pub fn show_join_row(layout: &StateLayout, key: &[u8], value: &[u8]) -> Option<String> {
    let [kind, columns @ ..] = layout.values.as_slice() else { return None };
    let (_, suffix) = key.split_at_checked(key.len().checked_sub(SUFFIX)?)?;
    let (&side, number) = suffix.split_first()?;
    let (&matched, row) = value.split_first()?;
    if kind != ROW {
        return None;
    }
    let number = u64::from_le_bytes(number.try_into().ok()?);
    if let Some(side) = side.checked_sub(SEARCH) {
        let side = if side == 0 { "left" } else { "right" };
        return Some(format!("a search of {side} row {number} that goes on"));
    }
    let schema = match columns.get(usize::from(side))?.as_str() {
        "" => Schema::new(Vec::new()),
        ddl => Schema::parse_ddl(ddl).ok()?,
    };
    let values = decode(Row(row), schema.fields.iter().map(|field| &field.data_type));
    let shown = values.iter().zip(&schema.fields).map(|(value, field)| {
        value.display(&field.data_type, Tz::UTC).unwrap_or_else(|| "NULL".to_string())
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    let (side, matched) =
        (if side == 0 { "left" } else { "right" }, if matched == 1 { ", matched" } else { "" });
    Some(format!("{side} row {number}{matched}: {shown}"))
}
