//! Limits of reading files: the record length, and which errors are ignored.

use crate::connect::options::OptionReader;
use crate::table::error::PlanResult;
use std::io;

/// Default of `maxRecordBytes`.
const RECORD_BYTES: u64 = 128 << 20;

/// Read options that all file formats share.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum record length in bytes. Longer records are rejected.
    pub record_bytes_max: usize,
    /// Whether a file that has disappeared before it is opened is skipped.
    pub ignores_missing: bool,
    /// Whether the unreadable rest of a file is skipped.
    pub ignores_corrupt: bool,
}

impl Limits {
    /// Reads `maxRecordBytes`, `ignoreMissingFiles` and `ignoreCorruptFiles`.
    pub fn read(reader: &mut OptionReader<'_>) -> PlanResult<Self> {
        Ok(Self {
            record_bytes_max: reader.number("maxRecordBytes", RECORD_BYTES, 1, 1 << 30)? as usize,
            ignores_missing: reader.flag("ignoreMissingFiles", false)?,
            ignores_corrupt: reader.flag("ignoreCorruptFiles", false)?,
        })
    }

    /// Whether this error is ignored, so that the file or its rest is skipped.
    pub fn ignores(&self, error: &io::Error) -> bool {
        match error.kind() {
            io::ErrorKind::NotFound => self.ignores_missing,
            _ => self.ignores_corrupt,
        }
    }
}
