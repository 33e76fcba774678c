//! Protocol Buffers wire format, as far as the footers of ORC files need it.
//!
//! Fields are read as slices of the message, so a corrupt length cannot cause an allocation.

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'b> {
    /// An integer of any width.
    Number(u64),
    /// A string, bytes, a message or packed integers.
    Bytes(&'b [u8]),
}

impl<'b> Item<'b> {
    /// The integer, or 0 if the field has another wire type.
    pub fn number(self) -> u64 {
        match self {
            Self::Number(value) => value,
            Self::Bytes(_) => 0,
        }
    }

    /// The bytes, or an empty slice if the field has another wire type.
    pub fn bytes(self) -> &'b [u8] {
        match self {
            Self::Number(_) => &[],
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The text, with replacement characters where it is not UTF-8.
    pub fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// Reads a variable-length integer and advances `bytes` past it. Returns `None` if the bytes end
/// too early or the integer is too long.
pub fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Calls `field` with the number and the value of each field of a message. Returns `None` if the
/// message is damaged or a call returns `None`.
pub fn fields<'b>(
    mut bytes: &'b [u8],
    mut field: impl FnMut(u64, Item<'b>) -> Option<()>,
) -> Option<()> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let mut cut = |length: u64| {
            let length = usize::try_from(length).ok().filter(|length| *length <= bytes.len())?;
            let (head, rest) = bytes.split_at(length);
            bytes = rest;
            Some(head)
        };
        let little = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        let item = match key & 7 {
            0 => Item::Number(varint(&mut bytes)?),
            1 => Item::Number(little(cut(8)?)),
            2 => {
                let length = varint(&mut bytes)?;
                let length = usize::try_from(length).ok().filter(|n| *n <= bytes.len())?;
                let (head, rest) = bytes.split_at(length);
                bytes = rest;
                Item::Bytes(head)
            }
            5 => Item::Number(little(cut(4)?)),
            _ => return None,
        };
        field(key >> 3, item)?;
    }
    Some(())
}

/// A message under construction: its encoded bytes.
#[derive(Clone, Debug, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    /// Appends a variable-length integer without a field tag.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Appends an unsigned integer.
    pub fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    /// Appends a signed integer, zigzag encoded.
    pub fn signed(&mut self, field: u64, value: i64) {
        self.number(field, ((value << 1) ^ (value >> 63)) as u64);
    }

    /// Appends a double.
    pub fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    /// Appends bytes, a string or a message.
    pub fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_were_written() {
        let mut message = Message::default();
        message.number(1, 300);
        message.signed(2, -3);
        message.double(3, 1.5);
        message.bytes(1000, b"ab");
        let mut found = Vec::new();
        fields(&message.0, |field, item| {
            found.push((field, item));
            Some(())
        });
        let expected = [
            (1, Item::Number(300)),
            (2, Item::Number(5)),
            (3, Item::Number(1.5f64.to_bits())),
            (1000, Item::Bytes(b"ab")),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_field_that_ends_after_the_message_is_an_error() {
        assert_eq!(fields(&[0x0A, 5, b'a'], |_, _| Some(())), None);
        assert_eq!(fields(&[0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F], |_, _| Some(())), None);
        assert_eq!(fields(&[0x08], |_, _| Some(())), None);
    }
}
