//! Reads and decodes the records of an open file.

use crate::connect::bad_records::KEPT_BYTES;
#[cfg(feature = "columnar")]
use crate::connect::columnar::ColumnInput;
use crate::connect::file::source::decoder::{Decoder, Mode};
use crate::connect::file::source::record_reader::{FoundRecord, Input};
use crate::connect::source_counters::SourceCounters;
use millstream_engine::error::EngineError;
use std::path::Path;

/// An open file.
pub(in crate::connect::file::source) enum Opened {
    Records(Input),
    #[cfg(feature = "columnar")]
    Columns(ColumnInput),
    /// Without records: the file is empty, or it cannot be read and the options ignore that.
    Nothing,
}

impl Opened {
    pub(in crate::connect::file::source) fn offset(&self) -> u64 {
        match self {
            Self::Records(input) => input.offset(),
            #[cfg(feature = "columnar")]
            Self::Columns(input) => input.offset(),
            Self::Nothing => 0,
        }
    }
}

/// The result of reading a record.
pub(in crate::connect::file::source) enum Emitted {
    Row,
    /// No row: the record was skipped or rejected.
    Nothing,
    End,
}

pub(in crate::connect::file::source) fn open_records(
    decoder: &mut Decoder,
    path: &Path,
    skip_to: u64,
    record_bytes_max: usize,
    notice: fn(&str),
) -> std::io::Result<Input> {
    let mut input =
        Input::open(path, skip_to, decoder.framing().clone(), decoder.coding(), record_bytes_max)?;
    decoder.set_line_end(input.line_end());
    if skip_to == 0 && decoder.has_header() {
        // Skips the header, which is not a record.
        while let Some(found) = input.record()? {
            let record = input.bytes(&found);
            if !decoder.is_skipped(record) {
                if let Some(difference) =
                    decoder.check_header(record).map_err(std::io::Error::other)?
                {
                    notice(&format!(
                        "{}: {difference}; columns are read by position. Option enforceSchema \
                         'false' makes this an error",
                        path.display()
                    ));
                }
                break;
            }
        }
    }
    Ok(input)
}

/// Decodes a record into a row.
#[inline]
pub(in crate::connect::file::source) fn decoded(
    decoder: &mut Decoder,
    path: &Path,
    input: &Input,
    found: &FoundRecord,
    counters: &SourceCounters,
    row: &mut Vec<u8>,
) -> Result<Emitted, EngineError> {
    let record = input.bytes(found);
    if found.fault.is_none() && decoder.is_skipped(record) {
        return Ok(Emitted::Nothing);
    }
    let outcome = match found.fault {
        None => decoder.decode(record, row),
        Some(fault) => {
            decoder.undecoded(record, row);
            Err(fault)
        }
    };
    if let Err(reason) = outcome {
        if decoder.mode() == Mode::FailFast || decoder.is_broken() {
            return Err(malformed(path, found.offset, reason, record));
        }
        let at = (found.offset, found.length);
        if !decoder.has_row_for_bad() {
            counters.bad.add(Some(path), at, reason, record);
            return Ok(Emitted::Nothing);
        }
        counters.bad.add_permissive(Some(path), at, reason, record);
    }
    Ok(if row.is_empty() { Emitted::Nothing } else { Emitted::Row })
}

/// Writes the next row of a record that has several. Returns `Nothing`, and clears `present`, after
/// the last one.
pub(in crate::connect::file::source) fn next_row(
    decoder: &mut Decoder,
    input: &Input,
    present: &mut Option<(FoundRecord, u64)>,
    row: &mut Vec<u8>,
) -> Emitted {
    if let Some((found, rows)) = present
        && decoder.next_row(input.bytes(found), row)
    {
        *rows += 1;
        return Emitted::Row;
    }
    *present = None;
    Emitted::Nothing
}

/// Skips the `rows` rows of a record that were emitted before a restart. The first one is already
/// decoded, so the others are decoded here. Stops early if the record has fewer rows.
pub(in crate::connect::file::source) fn skip_rows(
    decoder: &mut Decoder,
    input: &Input,
    found: FoundRecord,
    rows: u64,
    present: &mut Option<(FoundRecord, u64)>,
    row: &mut Vec<u8>,
) {
    *present = Some((found, 1));
    for _ in 1..rows {
        if matches!(next_row(decoder, input, present, row), Emitted::Nothing) {
            return;
        }
    }
}

pub(in crate::connect::file::source) fn malformed(
    path: &Path,
    offset: u64,
    reason: &str,
    record: &[u8],
) -> EngineError {
    EngineError::operator(
        "MALFORMED_RECORD_IN_PARSING",
        format!("{reason}: {}", record[..record.len().min(KEPT_BYTES)].escape_ascii()),
        "Fix the record, or use mode 'PERMISSIVE' or 'DROPMALFORMED'",
    )
    .at(format!("{}, byte {offset}", path.display()))
}
