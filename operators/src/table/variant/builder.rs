//! Builds VARIANT values.

use super::{
    ARRAY, BINARY, Content, DATE, DECIMAL_32, DECIMAL_64, DECIMAL_128, DOUBLE, FALSE, FLOAT, INT_8,
    INT_16, INT_32, INT_64, NULL, OBJECT, SHORT_TEXT, SIZE_MAX, TEXT, TIMESTAMP, TIMESTAMP_NTZ,
    TRUE, Variant, order_names,
};
use crate::table::deep_recursion::on_stack;
use crate::table::row::Bytes;
use hashbrown::HashTable;
use millstream_engine::checkpoint::key_group::hash_bytes as hash;
use std::cell::RefCell;

/// Why a value cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// An object has two fields of this name.
    DuplicateName(String),
    /// The value is longer than [`SIZE_MAX`], or deeper than [`LEVELS_MAX`].
    TooLarge,
}

/// The version of the binary form.
const VERSION: u8 = 1;

/// The maximum number of arrays and objects within each other. JSON has at most 1000.
pub const LEVELS_MAX: usize = 1024;

/// The longest text whose length fits the header byte.
const SHORT_TEXT_MAX: usize = 63;

/// A part of an array or object that is being built.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// The index of the field's name; 0 for an element of an array.
    id: u32,
    /// The offset of the part from the start of the array or object.
    offset: u32,
}

/// The start of an array or object that is being built.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    value: usize,
    parts: usize,
}

/// Builds a value from its parts, depth first.
#[derive(Debug, Default)]
pub struct Builder {
    /// The names of all objects, one after the other.
    names: Vec<u8>,
    /// The end of each name in `names`.
    ends: Vec<u32>,
    /// The ids of the names, found by their hashes.
    ids: HashTable<u32>,
    value: Vec<u8>,
    /// The parts of all arrays and objects that have been started and not ended.
    parts: Vec<Part>,
    /// The number of arrays and objects that have been started and not ended.
    levels: usize,
}

/// The number of bytes of the integers in a table whose largest one is given.
fn width_of(most: usize) -> usize {
    match most {
        0..=0xFF => 1,
        0x100..=0xFFFF => 2,
        0x1_0000..=0xFF_FFFF => 3,
        _ => 4,
    }
}

thread_local! {
    /// The builder of the thread, whose memory is used again.
    static BUILDER: RefCell<Builder> = RefCell::default();
}

/// The memory in bytes of each buffer that the builder of a thread keeps for its next value.
const KEPT_BYTES: usize = 1 << 20;

impl Builder {
    /// Builds a value with the builder of the thread, and appends it to `out` as a VARIANT cell. The
    /// memory of the builder is used again. `build` must not call this function.
    pub fn with<E: From<BuildError>>(
        out: &mut impl Bytes,
        build: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        BUILDER.with_borrow_mut(|builder| {
            // A build that panicked has left its parts.
            builder.clear();
            let built = build(builder).and_then(|()| Ok(builder.write(out)?));
            if builder.longest_buffer() > KEPT_BYTES {
                *builder = Self::default();
            }
            built
        })
    }

    /// The memory of the longest buffer in bytes.
    fn longest_buffer(&self) -> usize {
        let of_names = (self.ends.capacity() + self.ids.capacity()) * size_of::<u32>();
        let of_parts = self.parts.capacity() * size_of::<Part>();
        self.value.capacity().max(self.names.capacity()).max(of_names).max(of_parts)
    }

    /// Appends the bytes of the finished value as a VARIANT cell.
    fn write(&self, out: &mut impl Bytes) -> Result<(), BuildError> {
        let (count, length) = (self.ends.len(), self.names.len());
        let width = width_of(length.max(count));
        let whole = 1 + (count + 2) * width + length;
        if whole > SIZE_MAX || self.value.len() > SIZE_MAX {
            return Err(BuildError::TooLarge);
        }
        out.extend(&(whole as u32).to_le_bytes());
        out.extend(&[VERSION | ((width as u8 - 1) << 6)]);
        let mut number = |number: u32| out.extend(&number.to_le_bytes()[..width]);
        number(count as u32);
        number(0);
        self.ends.iter().for_each(|end| number(*end));
        out.extend(&self.names);
        out.extend(&self.value);
        Ok(())
    }

    /// Discards what was built.
    fn clear(&mut self) {
        self.names.clear();
        self.ends.clear();
        self.ids.clear();
        self.value.clear();
        self.parts.clear();
        self.levels = 0;
    }

    /// The number of parts of all arrays and objects that have been started and not ended.
    pub(super) fn open_parts(&self) -> usize {
        self.parts.len()
    }

    fn primitive(&mut self, kind: u8, content: &[u8]) {
        self.value.push(kind << 2);
        self.value.extend_from_slice(content);
    }

    /// Appends JSON's null.
    pub fn null(&mut self) {
        self.primitive(NULL, &[]);
    }

    /// Appends a BOOLEAN.
    pub fn boolean(&mut self, value: bool) {
        self.primitive(if value { TRUE } else { FALSE }, &[]);
    }

    /// Appends an integer, in the fewest bytes.
    pub fn long(&mut self, value: i64) {
        let bytes = value.to_le_bytes();
        match value {
            -0x80..0x80 => self.primitive(INT_8, &bytes[..1]),
            -0x8000..0x8000 => self.primitive(INT_16, &bytes[..2]),
            -0x8000_0000..0x8000_0000 => self.primitive(INT_32, &bytes[..4]),
            _ => self.primitive(INT_64, &bytes),
        }
    }

    /// Appends a DOUBLE.
    pub fn double(&mut self, value: f64) {
        self.primitive(DOUBLE, &value.to_bits().to_le_bytes());
    }

    /// Appends a FLOAT.
    pub fn float(&mut self, value: f32) {
        self.primitive(FLOAT, &value.to_bits().to_le_bytes());
    }

    /// Appends a DECIMAL.
    pub fn decimal(&mut self, unscaled: i128, scale: u8) {
        let (kind, width) = match (unscaled.unsigned_abs(), scale) {
            (0..1_000_000_000, 0..=9) => (DECIMAL_32, 4),
            (0..1_000_000_000_000_000_000, 0..=18) => (DECIMAL_64, 8),
            _ => (DECIMAL_128, 16),
        };
        self.primitive(kind, &[scale]);
        self.value.extend_from_slice(&unscaled.to_le_bytes()[..width]);
    }

    /// Appends a DATE, in days since 1970-01-01.
    pub fn date(&mut self, days: i64) {
        self.primitive(DATE, &days.to_le_bytes()[..4]);
    }

    /// Appends a TIMESTAMP, in microseconds since 1970-01-01 UTC.
    pub fn timestamp(&mut self, micros: i64) {
        self.primitive(TIMESTAMP, &micros.to_le_bytes());
    }

    /// Appends a TIMESTAMP_NTZ, in microseconds since 1970-01-01.
    pub fn timestamp_ntz(&mut self, micros: i64) {
        self.primitive(TIMESTAMP_NTZ, &micros.to_le_bytes());
    }

    /// Appends a STRING.
    pub fn text(&mut self, text: &[u8]) {
        if text.len() <= SHORT_TEXT_MAX {
            self.value.push((text.len() as u8) << 2 | SHORT_TEXT);
            self.value.extend_from_slice(text);
        } else {
            self.sized(TEXT, text);
        }
    }

    /// Appends a BINARY.
    pub fn binary(&mut self, bytes: &[u8]) {
        self.sized(BINARY, bytes);
    }

    fn sized(&mut self, kind: u8, bytes: &[u8]) {
        // A length of more than 4 GiB is refused at the end, like any above `SIZE_MAX`.
        self.primitive(kind, &(bytes.len() as u32).to_le_bytes());
        self.value.extend_from_slice(bytes);
    }

    /// Starts an array or an object, which must be ended.
    pub fn start(&mut self) -> Start {
        self.levels += 1;
        Start { value: self.value.len(), parts: self.parts.len() }
    }

    /// Starts the next element of an array. Its value must be appended next.
    pub fn element(&mut self, array: Start) {
        let offset = (self.value.len() - array.value) as u32;
        self.parts.push(Part { id: 0, offset });
    }

    /// Starts the next field of an object. Its value must be appended next.
    pub fn field(&mut self, object: Start, name: &[u8]) {
        let id = self.id_of(name);
        let offset = (self.value.len() - object.value) as u32;
        self.parts.push(Part { id, offset });
    }

    fn name(&self, id: u32) -> &[u8] {
        name_of(&self.names, &self.ends, id)
    }

    fn id_of(&mut self, name: &[u8]) -> u32 {
        let (names, ends) = (&self.names, &self.ends);
        let hashed = hash(name);
        if let Some(id) = self.ids.find(hashed, |id| name_of(names, ends, *id) == name) {
            return *id;
        }
        let id = ends.len() as u32;
        self.ids.insert_unique(hashed, id, |id| hash(name_of(names, ends, *id)));
        self.names.extend_from_slice(name);
        self.ends.push(self.names.len() as u32);
        id
    }

    /// Ends an array.
    pub fn end_array(&mut self, start: Start) -> Result<(), BuildError> {
        self.end(start, false)
    }

    /// Ends an object: sorts its fields by name.
    pub fn end_object(&mut self, start: Start) -> Result<(), BuildError> {
        let mut parts = std::mem::take(&mut self.parts);
        // Equal names have the same id and are refused below, so their order does not matter.
        parts[start.parts..].sort_unstable_by(|a, b| order_names(self.name(a.id), self.name(b.id)));
        let same = parts[start.parts..].windows(2).find(|pair| pair[0].id == pair[1].id);
        let same = same.map(|pair| pair[0].id);
        self.parts = parts;
        match same {
            Some(id) => {
                Err(BuildError::DuplicateName(String::from_utf8_lossy(self.name(id)).into_owned()))
            }
            None => self.end(start, true),
        }
    }

    /// Writes the table of the parts before them, and moves them for that. A text within n arrays is
    /// moved n times, at most [`LEVELS_MAX`].
    fn end(&mut self, start: Start, is_object: bool) -> Result<(), BuildError> {
        let length = self.value.len() - start.value;
        if length > SIZE_MAX || self.names.len() > SIZE_MAX || self.levels > LEVELS_MAX {
            return Err(BuildError::TooLarge);
        }
        let parts = &self.parts[start.parts..];
        let count = parts.len();
        let is_large = count > 0xFF;
        let most_id = parts.iter().map(|part| part.id).max().unwrap_or(0);
        let id_bytes = if is_object { width_of(most_id as usize) } else { 0 };
        let offset_bytes = width_of(length);
        let size_bytes = if is_large { 4 } else { 1 };
        let table = 1 + size_bytes + count * id_bytes + (count + 1) * offset_bytes;
        let end = self.value.len();
        self.value.resize(end + table, 0);
        self.value.copy_within(start.value..end, start.value + table);
        let offsets = (offset_bytes as u8 - 1) << 2;
        self.value[start.value] = match is_object {
            true => u8::from(is_large) << 6 | (id_bytes as u8 - 1) << 4 | offsets | OBJECT,
            false => u8::from(is_large) << 4 | offsets | ARRAY,
        };
        let mut at = start.value + 1;
        let mut put = |number: u32, width: usize| {
            self.value[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
            at += width;
        };
        put(count as u32, size_bytes);
        if is_object {
            parts.iter().for_each(|part| put(part.id, id_bytes));
        }
        parts.iter().for_each(|part| put(part.offset, offset_bytes));
        put(length as u32, offset_bytes);
        self.parts.truncate(start.parts);
        self.levels -= 1;
        Ok(())
    }

    /// Appends a value, or a part of one.
    pub fn variant(&mut self, variant: Variant<'_>) -> Result<(), BuildError> {
        if let Some(bytes) = variant.primitive_bytes() {
            self.value.extend_from_slice(bytes);
            return Ok(());
        }
        match variant.content() {
            Content::Object(fields) => {
                let start = self.start();
                for (name, value) in fields.fields() {
                    self.field(start, name);
                    on_stack(|| self.variant(value))?;
                }
                self.end_object(start)
            }
            Content::Array(elements) => {
                let start = self.start();
                for value in elements.values() {
                    self.element(start);
                    on_stack(|| self.variant(value))?;
                }
                self.end_array(start)
            }
            _ => Ok(()),
        }
    }
}

fn name_of<'n>(names: &'n [u8], ends: &[u32], id: u32) -> &'n [u8] {
    let id = id as usize;
    let begin = if id == 0 { 0 } else { ends[id - 1] as usize };
    &names[begin..ends[id] as usize]
}
