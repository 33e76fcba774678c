//! Accumulators: the running values of aggregate functions.

mod bitmap;
mod collected_values;
mod encoding;
mod fixed_words;
mod frequent_items;
mod function;
mod growing;
mod hash_order;
mod histogram;
mod hyperloglog;
mod java_random;
mod moments;
mod percentile;
mod sketched;
mod top_rows;
mod update;
mod value_counts;
mod variant_shape;
mod vector_mean;
mod write;

use crate::table::expr::user_function::UserAggregate;
use crate::table::physical::accumulator::collected_values::Values;
pub use crate::table::physical::accumulator::encoding::show_state;
pub(super) use crate::table::physical::accumulator::encoding::{SESSIONS, TIME};
pub(super) use crate::table::physical::accumulator::fixed_words::FixedWords;
use crate::table::physical::accumulator::growing::GrowingValue;
pub(super) use crate::table::physical::accumulator::growing::{
    Buffers, Group, GroupParts, Restored, split_key,
};
pub use crate::table::physical::accumulator::growing::{PartNumber, part_number};
use crate::table::physical::accumulator::hyperloglog::HyperLogLog;
use crate::table::value::Value;
use frequent_items::FrequentItems;
pub(super) use function::Function;
use histogram::Histogram;
use moments::{CoMoments, Moments};
use percentile::QuantileSummary;
use std::sync::Arc;
use top_rows::TopRows;
use value_counts::ValueCounts;
use variant_shape::VariantShape;
use vector_mean::VectorMean;
pub(in crate::table) use write::value_of_no_rows;

/// The unscaled value of a decimal, aligned to 8 bytes so that an accumulator takes 32 bytes. With
/// an `i128` it would take 48.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(Rust, packed(8))]
pub(super) struct Wide(i128);

/// The running value of one function for one key. Its discriminant takes 8 bytes, so that an
/// accumulator consists of whole words.
#[derive(Clone, Debug, PartialEq)]
#[repr(u64)]
pub(super) enum Accumulator {
    Count(i64),
    SumLong(Option<i64>),
    SumDouble(Option<f64>),
    SumDecimal(Option<Wide>),
    AvgDouble(f64, i64),
    AvgDecimal(Wide, i64),
    Bool(Option<bool>),
    Long(Option<i64>),
    Double(Option<f64>),
    Decimal(Option<Wide>),
    Bytes(Option<Vec<u8>>),
    Moments(Box<Moments>),
    CoMoments(Box<CoMoments>),
    /// For `min_by`, `max_by` and others: an encoded row of the value, which may be NULL, and the
    /// ordering key if there is one.
    Held(Option<Vec<u8>>),
    Values(Box<Values>),
    Distinct(Box<HyperLogLog>),
    Percentile(Box<QuantileSummary>),
    Counts(Box<ValueCounts>),
    Histogram(Box<Histogram>),
    /// For `schema_of_variant_agg`: the common type of the values.
    Shape(Box<VariantShape>),
    /// For `approx_top_k`.
    Frequent(Box<FrequentItems>),
    /// For `vector_sum` and `vector_avg`.
    Vector(Box<VectorMean>),
    /// For `min_by` and `max_by` of several values.
    Top(Box<TopRows>),
    /// The state of a user-defined aggregate, with its function.
    User(Box<[Value]>, Arc<UserAggregate>),
    /// For DISTINCT: the values seen so far, and the accumulator of the function.
    Once(Box<(Values, Accumulator)>),
}

const _: () = assert!(size_of::<Accumulator>() == 32);

impl Accumulator {
    /// The heap memory in bytes. Takes constant time: for a user-defined aggregate, the elements of
    /// nested values are not counted.
    pub fn owned_bytes(&self) -> usize {
        match self {
            Self::Bytes(Some(bytes)) | Self::Held(Some(bytes)) => bytes.capacity(),
            Self::Moments(_) => size_of::<Moments>(),
            Self::CoMoments(_) => size_of::<CoMoments>(),
            Self::Values(values) => size_of::<Values>() + values.heap_bytes(),
            Self::Distinct(sketch) => size_of::<HyperLogLog>() + sketch.heap_bytes(),
            Self::Percentile(percentiles) => {
                size_of::<QuantileSummary>() + percentiles.heap_bytes()
            }
            Self::Counts(counts) => size_of::<ValueCounts>() + counts.heap_bytes(),
            Self::Histogram(histogram) => size_of::<Histogram>() + histogram.heap_bytes(),
            Self::Shape(shape) => size_of::<VariantShape>() + shape.heap_bytes(),
            Self::Frequent(items) => size_of::<FrequentItems>() + items.heap_bytes(),
            Self::Vector(mean) => size_of::<VectorMean>() + mean.heap_bytes(),
            Self::Top(top) => size_of::<TopRows>() + top.heap_bytes(),
            Self::User(values, _) => {
                size_of_val(&**values) + values.iter().map(own_bytes).sum::<usize>()
            }
            Self::Once(both) => size_of_val(&**both) + both.0.heap_bytes() + both.1.owned_bytes(),
            _ => 0,
        }
    }

    /// Merges buffered input into the value, so that reading the value does not copy it.
    #[inline]
    pub fn merge_buffered(&mut self) {
        if let Self::Percentile(percentiles) = self {
            percentiles.merge_buffered();
        }
    }
}

/// The heap memory of a value in bytes, without that of its elements.
fn own_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.capacity(),
        Value::Binary(bytes) => bytes.capacity(),
        Value::Array(values) | Value::Struct(values) => values.capacity() * size_of::<Value>(),
        Value::Map(entries) => entries.capacity() * size_of::<(Value, Value)>(),
        _ => 0,
    }
}

impl Default for Accumulator {
    /// A placeholder without heap memory.
    fn default() -> Self {
        Self::Count(0)
    }
}
