//! One entry of the offset or commit log: a small, human-readable text file. The file `metadata`
//! has the same format.
//!
//! ```text
//! v1
//! {"mode":"continuous", …}
//! 42
//! crc32 1c291ca3
//! ```
//! The first line is the format version. The last line is the CRC-32 of everything before it.
//! Between them are a JSON object and, in the offset log, one line per source.

use crate::env::storage::Storage;
use crate::error::EngineError;
use std::io;
use std::path::Path;

const VERSION: &str = "v1";
const CRC: &str = "crc32 ";

/// Why the content of a file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails a check.
    Damaged(&'static str),
    /// It is intact, and this program does not support its format version.
    OtherVersion,
}

impl From<&'static str> for Fault {
    fn from(what: &'static str) -> Self {
        Self::Damaged(what)
    }
}

impl Fault {
    /// The error of a checkpoint file with this fault.
    pub fn error(self, path: &Path) -> EngineError {
        match self {
            Self::Damaged(what) => damaged(path, what),
            Self::OtherVersion => EngineError::operator(
                "CHECKPOINT_VERSION_UNSUPPORTED",
                format!("{} was written by {OTHER_VERSION}", path.display()),
                OTHER_VERSION_FIX,
            ),
        }
    }
}

/// The writer of a file whose version is not supported.
pub(crate) const OTHER_VERSION: &str =
    "another version of Millstream: its version is not supported by this program";
/// The fix for such a file.
pub(crate) const OTHER_VERSION_FIX: &str =
    "Use the version of Millstream that wrote it, or a later one. The file is not changed";

/// Formats an entry. No line may contain a line end.
pub fn format<'l>(lines: impl IntoIterator<Item = &'l str>) -> String {
    let mut text = String::from(VERSION);
    for line in lines {
        debug_assert!(!line.contains('\n'), "a line is one line");
        text.push('\n');
        text.push_str(line);
    }
    text.push('\n');
    let crc = crc32fast::hash(text.as_bytes());
    text.push_str(&format!("{CRC}{crc:08x}\n"));
    text
}

/// Parses the lines of an entry.
pub fn parse(bytes: &[u8]) -> Result<Vec<&str>, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let body = text.strip_suffix('\n').ok_or("its end is missing")?;
    let (body, last) = body.rsplit_once('\n').ok_or("it has too few lines")?;
    let crc = last.strip_prefix(CRC).ok_or("its last line is not its CRC")?;
    let body = &text[..=body.len()];
    if u32::from_str_radix(crc, 16) != Ok(crc32fast::hash(body.as_bytes())) {
        return Err(Fault::Damaged("its CRC does not match its content"));
    }
    let mut lines = body.lines();
    match lines.next() {
        Some(VERSION) => Ok(lines.collect()),
        _ => Err(Fault::OtherVersion),
    }
}

/// The error of a failed write to a checkpoint file.
pub fn write_failed(path: &Path, error: &io::Error) -> EngineError {
    let fix = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "Free space on this disk and start the query again: it resumes from its last \
            committed epoch"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "Give this user write permission there, or use another checkpointLocation"
        }
        _ => {
            "Check the disk first: its content after a failed write or fsync is unknown. When \
            started again, the query resumes from its last committed epoch"
        }
    };
    let reason = format!("cannot write {}: {error}", path.display());
    EngineError::operator("CHECKPOINT_WRITE_FAILED", reason, fix)
}

/// The error of a file whose content fails a check.
pub fn damaged(path: &Path, what: &str) -> EngineError {
    let reason = format!("{} is damaged: {what}", path.display());
    EngineError::operator(
        "CHECKPOINT_DAMAGED",
        reason,
        "Restore this file from a backup, or start over with an empty checkpointLocation",
    )
}

/// The error of a required file that is missing or unreadable.
pub fn unreadable(path: &Path, error: &io::Error) -> EngineError {
    if error.kind() == io::ErrorKind::NotFound {
        return EngineError::operator(
            "CHECKPOINT_FILE_MISSING",
            format!("{} is missing", path.display()),
            "Restore this file from a backup, or start over with an empty checkpointLocation",
        );
    }
    let reason = format!("cannot read {}: {error}", path.display());
    EngineError::operator(
        "CHECKPOINT_UNREADABLE",
        reason,
        "Check the folder's permissions and its disk",
    )
}

/// Reads an entry and returns its lines. An error if the file is missing or damaged, or has another
/// version.
pub fn read(storage: &dyn Storage, path: &Path) -> Result<Vec<String>, EngineError> {
    let bytes = storage.read(path).map_err(|error| unreadable(path, &error))?;
    let lines = parse(&bytes).map_err(|fault| fault.error(path))?;
    Ok(lines.into_iter().map(str::to_string).collect())
}

/// Writes an entry, durably.
pub fn write<'l>(
    storage: &dyn Storage,
    path: &Path,
    lines: impl IntoIterator<Item = &'l str>,
) -> Result<(), EngineError> {
    storage
        .write_durable(path, format(lines).as_bytes())
        .map_err(|error| write_failed(path, &error))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let text = format(["{\"a\":1}", "42"]);
        assert_eq!(parse(text.as_bytes()).unwrap(), ["{\"a\":1}", "42"]);
        for cut in 0..text.len() {
            assert!(parse(&text.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // A CRC with an upper-case digit is still valid, so such an entry may equal the
            // original.
            let same = parse(&bytes).is_ok_and(|lines| lines == ["{\"a\":1}", "42"]);
            assert!(parse(&bytes).is_err() || same, "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_not_damage() {
        let body = "v2\n{}\n";
        let text = format!("{body}{CRC}{:08x}\n", crc32fast::hash(body.as_bytes()));
        let error = parse(text.as_bytes()).unwrap_err().error(Path::new("offsets/7"));
        assert_eq!(error.condition(), "CHECKPOINT_VERSION_UNSUPPORTED");
        let error = error.to_string();
        assert!(error.contains("offsets/7") && !error.contains("backup"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
