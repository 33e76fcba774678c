//! Encodes a stripe: the columns of a group of batches, compressed stream by stream.

use super::footer::{Kind, SPARK_TYPE};
use super::read::machine_zone;
use super::statistics::{Bounds, Statistics};
use super::stream::Codec;
use super::write::kind_of;
use crate::connect::columnar::orc::protobuf::Message;
use crate::connect::columnar::orc::rle_decode::Sign;
use crate::connect::columnar::orc::rle_encode;
use crate::connect::columnar::write::other;
use crate::table::datetime::{Tz, to_utc};
use crate::table::types::{DataType, Field};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use std::io;

/// Stream kinds, as numbered by the ORC specification.
const PRESENT: u64 = 0;
const DATA: u64 = 1;
const LENGTH: u64 = 2;
const SECONDARY: u64 = 5;
/// Column encodings, as numbered by the ORC specification.
const DIRECT: u64 = 0;
const DIRECT_V2: u64 = 2;

/// A type of the file's type tree: a column or a part of one.
#[derive(Clone, Debug)]
pub struct Node {
    id: usize,
    kind: Kind,
    data_type: DataType,
    spark: Option<String>,
    children: Vec<(String, Node)>,
}

impl Node {
    /// The type of a row, and the number of types in its tree.
    pub fn root(fields: &[Field]) -> (Self, usize) {
        let mut next = 0;
        let root = Self::new(&DataType::Struct(fields.to_vec()), &mut next);
        (root, next)
    }

    fn new(data_type: &DataType, next: &mut usize) -> Self {
        let id = *next;
        *next += 1;
        let (kind, spark) = kind_of(data_type);
        let mut child = |name: &str, of: &DataType| (name.to_string(), Self::new(of, next));
        let children = match data_type {
            DataType::Array(element) => vec![child("", element)],
            DataType::Map(key, value) => vec![child("", key), child("", value)],
            DataType::Struct(fields) => {
                fields.iter().map(|field| child(&field.name, &field.data_type)).collect()
            }
            _ => Vec::new(),
        };
        Self { id, kind, data_type: data_type.clone(), spark, children }
    }

    /// Calls `see` with each type of the tree, in the order of their ids.
    pub fn types(&self, see: &mut dyn FnMut(&Self)) {
        see(self);
        self.children.iter().for_each(|(_, child)| child.types(see));
    }

    /// Encodes the type for the footer.
    pub fn message(&self) -> Message {
        let (mut all, mut ids) = (Message::default(), Message::default());
        all.number(1, self.kind as u64);
        self.children.iter().for_each(|(_, child)| ids.varint(child.id as u64));
        if !self.children.is_empty() {
            all.bytes(2, &ids.0);
        }
        if self.kind == Kind::Struct {
            self.children.iter().for_each(|(name, _)| all.bytes(3, name.as_bytes()));
        }
        if let DataType::Decimal(precision, scale) = self.data_type {
            all.number(5, u64::from(precision));
            all.number(6, u64::from(scale));
        }
        if let Some(spark) = &self.spark {
            let mut pair = Message::default();
            pair.bytes(1, SPARK_TYPE.as_bytes());
            pair.bytes(2, spark.as_bytes());
            all.bytes(7, &pair.0);
        }
        all
    }
}

/// A stripe under construction.
pub struct Stripe {
    codec: Codec,
    block: usize,
    /// The compressed streams, one after the other.
    pub bytes: Vec<u8>,
    streams: Vec<Message>,
    has_times: bool,
    /// Statistics, indexed by type id.
    pub statistics: Vec<Statistics>,
}

/// A batch's array of a column, and the null mask of the enclosing structs. For a row whose
/// enclosing struct is NULL, the column's streams contain no value.
type Part = (ArrayRef, Option<NullBuffer>);

/// Calls `see` with the array and the index of each non-NULL row.
fn each<'p>(parts: &'p [Part], mut see: impl FnMut(&'p ArrayRef, usize)) {
    for (array, parent) in parts {
        match NullBuffer::union(array.nulls(), parent.as_ref()) {
            None => (0..array.len()).for_each(|row| see(array, row)),
            Some(nulls) => nulls.valid_indices().for_each(|row| see(array, row)),
        }
    }
}

/// Collects the non-NULL values of a column.
fn values<T: ArrowPrimitiveType, V>(parts: &[Part], of: impl Fn(T::Native) -> V) -> Vec<V> {
    let mut all = Vec::with_capacity(parts.iter().map(|(array, _)| array.len()).sum());
    for (array, parent) in parts {
        let own = array.as_primitive::<T>().values();
        match NullBuffer::union(array.nulls(), parent.as_ref()) {
            None => all.extend(own.iter().map(|value| of(*value))),
            Some(nulls) => all.extend(nulls.valid_indices().map(|row| of(own[row]))),
        }
    }
    all
}

fn bounds<T: Copy + Ord>(values: &[T], of: impl Fn(T, T) -> Bounds) -> Bounds {
    match (values.iter().min(), values.iter().max()) {
        (Some(least), Some(most)) => of(*least, *most),
        _ => Bounds::None,
    }
}

impl Stripe {
    /// Creates an empty stripe for a file with `types` types.
    pub fn new(codec: Codec, block: usize, types: usize) -> Self {
        let statistics = vec![Statistics::default(); types];
        let (bytes, streams) = (Vec::new(), Vec::new());
        Self { codec, block, bytes, streams, has_times: false, statistics }
    }

    /// Encodes all columns of the batches.
    pub fn encode(&mut self, root: &Node, batches: &[RecordBatch]) -> io::Result<()> {
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        self.statistics[root.id].values = rows;
        for (i, (_, child)) in root.children.iter().enumerate() {
            let parts: Vec<Part> =
                batches.iter().map(|batch| (batch.column(i).clone(), None)).collect();
            self.column(child, &parts)?;
        }
        Ok(())
    }

    /// Encodes the footer of the stripe.
    pub fn footer(&self, root: &Node) -> Message {
        let mut all = Message::default();
        self.streams.iter().for_each(|stream| all.bytes(1, &stream.0));
        root.types(&mut |node| {
            let direct = matches!(
                node.kind,
                Kind::Boolean | Kind::Byte | Kind::Float | Kind::Double | Kind::Struct
            );
            let mut encoding = Message::default();
            encoding.number(1, if direct { DIRECT } else { DIRECT_V2 });
            all.bytes(2, &encoding.0);
        });
        if self.has_times {
            all.bytes(3, machine_zone().name().as_bytes());
        }
        all
    }

    fn stream(&mut self, node: &Node, kind: u64, bytes: &[u8]) -> io::Result<()> {
        let begin = self.bytes.len();
        self.codec.compress(bytes, self.block, &mut self.bytes)?;
        let mut stream = Message::default();
        stream.number(1, kind);
        stream.number(2, node.id as u64);
        stream.number(3, (self.bytes.len() - begin) as u64);
        self.streams.push(stream);
        Ok(())
    }

    fn integers(&mut self, node: &Node, kind: u64, values: &[i64], sign: Sign) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(values.len() * 2);
        rle_encode::integers(values, sign, &mut bytes);
        self.stream(node, kind, &bytes)
    }

    /// Writes the stream of null flags, unless no row is NULL.
    fn present(&mut self, node: &Node, parts: &[Part]) -> io::Result<()> {
        let rows: usize = parts.iter().map(|(array, _)| array.len()).sum();
        if parts.iter().all(|(array, parent)| array.null_count() == 0 && parent.is_none()) {
            self.statistics[node.id].values = rows as u64;
            return Ok(());
        }
        let mut there = Vec::with_capacity(rows);
        let mut nulls = false;
        for (array, parent) in parts {
            for row in 0..array.len() {
                if parent.as_ref().is_none_or(|parent| parent.is_valid(row)) {
                    there.push(array.is_valid(row));
                    nulls |= array.is_null(row);
                }
            }
        }
        let own = &mut self.statistics[node.id];
        own.nulls = nulls;
        own.values = there.iter().filter(|there| **there).count() as u64;
        if !nulls {
            return Ok(());
        }
        let mut bytes = Vec::new();
        rle_encode::bits(there.into_iter(), &mut bytes);
        self.stream(node, PRESENT, &bytes)
    }

    fn column(&mut self, node: &Node, parts: &[Part]) -> io::Result<()> {
        self.present(node, parts)?;
        let found = match &node.data_type {
            DataType::Null | DataType::Boolean => self.booleans(node, parts)?,
            DataType::Byte => {
                let all = values::<Int8Type, _>(parts, |value| value as u8);
                let mut bytes = Vec::new();
                rle_encode::bytes(&all, &mut bytes);
                self.stream(node, DATA, &bytes)?;
                let all: Vec<i64> = all.into_iter().map(|byte| i64::from(byte as i8)).collect();
                bounds(&all, Bounds::Long)
            }
            DataType::Short => {
                self.longs(node, values::<Int16Type, _>(parts, i64::from), Bounds::Long)?
            }
            DataType::Int | DataType::YearMonthInterval(..) => {
                self.longs(node, values::<Int32Type, _>(parts, i64::from), Bounds::Long)?
            }
            DataType::Long | DataType::DayTimeInterval(..) | DataType::Time(_) => {
                self.longs(node, values::<Int64Type, _>(parts, |value| value), Bounds::Long)?
            }
            DataType::TimestampNtz => {
                let all = values::<TimestampMicrosecondType, _>(parts, |value| value);
                self.longs(node, all, Bounds::Long)?
            }
            DataType::Date => {
                self.longs(node, values::<Date32Type, _>(parts, i64::from), Bounds::Day)?
            }
            DataType::Timestamp => self.times(node, parts)?,
            DataType::Float => {
                let all = values::<Float32Type, _>(parts, |value| value);
                let bytes: Vec<u8> = all.iter().flat_map(|value| value.to_le_bytes()).collect();
                self.stream(node, DATA, &bytes)?;
                Bounds::of_doubles(all.into_iter().map(f64::from))
            }
            DataType::Double => {
                let all = values::<Float64Type, _>(parts, |value| value);
                let bytes: Vec<u8> = all.iter().flat_map(|value| value.to_le_bytes()).collect();
                self.stream(node, DATA, &bytes)?;
                Bounds::of_doubles(all.into_iter())
            }
            DataType::Decimal(_, scale) => self.decimals(node, parts, *scale)?,
            DataType::String => {
                let (mut lengths, mut bytes) = (Vec::new(), Vec::new());
                each(parts, |array, row| {
                    let value = array.as_string::<i32>().value(row);
                    lengths.push(value.len() as i64);
                    bytes.extend_from_slice(value.as_bytes());
                });
                self.stream(node, DATA, &bytes)?;
                self.integers(node, LENGTH, &lengths, Sign::Unsigned)?;
                let mut all = Vec::new();
                each(parts, |array, row| all.push(array.as_string::<i32>().value(row)));
                Bounds::of_texts(all.into_iter())
            }
            DataType::Binary | DataType::Variant | DataType::CalendarInterval => {
                let (mut lengths, mut bytes) = (Vec::new(), Vec::new());
                each(parts, |array, row| {
                    let value = array.as_binary::<i32>().value(row);
                    lengths.push(value.len() as i64);
                    bytes.extend_from_slice(value);
                });
                self.stream(node, DATA, &bytes)?;
                self.integers(node, LENGTH, &lengths, Sign::Unsigned)?;
                Bounds::None
            }
            DataType::Array(_) | DataType::Map(..) | DataType::Struct(_) => {
                self.nested(node, parts)?;
                Bounds::None
            }
        };
        self.statistics[node.id].bounds = found;
        Ok(())
    }

    fn longs(
        &mut self,
        node: &Node,
        values: Vec<i64>,
        of: impl Fn(i64, i64) -> Bounds,
    ) -> io::Result<Bounds> {
        self.integers(node, DATA, &values, Sign::Signed)?;
        Ok(bounds(&values, of))
    }

    fn booleans(&mut self, node: &Node, parts: &[Part]) -> io::Result<Bounds> {
        let mut all = Vec::new();
        each(parts, |array, row| all.push(array.as_boolean().value(row)));
        let count = all.iter().filter(|value| **value).count() as u64;
        let mut bytes = Vec::new();
        rle_encode::bits(all.into_iter(), &mut bytes);
        self.stream(node, DATA, &bytes)?;
        Ok(Bounds::True(count))
    }

    /// Writes timestamps as a stream of seconds since 2015-01-01 and a stream of nanoseconds.
    fn times(&mut self, node: &Node, parts: &[Part]) -> io::Result<Bounds> {
        self.has_times = true;
        let zone = machine_zone();
        let base_s = to_utc(1_420_070_400_000_000, zone).div_euclid(1_000_000);
        let all = values::<TimestampMicrosecondType, _>(parts, |value| value);
        let seconds = |micros: i64| {
            let (seconds, nanos) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
            // Negative seconds with a fraction of at least 1 ms are truncated towards zero, as
            // readers expect. The last second before 1970 is therefore ambiguous with the first
            // one after it, as it is in files of the Java writer.
            let cut = seconds < 0 && nanos > 999;
            seconds + i64::from(cut) - base_s
        };
        let nanos = |micros: i64| {
            let mut left = micros.rem_euclid(1_000_000) * 1000;
            if left == 0 {
                return 0;
            }
            // The lowest three bits encode the number of trailing decimal zeros that are removed,
            // minus one.
            let mut zeros = 0;
            while left % 10 == 0 && zeros < 8 {
                (left, zeros) = (left / 10, zeros + 1);
            }
            left << 3 | (zeros - 1).max(0)
        };
        self.integers(
            node,
            DATA,
            &all.iter().map(|v| seconds(*v)).collect::<Vec<_>>(),
            Sign::Signed,
        )?;
        self.integers(
            node,
            SECONDARY,
            &all.iter().map(|v| nanos(*v)).collect::<Vec<_>>(),
            Sign::Unsigned,
        )?;
        // The format stores bounds in local time. In zones other than UTC such bounds would be
        // wrong around the hour at which a clock is turned back, so none are written.
        Ok(if zone == Tz::UTC { bounds(&all, Bounds::Time) } else { Bounds::Unknown })
    }

    fn decimals(&mut self, node: &Node, parts: &[Part], scale: u8) -> io::Result<Bounds> {
        let all = values::<Decimal128Type, _>(parts, |value| value);
        let mut bytes = Vec::with_capacity(all.len() * 4);
        all.iter().for_each(|value| rle_encode::unscaled(*value, &mut bytes));
        self.stream(node, DATA, &bytes)?;
        self.integers(node, SECONDARY, &vec![i64::from(scale); all.len()], Sign::Signed)?;
        Ok(bounds(&all, |a, b| Bounds::Decimal(a, b, scale)))
    }

    fn nested(&mut self, node: &Node, parts: &[Part]) -> io::Result<()> {
        if node.kind == Kind::Struct {
            for (i, (_, child)) in node.children.iter().enumerate() {
                let of: Vec<Part> = parts
                    .iter()
                    .map(|(array, parent)| {
                        let nulls = NullBuffer::union(array.nulls(), parent.as_ref());
                        (array.as_struct().column(i).clone(), nulls)
                    })
                    .collect();
                self.column(child, &of)?;
            }
            return Ok(());
        }
        let (mut lengths, mut children) = (Vec::new(), vec![Vec::new(); node.children.len()]);
        for (array, parent) in parts {
            let (offsets, of) = elements(array, node.kind);
            let nulls = NullBuffer::union(array.nulls(), parent.as_ref());
            let mut sum = 0;
            for (row, pair) in offsets.windows(2).enumerate() {
                if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                    let length = i64::from(pair[1] - pair[0]);
                    lengths.push(length);
                    sum += length;
                }
            }
            let (from, to) = (offsets[0], offsets[offsets.len() - 1]);
            if sum != i64::from(to - from) {
                return Err(other("a list that is NULL has elements"));
            }
            for (all, of) in children.iter_mut().zip(of) {
                all.push((of.slice(from as usize, (to - from) as usize), None));
            }
        }
        self.integers(node, LENGTH, &lengths, Sign::Unsigned)?;
        for ((_, child), parts) in node.children.iter().zip(&children) {
            self.column(child, parts)?;
        }
        Ok(())
    }
}

/// The offsets of a list or map array and its child arrays.
fn elements(array: &ArrayRef, kind: Kind) -> (&OffsetBuffer<i32>, Vec<&ArrayRef>) {
    if kind == Kind::List {
        let list = array.as_list::<i32>();
        return (list.offsets(), vec![list.values()]);
    }
    let map = array.as_map();
    (map.offsets(), vec![map.keys(), map.values()])
}
