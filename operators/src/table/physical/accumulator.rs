//! Running values of aggregate functions.

use crate::table::expr::cast::{arithmetic_overflow, rescale};
use crate::table::expr::compile::{BoolFn, Compiled, Cx, EvalError, TestFn, compile};
use crate::table::expr::functions::order_doubles;
use crate::table::plan::{AggregateCall, AggregateFunction};
use crate::table::row::RowWriter;
use crate::table::types::DataType;
use std::cmp::Ordering;

/// One function's running value for one key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Accumulator {
    Count(i64),
    SumLong(Option<i64>),
    SumDouble(Option<f64>),
    SumDecimal(Option<i128>),
    AvgDouble(f64, i64),
    AvgDecimal(i128, i64),
    Bool(Option<bool>),
    Long(Option<i64>),
    Double(Option<f64>),
    Decimal(Option<i128>),
    Bytes(Option<Vec<u8>>),
}

enum Input {
    CountAll,
    CountValue(TestFn<bool>),
    Sum(Compiled),
    Avg(Compiled),
    Extreme(Compiled, Ordering),
}

/// A call, compiled: how a record changes an accumulator, and how it is read.
pub(super) struct Function {
    input: Input,
    filter: Option<BoolFn>,
    from: DataType,
    to: DataType,
}

impl Function {
    pub fn new(call: &AggregateCall, width: usize) -> Self {
        let filter = call.filter.as_ref().map(|f| compile(f, width).bool());
        let from = call.arg.as_ref().map_or(DataType::Null, |arg| arg.data_type.clone());
        let arg = call.arg.as_ref().map(|arg| compile(arg, width));
        let input = match (call.function, arg) {
            (AggregateFunction::Count, Some(arg)) => {
                Input::CountValue(crate::table::expr::functions::is_null(arg))
            }
            (AggregateFunction::Sum, Some(arg)) => Input::Sum(arg),
            (AggregateFunction::Avg, Some(arg)) => Input::Avg(arg),
            (AggregateFunction::Min, Some(arg)) => Input::Extreme(arg, Ordering::Less),
            (AggregateFunction::Max, Some(arg)) => Input::Extreme(arg, Ordering::Greater),
            (_, None) => Input::CountAll,
        };
        Self { input, filter, from, to: call.data_type.clone() }
    }

    /// The value before any record.
    pub fn start(&self) -> Accumulator {
        match &self.input {
            Input::CountAll | Input::CountValue(_) => Accumulator::Count(0),
            Input::Sum(Compiled::Long(_)) => Accumulator::SumLong(None),
            Input::Sum(Compiled::Decimal(_)) => Accumulator::SumDecimal(None),
            Input::Sum(_) => Accumulator::SumDouble(None),
            Input::Avg(Compiled::Decimal(_)) => Accumulator::AvgDecimal(0, 0),
            Input::Avg(_) => Accumulator::AvgDouble(0.0, 0),
            Input::Extreme(arg, _) => match arg {
                Compiled::Bool(_) => Accumulator::Bool(None),
                Compiled::Long(_) => Accumulator::Long(None),
                Compiled::Double(_) => Accumulator::Double(None),
                Compiled::Decimal(_) => Accumulator::Decimal(None),
                Compiled::Bytes(_) => Accumulator::Bytes(None),
            },
        }
    }

    /// Takes a record in.
    #[inline]
    pub fn add(&self, acc: &mut Accumulator, cx: Cx<'_>) -> Result<(), Box<EvalError>> {
        if let Some(filter) = &self.filter
            && filter(cx)? != Some(true)
        {
            return Ok(());
        }
        use Accumulator as A;
        match (&self.input, acc) {
            (Input::CountAll, A::Count(n)) => *n += 1,
            (Input::CountValue(is_null), A::Count(n)) => *n += i64::from(!is_null(cx)?),
            (Input::Sum(Compiled::Long(f)), A::SumLong(sum)) => {
                if let Some(v) = f(cx)? {
                    match sum.unwrap_or(0).checked_add(v) {
                        Some(total) => *sum = Some(total),
                        None => return arithmetic_overflow("the sum"),
                    }
                }
            }
            (Input::Sum(Compiled::Double(f)), A::SumDouble(sum)) => {
                if let Some(v) = f(cx)? {
                    *sum = Some(sum.unwrap_or(0.0) + v);
                }
            }
            (Input::Sum(Compiled::Decimal(f)), A::SumDecimal(sum)) => {
                if let Some(v) = f(cx)? {
                    match sum.unwrap_or(0).checked_add(v) {
                        Some(total) => *sum = Some(total),
                        None => return arithmetic_overflow("the sum"),
                    }
                }
            }
            (Input::Avg(Compiled::Double(f)), A::AvgDouble(sum, n)) => {
                if let Some(v) = f(cx)? {
                    *sum += v;
                    *n += 1;
                }
            }
            (Input::Avg(Compiled::Decimal(f)), A::AvgDecimal(sum, n)) => {
                if let Some(v) = f(cx)? {
                    match sum.checked_add(v) {
                        Some(total) => *sum = total,
                        None => return arithmetic_overflow("the average's sum"),
                    }
                    *n += 1;
                }
            }
            (Input::Extreme(f, want), acc) => extreme(f, *want, acc, cx)?,
            _ => unreachable!("`start` made the accumulator"),
        }
        Ok(())
    }

    /// Writes the present value as a column.
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
            A::SumDecimal(Some(v)) => {
                let scale = self.scale();
                if let Some(v) = rescale(*v, scale, &self.to)? {
                    writer.decimal(index, v);
                }
            }
            A::Decimal(Some(v)) => writer.decimal(index, *v),
            A::Bool(Some(v)) => writer.bool(index, *v),
            A::Bytes(Some(v)) => writer.bytes(index, v),
            A::AvgDouble(sum, n) if *n > 0 => writer.double(index, sum / *n as f64),
            A::AvgDecimal(sum, n) if *n > 0 => {
                // One digit more than the result has, so that it is rounded right.
                let DataType::Decimal(_, to_scale) = self.to else { return Ok(()) };
                let digits = u32::from(to_scale + 1 - self.scale());
                let Some(scaled) = sum.checked_mul(10i128.pow(digits)) else {
                    return arithmetic_overflow("the average");
                };
                if let Some(v) = rescale(scaled / i128::from(*n), to_scale + 1, &self.to)? {
                    writer.decimal(index, v);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn scale(&self) -> u8 {
        match self.from {
            DataType::Decimal(_, scale) => scale,
            _ => 0,
        }
    }
}

#[inline]
fn keep<T>(best: &mut Option<T>, value: T, want: Ordering, order: impl Fn(&T, &T) -> Ordering) {
    if best.as_ref().is_none_or(|best| order(&value, best) == want) {
        *best = Some(value);
    }
}

fn extreme(
    f: &Compiled,
    want: Ordering,
    acc: &mut Accumulator,
    cx: Cx<'_>,
) -> Result<(), Box<EvalError>> {
    use Accumulator as A;
    match (f, acc) {
        (Compiled::Bool(f), A::Bool(best)) => {
            if let Some(v) = f(cx)? {
                keep(best, v, want, Ord::cmp);
            }
        }
        (Compiled::Long(f), A::Long(best)) => {
            if let Some(v) = f(cx)? {
                keep(best, v, want, Ord::cmp);
            }
        }
        (Compiled::Double(f), A::Double(best)) => {
            if let Some(v) = f(cx)? {
                keep(best, v, want, |a, b| order_doubles(*a, *b));
            }
        }
        (Compiled::Decimal(f), A::Decimal(best)) => {
            if let Some(v) = f(cx)? {
                keep(best, v, want, Ord::cmp);
            }
        }
        (Compiled::Bytes(f), A::Bytes(best)) => {
            if let Some(v) = f(cx)?
                && best.as_deref().is_none_or(|best| v.cmp(best) == want)
            {
                // The buffer is kept from value to value.
                let buffer = best.get_or_insert_default();
                buffer.clear();
                buffer.extend_from_slice(v);
            }
        }
        _ => unreachable!("`start` made the accumulator"),
    }
    Ok(())
}
