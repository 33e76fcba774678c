//! Records that could not be read: counted, and the last few kept with their raw bytes. They
//! never stop a query and never take a good record with them.

use std::fmt;
use std::sync::{Arc, Mutex};

/// Bad records that are kept.
const KEPT: usize = 16;
/// Bytes that are kept of each.
pub const KEPT_BYTES: usize = 256;

/// Characters of a bad record that are shown.
const SHOWN_CHARS: usize = 80;

/// Why and where a record was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Offset of its first byte in the source.
    pub offset: u64,
    /// Its whole length in bytes.
    pub length: u64,
    /// What is wrong with it.
    pub reason: &'static str,
    /// Its first bytes, as received.
    pub bytes: Vec<u8>,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, length, reason, bytes } = self;
        let bytes: String = bytes.escape_ascii().to_string().chars().take(SHOWN_CHARS).collect();
        write!(f, "set aside at byte {offset}: {reason} ({length} bytes): {bytes}")
    }
}

#[derive(Debug, Default)]
struct Inner {
    count: u64,
    last: Vec<BadRecord>,
}

/// The bad records of one source.
#[derive(Clone, Debug, Default)]
pub struct BadRecords(Arc<Mutex<Inner>>);

impl BadRecords {
    /// Sets a record aside. `bytes` is its beginning.
    pub fn add(&self, offset: u64, length: u64, reason: &'static str, bytes: &[u8]) {
        let mut inner = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        inner.count += 1;
        if inner.last.len() == KEPT {
            inner.last.remove(0);
        }
        let bytes = bytes[..bytes.len().min(KEPT_BYTES)].to_vec();
        inner.last.push(BadRecord { offset, length, reason, bytes });
    }

    /// Tells how many records were set aside and why the last few were, if there are any.
    pub fn report(&self, notice: fn(&str)) {
        let count = self.count();
        if count > 0 {
            let noun = if count == 1 { "record was" } else { "records were" };
            notice(&format!("{count} {noun} set aside"));
            self.last().iter().for_each(|bad| notice(&bad.to_string()));
        }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).count
    }

    /// The last few.
    pub fn last(&self) -> Vec<BadRecord> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).last.clone()
    }
}
