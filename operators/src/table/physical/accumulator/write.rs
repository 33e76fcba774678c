//! The results of aggregate functions.

use super::Accumulator;
use super::collected_values::Values;
use super::function::{Function, Input, OVERFLOWED};
use super::histogram::Bin;
use super::value_counts::{ValueCounts, cell_of};
use crate::table::expr::cast::{arithmetic_overflow, decimal_of_double};
use crate::table::expr::cell::{Cell, field, order};
use crate::table::expr::compile::{EvalError, Semantics, failed};
use crate::table::expr::decimal;
use crate::table::plan::aggregate_function::{AggregateCall, AggregateFunction};
use crate::table::row::{Row, RowWriter};
use crate::table::types::{DataType, Field};
use crate::table::value::Value;
use std::cmp::Ordering;

/// The value of an aggregate over no rows. `width` is the number of columns of its input.
pub fn value_of_no_rows(
    call: &AggregateCall,
    width: usize,
    semantics: Semantics,
) -> Result<Value, Box<EvalError>> {
    let function = Function::new(call, width, semantics);
    function.value(&function.start())
}

impl Function {
    /// The current result.
    pub fn value(&self, acc: &Accumulator) -> Result<Value, Box<EvalError>> {
        let mut out = Vec::new();
        self.write(acc, &mut RowWriter::new(&mut out, 1), 0)?;
        Ok(Row(&out).value(0, 1, &self.to))
    }

    /// Writes the current result into a column of a row.
    pub fn write(
        &self,
        acc: &Accumulator,
        writer: &mut RowWriter<'_, Vec<u8>>,
        index: usize,
    ) -> Result<(), Box<EvalError>> {
        use Accumulator as A;
        match acc {
            A::Count(n) => writer.long(index, *n),
            A::SumLong(Some(v)) | A::Long(Some(v)) => writer.long(index, *v),
            A::SumDouble(Some(v)) | A::Double(Some(v)) => writer.double(index, *v),
            A::SumDecimal(Some(v)) if matches!(self.input, Input::TrySum(..)) => {
                if let Ok(sum) = i64::try_from(v.0) {
                    writer.long(index, sum);
                }
            }
            A::SumDecimal(Some(v)) if { v.0 }.unsigned_abs() < 10u128.pow(38) => {
                writer.decimal(index, v.0);
            }
            A::SumDecimal(Some(_)) if self.ansi => {
                return arithmetic_overflow("the sum of decimals");
            }
            A::SumDecimal(Some(_)) => {} // A sum that does not fit is NULL.
            A::Once(once) => return self.write(&once.1, writer, index),
            A::User(state, function) => {
                if let Some(value) = function.finish(state)? {
                    writer.value(index, &value);
                }
            }
            A::Decimal(Some(v)) => writer.decimal(index, v.0),
            A::Bool(Some(v)) => writer.bool(index, *v),
            A::Bytes(Some(v)) => writer.bytes(index, v),
            A::Moments(m) => {
                if let Some(value) = m.read(self.function) {
                    writer.double(index, value);
                }
            }
            A::CoMoments(m) => {
                if m.divides_by_zero(self.function) && self.ansi {
                    let fix = "Use try_divide on the moments, or leave out constant columns";
                    return failed("DIVIDE_BY_ZERO", "the correlation with a constant", fix);
                }
                if let Some(value) = m.read(self.function) {
                    writer.double(index, value);
                }
            }
            A::Held(Some(row)) => {
                let width = if matches!(self.input, Input::By(..)) { 2 } else { 1 };
                field(row, 0, width, &self.to).put(writer, index);
            }
            A::Bytes(None) => match &self.input {
                Input::Bitmap(_, bitmap) => writer.bytes(index, &bitmap.start()),
                Input::CountMin { empty, .. } => writer.bytes(index, empty),
                _ => {}
            },
            A::Values(values)
                if self.function == AggregateFunction::ListAgg && self.is_ordered() =>
            {
                if let Some(text) = self.joined_in_order(values) {
                    writer.bytes(index, &text);
                }
            }
            A::Values(values) if self.function == AggregateFunction::ListAgg => {
                if let Some(text) = values.joined(&self.separator) {
                    writer.bytes(index, &text);
                }
            }
            A::Frequent(items) => {
                let k = if let Input::Frequent { k, .. } = &self.input { *k } else { 0 };
                let items = items.merged();
                let top = items.top(k);
                let mut out = Vec::new();
                let mut array = RowWriter::array(&mut out, top.len());
                let mut item = Vec::new();
                for (at, (value, count)) in top.into_iter().enumerate() {
                    item.clear();
                    let mut row = RowWriter::new(&mut item, 2);
                    value.put(&mut row, 0);
                    row.long(1, count);
                    array.bytes(at, &item);
                }
                writer.bytes(index, &out);
            }
            A::Vector(mean) => {
                if let Some(elements) = mean.elements() {
                    let mut out = Vec::new();
                    let mut array = RowWriter::array(&mut out, elements.len());
                    elements.iter().enumerate().for_each(|(at, x)| array.double(at, f64::from(*x)));
                    writer.bytes(index, &out);
                }
            }
            A::Shape(shape) => writer.bytes(index, shape.text().as_bytes()),
            A::Values(values) => values.write(writer, index),
            A::Distinct(sketch) => writer.long(index, sketch.estimate() as i64),
            A::Percentile(p) if p.count() > 0 => {
                let p = p.with_buffered_merged();
                let found = self.fractions.iter().map(|fraction| p.at(*fraction, &self.from));
                let found: Vec<Value> = found.collect();
                match (self.several, found.as_slice()) {
                    (false, [one]) => writer.value(index, one),
                    _ => writer.value(index, &Value::Array(found)),
                }
            }
            A::Counts(counts) if counts.total() > 0 => self.write_counts(counts, writer, index),
            A::Histogram(histogram) if !histogram.bins().is_empty() => {
                let bins = histogram.bins().iter().map(|bin| self.bin(bin)).collect();
                writer.value(index, &Value::Array(bins));
            }
            A::Top(top) if top.len() > 0 => {
                let values = top.rows().map(|row| field(row, 0, 2, &self.from).value(&self.from));
                writer.value(index, &Value::Array(values.collect()));
            }
            A::AvgDecimal(sum, n) if *n > 0 && self.from.is_interval() => {
                let sum = sum.0;
                if sum != OVERFLOWED {
                    writer.long(index, rounded_quotient(sum, i128::from(*n)));
                }
            }
            A::AvgDouble(sum, n) if *n > 0 => writer.double(index, sum / *n as f64),
            A::AvgDecimal(sum, n) if *n > 0 => {
                let average = match self.decimal_average(sum.0, *n) {
                    Err(_) if !self.ansi => None,
                    average => average?,
                };
                if let Some(v) = average {
                    writer.decimal(index, v);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn decimal_average(&self, sum: i128, count: i64) -> Result<Option<i128>, Box<EvalError>> {
        let DataType::Decimal(_, scale) = self.from else { return Ok(None) };
        if sum == OVERFLOWED {
            return Ok(None);
        }
        if sum.unsigned_abs() >= 10u128.pow(38) {
            return arithmetic_overflow("the sum of an average");
        }
        match decimal::divide((sum, scale), (i128::from(count), 0), &self.to) {
            Some(average) => Ok(Some(average)),
            None => failed(
                "NUMERIC_VALUE_OUT_OF_RANGE.WITH_SUGGESTION",
                format!("the average does not fit {}", self.to),
                "Cast to a decimal of fewer digits",
            ),
        }
    }

    fn is_ordered(&self) -> bool {
        !self.order.is_empty()
    }

    /// The values of `listagg` in the order of WITHIN GROUP, joined by the separator; `None` if
    /// there are none.
    fn joined_in_order(&self, values: &Values) -> Option<Vec<u8>> {
        let DataType::Struct(fields) = &self.collected else { return None };
        fn part<'r>(row: &'r [u8], i: usize, fields: &[Field]) -> Cell<'r> {
            field(row, i, fields.len(), &fields[i].data_type)
        }
        let mut rows: Vec<&[u8]> = values.rows().collect();
        rows.sort_by(|a, b| {
            self.order.iter().enumerate().fold(Ordering::Equal, |so_far, (i, key)| {
                let data_type = &fields[i + 1].data_type;
                let (a, b) = (part(a, i + 1, fields), part(b, i + 1, fields));
                so_far.then_with(|| match (a.is_null(), b.is_null()) {
                    (true, true) => Ordering::Equal,
                    (true, false) if key.nulls_first => Ordering::Less,
                    (true, false) => Ordering::Greater,
                    (false, true) if key.nulls_first => Ordering::Greater,
                    (false, true) => Ordering::Less,
                    _ if key.descending => order(b, a, data_type),
                    _ => order(a, b, data_type),
                })
            })
        });
        let texts: Vec<&[u8]> = rows.into_iter().map(|row| part(row, 0, fields).bytes()).collect();
        (!texts.is_empty()).then(|| texts.join(self.separator.as_slice()))
    }

    /// Writes an exact percentile, or the most frequent value.
    fn write_counts(
        &self,
        counts: &ValueCounts,
        writer: &mut RowWriter<'_, Vec<u8>>,
        index: usize,
    ) {
        let descends = self.order.first().is_some_and(|key| key.descending);
        if self.function == AggregateFunction::Mode {
            if let Some(cell) = self.mode(counts, descends) {
                cell.put(writer, index);
            }
            return;
        }
        let found = self.fractions.iter();
        let found: Vec<Value> = found.map(|f| self.percentile(counts, *f, descends)).collect();
        match (self.several, found.as_slice()) {
            (false, [one]) => writer.value(index, one),
            (true, [_, ..]) => writer.value(index, &Value::Array(found)),
            _ => {}
        }
    }

    /// The most frequent value. Of several, it is the first in the order; without an order, the
    /// first in Spark's hash table.
    fn mode<'c>(&self, counts: &'c ValueCounts, descends: bool) -> Option<Cell<'c>> {
        let first = match self.is_ordered() {
            true => None,
            false => counts.first_most_frequent(&self.from),
        };
        let wanted = if descends { Ordering::Greater } else { Ordering::Less };
        let comparable = self.from.is_orderable();
        let replaces = |so_far: Cell<'_>, cell: Cell<'_>| {
            comparable && order(cell, so_far, &self.from) == wanted
        };
        first.or_else(|| counts.most_frequent(self.from.physical(), replaces))
    }

    /// The value at a fraction of the order: the nearest value before it for `percentile_disc`, or
    /// else interpolated between the neighbours. If `descends`, ranks count from the last value.
    fn percentile(&self, counts: &ValueCounts, fraction: f64, descends: bool) -> Value {
        let total = counts.total();
        let position = fraction * (total - 1) as f64;
        let (low, high) = match self.function == AggregateFunction::PercentileDiscrete {
            true if self.rounds_ranks_down => (position.floor(), position.floor()),
            true => {
                let rank = (fraction * total as f64).ceil().max(1.0) - 1.0;
                (rank, rank)
            }
            false => (position.floor(), position.ceil()),
        };
        let [at_low, at_high] = [low, high].map(|rank| (rank as u64).min(total - 1));
        let numbers = match descends {
            false => counts.numbers_at(&[at_low, at_high]),
            true => counts.numbers_at(&[total - 1 - at_high, total - 1 - at_low]),
        };
        let number = |number: i128| match cell_of(number, self.from.physical()) {
            Cell::Double(v) => v,
            Cell::Long(v) => v as f64,
            _ => 0.0,
        };
        let value = match (numbers.as_slice(), descends) {
            ([a, b], _) if a == b => number(*a),
            ([a, b], false) | ([b, a], true) => {
                let (a, b) = (number(*a), number(*b));
                a + (b - a) * (position - low)
            }
            _ => return Value::Null,
        };
        match self.to_element() {
            DataType::Double => Value::Double(value),
            _ => Value::Long(value as i64),
        }
    }

    fn to_element(&self) -> &DataType {
        match &self.to {
            DataType::Array(element) => element,
            other => other,
        }
    }

    /// A bin of a histogram: its centre in the type of the values, and its height.
    fn bin(&self, bin: &Bin) -> Value {
        let centre = match &self.from {
            DataType::Float | DataType::Double => Value::Double(bin.centre),
            DataType::Decimal(..) => match decimal_of_double(bin.centre, &self.from) {
                Ok(Some(unscaled)) => Value::Decimal(unscaled),
                _ => Value::Null,
            },
            _ => Value::Long(bin.centre as i64),
        };
        Value::Struct(vec![centre, Value::Double(bin.height)])
    }
}

/// A quotient rounded to the nearest whole number, away from zero if two are equally near.
fn rounded_quotient(sum: i128, count: i128) -> i64 {
    let (quotient, rest) = (sum / count, sum % count);
    let up = rest.abs() * 2 >= count;
    (quotient + if up { sum.signum() } else { 0 }) as i64
}
