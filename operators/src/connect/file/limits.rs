//! How much of a file is held at once, and which files may be passed over.

use crate::connect::options::OptionReader;
use crate::table::error::PlanResult;
use std::io;

/// Longest record, unless the option `maxRecordBytes` says another.
const RECORD_BYTES: u64 = 128 << 20;

/// The options that all readers of files obey.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A longer record is set aside.
    pub record_bytes_max: usize,
    /// Whether a file that is gone when it is opened is passed over.
    pub ignores_missing: bool,
    /// Whether a file that cannot be read is passed over from there on.
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

    /// Whether a file is passed over that cannot be opened or read.
    pub fn ignores(&self, error: &io::Error) -> bool {
        match error.kind() {
            io::ErrorKind::NotFound => self.ignores_missing,
            _ => self.ignores_corrupt,
        }
    }
}
