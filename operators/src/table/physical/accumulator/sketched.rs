//! Compiles the arguments of sketches, bitmaps, histograms and exact percentiles.

use super::bitmap::{Bitmap, CountMin};
use super::function::Input;
use super::vector_mean::VectorResult;
use crate::table::expr::compile::Compiled;
use crate::table::expr::{Node, Resolved};
use crate::table::plan::aggregate_function::{AggregateCall, AggregateFunction as F};
use crate::table::types::{DataType, Field};
use crate::table::value::Value;
use std::ops::RangeInclusive;

/// Compiles a call of such a function. `arg` is its first argument.
pub(super) fn sketched(
    call: &AggregateCall,
    arg: Compiled,
    compile: &dyn Fn(&Resolved) -> Compiled,
) -> Input {
    match call.function {
        F::BitmapConstruct => Input::Bitmap(arg.cells(), Bitmap::Construct),
        F::BitmapOr => Input::Bitmap(arg.cells(), Bitmap::Or),
        F::BitmapAnd => Input::Bitmap(arg.cells(), Bitmap::And),
        F::CountMinSketch => {
            let [eps, confidence] = [1, 2].map(|i| call.constant(i).unwrap_or(0.5));
            let seed = match call.args.get(3).map(|arg| &arg.node) {
                Some(Node::Literal(Value::Long(seed))) => *seed,
                _ => 0,
            };
            let shape = CountMin::new(eps, confidence);
            let is_text = !call.args[0].data_type.is_integral();
            let empty = shape.start(seed);
            Input::CountMin { value: arg.cells(), is_text, shape, empty }
        }
        F::HistogramNumeric => {
            let bins = call.constant(1).map_or(2, |bins| bins as usize);
            let value = match &call.args[0].data_type {
                t if t.is_numeric() => compile(&call.args[0].clone().coerce(&DataType::Double)),
                _ => arg,
            };
            Input::Histogram(value.cells(), bins)
        }
        F::Percentile | F::PercentileDiscrete => {
            let frequency = call.args.get(2).map(|arg| compile(arg).long());
            Input::Counts(arg.cells(), frequency)
        }
        F::Mode => Input::Counts(arg.cells(), None),
        F::SchemaOfVariant => Input::Shape(arg.cells()),
        F::ApproxTopK => Input::Frequent {
            value: arg.cells(),
            k: call.constant(1).unwrap_or(5.0) as usize,
            items_max: call.constant(2).unwrap_or(10_000.0) as usize,
        },
        F::VectorSum => Input::Vector(arg.cells(), VectorResult::Sum),
        F::VectorAverage => Input::Vector(arg.cells(), VectorResult::Mean),
        _ => Input::CountAll,
    }
}

/// The range of the sums of a type: of 32 bits for months, of 64 bits for any other.
pub(super) fn range(data_type: &DataType) -> RangeInclusive<i64> {
    match data_type {
        DataType::YearMonthInterval(..) => i64::from(i32::MIN)..=i64::from(i32::MAX),
        _ => i64::MIN..=i64::MAX,
    }
}

/// The struct that `listagg` with WITHIN GROUP collects: the value and the keys of the order.
pub(super) fn collected(call: &AggregateCall) -> Resolved {
    let keys = call.args.len() - call.order.len();
    let parts: Vec<&Resolved> = call.args.first().into_iter().chain(&call.args[keys..]).collect();
    let mut fields = Vec::new();
    let mut args = Vec::new();
    for (i, part) in parts.into_iter().enumerate() {
        let name = format!("k{i}");
        args.push(Resolved::literal(Value::String(name.clone()), DataType::String));
        args.push(part.clone());
        fields.push(Field::new(name, part.data_type.clone(), true));
    }
    let node = Node::Call("named_struct", args);
    // A row without a value is not collected.
    let value = Resolved { node, data_type: DataType::Struct(fields), nullable: true };
    let is_null = Node::Call("isnotnull", vec![call.args[0].clone()]);
    let condition = Resolved { node: is_null, data_type: DataType::Boolean, nullable: false };
    let data_type = value.data_type.clone();
    let otherwise = Some(Box::new(Resolved::literal(Value::Null, data_type.clone())));
    Resolved { node: Node::Case(vec![(condition, value)], otherwise), data_type, nullable: true }
}
