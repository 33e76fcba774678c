//! Thrift's compact protocol, which Parquet footers and page headers use. It is decoded field by
//! field and allocates nothing, whatever sizes the bytes claim.

/// The maximum nesting depth of structs.
const DEPTH_MAX: usize = 16;

/// A cursor over encoded bytes. Its methods return `None` if the bytes end too early or are
/// malformed.
pub struct Reader<'b> {
    pub bytes: &'b [u8],
    /// The offset of the next byte.
    pub at: usize,
}

impl Reader<'_> {
    pub fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub fn number(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub fn skip(&mut self, bytes: u64) -> Option<()> {
        self.at = self.at.checked_add(usize::try_from(bytes).ok()?)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    /// Skips a value. `None` if the bytes end within it, if it is nested too deeply, or if its type
    /// is unknown or a map, which no footer has.
    pub fn value(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            1 | 2 => Some(()),
            3 => self.skip(1),
            4..=6 => self.varint().map(drop),
            7 => self.skip(8),
            8 => {
                let length = self.varint()?;
                self.skip(length)
            }
            9 | 10 => self.list(1, depth, &mut |kind, reader, depth| match kind {
                // A boolean in a list takes a byte of its own.
                1 | 2 => reader.skip(1),
                kind => reader.value(kind, depth),
            }),
            12 => self.fields(depth + 1, &mut |_, kind, reader, depth| reader.value(kind, depth)),
            _ => None,
        }
    }

    /// Reads a list and calls `element` for each element. `None` if the bytes are too few for
    /// elements of at least `least` bytes, or if `element` returns `None`.
    pub fn list(&mut self, least: u64, depth: usize, element: &mut Element<'_>) -> Option<()> {
        let (kind, count) = self.list_head(least)?;
        (0..count).try_for_each(|_| element(kind, self, depth + 1))
    }

    /// Reads the header of a list: the type of its elements and their number. Fails if the bytes
    /// are too few for elements of at least `least` bytes.
    pub fn list_head(&mut self, least: u64) -> Option<(u8, u64)> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        let fits = count.saturating_mul(least) <= (self.bytes.len() - self.at) as u64;
        fits.then_some((head & 15, count))
    }

    /// Reads a struct. `field` must consume the value of each field.
    pub fn fields(&mut self, depth: usize, field: &mut Field<'_>) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        let mut id = 0i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            id = if head >> 4 == 0 { self.number()? } else { id + i64::from(head >> 4) };
            field(id, head & 15, self, depth)?;
        }
    }
}

/// Reads the value of a field: its number, its type, the reader, the depth of nesting.
pub type Field<'f> = dyn FnMut(i64, u8, &mut Reader<'_>, usize) -> Option<()> + 'f;

/// Reads an element of a list: its type, the reader, the depth of nesting.
pub type Element<'f> = dyn FnMut(u8, &mut Reader<'_>, usize) -> Option<()> + 'f;
