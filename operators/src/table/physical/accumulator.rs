//! Running values of aggregate functions.

use crate::table::expr::Resolved;
use crate::table::expr::cast::{arithmetic_overflow, rescale};
use crate::table::expr::compile::{
    BoolFn, Compiled, Cx, EvalError, Semantics, TestFn, compile, fold,
};
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

/// Writes an optional value: a byte that says whether it is there, and its bytes, always as many
/// for one type, so that a changed value fits where the old one stood.
fn put<const N: usize>(value: Option<[u8; N]>, out: &mut Vec<u8>) {
    out.push(u8::from(value.is_some()));
    out.extend_from_slice(&value.unwrap_or([0; N]));
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// The inverse of [`put`]; the outer `None` says that the bytes end too early.
fn take_option<const N: usize>(bytes: &mut &[u8]) -> Option<Option<[u8; N]>> {
    let [there] = take::<1>(bytes)?;
    let value = take::<N>(bytes)?;
    Some((there != 0).then_some(value))
}

impl Accumulator {
    /// The kind's name, as a checkpoint's layout has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Count(_) => "count",
            Self::SumLong(_) => "sum long",
            Self::SumDouble(_) => "sum double",
            Self::SumDecimal(_) => "sum decimal",
            Self::AvgDouble(..) => "avg double",
            Self::AvgDecimal(..) => "avg decimal",
            Self::Bool(_) => "boolean",
            Self::Long(_) => "long",
            Self::Double(_) => "double",
            Self::Decimal(_) => "decimal",
            Self::Bytes(_) => "bytes",
        }
    }

    /// An empty value of a kind.
    fn of_kind(kind: &str) -> Option<Self> {
        Some(match kind {
            "count" => Self::Count(0),
            "sum long" => Self::SumLong(None),
            "sum double" => Self::SumDouble(None),
            "sum decimal" => Self::SumDecimal(None),
            "avg double" => Self::AvgDouble(0.0, 0),
            "avg decimal" => Self::AvgDecimal(0, 0),
            "boolean" => Self::Bool(None),
            "long" => Self::Long(None),
            "double" => Self::Double(None),
            "decimal" => Self::Decimal(None),
            "bytes" => Self::Bytes(None),
            _ => return None,
        })
    }

    fn show(&self) -> String {
        fn or_null<T: ToString>(value: Option<T>) -> String {
            value.map_or("NULL".to_string(), |value| value.to_string())
        }
        match self {
            Self::Count(n) => n.to_string(),
            Self::SumLong(v) | Self::Long(v) => or_null(*v),
            Self::SumDouble(v) | Self::Double(v) => or_null(*v),
            Self::SumDecimal(v) | Self::Decimal(v) => or_null(v.map(|v| format!("{v} unscaled"))),
            Self::AvgDouble(sum, n) => format!("{sum} / {n}"),
            Self::AvgDecimal(sum, n) => format!("{sum} unscaled / {n}"),
            Self::Bool(v) => or_null(*v),
            Self::Bytes(v) => or_null(v.as_ref().map(|v| v.escape_ascii().to_string())),
        }
    }

    /// Appends the value as it stands in a checkpoint.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Count(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::SumLong(v) | Self::Long(v) => put(v.map(i64::to_le_bytes), out),
            Self::SumDouble(v) | Self::Double(v) => put(v.map(f64::to_le_bytes), out),
            Self::SumDecimal(v) | Self::Decimal(v) => put(v.map(i128::to_le_bytes), out),
            Self::AvgDouble(sum, n) => {
                out.extend_from_slice(&sum.to_le_bytes());
                out.extend_from_slice(&n.to_le_bytes());
            }
            Self::AvgDecimal(sum, n) => {
                out.extend_from_slice(&sum.to_le_bytes());
                out.extend_from_slice(&n.to_le_bytes());
            }
            Self::Bool(v) => put(v.map(|v| [u8::from(v)]), out),
            Self::Bytes(v) => {
                let length = v.as_ref().map(|v| (v.len() as u32).to_le_bytes());
                put(length, out);
                out.extend_from_slice(v.as_deref().unwrap_or_default());
            }
        }
    }

    /// Takes the value from the front of what [`encode`](Self::encode) wrote for the same kind;
    /// `None` if the bytes end too early.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        match self {
            Self::Count(n) => *n = i64::from_le_bytes(take(bytes)?),
            Self::SumLong(v) | Self::Long(v) => *v = take_option(bytes)?.map(i64::from_le_bytes),
            Self::SumDouble(v) | Self::Double(v) => {
                *v = take_option(bytes)?.map(f64::from_le_bytes);
            }
            Self::SumDecimal(v) | Self::Decimal(v) => {
                *v = take_option(bytes)?.map(i128::from_le_bytes);
            }
            Self::AvgDouble(sum, n) => {
                *sum = f64::from_le_bytes(take(bytes)?);
                *n = i64::from_le_bytes(take(bytes)?);
            }
            Self::AvgDecimal(sum, n) => {
                *sum = i128::from_le_bytes(take(bytes)?);
                *n = i64::from_le_bytes(take(bytes)?);
            }
            Self::Bool(v) => *v = take_option::<1>(bytes)?.map(|[v]| v != 0),
            Self::Bytes(v) => match take_option(bytes)?.map(u32::from_le_bytes) {
                None => *v = None,
                Some(length) => {
                    let (value, rest) = bytes.split_at_checked(length as usize)?;
                    *bytes = rest;
                    *v = Some(value.to_vec());
                }
            },
        }
        Some(())
    }
}

/// A value of a checkpoint as text, part by part; `None` if it is not of these kinds.
pub fn show_state(kinds: &[String], mut value: &[u8]) -> Option<Vec<String>> {
    let mut show = |kind: &String| {
        let mut accumulator = Accumulator::of_kind(kind)?;
        accumulator.decode(&mut value)?;
        Some(accumulator.show())
    };
    kinds.iter().map(&mut show).collect()
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
    pub fn new(call: &AggregateCall, width: usize, semantics: Semantics) -> Self {
        let compile = |expr: &Resolved| compile(&fold(expr.clone(), semantics), width, semantics);
        let filter = call.filter.as_ref().map(|f| compile(f).bool());
        let from = call.arg.as_ref().map_or(DataType::Null, |arg| arg.data_type.clone());
        let arg = call.arg.as_ref().map(compile);
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
