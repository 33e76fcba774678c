//! Reduces a footer to the fields that reading needs. Statistics and indexes are dropped, because
//! some writers put values there that the decoder rejects.
//!
//! Row counts and byte counts that a writer omitted become 0.

use super::thrift::Reader;

/// The type codes of Thrift's compact protocol that are used here.
const I64: u8 = 6;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// The structs of a footer whose fields are filtered.
#[derive(Clone, Copy)]
enum Level {
    File,
    RowGroup,
    Column,
    ColumnMetadata,
}

/// The treatment of a field.
enum Part {
    Dropped,
    Kept,
    /// A struct whose fields are filtered.
    Inside(Level),
    /// A list of structs whose fields are filtered.
    Each(Level),
}

impl Level {
    /// The treatment of the field `id`, as numbered in `parquet.thrift`.
    fn part(self, id: i64, kind: u8) -> Part {
        match (self, id, kind) {
            // Keeps version, schema, row count, key-value metadata, writer and encryption.
            (Self::File, 1..=3 | 5 | 6 | 8 | 9, _) => Part::Kept,
            (Self::File, 4, LIST) => Part::Each(Self::RowGroup),
            // Keeps byte count and row count.
            (Self::RowGroup, 2 | 3, _) => Part::Kept,
            (Self::RowGroup, 1, LIST) => Part::Each(Self::Column),
            // Keeps the file's path, the metadata's offset and encryption.
            (Self::Column, 1 | 2 | 8 | 9, _) => Part::Kept,
            (Self::Column, 3, STRUCT) => Part::Inside(Self::ColumnMetadata),
            // Keeps type, encodings, path, codec, value count, sizes and page offsets.
            (Self::ColumnMetadata, 1..=7 | 9 | 11, _) => Part::Kept,
            _ => Part::Dropped,
        }
    }

    /// The integer fields that are added as 0 if they are missing.
    fn required(self) -> &'static [i64] {
        match self {
            Self::File => &[3],
            Self::RowGroup => &[2, 3],
            Self::Column | Self::ColumnMetadata => &[],
        }
    }
}

/// Copies the needed fields of a footer. Returns `None` if the footer is truncated or malformed.
pub fn needed(footer: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(footer.len());
    copy(&mut Reader { bytes: footer, at: 0 }, 0, Level::File, &mut out)?;
    Some(out)
}

fn copy(reader: &mut Reader<'_>, depth: usize, level: Level, out: &mut Vec<u8>) -> Option<()> {
    let mut last = 0;
    let mut missing = level.required().to_vec();
    reader.fields(depth, &mut |id, kind, reader, depth| {
        let part = level.part(id, kind);
        if matches!(part, Part::Dropped) {
            return reader.value(kind, depth);
        }
        head(&mut last, id, kind, out);
        missing.retain(|required| *required != id);
        match part {
            Part::Dropped => Some(()),
            Part::Kept => {
                let from = reader.at;
                reader.value(kind, depth)?;
                out.extend_from_slice(&reader.bytes[from..reader.at]);
                Some(())
            }
            Part::Inside(level) => copy(reader, depth + 1, level, out),
            Part::Each(level) => {
                let (kind, count) = reader.list_head(1)?;
                out.push(0xF0 | kind);
                varint(count, out);
                (0..count).try_for_each(|_| copy(reader, depth + 1, level, out))
            }
        }
    })?;
    for id in missing {
        head(&mut last, id, I64, out);
        out.push(0);
    }
    out.push(0);
    Some(())
}

/// Writes a field header: the difference from the previous field's number, or the number itself if
/// the difference does not fit in four bits.
fn head(last: &mut i64, id: i64, kind: u8, out: &mut Vec<u8>) {
    match id - std::mem::replace(last, id) {
        ahead @ 1..=15 => out.push((ahead as u8) << 4 | kind),
        _ => {
            out.push(kind);
            varint((id << 1 ^ id >> 63).cast_unsigned(), out);
        }
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7F {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unneeded_fields_are_removed_and_missing_fields_become_zero() {
        // The input has version 1, a row group of one column without a row count, and column
        // orders.
        let column = [
            // The column chunk: the metadata's offset, and the metadata with type 1, statistics and
            // offset 4.
            0x26, 8, 0x1C, 0x15, 2, 0xBC, 0x16, 0, 0, 0x00,
        ];
        let mut footer = vec![0x15, 2, 0x39, 0x1C, 0x19, 0x1C];
        footer.extend(column);
        footer.extend([0x00, 0x16, 20, 0x00, 0x39, 0x1C, 0x00, 0x00]);
        let read = needed(&footer).unwrap();
        let mut expected = vec![0x15, 2, 0x39, 0xFC, 1, 0x19, 0xFC, 1];
        expected.extend([0x26, 8, 0x1C, 0x15, 2, 0x00, 0x00, 0x16, 20, 0x16, 0, 0x00]);
        // The file's row count has a smaller field number than the row groups.
        expected.extend([0x06, 6, 0, 0x00]);
        assert_eq!(read, expected);
        assert_eq!(needed(&footer[..footer.len() - 1]), None);
    }
}
