//! Checks the sizes that the footer and the page headers of a Parquet file declare, before memory
//! is reserved for them. A file of a few bytes could otherwise claim all memory.
//!
//! The footer and the page headers use Thrift's compact protocol. Only the sizes are decoded; other
//! fields are skipped.

use crate::connect::columnar::parquet::thrift::Reader;
use bytes::Bytes;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::ChunkReader;

/// The maximum size of a decompressed page, in bytes.
const PAGE_BYTES_MAX: i64 = 256 << 20;
/// A page header that is incomplete in a window of at least this many bytes is an error.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// The bytes of a page header that are read first. A longer header is read again with a larger
/// window.
const HEADER_BYTES: usize = 4 << 10;
/// The maximum size of a footer, in bytes.
const FOOTER_BYTES_MAX: usize = 64 << 20;
/// The bytes after the footer: its length and the format's magic number.
const FOOTER_END: usize = 8;
/// The smallest encoded size of a column chunk, in bytes.
const COLUMN_BYTES: u64 = 20;
/// The smallest encoded size of a row group, in bytes.
const ROW_GROUP_BYTES: u64 = 7;
/// The smallest encoded size of a schema element, in bytes.
const ELEMENT_BYTES: u64 = 3;
/// The maximum nesting depth of groups in the schema. Decoders walk the groups by recursion.
const NESTING_MAX: usize = 100;

/// The decoded fields of a page header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Header {
    uncompressed: i64,
    compressed: i64,
    /// The number of values in the dictionary, or 0 if the page is not a dictionary.
    dictionary: i64,
    /// The length of the header itself, in bytes.
    length: usize,
}

/// Reads the footer. Fails if it is encrypted, too long or malformed, or if a list in it claims
/// more elements than its bytes can hold.
pub fn footer(file: &impl ChunkReader) -> Result<Bytes, String> {
    let length = file.len();
    let end = length.checked_sub(FOOTER_END as u64).ok_or("it is too short for a Parquet file")?;
    let last = file.get_bytes(end, FOOTER_END).map_err(|error| error.to_string())?;
    match &last[4..] {
        b"PAR1" => {}
        b"PARE" => return Err("its footer is encrypted, which is not supported".to_string()),
        _ => {
            return Err(
                "it is not a Parquet file, or it is truncated: it does not end with PAR1".into()
            );
        }
    }
    let bytes = u32::from_le_bytes([last[0], last[1], last[2], last[3]]) as usize;
    if bytes > FOOTER_BYTES_MAX {
        return Err(format!(
            "its footer declares {bytes} bytes, more than the limit of {} MiB",
            FOOTER_BYTES_MAX >> 20
        ));
    }
    let begin = end.checked_sub(bytes as u64).ok_or("its footer is longer than the file")?;
    let read = file.get_bytes(begin, bytes).map_err(|error| error.to_string())?;
    footer_fits(&read).ok_or("its footer declares more elements than it has bytes for")?;
    Ok(read)
}

/// Returns `None` if a footer is malformed, if a list or the schema tree in it claims more elements
/// than its bytes can hold, or if groups are nested more than [`NESTING_MAX`] levels deep.
fn footer_fits(bytes: &[u8]) -> Option<()> {
    let mut reader = Reader { bytes, at: 0 };
    let (mut elements, mut children) = (0i64, 0i64);
    // The number of children that still follow in each open group, the outermost group first.
    let mut open: Vec<i64> = Vec::new();
    reader.fields(0, &mut |id, kind, reader, depth| match (id, kind) {
        (2, 9) => reader.list(ELEMENT_BYTES, depth, &mut |kind, reader, depth| {
            if kind != 12 {
                return None;
            }
            elements += 1;
            let mut own = 0;
            reader.fields(depth, &mut |id, kind, reader, depth| match (id, kind) {
                (5, 5) => {
                    own = reader.number()?;
                    children = children.checked_add(own)?;
                    (own >= 0).then_some(())
                }
                // Field 5 is the number of children. Another type is rejected, because a decoder
                // that ignores types would read the field as this number.
                (5, _) => None,
                _ => reader.value(kind, depth),
            })?;
            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(rest) = open.last_mut() {
                *rest -= 1;
            }
            if own > 0 {
                open.push(own);
            }
            (open.len() <= NESTING_MAX).then_some(())
        }),
        (4, 9) => reader.list(ROW_GROUP_BYTES, depth, &mut |kind, reader, depth| {
            if kind != 12 {
                return None;
            }
            reader.fields(depth, &mut |id, kind, reader, depth| match (id, kind) {
                (1, 9) => reader.list(COLUMN_BYTES, depth, &mut |kind, reader, depth| {
                    reader.value(kind, depth)
                }),
                (1, _) => None,
                _ => reader.value(kind, depth),
            })
        }),
        (2 | 4, _) => None,
        _ => reader.value(kind, depth),
    })?;
    (children <= elements).then_some(())
}

/// Decodes a page header. Returns `None` if the bytes end too early or are malformed.
fn header(bytes: &[u8]) -> Option<Header> {
    let mut reader = Reader { bytes, at: 0 };
    let mut found = Header::default();
    reader.fields(0, &mut |id, kind, reader, depth| {
        match (id, kind) {
            (2, 5) => found.uncompressed = reader.number()?,
            (3, 5) => found.compressed = reader.number()?,
            (2 | 3, _) => return None,
            (7, 12) => {
                let dictionary = &mut found.dictionary;
                reader.fields(depth + 1, &mut |id, kind, reader, depth| match (id, kind) {
                    (1, 5) => reader.number().map(|values| *dictionary = values),
                    (1, _) => None,
                    _ => reader.value(kind, depth),
                })?;
            }
            _ => reader.value(kind, depth)?,
        }
        Some(())
    })?;
    found.length = reader.at;
    Some(found)
}

/// Checks all pages of the columns that are read. Fails if a page declares more than
/// [`PAGE_BYTES_MAX`] bytes, or a dictionary of more values than its bytes can hold.
pub fn pages(
    file: &impl ChunkReader,
    metadata: &ParquetMetaData,
    is_read: &[bool],
) -> Result<(), String> {
    let length = file.len();
    for group in metadata.row_groups() {
        for (column, _) in group.columns().iter().zip(is_read).filter(|(_, is_read)| **is_read) {
            let (begin, bytes) = column.byte_range();
            let end = begin.checked_add(bytes).filter(|end| *end <= length);
            let end = end.ok_or("a column begins beyond the end of the file")?;
            let mut at = begin;
            while at < end {
                let page = page_at(file, at, end)?;
                let next = at + page.length as u64 + page.compressed as u64;
                if next <= at {
                    return Err("a page has no length".to_string());
                }
                at = next;
            }
        }
    }
    Ok(())
}

fn page_at(file: &impl ChunkReader, at: u64, end: u64) -> Result<Header, String> {
    let mut window = HEADER_BYTES;
    loop {
        let bytes = window.min((end - at) as usize);
        let read = file.get_bytes(at, bytes).map_err(|error| error.to_string())?;
        let Some(page) = header(&read) else {
            if bytes < window || window >= HEADER_BYTES_MAX {
                return Err("the header of a page cannot be read".to_string());
            }
            window *= 8;
            continue;
        };
        let fits = |size: i64| (0..=PAGE_BYTES_MAX).contains(&size);
        // A dictionary value takes at least one bit.
        let many = page.dictionary > page.uncompressed.saturating_mul(8);
        if !fits(page.uncompressed) || !fits(page.compressed) || page.dictionary < 0 || many {
            return Err(format!(
                "a page declares {} bytes and a dictionary of {} values, more than the limit of {} \
                 MiB",
                page.uncompressed,
                page.dictionary,
                PAGE_BYTES_MAX >> 20
            ));
        }
        return Ok(page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_other_fields_are_skipped() {
        // A page header with type 2, the sizes 300 and 5, a checksum, a dictionary of 7 values, and
        // an unknown field: a list of structs.
        let bytes = [
            0x15, 0x04, 0x15, 0xD8, 0x04, 0x15, 0x0A, 0x15, 0x01, 0x3C, 0x15, 0x0E, 0x15, 0x00,
            0x00, 0x29, 0x1C, 0x18, 0x01, 0x41, 0x00, 0x00, 0xFF,
        ];
        let expected = Header { uncompressed: 300, compressed: 5, dictionary: 7, length: 22 };
        assert_eq!(header(&bytes), Some(expected));
        assert_eq!(header(&bytes[..12]), None);
    }

    #[test]
    fn the_nesting_of_groups_is_limited() {
        let schema = |levels: u8| {
            let mut bytes = vec![0x19, 0xFC, levels + 1];
            (0..levels).for_each(|_| bytes.extend([0x48, 1, b'm', 0x15, 2, 0]));
            bytes.extend([0x48, 1, b'n', 0, 0]);
            bytes
        };
        // The footer's second field is the schema.
        let footer = |levels| [vec![0x15, 2], schema(levels)].concat();
        assert_eq!(footer_fits(&footer(100)), Some(()));
        assert_eq!(footer_fits(&footer(101)), None);
    }

    #[test]
    fn a_footer_that_declares_more_elements_than_it_has_is_refused() {
        // Builds a footer with a version and a schema of two elements. The first one declares
        // `children` children.
        let schema = |children: u8| {
            [0x15, 2, 0x19, 0x2C, 0x48, 1, b'm', 0x15, children * 2, 0, 0x48, 1, b'n', 0, 0]
        };
        assert_eq!(footer_fits(&schema(1)), Some(()));
        assert_eq!(footer_fits(&schema(60)), None);
        // The list claims more elements than the footer has bytes.
        assert_eq!(footer_fits(&[0x19, 0xFC, 0xFF, 0xFF, 0x7F, 0x48, 1, b'm', 0, 0]), None);
    }
}
