//! The position of a message type in its file, which the header of a schema registry states.

use super::wire::{Cursor, DecodeError, unzigzag64};
use prost_reflect::MessageDescriptor;
use smallvec::{SmallVec, smallvec};

/// The maximum nesting depth of a message type in its file.
const DEPTH_MAX: usize = 64;

/// The indices of a message type and of those that enclose it, the outermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageIndex(SmallVec<[i64; 4]>);

impl MessageIndex {
    /// The position of a message type.
    pub fn of(message: &MessageDescriptor) -> Self {
        // A path has the number of a list before each index.
        Self(message.path().iter().skip(1).step_by(2).map(|index| i64::from(*index)).collect())
    }

    /// Reads the position that follows the id of the schema. Returns it and the bytes after it.
    pub fn split(data: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let mut cursor = Cursor::new(data, 0, data.len());
        let number = |cursor: &mut Cursor<'_>| cursor.varint().map(unzigzag64);
        let index = match number(&mut cursor)? {
            // The short form of the first message type.
            0 => smallvec![0],
            count if (1..=DEPTH_MAX as i64).contains(&count) => {
                (0..count).map(|_| number(&mut cursor)).collect::<Result<_, _>>()?
            }
            _ => return cursor.failed("the header has no valid position of a message type"),
        };
        Ok((Self(index), &data[cursor.at..]))
    }
}
