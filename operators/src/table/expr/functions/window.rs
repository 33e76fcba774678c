//! The functions `window` and `session_window`. Their lengths arrive in microseconds: the planner
//! has already converted the SQL text of a duration.

use super::registry::{Function, Typed, cells, typed_or_null, unexpected};
use crate::table::datetime::interval;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cell::{Cell, field};
use crate::table::row::RowWriter;
use crate::table::types::{DataType, Field};
use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;

pub(super) static FUNCTIONS: &[Function] = &[
    cells(
        "window",
        "window(time, length[, slide[, start]]): the window that a time is in",
        (4, 4),
        |name, args| window(name, args, |of| of),
        |a, _, arena| {
            let [time, width, slide, start] = longs(a);
            let begin = latest_start(time, slide, start);
            Ok(span(begin, begin.saturating_add(width), arena))
        },
    )
    .usage(
        "2.0.0",
        "window(timestamp_ntz'2024-02-29 12:58:59', '5 minutes').start",
        "2024-02-29 12:55:00",
    ),
    cells(
        "windows",
        "windows(time, length, slide, start): the windows that a time is in, in microseconds",
        (4, 4),
        |name, args| window(name, args, |of| DataType::Array(Box::new(of))),
        |a, _, arena| {
            let [time, width, slide, start] = longs(a);
            let last = latest_start(time, slide, start);
            let most = width.saturating_add(slide - 1) / slide;
            let begins = (0..most).map(|k| last.saturating_sub(k.saturating_mul(slide)));
            let begins = begins.filter(|begin| *begin > time.saturating_sub(width));
            let mut out = BumpVec::new_in(arena);
            let mut writer = RowWriter::array(&mut out, begins.clone().count());
            for (i, begin) in begins.enumerate() {
                span(begin, begin.saturating_add(width), arena).put(&mut writer, i);
            }
            Ok(Cell::Bytes(out.into_bump_slice()))
        },
    ),
    cells(
        "session_window",
        "session_window(time, gap): the window of times that follow each other within a gap",
        (2, 2),
        |name, args| window(name, args, |of| of),
        |a, _, arena| {
            let (time, gap) = (a[0].long(), a[1].long());
            Ok(span(time, time.saturating_add(gap), arena))
        },
    )
    .usage(
        "3.2.0",
        "session_window.end FROM VALUES (timestamp_ntz'2024-02-29 12:00:00') AS t(at) \
         GROUP BY session_window(at, '10 minutes')",
        "2024-02-29 12:10:00",
    ),
    cells(
        "window_time",
        "window_time(window): the last moment of a window",
        (1, 1),
        |name, args| match &args[0].data_type {
            DataType::Struct(fields) if fields.len() == 2 && fields[1].name == "end" => {
                let (to, nullable) = (fields[1].data_type.clone(), args[0].nullable);
                Ok(Typed::new(args, to, nullable))
            }
            _ => Err(unexpected(name, "a window", &args[0])),
        },
        |a, _, _| match field(a[0].bytes(), 1, 2, &DataType::Timestamp) {
            Cell::Long(end) => Ok(Cell::Long(end.saturating_sub(1))),
            other => Ok(other),
        },
    )
    .usage(
        "3.4.0",
        "window_time(window) FROM (SELECT window FROM VALUES (timestamp_ntz'2024-02-29 \
         12:01:00') AS t(at) GROUP BY window(at, '5 minutes'))",
        "2024-02-29 12:04:59.999999",
    ),
    cells(
        "range_bound",
        "range_bound(key, distance): a DECIMAL key at the bound of a RANGE frame",
        (2, 2),
        super::time::internal,
        // As in Spark, the bound may have more digits than the type of the key.
        |a, _, _| Ok(Cell::Decimal(a[0].decimal().saturating_add(a[1].decimal()))),
    ),
    cells(
        "length_us",
        "length_us(text): a length of time such as '10 minutes', in microseconds",
        (1, 1),
        |name, args| match &args[0].data_type {
            DataType::DayTimeInterval(..) => Ok(Typed::new(args, DataType::Long, true)),
            _ => typed_or_null(name, args, &[DataType::String], DataType::Long),
        },
        |a, _, _| match a[0] {
            Cell::Bytes(_) => match interval::length(a[0].text()) {
                Ok(length) if length.months == 0 => Ok(Cell::Long(length.micros)),
                _ => Ok(Cell::Null),
            },
            other => Ok(other),
        },
    ),
];

/// The latest start of a window that is not after a time. At the limits of TIMESTAMP the window is
/// cut off.
fn latest_start(time: i64, slide: i64, start: i64) -> i64 {
    time.saturating_sub(time.saturating_sub(start).rem_euclid(slide))
}

fn longs<const N: usize>(a: &[Cell<'_>]) -> [i64; N] {
    std::array::from_fn(|i| a[i].long())
}

/// Builds the struct of a window from its start and end.
fn span(begin: i64, end: i64, arena: &Bump) -> Cell<'_> {
    let mut out = BumpVec::with_capacity_in(24, arena);
    let mut writer = RowWriter::new(&mut out, 2);
    writer.long(0, begin);
    writer.long(1, end);
    Cell::Bytes(out.into_bump_slice())
}

fn window(name: &str, args: Vec<Resolved>, to: fn(DataType) -> DataType) -> PlanResult<Typed> {
    let time = args[0].data_type.clone();
    let is_time = matches!(time, DataType::Timestamp | DataType::TimestampNtz);
    if !is_time || args[1..].iter().any(|arg| arg.data_type != DataType::Long) {
        return Err(PlanError::new(
            "INVALID_WINDOW_FUNCTION_PLACE",
            format!("`{name}` is used outside of SELECT and GROUP BY"),
            "Use it in the SELECT list or in GROUP BY",
        ));
    }
    let field = |name: &str| Field::new(name, time.clone(), false);
    let of = DataType::Struct(vec![field("start"), field("end")]);
    let nullable = args[0].nullable;
    Ok(Typed::new(args, to(of), nullable))
}
