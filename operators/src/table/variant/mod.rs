//! VARIANT: values whose type is only known at run time, such as parsed JSON.
//!
//! A value is encoded as
//! ```text
//! | length of the names (4 bytes) | names | value |
//! ```
//! The parts `names` (called metadata there) and `value` have the binary form of Apache Parquet's
//! type VARIANT. The names of all objects are stored once. A value starts with a header byte, and
//! an object or an array has a table of the offsets of its parts, so a field is found without
//! reading the others. All integers are little endian.
//!
//! A [`Builder`] writes these bytes. A user's own code can pass any others; what is malformed in them
//! is read as null or as missing. Whether they are refused is decided by [`is_sound`].

mod builder;
mod change;
mod path;
mod schema;

pub use builder::{BuildError, Builder, LEVELS_MAX};
pub use change::{Change, ChangeError};
pub use path::{InvalidPath, Path};
pub use schema::{Shape, merge_types, type_of};

use crate::table::deep_recursion::on_stack;
use crate::table::row::decimal_of;
use crate::table::types::DECIMAL_DIGITS_MAX;
use std::cmp::Ordering;

/// The maximum length of the names, and of the value, in bytes.
pub const SIZE_MAX: usize = 128 << 20;

// The lower two bits of the header byte.
const PRIMITIVE: u8 = 0;
const SHORT_TEXT: u8 = 1;
const OBJECT: u8 = 2;
const ARRAY: u8 = 3;

// The upper six bits of the header byte of a primitive value.
const NULL: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const INT_8: u8 = 3;
const INT_16: u8 = 4;
const INT_32: u8 = 5;
const INT_64: u8 = 6;
const DOUBLE: u8 = 7;
const DECIMAL_32: u8 = 8;
const DECIMAL_64: u8 = 9;
const DECIMAL_128: u8 = 10;
const DATE: u8 = 11;
const TIMESTAMP: u8 = 12;
const TIMESTAMP_NTZ: u8 = 13;
const FLOAT: u8 = 14;
const BINARY: u8 = 15;
const TEXT: u8 = 16;

/// A value, or a part of one.
#[derive(Clone, Copy, Debug)]
pub struct Variant<'a> {
    names: &'a [u8],
    /// The value. Bytes of the enclosing value may follow.
    value: &'a [u8],
}

/// The content of a value.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// JSON's null, which is not NULL.
    Null,
    /// BOOLEAN.
    Boolean(bool),
    /// An integer of any width.
    Long(i64),
    /// DOUBLE.
    Double(f64),
    /// FLOAT.
    Float(f32),
    /// DECIMAL: the unscaled value and the scale, without trailing zeros of the fraction.
    Decimal(i128, u8),
    /// DATE: days since 1970-01-01.
    Date(i64),
    /// TIMESTAMP: microseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// TIMESTAMP_NTZ: microseconds since 1970-01-01.
    TimestampNtz(i64),
    /// STRING, its bytes.
    Text(&'a [u8]),
    /// BINARY.
    Binary(&'a [u8]),
    /// An array.
    Array(Parts<'a>),
    /// An object. Its fields are sorted by name.
    Object(Parts<'a>),
}

/// The elements of an array, or the fields of an object.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    of: Variant<'a>,
    /// The number of parts.
    pub len: usize,
    id_bytes: usize,
    ids: usize,
    offset_bytes: usize,
    offsets: usize,
    parts: usize,
}

/// Whether the parts of a VARIANT cell do not overlap and are not too deep, so that reading it takes
/// no more steps than it has bytes.
pub fn is_sound(bytes: &[u8]) -> bool {
    fn visit(value: Variant<'_>, level: usize, left: &mut usize) -> bool {
        let (Content::Array(parts) | Content::Object(parts)) = value.content() else { return true };
        level < LEVELS_MAX
            && parts.values().all(|part| {
                let is_left = *left > 0;
                *left = left.saturating_sub(1);
                is_left && on_stack(|| visit(part, level + 1, left))
            })
    }
    visit(Variant::new(bytes), 0, &mut bytes.len().clone())
}

/// A part of the bytes; empty if they are too short.
fn part_of(bytes: &[u8], at: usize, length: usize) -> &[u8] {
    at.checked_add(length).and_then(|end| bytes.get(at..end)).unwrap_or_default()
}

/// Reads an unsigned integer of at most 4 bytes.
fn unsigned(bytes: &[u8], at: usize, width: usize) -> usize {
    let mut value = 0;
    for (index, byte) in part_of(bytes, at, width).iter().enumerate() {
        value |= usize::from(*byte) << (8 * index);
    }
    value
}

/// Reads a signed integer of at most 8 bytes.
fn signed(bytes: &[u8], width: usize) -> i64 {
    let bytes = part_of(bytes, 0, width);
    let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut word = if is_negative { [0xFF; 8] } else { [0; 8] };
    word[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(word)
}

impl<'a> Variant<'a> {
    /// Interprets the bytes of a VARIANT cell.
    pub fn new(bytes: &'a [u8]) -> Self {
        let length = unsigned(bytes, 0, 4);
        let value = bytes.get(4 + length..).unwrap_or_default();
        Self { names: part_of(bytes, 4, length), value }
    }

    fn header(self) -> u8 {
        self.value.first().copied().unwrap_or(NULL)
    }

    /// The content.
    pub fn content(self) -> Content<'a> {
        let (header, rest) = (self.header(), self.value.get(1..).unwrap_or_default());
        let kind = header >> 2;
        match header & 3 {
            SHORT_TEXT => Content::Text(part_of(rest, 0, usize::from(kind))),
            OBJECT => Content::Object(self.parts(kind >> 4 & 1, usize::from(kind >> 2 & 3) + 1)),
            ARRAY => Content::Array(self.parts(kind >> 2 & 1, 0)),
            _ => primitive(kind, rest),
        }
    }

    /// The parts of an array, for which `id_bytes` is 0, or of an object.
    fn parts(self, is_large: u8, id_bytes: usize) -> Parts<'a> {
        let size_bytes = if is_large == 1 { 4 } else { 1 };
        // Each part has an offset, so a value has not more parts than bytes.
        let len = unsigned(self.value, 1, size_bytes).min(self.value.len());
        let offset_bytes = usize::from(self.header() >> 2 & 3) + 1;
        let ids = 1 + size_bytes;
        let offsets = ids + len * id_bytes;
        let parts = offsets + (len + 1) * offset_bytes;
        Parts { of: self, len, id_bytes, ids, offset_bytes, offsets, parts }
    }

    /// The bytes of the value, without what follows. `None` for arrays and objects.
    fn primitive_bytes(self) -> Option<&'a [u8]> {
        let length = match self.header() & 3 {
            SHORT_TEXT => usize::from(self.header() >> 2),
            PRIMITIVE => match self.header() >> 2 {
                NULL | TRUE | FALSE => 0,
                INT_8 => 1,
                INT_16 => 2,
                INT_32 | DATE | FLOAT => 4,
                DECIMAL_32 => 5,
                DECIMAL_64 => 9,
                DECIMAL_128 => 17,
                TEXT | BINARY => 4 + unsigned(self.value, 1, 4),
                _ => 8,
            },
            _ => return None,
        };
        // JSON's null instead of a value that is cut.
        Some(self.value.get(..=length).unwrap_or(&[NULL]))
    }

    /// Follows a path. `None` if it leads nowhere.
    pub fn at(self, path: &Path) -> Option<Self> {
        path.steps().iter().try_fold(self, |here, step| match (step, here.content()) {
            (path::Step::Field(name), Content::Object(fields)) => fields.find(name.as_bytes()),
            (path::Step::Element(index), Content::Array(elements)) => {
                (*index < elements.len).then(|| elements.value(*index))
            }
            _ => None,
        })
    }
}

fn primitive(kind: u8, rest: &[u8]) -> Content<'_> {
    let sized = || part_of(rest, 4, unsigned(rest, 0, 4));
    let scale = rest.first().copied().unwrap_or(0).min(DECIMAL_DIGITS_MAX);
    let digits = rest.get(1..).unwrap_or_default();
    match kind {
        TRUE | FALSE => Content::Boolean(kind == TRUE),
        INT_8 => Content::Long(signed(rest, 1)),
        INT_16 => Content::Long(signed(rest, 2)),
        INT_32 => Content::Long(signed(rest, 4)),
        INT_64 => Content::Long(signed(rest, 8)),
        DOUBLE => Content::Double(f64::from_bits(signed(rest, 8) as u64)),
        FLOAT => Content::Float(f32::from_bits(signed(rest, 4) as u32)),
        DECIMAL_32 => without_zeros(i128::from(signed(digits, 4)), scale),
        DECIMAL_64 => without_zeros(i128::from(signed(digits, 8)), scale),
        DECIMAL_128 => without_zeros(decimal_of(part_of(digits, 0, 16)), scale),
        DATE => Content::Date(signed(rest, 4)),
        TIMESTAMP => Content::Timestamp(signed(rest, 8)),
        TIMESTAMP_NTZ => Content::TimestampNtz(signed(rest, 8)),
        TEXT => Content::Text(sized()),
        BINARY => Content::Binary(sized()),
        _ => Content::Null,
    }
}

/// A decimal without trailing zeros of its fraction, as Spark reads it.
fn without_zeros(mut unscaled: i128, mut scale: u8) -> Content<'static> {
    while scale > 0 && unscaled % 10 == 0 {
        unscaled /= 10;
        scale -= 1;
    }
    Content::Decimal(unscaled, scale)
}

impl<'a> Parts<'a> {
    /// The part at `index`, counted from 0.
    pub fn value(self, index: usize) -> Variant<'a> {
        let offset =
            unsigned(self.of.value, self.offsets + index * self.offset_bytes, self.offset_bytes);
        let value = self.of.value.get(self.parts + offset..).unwrap_or_default();
        Variant { names: self.of.names, value }
    }

    /// The name of the field at `index`, for an object.
    pub fn name(self, index: usize) -> &'a [u8] {
        let names = self.of.names;
        let id = unsigned(self.of.value, self.ids + index * self.id_bytes, self.id_bytes);
        let width = usize::from(names.first().copied().unwrap_or(0) >> 6) + 1;
        let count = unsigned(names, 1, width);
        let offset = |id: usize| unsigned(names, 1 + (1 + id) * width, width);
        let texts = 1 + (count + 2) * width;
        names.get(texts + offset(id)..texts + offset(id + 1)).unwrap_or_default()
    }

    /// The parts in order.
    pub fn values(self) -> impl Iterator<Item = Variant<'a>> {
        (0..self.len).map(move |index| self.value(index))
    }

    /// The fields of an object in order: names and values.
    pub fn fields(self) -> impl Iterator<Item = (&'a [u8], Variant<'a>)> {
        (0..self.len).map(move |index| (self.name(index), self.value(index)))
    }

    /// The field of an object with this name.
    pub fn find(self, name: &[u8]) -> Option<Variant<'a>> {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = usize::midpoint(low, high);
            match order_names(self.name(middle), name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(self.value(middle)),
            }
        }
        None
    }
}

/// Compares names in the order of the fields of an object: by UTF-16 code units, like Java.
fn order_names(a: &[u8], b: &[u8]) -> Ordering {
    let differs = a.iter().zip(b).find(|(a, b)| a != b);
    match differs {
        // In UTF-16, characters of two units come before those from U+E000 on.
        Some((&a, &b)) if a >= 0xEE && b >= 0xEE && (a >= 0xF0) != (b >= 0xF0) => b.cmp(&a),
        _ => a.cmp(b),
    }
}
