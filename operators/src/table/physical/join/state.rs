//! Formats the checkpoint entries of a join as text, for `inspect`.

use super::buffer::{SEARCH, SUFFIX};
use super::condition::ROW;
use crate::table::datetime::Tz;
use crate::table::row::{Row, decode};
use crate::table::types::{DataType, Schema};
use crate::table::value::Value;
use millstream_engine::checkpoint::StateLayout;

/// The values of a join's entries in the checkpoint layout: the columns of both sides.
pub(super) fn values(sides: [&Schema; 2]) -> Vec<String> {
    let ddl = |schema: &Schema| {
        // Generated names are used instead of column names: both sides may have a column of the
        // same name, and DDL does not accept every name.
        let column =
            |(i, field): (usize, &crate::table::types::Field)| format!("c{i} {}", field.data_type);
        schema.fields.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
    };
    vec![ROW.to_string(), ddl(sides[0]), ddl(sides[1])]
}

/// The side, the number and the row of an entry as text; for the entry of an unfinished search, the
/// side and the number. `None` if the entry is not one of a join.
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
        return Some(format!("{side} row {number}: unfinished search"));
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

/// The totals over the entries of one side of a join.
#[derive(Clone, Debug, Default)]
struct SideSummary {
    rows: u64,
    matched: u64,
    bytes: u64,
    searches: u64,
    /// For each column of type TIMESTAMP or TIMESTAMP_NTZ, the oldest value.
    oldest: Vec<(DataType, Value)>,
}

impl SideSummary {
    fn add(&mut self, key: &[u8], value: &[u8], schema: Option<&Schema>) {
        self.rows += 1;
        self.matched += u64::from(value.first() == Some(&1));
        self.bytes += (key.len() + value.len()) as u64;
        let (Some(schema), Some((_, row))) = (schema, value.split_first()) else { return };
        let values = decode(Row(row), schema.fields.iter().map(|field| &field.data_type));
        let is_time = |data_type: &DataType| {
            matches!(data_type, DataType::Timestamp | DataType::TimestampNtz)
        };
        let types = schema.fields.iter().map(|field| field.data_type.clone());
        let times: Vec<_> = types.zip(values).filter(|(of, _)| is_time(of)).collect();
        if self.oldest.is_empty() {
            self.oldest = times;
            return;
        }
        for ((_, oldest), (_, time)) in self.oldest.iter_mut().zip(times) {
            if let Value::Long(us) = time
                && !matches!(oldest, Value::Long(other) if *other <= us)
            {
                *oldest = time;
            }
        }
    }

    fn line(&self, side: &str) -> String {
        let Self { rows, matched, bytes, searches, oldest } = self;
        let mut line = format!("{side}: rows {rows}, matched {matched}, bytes {bytes}");
        let times = oldest.iter().filter_map(|(of, time)| time.display(of, Tz::UTC));
        let times = times.collect::<Vec<_>>().join(", ");
        if !times.is_empty() {
            line += &format!(", oldest {times}");
        }
        if *searches > 0 {
            line += &format!(", unfinished searches {searches}");
        }
        line
    }
}

/// Summarises the state of each side of a join, left first: the numbers of rows, matched rows and
/// unfinished searches, the size, and the oldest value of each timestamp column. `what` is the
/// description of the operator. `None` if the operator is not a join of two streams, or if an
/// entry's key is malformed.
pub fn show_join_sides<'e>(
    what: &str,
    layout: &StateLayout,
    entries: impl Iterator<Item = (&'e [u8], &'e [u8])>,
) -> Option<[String; 2]> {
    let ddl = match layout.values.as_slice() {
        [kind, columns @ ..] if kind == ROW => columns,
        [] if what.starts_with("interval join ") => &[],
        _ => return None,
    };
    let schemas =
        [0, 1].map(|side: usize| ddl.get(side).and_then(|ddl| Schema::parse_ddl(ddl).ok()));
    let mut sides = [SideSummary::default(), SideSummary::default()];
    for (key, value) in entries {
        let mark = usize::from(*key.get(key.len().checked_sub(SUFFIX)?)?);
        // Searches of tables have the marks 2 and 3, those of typed streams 4 and 5.
        match mark < usize::from(SEARCH) {
            true => sides.get_mut(mark)?.add(key, value, schemas[mark].as_ref()),
            false => sides[mark % 2].searches += 1,
        }
    }
    let [left, right] = &sides;
    Some([left.line("left"), right.line("right")])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::row::encode;

    #[test]
    fn sides_are_summed_up() {
        let schema = |ddl: &str| Schema::parse_ddl(ddl).unwrap();
        let (left, right) = (schema("k BIGINT, t TIMESTAMP"), schema("name STRING"));
        let values = values([&left, &right]);
        let layout =
            StateLayout { keys: "k0 BIGINT".to_string(), values, ..StateLayout::default() };
        let key = |mark: u8, number: u64| {
            [encode(&[Value::Long(7)]), vec![mark], number.to_le_bytes().to_vec()].concat()
        };
        let value = |matched: u8, row: &[Value]| [vec![matched], encode(row)].concat();
        let entries = [
            (key(0, 0), value(1, &[Value::Long(7), Value::Long(120_000_000)])),
            (key(0, 1), value(0, &[Value::Long(7), Value::Long(60_000_000)])),
            (key(0, 2), value(0, &[Value::Long(7), Value::Null])),
            (key(1, 3), value(1, &[Value::String("a".to_string())])),
            (key(SEARCH + 1, 3), vec![0; 16]),
        ];
        let entries = || entries.iter().map(|(key, value)| (&key[..], &value[..]));
        let bytes = |of: &[usize]| -> usize {
            let sizes: Vec<_> = entries().map(|(key, value)| key.len() + value.len()).collect();
            of.iter().map(|at| sizes[*at]).sum()
        };
        let [left, right] = show_join_sides("join by …", &layout, entries()).unwrap();
        let of_left = bytes(&[0, 1, 2]);
        assert_eq!(
            left,
            format!("left: rows 3, matched 1, bytes {of_left}, oldest 1970-01-01 00:01:00")
        );
        let of_right = bytes(&[3]);
        assert_eq!(
            right,
            format!("right: rows 1, matched 1, bytes {of_right}, unfinished searches 1")
        );
        let opaque = StateLayout::default();
        let of_records =
            [(key(4, 0), vec![0; 16]), (key(0, 0), vec![0, 1]), (key(5, 3), vec![0; 16])];
        let of_records = of_records.iter().map(|(key, value)| (&key[..], &value[..]));
        let [left, right] =
            show_join_sides("interval join by u32: inner", &opaque, of_records).unwrap();
        assert!(left.starts_with("left: rows 1, matched 0"), "{left}");
        assert!(left.ends_with("unfinished searches 1"), "{left}");
        assert!(right.starts_with("right: rows 0") && right.ends_with("searches 1"), "{right}");
        assert!(show_join_sides("process by u32", &opaque, entries()).is_none());
    }
}
