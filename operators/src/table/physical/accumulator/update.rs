//! Adds a record to an accumulator, for the less common functions.
//! [`Function`](super::function::Function) itself handles simple counts, sums and averages of
//! numbers, and extremes of scalars.

use super::bitmap::Bitmap;
use super::collected_values::Collection;
use super::function::{Function, Input, Quantifier};
use super::value_counts::ValueCounts;
use super::{Accumulator, Wide};
use crate::table::expr::cell::{Cell, elements, field, order};
use crate::table::expr::compile::{CellFn, Cx, EvalError, LongFn, failed};
use crate::table::expr::functions::xxhash64;
use crate::table::row::RowWriter;
use crate::table::types::DataType;
use crate::table::variant::{Variant, type_of};
use std::cmp::Ordering;

/// Adds a record to an accumulator.
pub(super) fn add_rarer(
    function: &Function,
    input: &Input,
    acc: &mut Accumulator,
    cx: Cx<'_>,
) -> Result<(), Box<EvalError>> {
    use Accumulator as A;
    match (input, acc) {
        (Input::CountWhere(f), A::Count(n)) => *n += i64::from(f(cx)? == Some(true)),
        (Input::CountRows(nulls), A::Count(n)) => {
            for is_null in nulls {
                if is_null(cx)? {
                    return Ok(());
                }
            }
            *n += 1;
        }
        (Input::SumInterval(f, range), A::SumLong(sum)) => {
            if let Some(v) = f(cx)? {
                let total = sum.unwrap_or(0).checked_add(v).filter(|sum| range.contains(sum));
                let Some(total) = total else { return interval_overflow() };
                *sum = Some(total);
            }
        }
        (Input::Moments(f), A::Moments(m)) => {
            if let Some(v) = f(cx)? {
                m.add(v);
            }
        }
        (Input::CoMoments(x, y), A::CoMoments(m)) => {
            if let (Some(x), Some(y)) = (x(cx)?, y(cx)?) {
                m.add(x, y);
            }
        }
        (Input::First { value, ignores_nulls }, A::Held(held)) => {
            if held.is_none() {
                add_last(value, *ignores_nulls, held, cx)?;
            }
        }
        (Input::Last { value, ignores_nulls }, A::Held(held)) => {
            add_last(value, *ignores_nulls, held, cx)?;
        }
        (Input::By(value, by, data_type, want), A::Held(held)) => {
            add_by((value, by), (data_type, *want), held, cx)?;
        }
        (Input::ExtremeCell(f, data_type, want), A::Held(held)) => {
            add_extreme((f, data_type), *want, held, cx)?;
        }
        (Input::Bools { value, quantifier }, A::Bool(result)) => {
            if let Some(v) = value(cx)? {
                let so_far = result.unwrap_or(v);
                *result = Some(match quantifier {
                    Quantifier::ForAll => so_far && v,
                    Quantifier::Exists => so_far || v,
                });
            }
        }
        (Input::Bits(f, op), A::Long(result)) => {
            if let Some(v) = f(cx)? {
                *result = Some(result.map_or(v, |so_far| op(so_far, v)));
            }
        }
        (Input::Values(f, _), A::Values(values)) => {
            let cell = f(cx)?;
            if !cell.is_null() {
                if !values.has_room(cell.bytes().len()) {
                    return too_many_values(values.collection());
                }
                values.add(cell);
            }
        }
        (Input::Distinct(f, data_type, _), A::Distinct(sketch)) => {
            let cell = f(cx)?;
            if !cell.is_null() {
                sketch.add(xxhash64(cell, data_type));
            }
        }
        (Input::User(args, user), A::User(state, _)) => {
            let value = |(f, t): &(CellFn, DataType)| Ok(f(cx)?.value(t));
            let args = args.iter().map(value).collect::<Result<Vec<_>, Box<EvalError>>>()?;
            user.update(state, &args)?;
        }
        (Input::Percentile(f, _), A::Percentile(p)) => {
            let cell = f(cx)?;
            if !cell.is_null() {
                p.add(cell);
            }
        }
        (input, acc) => add_sketched(function, input, acc, cx)?,
    }
    Ok(())
}

/// Adds a record to a sketch, a bitmap, a histogram or counts of values, or to a sum that may be
/// out of range.
fn add_sketched(
    function: &Function,
    input: &Input,
    acc: &mut Accumulator,
    cx: Cx<'_>,
) -> Result<(), Box<EvalError>> {
    use Accumulator as A;
    match (input, acc) {
        (Input::TrySum(f, _), A::SumDecimal(sum)) => {
            if let Some(v) = f(cx)? {
                *sum = Some(function.try_sum(*sum, Wide(i128::from(v))));
            }
        }
        (Input::AvgInterval(f, _), A::AvgDecimal(sum, n)) => {
            if let Some(v) = f(cx)? {
                *sum = function.interval_sum(*sum, Wide(i128::from(v)))?;
                *n += 1;
            }
        }
        (Input::Regression(x, y), A::CoMoments(m)) => {
            if let (Some(x), Some(y)) = (x(cx)?, y(cx)?) {
                m.add_regression(x, y);
            }
        }
        (Input::Histogram(f, _), A::Histogram(histogram)) => match f(cx)? {
            Cell::Double(v) => histogram.add(v),
            Cell::Long(v) => histogram.add(v as f64),
            _ => {}
        },
        (Input::Top { value, by, data_type, want, most }, A::Top(top)) => {
            let by = by(cx)?;
            if !by.is_null() && top.takes(by, *most, data_type, *want) {
                let mut row = Vec::new();
                let mut writer = RowWriter::new(&mut row, 2);
                value(cx)?.put(&mut writer, 0);
                by.put(&mut writer, 1);
                top.add(&row, *most, data_type, *want);
            }
        }
        (Input::Counts(f, frequency), A::Counts(counts)) => {
            add_counted(f, frequency.as_ref(), counts, cx)?;
        }
        (Input::Shape(f), A::Shape(held)) => {
            let cell = f(cx)?;
            if !cell.is_null() {
                held.add(type_of(Variant::new(cell.bytes())))?;
            }
        }
        (Input::Frequent { value, .. }, A::Frequent(items)) => {
            if !items.add(value(cx)?) {
                return too_many_counts();
            }
        }
        (Input::Vector(f, result), A::Vector(mean)) => {
            let cell = f(cx)?;
            if !cell.is_null() {
                let elements = || elements(cell.array(), &DataType::Float);
                // A vector with a NULL is passed over, as a NULL is.
                if elements().all(|element| !element.is_null()) {
                    let vector = elements().map(|element| element.double() as f32);
                    mean.add(vector, elements().len(), *result)?;
                }
            }
        }
        (Input::Union(f, data_type), A::Values(values)) => {
            let cell = f(cx)?;
            if !cell.is_null() {
                if !values.has_room(cell.bytes().len()) {
                    return too_many_values(values.collection());
                }
                for element in elements(cell.array(), data_type).filter(|cell| !cell.is_null()) {
                    values.add(element);
                }
            }
        }
        (Input::Bitmap(f, bitmap), A::Bytes(held)) => add_bitmap(f, *bitmap, held, cx)?,
        (Input::CountMin { value, is_text, shape, empty }, A::Bytes(held)) => {
            let cell = value(cx)?;
            if !cell.is_null() {
                let sketch = held.get_or_insert_with(|| empty.clone());
                match is_text {
                    true => shape.add_bytes(sketch, cell.bytes()),
                    false => shape.add_long(sketch, cell.long()),
                }
            }
        }
        _ => unreachable!("`start` made the accumulator"),
    }
    Ok(())
}

/// Replaces the value by that of the record. A NULL is skipped if `ignores_nulls`.
fn add_last(
    value: &CellFn,
    ignores_nulls: bool,
    held: &mut Option<Vec<u8>>,
    cx: Cx<'_>,
) -> Result<(), Box<EvalError>> {
    let cell = value(cx)?;
    if !(cell.is_null() && ignores_nulls) {
        hold(held, &[cell]);
    }
    Ok(())
}

/// Adds a record to `max_by` or `min_by`. A record whose ordering key is NULL is ignored.
fn add_by(
    (value, by): (&CellFn, &CellFn),
    (data_type, want): (&DataType, Ordering),
    held: &mut Option<Vec<u8>>,
    cx: Cx<'_>,
) -> Result<(), Box<EvalError>> {
    let by = by(cx)?;
    if by.is_null() {
        return Ok(());
    }
    // If ordering keys are equal, the last record wins, as in Spark.
    let loses = held
        .as_ref()
        .is_some_and(|row| order(by, field(row, 1, 2, data_type), data_type) == want.reverse());
    if !loses {
        hold(held, &[value(cx)?, by]);
    }
    Ok(())
}

/// Adds a record to `min` or `max` of nested values.
fn add_extreme(
    (value, data_type): (&CellFn, &DataType),
    want: Ordering,
    held: &mut Option<Vec<u8>>,
    cx: Cx<'_>,
) -> Result<(), Box<EvalError>> {
    let cell = value(cx)?;
    let wins =
        held.as_ref().is_none_or(|row| order(cell, field(row, 0, 1, data_type), data_type) == want);
    if !cell.is_null() && wins {
        hold(held, &[cell]);
    }
    Ok(())
}

/// Writes cells as a row into the buffer of an accumulator, whose memory is reused.
fn hold(held: &mut Option<Vec<u8>>, cells: &[Cell<'_>]) {
    let buffer = held.get_or_insert_default();
    buffer.clear();
    let mut writer = RowWriter::new(buffer, cells.len());
    cells.iter().enumerate().for_each(|(i, cell)| cell.put(&mut writer, i));
}

/// Adds a value to counts, as many times as its frequency says.
fn add_counted(
    value: &CellFn,
    frequency: Option<&LongFn>,
    counts: &mut ValueCounts,
    cx: Cx<'_>,
) -> Result<(), Box<EvalError>> {
    let cell = value(cx)?;
    let rows = frequency.map_or(Ok(Some(1)), |frequency| frequency(cx))?;
    let (false, Some(rows)) = (cell.is_null(), rows) else { return Ok(()) };
    let Ok(rows) = u64::try_from(rows) else {
        return failed(
            "NEGATIVE_VALUES_IN_FREQUENCY_EXPRESSION",
            format!("the frequency {rows} of `percentile` is negative"),
            "Filter the rows: FILTER (WHERE frequency >= 0)",
        );
    };
    if rows > 0 && !(counts.add(cell, rows) && counts.is_within_limit()) {
        return too_many_counts();
    }
    Ok(())
}

/// Adds a value to a bitmap: a position, or another bitmap.
fn add_bitmap(
    value: &CellFn,
    bitmap: Bitmap,
    held: &mut Option<Vec<u8>>,
    cx: Cx<'_>,
) -> Result<(), Box<EvalError>> {
    let cell = value(cx)?;
    if cell.is_null() {
        return Ok(());
    }
    let bytes = held.get_or_insert_with(|| bitmap.start());
    match cell {
        Cell::Long(position) if !Bitmap::set(bytes, position) => failed(
            "INVALID_BITMAP_POSITION",
            format!("the position {position} is outside of a bitmap of 32768 bits"),
            "Use bitmap_bit_position(x), and group by bitmap_bucket_number(x)",
        ),
        Cell::Bytes(other) => {
            bitmap.combine(bytes, other);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The error of a sum of intervals that is out of range.
#[cold]
pub(super) fn interval_overflow<T>() -> Result<T, Box<EvalError>> {
    failed(
        "INTERVAL_ARITHMETIC_OVERFLOW.WITH_SUGGESTION",
        "the sum of intervals overflows".to_string(),
        "Use try_sum or try_avg, which give NULL",
    )
}

/// The error for counts of values that take too much memory.
#[cold]
pub(super) fn too_many_counts<T>() -> Result<T, Box<EvalError>> {
    failed(
        "COLLECTION_SIZE_LIMIT_EXCEEDED",
        "the distinct values of `percentile`, `median`, `mode` or `approx_top_k` take more than 1 GiB \
         for one group, or thousands of them have one hash"
            .to_string(),
        "Use approx_percentile, or group by more columns or shorter windows",
    )
}

/// The error for a list or set that is too large, or for which there is no memory.
#[cold]
pub(super) fn too_many_values<T>(collection: Collection) -> Result<T, Box<EvalError>> {
    let function = match collection {
        Collection::Set => "`collect_set` or `collect_union`",
        Collection::List => "`collect_list` or `listagg`",
    };
    failed(
        "COLLECTION_SIZE_LIMIT_EXCEEDED",
        format!(
            "{function} takes more than 1 GiB, or more than the available memory, for one group"
        ),
        "Group by more columns or shorter windows, or filter the values",
    )
}
