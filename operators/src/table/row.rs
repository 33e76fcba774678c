//! The binary row layout. Rows are compared, hashed, sent and checkpointed as bytes.
//!
//! ```text
//! | null bits, one per field, in 8-byte words | one 8-byte slot per field | tail |
//! ```
//! A slot contains an `i64`, the bits of an `f64`, or 0 or 1 for a boolean. Variable-length values
//! and 16-byte decimals are stored in the tail. Their slot contains the offset in the row (low 32
//! bits) and the length in bytes (high 32 bits). The slot of a NULL is 0. An array is encoded as
//! its number of elements (8 bytes), followed by a row with one field per element. A struct is
//! encoded as a row.
//!
//! All integers are little endian. A row must not exceed 4 GiB.

use super::types::{DataType, Physical};
use super::value::Value;

/// A borrowed row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a>(pub &'a [u8]);

/// An owned row. Up to 88 bytes are stored inline, so a short row needs no allocation.
pub type RowBuf = smallvec::SmallVec<[u8; 88]>;

/// The location of a field in rows of a given width.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    null_byte: usize,
    null_mask: u8,
    offset: usize,
}

impl Slot {
    /// The location of field `index` in rows of `width` fields.
    #[inline]
    pub fn new(index: usize, width: usize) -> Self {
        Self {
            null_byte: index / 8,
            null_mask: 1 << (index % 8),
            offset: width.div_ceil(64) * 8 + index * 8,
        }
    }
}

#[inline]
fn word(bytes: &[u8], offset: usize) -> u64 {
    match bytes.get(offset..offset + 8).and_then(|word| <[u8; 8]>::try_from(word).ok()) {
        Some(word) => u64::from_le_bytes(word),
        // Unreachable: a row has a slot for each field of its schema.
        None => unreachable!("a row shorter than its schema"),
    }
}

impl<'a> Row<'a> {
    /// Whether the field is NULL.
    #[inline]
    pub fn is_null(self, slot: Slot) -> bool {
        self.0[slot.null_byte] & slot.null_mask != 0
    }

    /// Reads a field that is stored as `i64`.
    #[inline]
    pub fn long(self, slot: Slot) -> i64 {
        word(self.0, slot.offset) as i64
    }

    /// Reads a field that is stored as `f64`.
    #[inline]
    pub fn double(self, slot: Slot) -> f64 {
        f64::from_bits(word(self.0, slot.offset))
    }

    /// Reads a field that is stored in the tail.
    #[inline]
    pub fn bytes(self, slot: Slot) -> &'a [u8] {
        let word = word(self.0, slot.offset);
        let (offset, length) = ((word & 0xFFFF_FFFF) as usize, (word >> 32) as usize);
        &self.0[offset..offset + length]
    }

    /// Reads the unscaled value of a decimal.
    #[inline]
    pub fn decimal(self, slot: Slot) -> i128 {
        decimal_of(self.bytes(slot))
    }

    /// Reads the field as an owned value, for input and output.
    pub fn value(self, index: usize, width: usize, data_type: &DataType) -> Value {
        let slot = Slot::new(index, width);
        if self.is_null(slot) {
            return Value::Null;
        }
        match data_type.physical() {
            Physical::Bool => Value::Boolean(self.long(slot) != 0),
            Physical::Long => Value::Long(self.long(slot)),
            Physical::Double => Value::Double(self.double(slot)),
            Physical::Decimal => Value::Decimal(self.decimal(slot)),
            Physical::Bytes => Value::from_bytes(self.bytes(slot), data_type),
        }
    }
}

/// The length of the row at the start of a buffer, in bytes. The buffer may contain more data.
/// `None` if the buffer is truncated.
pub fn length(bytes: &[u8], fields: impl ExactSizeIterator<Item = Physical>) -> Option<usize> {
    let width = fields.len();
    let mut end = Slot::new(width, width).offset;
    let slots = bytes.get(..end)?;
    for (index, physical) in fields.enumerate() {
        let slot = Slot::new(index, width);
        if matches!(physical, Physical::Bytes | Physical::Decimal) && !Row(slots).is_null(slot) {
            let word = word(slots, slot.offset);
            end = end.max((word & 0xFFFF_FFFF) as usize + (word >> 32) as usize);
        }
    }
    (end <= bytes.len()).then_some(end)
}

/// Decodes the unscaled value of a decimal from its 16 bytes.
#[inline]
pub fn decimal_of(bytes: &[u8]) -> i128 {
    <[u8; 16]>::try_from(bytes).map_or(0, i128::from_le_bytes)
}

/// An array: its elements as a row, and their number.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    /// Number of elements.
    pub len: usize,
    /// The elements, as a row with one field per element.
    pub row: Row<'a>,
}

impl<'a> Array<'a> {
    /// Interprets bytes as an array. They must be the encoding of an array.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { len: word(bytes, 0) as usize, row: Row(&bytes[8..]) }
    }

    /// The slot of an element, counted from 0.
    #[inline]
    pub fn slot(&self, index: usize) -> Slot {
        Slot::new(index, self.len)
    }
}

/// A map. It is encoded as the length in bytes of the array of keys, the array of keys, and the
/// array of values.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    /// Number of entries.
    pub len: usize,
    /// The keys.
    pub keys: Array<'a>,
    /// The values, in the order of the keys.
    pub values: Array<'a>,
}

impl<'a> Map<'a> {
    /// Interprets bytes as a map. They must be the encoding of a map.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        let keys_bytes = word(bytes, 0) as usize;
        let (keys, values) = bytes[8..].split_at(keys_bytes);
        let keys = Array::new(keys);
        Self { len: keys.len, keys, values: Array::new(values) }
    }

    /// Appends a map, given its encoded arrays of keys and values.
    pub fn write<B: Bytes>(keys: &[u8], values: &[u8], out: &mut B) {
        out.extend(&(keys.len() as u64).to_le_bytes());
        out.extend(keys);
        out.extend(values);
    }
}

/// The buffer of a row writer.
pub trait Bytes: AsRef<[u8]> + AsMut<[u8]> {
    /// Appends bytes.
    fn extend(&mut self, bytes: &[u8]);
    /// Appends `count` zeros.
    fn zeros(&mut self, count: usize);
    /// Drops everything after the first `length` bytes.
    fn truncate(&mut self, length: usize);
}

impl Bytes for Vec<u8> {
    #[inline]
    fn extend(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
    #[inline]
    fn zeros(&mut self, count: usize) {
        self.resize(self.len() + count, 0);
    }
    fn truncate(&mut self, length: usize) {
        Self::truncate(self, length);
    }
}

impl Bytes for bumpalo::collections::Vec<'_, u8> {
    #[inline]
    fn extend(&mut self, bytes: &[u8]) {
        self.extend_from_slice_copy(bytes);
    }
    #[inline]
    fn zeros(&mut self, count: usize) {
        self.resize(self.len() + count, 0);
    }
    fn truncate(&mut self, length: usize) {
        Self::truncate(self, length);
    }
}

/// The word of a field in the tail: its offset and length, with 32 bits each. A longer row would
/// silently lose bytes, so it fails the query.
#[inline]
fn tail_word(offset: usize, length: usize) -> u64 {
    assert!(offset + length <= u32::MAX as usize, "a row has more than 4 GiB");
    offset as u64 | (length as u64) << 32
}

/// Writes a row at the end of a buffer. Fields that are not set are NULL.
pub struct RowWriter<'b, B> {
    out: &'b mut B,
    start: usize,
    width: usize,
}

impl<'b, B: Bytes> RowWriter<'b, B> {
    /// Starts a row of `width` fields.
    #[inline]
    pub fn new(out: &'b mut B, width: usize) -> Self {
        let start = out.as_ref().len();
        let mut row = Self { out, start, width };
        row.clear();
        row
    }

    /// Starts the row again: all fields become NULL and the tail becomes empty.
    pub fn restart(&mut self) {
        self.out.truncate(self.start);
        self.clear();
    }

    /// Appends the slots of a row whose fields are all NULL.
    #[inline]
    fn clear(&mut self) {
        let words = self.width.div_ceil(64);
        self.out.zeros(words * 8 + self.width * 8);
        let mut fields = self.width;
        for word in self.out.as_mut()[self.start..].chunks_exact_mut(8).take(words) {
            let bits = if fields < 64 { (1 << fields) - 1 } else { u64::MAX };
            word.copy_from_slice(&bits.to_le_bytes());
            fields = fields.saturating_sub(64);
        }
    }

    /// Starts a row in a buffer that is empty or contains a row of the same width. Only fields that
    /// were not NULL are reset, so a wide row with few values costs little more than its values.
    pub fn reuse(out: &'b mut B, width: usize) -> Self {
        let words = width.div_ceil(64);
        if out.as_ref().len() < words * 8 + width * 8 {
            out.truncate(0);
            return Self::new(out, width);
        }
        out.truncate(words * 8 + width * 8);
        let (bits, slots) = out.as_mut().split_at_mut(words * 8);
        for (index, block) in bits.chunks_mut(64).enumerate() {
            // Most blocks of a wide row contain no value.
            if block.iter().all(|byte| *byte == u8::MAX) {
                continue;
            }
            Self::make_null(block, index * 512, width, slots);
        }
        Self { out, start: 0, width }
    }

    /// Resets fields to NULL, starting at the field `first`. `bits` are the null bits of these
    /// fields.
    fn make_null(bits: &mut [u8], mut first: usize, width: usize, slots: &mut [u8]) {
        for word in bits.chunks_exact_mut(8) {
            let fields = (width - first).min(64);
            let all = u64::MAX >> (64 - fields);
            let nulls = self::word(word, 0);
            let mut set = all & !nulls;
            while set != 0 {
                let field = first + set.trailing_zeros() as usize;
                slots[field * 8..field * 8 + 8].fill(0);
                set &= set - 1;
            }
            if nulls != all {
                word.copy_from_slice(&all.to_le_bytes());
            }
            first += fields;
        }
    }

    /// The row as written so far. No other data may follow it in the buffer.
    pub fn row(&self) -> Row<'_> {
        Row(&self.out.as_ref()[self.start..])
    }

    /// Whether a field is NULL.
    #[inline]
    pub fn is_null(&self, index: usize) -> bool {
        self.row().is_null(Slot::new(index, self.width))
    }

    /// Continues a row of `width` fields, which must be the only content of the buffer.
    #[inline]
    pub fn resume(out: &'b mut B, width: usize) -> Self {
        Self { out, start: 0, width }
    }

    /// Starts an array of `len` elements.
    pub fn array(out: &'b mut B, len: usize) -> Self {
        out.extend(&(len as u64).to_le_bytes());
        Self::new(out, len)
    }

    #[inline]
    fn set(&mut self, index: usize, word: u64) {
        let slot = Slot::new(index, self.width);
        let row = &mut self.out.as_mut()[self.start..];
        row[slot.null_byte] &= !slot.null_mask;
        row[slot.offset..slot.offset + 8].copy_from_slice(&word.to_le_bytes());
    }

    /// Resets a field to NULL. Its bytes in the tail remain, unused.
    pub fn reset(&mut self, index: usize) {
        self.set(index, 0);
        let slot = Slot::new(index, self.width);
        self.out.as_mut()[self.start + slot.null_byte] |= slot.null_mask;
    }

    /// Sets a field that is stored as `i64`.
    #[inline]
    pub fn long(&mut self, index: usize, value: i64) {
        self.set(index, value as u64);
    }

    /// Sets a BOOLEAN field.
    #[inline]
    pub fn bool(&mut self, index: usize, value: bool) {
        self.set(index, u64::from(value));
    }

    /// Sets a field that is stored as `f64`.
    #[inline]
    pub fn double(&mut self, index: usize, value: f64) {
        self.set(index, value.to_bits());
    }

    /// Sets a field that is stored in the tail.
    #[inline]
    pub fn bytes(&mut self, index: usize, bytes: &[u8]) {
        let offset = self.out.as_ref().len() - self.start;
        self.out.extend(bytes);
        self.set(index, tail_word(offset, bytes.len()));
    }

    /// Sets a field to a nested row of `width` fields, which `fill` writes. Fields that `fill` does
    /// not set are NULL.
    pub fn nested<T>(
        &mut self,
        index: usize,
        width: usize,
        fill: impl FnOnce(&mut RowWriter<'_, B>) -> T,
    ) -> T {
        let start = self.out.as_ref().len();
        let filled = fill(&mut RowWriter::new(self.out, width));
        let (offset, length) = (start - self.start, self.out.as_ref().len() - start);
        self.set(index, tail_word(offset, length));
        filled
    }

    /// Sets a field to an array, whose elements `fill` writes. Elements that `fill` does not set
    /// are NULL.
    pub fn nested_array(
        &mut self,
        index: usize,
        len: usize,
        fill: impl FnOnce(&mut RowWriter<'_, B>),
    ) {
        let start = self.out.as_ref().len();
        fill(&mut RowWriter::array(self.out, len));
        let (offset, length) = (start - self.start, self.out.as_ref().len() - start);
        self.set(index, tail_word(offset, length));
    }

    /// Sets a field to the bytes that `fill` appends to the tail.
    pub fn tail(&mut self, index: usize, fill: impl FnOnce(&mut B)) {
        let start = self.out.as_ref().len();
        fill(self.out);
        let (offset, length) = (start - self.start, self.out.as_ref().len() - start);
        self.set(index, tail_word(offset, length));
    }

    /// Sets all fields at once, from the 8 bytes of each field's slot. No field may be NULL or
    /// stored in the tail.
    pub fn words(&mut self, words: &[u8]) {
        let slots = self.start + Slot::new(0, self.width).offset;
        let row = self.out.as_mut();
        row[self.start..slots].fill(0);
        row[slots..slots + words.len()].copy_from_slice(words);
    }

    /// Like [`Self::nested`], but leaves the field unchanged if `fill` fails. The bytes that `fill`
    /// has written remain in the tail, unused.
    pub fn try_nested<T, E>(
        &mut self,
        index: usize,
        width: usize,
        fill: impl FnOnce(&mut RowWriter<'_, B>) -> Result<T, E>,
    ) -> Result<T, E> {
        let start = self.out.as_ref().len();
        let filled = fill(&mut RowWriter::new(self.out, width))?;
        let (offset, length) = (start - self.start, self.out.as_ref().len() - start);
        self.set(index, tail_word(offset, length));
        Ok(filled)
    }

    /// Sets a decimal by its unscaled value.
    #[inline]
    pub fn decimal(&mut self, index: usize, unscaled: i128) {
        self.bytes(index, &unscaled.to_le_bytes());
    }

    /// Sets a field from a value. NULL leaves the field as it is.
    pub fn value(&mut self, index: usize, value: &Value) {
        match value {
            Value::Null => {}
            Value::Boolean(v) => self.bool(index, *v),
            Value::Long(v) => self.long(index, *v),
            Value::Double(v) => self.double(index, *v),
            Value::Decimal(v) => self.decimal(index, *v),
            Value::String(v) => self.bytes(index, v.as_bytes()),
            Value::Binary(v) => self.bytes(index, v),
            Value::Array(_) | Value::Map(_) | Value::Struct(_) => {
                let mut nested = Vec::new();
                value.write(&mut nested);
                self.bytes(index, &nested);
            }
        }
    }
}

/// Encodes one row with a field for each value.
pub fn encode(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = RowWriter::new(&mut out, values.len());
    for (index, value) in values.iter().enumerate() {
        writer.value(index, value);
    }
    out
}

/// Iterates over the fields of a row as owned values, given their types.
pub fn values<'t>(
    row: Row<'_>,
    types: impl ExactSizeIterator<Item = &'t DataType>,
) -> impl ExactSizeIterator<Item = Value> {
    let width = types.len();
    types.enumerate().map(move |(index, data_type)| row.value(index, width, data_type))
}

/// Decodes a row to owned values, given the types of its fields.
pub fn decode<'t>(row: Row<'_>, types: impl ExactSizeIterator<Item = &'t DataType>) -> Vec<Value> {
    values(row, types).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::types::Field;
    use proptest::prelude::*;

    #[test]
    #[should_panic(expected = "a row has more than 4 GiB")]
    fn a_row_of_more_than_4_gib_is_refused() {
        assert_eq!(tail_word(1, 2), 1 | 2 << 32);
        tail_word(3 << 30, 1 << 30);
    }

    fn typed_value() -> impl Strategy<Value = (DataType, Value)> {
        let leaf = prop_oneof![
            any::<Option<i64>>().prop_map(|v| (DataType::Long, v.map_or(Value::Null, Value::Long))),
            any::<bool>().prop_map(|v| (DataType::Boolean, Value::Boolean(v))),
            (-1e9f64..1e9).prop_map(|v| (DataType::Double, Value::Double(v))),
            any::<i128>().prop_map(|v| (DataType::Decimal(38, 2), Value::Decimal(v))),
            "[a-zé ]{0,12}".prop_map(|v| (DataType::String, Value::String(v))),
        ];
        leaf.prop_recursive(2, 16, 4, |inner| {
            prop_oneof![
                (inner.clone(), 0usize..4).prop_map(|((t, v), n)| {
                    (DataType::Array(Box::new(t)), Value::Array(vec![v; n]))
                }),
                proptest::collection::vec(inner, 1..4).prop_map(|fields| {
                    let (types, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
                    let fields = types.into_iter().map(|t| Field::new("f", t, true)).collect();
                    (DataType::Struct(fields), Value::Struct(values))
                }),
            ]
        })
    }

    proptest! {
        /// Values survive encoding and decoding, and equal rows have equal bytes.
        #[test]
        fn encoded_rows_decode_to_the_same_values(fields in proptest::collection::vec(typed_value(), 0..70)) {
            let (types, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
            let bytes = encode(&values);
            prop_assert_eq!(&decode(Row(&bytes), types.iter()), &values);
            prop_assert_eq!(encode(&values), bytes);
        }
    }
}
