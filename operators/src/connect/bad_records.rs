//! Bad records: records that could not be read are counted, and the last few are stored with their
//! first bytes.
//!
//! A bad record without a row is *rejected*. In mode PERMISSIVE a bad record produces a row with
//! NULL for the fields that could not be read. The two kinds are counted separately.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Maximum number of bad records that are stored.
const KEPT: usize = 16;
/// Maximum number of bytes that are stored of each bad record.
pub const KEPT_BYTES: usize = 256;

/// Maximum number of characters of a bad record that are shown, after escaping.
const SHOWN_CHARS: usize = 80;

/// Why and where a record could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadRecord {
    /// The file that contains the record; `None` if the record came from a connection, or is a
    /// record of a capture.
    pub file: Option<PathBuf>,
    /// Whether the record produced a row, with NULL for the fields that could not be read.
    pub is_permissive: bool,
    /// Offset of the record in its file, or in the stream of its source. For a record of a capture,
    /// the number of the event that completed it.
    pub offset: u64,
    /// Length of the record, in bytes.
    pub length: u64,
    /// Why the record could not be read.
    pub reason: &'static str,
    /// The first bytes of the record, as received.
    pub bytes: Vec<u8>,
}

impl BadRecord {
    fn new(
        is_permissive: bool,
        file: Option<&Path>,
        (offset, length): (u64, u64),
        reason: &'static str,
        bytes: &[u8],
    ) -> Self {
        let file = file.map(Path::to_path_buf);
        let bytes = bytes[..bytes.len().min(KEPT_BYTES)].to_vec();
        Self { file, is_permissive, offset, length, reason, bytes }
    }
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, is_permissive, offset, length, reason, bytes } = self;
        let bytes: String = bytes.escape_ascii().to_string().chars().take(SHOWN_CHARS).collect();
        f.write_str(if *is_permissive { "kept with NULL" } else { "rejected" })?;
        if let Some(file) = file {
            write!(f, " in {}", file.display())?;
        }
        write!(f, " at byte {offset}: {reason} ({length} bytes): {bytes}")
    }
}

#[derive(Debug, Default)]
struct Inner {
    set_aside: u64,
    permissive: u64,
    last: Vec<BadRecord>,
}

impl Inner {
    fn remember(&mut self, record: BadRecord) {
        if self.last.len() == KEPT {
            self.last.remove(0);
        }
        self.last.push(record);
    }
}

/// The bad records of one source.
#[derive(Clone, Debug, Default)]
pub struct BadRecords(Arc<Mutex<Inner>>);

impl BadRecords {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Adds a record that produces no row. `at` is its offset and length, `bytes` its beginning.
    pub fn add(&self, file: Option<&Path>, at: (u64, u64), reason: &'static str, bytes: &[u8]) {
        let mut inner = self.lock();
        inner.set_aside += 1;
        inner.remember(BadRecord::new(false, file, at, reason, bytes));
    }

    /// Adds a record that produces a row, with NULL for the fields that could not be read.
    pub fn add_permissive(
        &self,
        file: Option<&Path>,
        at: (u64, u64),
        reason: &'static str,
        bytes: &[u8],
    ) {
        let mut inner = self.lock();
        inner.permissive += 1;
        inner.remember(BadRecord::new(true, file, at, reason, bytes));
    }

    /// Reports the number of bad records of both kinds and the reasons of the last few, if there
    /// are any.
    pub fn report(&self, notice: fn(&str)) {
        let told = |count: u64, what: &str| {
            if count > 0 {
                let noun = if count == 1 { "record was" } else { "records were" };
                notice(&format!("{count} {noun} {what}"));
            }
        };
        told(self.count(), "rejected");
        told(self.permissive(), "kept with NULL for fields that could not be read");
        self.last().iter().for_each(|bad| notice(&bad.to_string()));
    }

    /// Number of records that produced no row.
    pub fn count(&self) -> u64 {
        self.lock().set_aside
    }

    /// Number of records that produced a row, with NULL for the fields that could not be read.
    pub fn permissive(&self) -> u64 {
        self.lock().permissive
    }

    /// The last few bad records of both kinds.
    pub fn last(&self) -> Vec<BadRecord> {
        self.lock().last.clone()
    }
}
