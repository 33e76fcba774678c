//! The wire format: tags, variable-length integers, and skipping of fields that are not known.

use smallvec::{SmallVec, smallvec};
use std::fmt;

/// The maximum depth of groups that are skipped.
const GROUP_DEPTH_MAX: usize = 100;

/// Wire types.
pub const VARINT: u8 = 0;
pub const FIXED64: u8 = 1;
pub const LENGTH: u8 = 2;
pub const GROUP: u8 = 3;
pub const GROUP_END: u8 = 4;
pub const FIXED32: u8 = 5;

/// A decoding error: the bytes are not a message of the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The byte at which reading stopped.
    pub offset: usize,
    /// The problem at that byte.
    pub reason: &'static str,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.reason)
    }
}

/// A position within a range of a record.
pub struct Cursor<'d> {
    pub bytes: &'d [u8],
    pub at: usize,
    pub end: usize,
}

impl<'d> Cursor<'d> {
    pub fn new(bytes: &'d [u8], at: usize, end: usize) -> Self {
        Self { bytes, at, end }
    }

    #[cold]
    pub fn failed<T>(&self, reason: &'static str) -> Result<T, DecodeError> {
        Err(DecodeError { offset: self.at, reason })
    }

    pub fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        let rest = &self.bytes[self.at..self.end];
        for (index, byte) in rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        match rest.len() < 10 {
            true => self.failed("the data ends within an integer"),
            false => self.failed("an integer has more than 10 bytes"),
        }
    }

    /// Reads the tag of a field: its number and wire type.
    #[inline]
    pub fn tag(&mut self) -> Result<(u32, u8), DecodeError> {
        let tag = self.varint()? as u32;
        match tag >> 3 {
            0 => self.failed("a field has the number 0"),
            number => Ok((number, tag as u8 & 7)),
        }
    }

    pub fn fixed32(&mut self) -> Result<u32, DecodeError> {
        let (start, end) = self.take(4)?;
        Ok(self.bytes[start..end].try_into().map_or(0, u32::from_le_bytes))
    }

    pub fn fixed64(&mut self) -> Result<u64, DecodeError> {
        let (start, end) = self.take(8)?;
        Ok(self.bytes[start..end].try_into().map_or(0, u64::from_le_bytes))
    }

    /// Reads a length, and returns the range of that number of bytes.
    pub fn prefixed(&mut self) -> Result<(usize, usize), DecodeError> {
        match usize::try_from(self.varint()?) {
            Ok(length) => self.take(length),
            Err(_) => self.failed("a length is negative"),
        }
    }

    fn take(&mut self, count: usize) -> Result<(usize, usize), DecodeError> {
        if count > self.end - self.at {
            return self.failed("the data ends within a value");
        }
        let start = self.at;
        self.at += count;
        Ok((start, self.at))
    }

    /// Advances past the value of a field.
    pub fn skip(&mut self, number: u32, wire: u8) -> Result<(), DecodeError> {
        match wire {
            VARINT => self.varint().map(drop),
            FIXED64 => self.take(8).map(drop),
            LENGTH => self.prefixed().map(drop),
            FIXED32 => self.take(4).map(drop),
            GROUP => self.group(number).map(drop),
            GROUP_END => self.failed("a group ends that did not begin"),
            _ => self.failed("a field has an unknown wire type"),
        }
    }

    /// Advances past a group whose start tag was read. Returns the range between its tags.
    pub fn group(&mut self, number: u32) -> Result<(usize, usize), DecodeError> {
        let start = self.at;
        let mut open: SmallVec<[u32; 8]> = smallvec![number];
        loop {
            let before = self.at;
            if self.is_at_end() {
                return self.failed("the data ends within a group");
            }
            match self.tag()? {
                (number, GROUP) if open.len() < GROUP_DEPTH_MAX => open.push(number),
                (_, GROUP) => return self.failed("groups are nested too deep"),
                (number, GROUP_END) => {
                    if open.pop() != Some(number) {
                        return self.failed("the end of a group has another number");
                    }
                    if open.is_empty() {
                        return Ok((start, before));
                    }
                }
                (number, wire) => self.skip(number, wire)?,
            }
        }
    }
}

/// Appends a variable-length integer.
#[inline]
pub fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the bytes that `write` appends, after their length.
pub fn write_prefixed<E>(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.push(0);
    write(out)?;
    let length = out.len() - start - 1;
    if length < 0x80 {
        out[start] = length as u8;
        return Ok(());
    }
    // The length takes more than the byte that was left for it.
    let end = out.len();
    write_varint(length as u64, out);
    let prefix = out.len() - end;
    out[start..].rotate_right(prefix);
    // The byte that was left is now the first one after the length.
    out.remove(start + prefix);
    Ok(())
}

pub fn unzigzag32(value: u64) -> i32 {
    let value = value as u32;
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

pub fn zigzag32(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}

pub fn zigzag64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub fn unzigzag64(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
