//! The part of a footer that is needed to read a file, without the rest: statistics and indexes, in
//! which some writers leave what decoders choke on.
//!
//! Numbers of rows that a writer left out are 0 here.

use super::thrift::Reader;

/// The kinds of Thrift's compact protocol that are looked at.
const I64: u8 = 6;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// A struct of a footer.
#[derive(Clone, Copy)]
enum Level {
    File,
    RowGroup,
    Column,
    ColumnMetadata,
}

/// What is done with a field.
enum Part {
    Dropped,
    Kept,
    /// A struct.
    Inside(Level),
    /// A list of structs.
    Each(Level),
}

impl Level {
    /// By the numbers that `parquet.thrift` gives its fields.
    fn part(self, id: i64, kind: u8) -> Part {
        match (self, id, kind) {
            // Version, schema, rows, notes, writer, encryption.
            (Self::File, 1..=3 | 5 | 6 | 8 | 9, _) => Part::Kept,
            (Self::File, 4, LIST) => Part::Each(Self::RowGroup),
            // Bytes and rows.
            (Self::RowGroup, 2 | 3, _) => Part::Kept,
            (Self::RowGroup, 1, LIST) => Part::Each(Self::Column),
            // The file's name, the offset of the metadata, encryption.
            (Self::Column, 1 | 2 | 8 | 9, _) => Part::Kept,
            (Self::Column, 3, STRUCT) => Part::Inside(Self::ColumnMetadata),
            // Type, encodings, path, codec, values, sizes, offsets of pages.
            (Self::ColumnMetadata, 1..=7 | 9 | 11, _) => Part::Kept,
            _ => Part::Dropped,
        }
    }

    /// Numbers that are 0 where they are left out.
    fn required(self) -> &'static [i64] {
        match self {
            Self::File => &[3],
            Self::RowGroup => &[2, 3],
            Self::Column | Self::ColumnMetadata => &[],
        }
    }
}

/// The needed part of a footer; `None` if it ends too early.
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

/// The head of a field: how much its number is beyond that of the one before, or the number itself.
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
    fn what_is_not_needed_is_left_out_and_what_is_missing_is_zero() {
        // Version 1, a row group of one column without a number of rows, and column orders.
        let column = [
            // The offset of the metadata, and the metadata: type 1, statistics, offset 4.
            0x26, 8, 0x1C, 0x15, 2, 0xBC, 0x16, 0, 0, 0x00,
        ];
        let mut footer = vec![0x15, 2, 0x39, 0x1C, 0x19, 0x1C];
        footer.extend(column);
        footer.extend([0x00, 0x16, 20, 0x00, 0x39, 0x1C, 0x00, 0x00]);
        let read = needed(&footer).unwrap();
        let mut expected = vec![0x15, 2, 0x39, 0xFC, 1, 0x19, 0xFC, 1];
        expected.extend([0x26, 8, 0x1C, 0x15, 2, 0x00, 0x00, 0x16, 20, 0x16, 0, 0x00]);
        // The file's number of rows has a smaller number than the row groups.
        expected.extend([0x06, 6, 0, 0x00]);
        assert_eq!(read, expected);
        assert_eq!(needed(&footer[..footer.len() - 1]), None);
    }
}
