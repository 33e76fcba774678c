//! Column decoders: the streams of a stripe become Arrow arrays of the requested types.
//!
//! Only the requested fields of a struct are decoded. Buffers grow as values are read, and the
//! elements of lists and maps are limited, to bound the memory that a corrupt length can take.

use super::footer::{Kind, StripeFooter, Type};
use super::stream::{ByteSource, Compression, Stream};
use crate::connect::columnar::julian_calendar::{days_of_hybrid, hybrid_local, micros_of_hybrid};
use crate::connect::columnar::orc::rle_decode::{Bits, ByteRuns, Integers, Sign};
use crate::connect::columnar::orc::schema_evolution;
use crate::connect::columnar::orc::schema_evolution::{Cell, named};
use crate::connect::columnar::schema::to_arrow;
use crate::table::datetime::{Tz, to_utc};
use crate::table::types::DataType;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, ListArray, MapArray, PrimitiveArray, StringArray,
    StructArray, new_null_array,
};
use arrow_buffer::{BooleanBufferBuilder, NullBuffer, OffsetBuffer};
use arrow_schema::{DataType as Arrow, FieldRef};
use std::sync::Arc;

/// The maximum number of elements in all lists or maps of a column in one batch.
const ELEMENTS_MAX: i64 = 64 << 20;

/// Stream kinds, as numbered by the ORC specification.
const PRESENT: u64 = 0;
const DATA: u64 = 1;
const LENGTH: u64 = 2;
const DICTIONARY: u64 = 3;
const SECONDARY: u64 = 5;

/// The data that all column decoders of a stripe share.
pub struct StripeContext<'s> {
    /// The source of the file's bytes.
    pub file: &'s ByteSource,
    /// The compression of the file.
    pub compression: Compression,
    /// The footer of the stripe, which locates the streams.
    pub footer: &'s StripeFooter,
    /// The calendar and time zones for dates and timestamps.
    pub clock: Clock,
}

/// The calendar and time zones of a file's dates and timestamps.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Whether dates and timestamps use the hybrid calendar (Julian before 1582-10-15).
    pub hybrid: bool,
    /// The time zone of the writer, as the stripe names it.
    pub writer: Tz,
    /// The time zone of the reader. A value of ORC's type `timestamp` keeps its local time: its
    /// digits in the writer's zone are its digits here.
    pub reader: Tz,
}

impl Clock {
    /// The epoch of ORC timestamps: 2015-01-01 in a zone, in seconds since 1970.
    fn base_s(zone: Tz) -> i64 {
        to_utc(1_420_070_400_000_000, zone).div_euclid(1_000_000)
    }

    /// Converts a stored timestamp to microseconds since 1970. Returns `None` on overflow.
    fn micros(self, seconds: i64, nanos: i64, base_s: i64, local: bool) -> Option<i64> {
        // The lowest three bits are the number of trailing decimal zeros that the writer removed,
        // minus one. 0 means that none were removed.
        let zeros = (nanos & 7) as u32;
        let nanos = (nanos as u64 >> 3) as i64;
        let nanos = if zeros == 0 { nanos } else { nanos.checked_mul(10i64.pow(zeros + 1))? };
        let mut millis = seconds.checked_add(base_s)?.checked_mul(1000)?;
        millis = millis.checked_add(nanos / 1_000_000)?;
        // Writers truncate negative seconds towards zero, so the stored second is one too large.
        if millis < 0 && nanos > 999_999 {
            millis -= 1000;
        }
        let mut micros = millis.checked_mul(1000)?.checked_add(nanos / 1000 % 1000)?;
        if local && self.writer != self.reader {
            micros = to_utc(hybrid_local(micros, self.writer), self.reader);
        }
        let zone = if local { self.reader } else { Tz::UTC };
        Some(if self.hybrid { micros_of_hybrid(micros, zone) } else { micros })
    }
}

/// The decoder of one column in one stripe.
pub struct Column {
    present: Option<Bits>,
    body: Body,
    wanted: DataType,
    clock: Clock,
}

enum Body {
    Boolean(Bits),
    Byte(ByteRuns),
    Integer(Integers),
    Date(Integers),
    Float(Stream),
    Double(Stream),
    Time {
        seconds: Integers,
        nanos: Integers,
        base_s: i64,
        local: bool,
    },
    Decimal {
        digits: Stream,
        scales: Integers,
        scale: u8,
    },
    Text {
        lengths: Integers,
        bytes: Stream,
    },
    Dictionary {
        indexes: Integers,
        dictionary: Dictionary,
    },
    Bytes {
        lengths: Integers,
        bytes: Stream,
    },
    List {
        lengths: Integers,
        element: Box<Column>,
    },
    Map {
        lengths: Integers,
        key: Box<Column>,
        value: Box<Column>,
    },
    /// The decoders of the requested fields. `None` is a field that the file lacks.
    Struct(Vec<Option<Column>>),
}

/// The entries of a string dictionary. Their bytes need not be UTF-8.
struct Dictionary {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// The maximum size of a dictionary in memory, including the lengths of its entries, in bytes. It
/// equals the limit of a Parquet page. A few compressed bytes could otherwise claim all memory.
const DICTIONARY_BYTES_MAX: usize = 256 << 20;

impl Dictionary {
    fn read(
        mut lengths: Integers,
        mut stream: Stream,
        count: u64,
        limit: usize,
    ) -> Result<Self, String> {
        let (mut ends, mut bytes) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let length = usize::try_from(lengths.next()?).map_err(|_| "a length is negative")?;
            let used = bytes.len() + (ends.len() + 1) * size_of::<usize>();
            if used.saturating_add(length) > limit {
                return Err(format!("a dictionary has more than {} MiB", limit >> 20));
            }
            stream.pieces(length, |piece| bytes.extend_from_slice(piece))?;
            ends.push(bytes.len());
        }
        Ok(Self { bytes, ends })
    }

    #[inline]
    fn get(&self, index: i64) -> Option<&[u8]> {
        let index = usize::try_from(index).ok()?;
        let end = *self.ends.get(index)?;
        let begin = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.bytes[begin..end])
    }

    /// Concatenates the dictionary entries of `rows` and returns the offsets and the bytes.
    fn all(&self, rows: &Rows, indexes: &[i64]) -> Result<(OffsetBuffer<i32>, Vec<u8>), String> {
        let (mut ends, mut all, mut indexes) = (vec![0i32], Vec::new(), indexes.iter());
        for row in 0..rows.count {
            if rows.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
                && let Some(index) = indexes.next()
            {
                let word = self.get(*index).ok_or("a dictionary lacks an entry: it is damaged")?;
                all.extend_from_slice(word);
            }
            ends.push(i32::try_from(all.len()).map_err(|_| too_long())?);
        }
        Ok((OffsetBuffer::new(ends.into()), all))
    }
}

impl StripeContext<'_> {
    fn stream(&self, column: usize, kind: u64) -> Option<Stream> {
        let part = self.footer.parts.iter().find(|p| p.column == column && p.kind == kind)?;
        Some(Stream::new(self.file.clone(), self.compression, part.at, part.length))
    }

    /// The column's stream of a kind. A stream that the stripe omits is empty.
    fn data(&self, column: usize, kind: u64) -> Stream {
        self.stream(column, kind).unwrap_or_else(Stream::empty)
    }

    /// Creates the decoder of a column that is read as the type `wanted`.
    pub fn column(&self, of: &Type, wanted: &DataType) -> Result<Column, String> {
        let id = of.id;
        let (encoding, words) = *self
            .footer
            .encodings
            .get(id)
            .ok_or("the footer of a stripe lacks a column: it is damaged")?;
        if encoding > 3 {
            return Err("a column has an encoding that is not known".to_string());
        }
        let second = encoding >= 2;
        let integers = |kind, sign| Integers::new(self.data(id, kind), second, sign);
        let body = match of.kind {
            Kind::Boolean => Body::Boolean(Bits::new(self.data(id, DATA))),
            Kind::Byte => Body::Byte(ByteRuns::new(self.data(id, DATA))),
            Kind::Short | Kind::Int | Kind::Long => Body::Integer(integers(DATA, Sign::Signed)),
            Kind::Date => Body::Date(integers(DATA, Sign::Signed)),
            Kind::Float => Body::Float(self.data(id, DATA)),
            Kind::Double => Body::Double(self.data(id, DATA)),
            Kind::Timestamp | Kind::TimestampInstant => {
                let local = of.kind == Kind::Timestamp;
                let zone = if local { self.clock.writer } else { Tz::UTC };
                let (seconds, nanos) =
                    (integers(DATA, Sign::Signed), integers(SECONDARY, Sign::Unsigned));
                Body::Time { seconds, nanos, base_s: Clock::base_s(zone), local }
            }
            Kind::Decimal => {
                let scales = integers(SECONDARY, Sign::Signed);
                Body::Decimal { digits: self.data(id, DATA), scales, scale: of.decimal.1 }
            }
            Kind::Binary => Body::Bytes {
                lengths: integers(LENGTH, Sign::Unsigned),
                bytes: self.data(id, DATA),
            },
            Kind::String | Kind::Varchar | Kind::Char if encoding % 2 == 1 => {
                let (lengths, bytes) =
                    (integers(LENGTH, Sign::Unsigned), self.data(id, DICTIONARY));
                let dictionary = Dictionary::read(lengths, bytes, words, DICTIONARY_BYTES_MAX)?;
                Body::Dictionary { indexes: integers(DATA, Sign::Unsigned), dictionary }
            }
            Kind::String | Kind::Varchar | Kind::Char => {
                Body::Text { lengths: integers(LENGTH, Sign::Unsigned), bytes: self.data(id, DATA) }
            }
            Kind::List | Kind::Map | Kind::Struct => {
                self.nested(of, wanted, integers(LENGTH, Sign::Unsigned))?
            }
            Kind::Union => return Err("UNION is not supported".to_string()),
        };
        let present = self.stream(id, PRESENT).map(Bits::new);
        Ok(Column { present, body, wanted: wanted.clone(), clock: self.clock })
    }

    fn nested(&self, of: &Type, wanted: &DataType, lengths: Integers) -> Result<Body, String> {
        let part =
            |i: usize, wanted: &DataType| self.column(&of.children[i].1, wanted).map(Box::new);
        Ok(match wanted {
            DataType::Array(element) => Body::List { lengths, element: part(0, element)? },
            DataType::Map(key, value) => {
                Body::Map { lengths, key: part(0, key)?, value: part(1, value)? }
            }
            DataType::Struct(fields) => {
                let field = |field: &crate::table::types::Field| {
                    let found = named(&of.children, &field.name);
                    found.map(|i| self.column(&of.children[i].1, &field.data_type)).transpose()
                };
                Body::Struct(fields.iter().map(field).collect::<Result<_, _>>()?)
            }
            _ => return Err(format!("{} is not {wanted}", of.name())),
        })
    }
}

/// The number of rows in a batch, and which of them are NULL.
struct Rows {
    count: usize,
    nulls: Option<NullBuffer>,
}

impl Rows {
    /// The number of non-NULL rows. Only these have values in the streams.
    fn values(&self) -> usize {
        self.count - self.nulls.as_ref().map_or(0, NullBuffer::null_count)
    }

    /// Spreads the values of the non-NULL rows over all rows. A value for which `of` returns `None`
    /// becomes NULL.
    fn spread<S, T: Copy + Default>(
        self,
        dense: impl ExactSizeIterator<Item = S>,
        of: impl Fn(S) -> Option<T>,
    ) -> (Vec<T>, Option<NullBuffer>) {
        let (mut values, mut lost) = (Vec::new(), Vec::new());
        match &self.nulls {
            None => values.extend(dense.enumerate().map(|(row, value)| {
                of(value).unwrap_or_else(|| {
                    lost.push(row);
                    T::default()
                })
            })),
            Some(nulls) => {
                values.resize(self.count, T::default());
                for (row, value) in nulls.valid_indices().zip(dense) {
                    match of(value) {
                        Some(value) => values[row] = value,
                        None => lost.push(row),
                    }
                }
            }
        }
        (values, self.without(&lost))
    }

    /// The null mask with the rows of `lost` set to NULL as well.
    fn without(self, lost: &[usize]) -> Option<NullBuffer> {
        if lost.is_empty() {
            return self.nulls;
        }
        let mut kept = BooleanBufferBuilder::new(self.count);
        match &self.nulls {
            Some(nulls) => kept.append_buffer(nulls.inner()),
            None => kept.append_n(self.count, true),
        }
        lost.iter().for_each(|row| kept.set_bit(*row, false));
        Some(NullBuffer::new(kept.finish()))
    }

    fn primitive<S, T: ArrowPrimitiveType>(
        self,
        dense: impl ExactSizeIterator<Item = S>,
        of: impl Fn(S) -> Option<T::Native>,
    ) -> PrimitiveArray<T> {
        let (values, nulls) = self.spread(dense, of);
        PrimitiveArray::new(values.into(), nulls)
    }

    fn texts<S>(
        self,
        dense: impl Iterator<Item = S>,
        mut of: impl FnMut(S, &mut String) -> Option<()>,
    ) -> Result<ArrayRef, String> {
        let (mut text, mut ends, mut lost) = (String::new(), vec![0i32], Vec::new());
        let mut dense = dense;
        for row in 0..self.count {
            if self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
                && let Some(value) = dense.next()
            {
                let begin = text.len();
                if of(value, &mut text).is_none() {
                    text.truncate(begin);
                    lost.push(row);
                }
            }
            ends.push(i32::try_from(text.len()).map_err(|_| too_long())?);
        }
        let offsets = OffsetBuffer::new(ends.into());
        let nulls = self.without(&lost);
        let array = StringArray::try_new(offsets, text.into_bytes().into(), nulls);
        array.map(|array| Arc::new(array) as ArrayRef).map_err(|error| error.to_string())
    }
}

fn too_long() -> String {
    "the texts of 1024 rows have more than 2 GiB".to_string()
}

fn dense<T>(count: usize, mut next: impl FnMut() -> Result<T, String>) -> Result<Vec<T>, String> {
    let mut values = Vec::with_capacity(count.min(4096));
    for _ in 0..count {
        values.push(next()?);
    }
    Ok(values)
}

fn longs(integers: &mut Integers, count: usize) -> Result<Vec<i64>, String> {
    let mut values = Vec::with_capacity(count.min(4096));
    integers.each(count, |run| values.extend_from_slice(run))?;
    Ok(values)
}

fn floats<const N: usize, T>(
    stream: &mut Stream,
    mut count: usize,
    of: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, String> {
    let (mut values, mut spare) = (Vec::with_capacity(count.min(4096)), Vec::new());
    while count > 0 {
        let some = count.min(1024);
        let bytes = stream.slice(some * N, &mut spare)?;
        let whole = bytes.chunks_exact(N);
        values.extend(whole.map(|bytes| of(bytes.try_into().unwrap_or([0; N]))));
        count -= some;
    }
    Ok(values)
}

/// Reads the unscaled value of a decimal, a zigzag varint of up to 128 bits. Bits beyond these are
/// ignored, and more than 19 bytes are an error.
fn unscaled(digits: &mut Stream) -> Result<i128, String> {
    let mut value = 0u128;
    for shift in (0..133).step_by(7) {
        let byte = digits.byte()?;
        value |= u128::from(byte & 0x7F).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i128 ^ -((value & 1) as i128));
        }
    }
    Err("a decimal has too many bytes".to_string())
}

/// Turns the lengths of the non-NULL rows into offsets; a NULL row has length 0. Fails if a length
/// is negative or their sum exceeds `limit`.
fn offsets(rows: &Rows, lengths: &[i64], limit: i64) -> Result<OffsetBuffer<i32>, String> {
    let (mut ends, mut sum, mut lengths) = (vec![0i32], 0i64, lengths.iter());
    for row in 0..rows.count {
        if rows.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
            let length = lengths.next().copied().unwrap_or(0);
            sum = sum.checked_add(length).filter(|_| length >= 0).ok_or("a length is negative")?;
        }
        if sum > limit {
            return Err(format!("1024 rows have more than {limit} elements or bytes"));
        }
        ends.push(sum as i32);
    }
    Ok(OffsetBuffer::new(ends.into()))
}

impl Column {
    /// Decodes the next `count` rows. Where `parent` is NULL, the streams have no value and the
    /// result is NULL.
    pub fn read(&mut self, count: usize, parent: Option<&NullBuffer>) -> Result<ArrayRef, String> {
        let rows = self.rows(count, parent)?;
        let values = rows.values();
        let clock = self.clock;
        match &mut self.body {
            Body::Boolean(bits) => {
                let dense = dense(values, || bits.next())?;
                self.built(rows, dense.into_iter(), Cell::Boolean)
            }
            Body::Byte(bytes) => {
                let dense = dense(values, || bytes.next())?;
                self.built(rows, dense.into_iter(), |v| Cell::Long(i64::from(v as i8)))
            }
            Body::Integer(integers) => {
                let dense = longs(integers, values)?;
                self.built(rows, dense.into_iter(), Cell::Long)
            }
            Body::Date(integers) => {
                let dense = longs(integers, values)?;
                let day = |days| if clock.hybrid { days_of_hybrid(days) } else { days };
                self.built(rows, dense.into_iter(), |days| Cell::Day(day(days)))
            }
            Body::Float(stream) => {
                let dense = floats(stream, values, f32::from_le_bytes)?;
                self.built(rows, dense.into_iter(), |v| Cell::Double(f64::from(v)))
            }
            Body::Double(stream) => {
                let dense = floats(stream, values, f64::from_le_bytes)?;
                self.built(rows, dense.into_iter(), Cell::Double)
            }
            Body::Time { seconds, nanos, base_s, local } => {
                let (mut dense, nanos) = (longs(seconds, values)?, longs(nanos, values)?);
                for (value, nanos) in dense.iter_mut().zip(nanos) {
                    let micros = clock.micros(*value, nanos, *base_s, *local);
                    *value = micros.ok_or("a timestamp is out of the supported range of years")?;
                }
                self.built(rows, dense.into_iter(), Cell::Time)
            }
            Body::Decimal { digits, scales, scale } => {
                let own = *scale;
                let scales = longs(scales, values)?;
                let mut dense = Vec::with_capacity(values.min(4096));
                for scale in scales {
                    let value = unscaled(digits)?;
                    let scale = u8::try_from(scale).ok().filter(|scale| *scale <= 38);
                    dense.push((value, scale.unwrap_or(own)));
                }
                self.built(rows, dense.into_iter(), |(value, scale)| Cell::Decimal(value, scale))
            }
            Body::Text { lengths, bytes } => {
                let lengths = longs(lengths, values)?;
                let offsets = offsets(&rows, &lengths, i64::from(i32::MAX))?;
                let all = concatenated(bytes, &offsets)?;
                self.strings(rows, offsets, all)
            }
            Body::Dictionary { indexes, dictionary } => {
                let indexes = longs(indexes, values)?;
                let (offsets, all) = dictionary.all(&rows, &indexes)?;
                self.strings(rows, offsets, all)
            }
            Body::Bytes { lengths, bytes } => {
                let lengths = longs(lengths, values)?;
                let offsets = offsets(&rows, &lengths, i64::from(i32::MAX))?;
                let all = concatenated(bytes, &offsets)?;
                if self.wanted == DataType::Binary {
                    return finished(BinaryArray::try_new(offsets, all.into(), rows.nulls));
                }
                let ends: Vec<(usize, usize)> = present(&rows, &offsets).collect();
                self.built(rows, ends.into_iter(), |(a, b)| Cell::Bytes(&all[a..b]))
            }
            Body::List { .. } | Body::Map { .. } | Body::Struct(_) => self.parts(rows),
        }
    }

    fn rows(&mut self, count: usize, parent: Option<&NullBuffer>) -> Result<Rows, String> {
        let Some(bits) = &mut self.present else {
            return Ok(Rows { count, nulls: parent.cloned() });
        };
        let mut builder = BooleanBufferBuilder::new(count.min(4096));
        for row in 0..count {
            let there = parent.is_none_or(|parent| parent.is_valid(row));
            builder.append(there && bits.next()?);
        }
        let nulls = NullBuffer::new(builder.finish());
        Ok(Rows { count, nulls: (nulls.null_count() > 0).then_some(nulls) })
    }

    /// Converts decoded values to an array of the requested type.
    fn built<'b, S>(
        &self,
        rows: Rows,
        dense: impl ExactSizeIterator<Item = S>,
        cell: impl Fn(S) -> Cell<'b>,
    ) -> Result<ArrayRef, String> {
        built(&self.wanted, self.clock, rows, dense, cell)
    }

    fn strings(
        &self,
        rows: Rows,
        offsets: OffsetBuffer<i32>,
        bytes: Vec<u8>,
    ) -> Result<ArrayRef, String> {
        if matches!(self.wanted, DataType::String | DataType::Binary) {
            return finished(BinaryArray::try_new(offsets, bytes.into(), rows.nulls));
        }
        let ends: Vec<(usize, usize)> = present(&rows, &offsets).collect();
        let texts: Vec<_> =
            ends.into_iter().map(|(a, b)| String::from_utf8_lossy(&bytes[a..b])).collect();
        self.built(rows, texts.iter(), |text| Cell::Text(text))
    }

    fn parts(&mut self, rows: Rows) -> Result<ArrayRef, String> {
        let values = rows.values();
        let arrow = to_arrow(&self.wanted);
        match (&mut self.body, arrow) {
            (Body::List { lengths, element }, Arrow::List(field)) => {
                let offsets = offsets(&rows, &longs(lengths, values)?, ELEMENTS_MAX)?;
                let elements = element.read(offsets[rows.count] as usize, None)?;
                let field = typed(&field, &elements);
                finished(ListArray::try_new(field, offsets, elements, rows.nulls))
            }
            (Body::Map { lengths, key, value }, Arrow::Map(entries, sorted)) => {
                let offsets = offsets(&rows, &longs(lengths, values)?, ELEMENTS_MAX)?;
                let count = offsets[rows.count] as usize;
                let (keys, values) = (key.read(count, None)?, value.read(count, None)?);
                let Arrow::Struct(fields) = entries.data_type() else {
                    return Err("a map has no entries".to_string());
                };
                if keys.null_count() > 0 {
                    return Err("a map has a NULL key".to_string());
                }
                let fields = vec![typed(&fields[0], &keys), typed(&fields[1], &values)].into();
                let of = StructArray::try_new(fields, vec![keys, values], None);
                let of = of.map_err(|error| error.to_string())?;
                let entries = entries.as_ref().clone().with_data_type(of.data_type().clone());
                let entries = Arc::new(entries);
                finished(MapArray::try_new(entries, offsets, of, rows.nulls, sorted))
            }
            (Body::Struct(columns), Arrow::Struct(fields)) => {
                let mut parts = Vec::with_capacity(columns.len());
                for (column, field) in columns.iter_mut().zip(&fields) {
                    parts.push(match column {
                        Some(column) => column.read(rows.count, rows.nulls.as_ref())?,
                        None => new_null_array(field.data_type(), rows.count),
                    });
                }
                let length = rows.count;
                let typed = fields.iter().zip(&parts).map(|(field, part)| typed(field, part));
                let typed = typed.collect::<Vec<_>>().into();
                finished(StructArray::try_new_with_length(typed, parts, rows.nulls, length))
            }
            _ => Err(format!("a column cannot be read as {}", self.wanted)),
        }
    }
}

/// The byte ranges of the non-NULL rows.
fn present(rows: &Rows, offsets: &OffsetBuffer<i32>) -> impl Iterator<Item = (usize, usize)> {
    let there = |row: usize| rows.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    (0..rows.count)
        .filter(move |row| there(*row))
        .map(|row| (offsets[row] as usize, offsets[row + 1] as usize))
}

fn concatenated(bytes: &mut Stream, offsets: &OffsetBuffer<i32>) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    let length = offsets.last().copied().unwrap_or(0) as usize;
    bytes.pieces(length, |piece| all.extend_from_slice(piece))?;
    Ok(all)
}

/// The field with the type that its array really has: text may be stored as bytes.
fn typed(field: &FieldRef, array: &ArrayRef) -> FieldRef {
    if field.data_type() == array.data_type() {
        return field.clone();
    }
    Arc::new(field.as_ref().clone().with_data_type(array.data_type().clone()))
}

fn finished<A: Array + 'static>(
    array: Result<A, arrow_schema::ArrowError>,
) -> Result<ArrayRef, String> {
    array.map(|array| Arc::new(array) as ArrayRef).map_err(|error| error.to_string())
}

fn built<'b, S>(
    wanted: &DataType,
    clock: Clock,
    rows: Rows,
    dense: impl ExactSizeIterator<Item = S>,
    cell: impl Fn(S) -> Cell<'b>,
) -> Result<ArrayRef, String> {
    let zone = clock.reader;
    let long = |value: S| schema_evolution::long(cell(value));
    Ok(match wanted {
        DataType::Boolean => {
            let (values, nulls) = rows.spread(dense, |v| schema_evolution::boolean(cell(v)));
            Arc::new(BooleanArray::new(values.into(), nulls))
        }
        DataType::Byte => {
            Arc::new(rows.primitive::<_, Int8Type>(dense, |v| long(v)?.try_into().ok()))
        }
        DataType::Short => {
            Arc::new(rows.primitive::<_, Int16Type>(dense, |v| long(v)?.try_into().ok()))
        }
        DataType::Int | DataType::YearMonthInterval(..) => {
            Arc::new(rows.primitive::<_, Int32Type>(dense, |v| long(v)?.try_into().ok()))
        }
        DataType::Long | DataType::DayTimeInterval(..) => {
            Arc::new(rows.primitive::<_, Int64Type>(dense, long))
        }
        DataType::Float => {
            Arc::new(rows.primitive::<_, Float32Type>(dense, |v| schema_evolution::float(cell(v))))
        }
        DataType::Double => {
            Arc::new(rows.primitive::<_, Float64Type>(dense, |v| schema_evolution::double(cell(v))))
        }
        DataType::Decimal(precision, scale) => {
            let of = |v| schema_evolution::decimal(cell(v), wanted);
            let array = rows.primitive::<_, Decimal128Type>(dense, of);
            let array = array.with_precision_and_scale(*precision, *scale as i8);
            Arc::new(array.map_err(|error| error.to_string())?)
        }
        DataType::Date => {
            let of = |v| schema_evolution::day(cell(v), zone)?.try_into().ok();
            Arc::new(rows.primitive::<_, Date32Type>(dense, of))
        }
        DataType::Timestamp => {
            let of = |v| schema_evolution::time(cell(v), zone);
            Arc::new(rows.primitive::<_, TimestampMicrosecondType>(dense, of).with_timezone("UTC"))
        }
        // Integers are microseconds. Timestamps are not converted to local times.
        DataType::TimestampNtz => {
            let of = |v| match cell(v) {
                Cell::Time(micros) => Some(micros),
                cell => schema_evolution::long(cell),
            };
            Arc::new(rows.primitive::<_, TimestampMicrosecondType>(dense, of))
        }
        DataType::String => {
            return rows.texts(dense, |v, out| schema_evolution::text(cell(v), zone, out));
        }
        DataType::Binary => {
            let (mut bytes, mut ends) = (Vec::new(), vec![0i32]);
            let mut dense = dense;
            for row in 0..rows.count {
                if rows.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
                    && let Some(Cell::Text(text)) = dense.next().map(&cell)
                {
                    bytes.extend_from_slice(text.as_bytes());
                }
                ends.push(i32::try_from(bytes.len()).map_err(|_| too_long())?);
            }
            let offsets = OffsetBuffer::new(ends.into());
            return finished(BinaryArray::try_new(offsets, bytes.into(), rows.nulls));
        }
        other => return Err(format!("a column cannot be read as {other}")),
    })
}

impl Default for Clock {
    fn default() -> Self {
        Self { hybrid: false, writer: Tz::UTC, reader: Tz::UTC }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::columnar::orc::stream::{ByteSource, Codec, Compression};

    fn stream(bytes: &[u8]) -> Stream {
        let compression = Compression { codec: Codec::None, block: 0 };
        let file = ByteSource::Memory(bytes.to_vec().into());
        Stream::new(file, compression, 0, bytes.len() as u64)
    }

    /// Runs of the first version: a byte for 130 equal values, their difference, and the value.
    #[test]
    fn the_memory_of_a_dictionary_is_bounded() {
        let read = |length: u8, entries: u64, limit: usize| {
            let runs = [0x7F, 0, length].repeat(100);
            let bytes = vec![b'x'; usize::from(length) * entries as usize];
            let lengths = Integers::new(stream(&runs), false, Sign::Unsigned);
            Dictionary::read(lengths, stream(&bytes), entries, limit).map(|words| words.ends.len())
        };
        let needed = |length: usize, entries: usize| entries * (length + size_of::<usize>());
        for (length, entries) in [(0, 13_000), (100, 1_000)] {
            let limit = needed(length, entries);
            let (length, entries) = (length as u8, entries as u64);
            assert_eq!(read(length, entries, limit), Ok(entries as usize));
            let error = read(length, entries, limit - 1).unwrap_err();
            assert!(error.contains("dictionary"), "{error}");
        }
    }
}
