//! A file of keyed state: the changes of one epoch (a delta) or the whole state (a snapshot).
//!
//! ```text
//! | block … | index: 24 bytes a block | tail: 64 bytes |
//! block: | key length u32 | value length u32 | key | value | …
//! ```
//! A block holds entries of one key group. An entry with the value length [`TOMBSTONE`] is a
//! deleted key. The index has a CRC for each block, the tail has one for the index and one for
//! itself. The tail also names the checkpoint, operator and epoch, so that a file of another
//! checkpoint is detected. All integers are little endian.
//!
//! *Threads.* Written by the driver's thread.

use crate::checkpoint::log_entry::{Fault, damaged, unreadable};
use crate::cores::yield_to_worker;
use crate::env::storage::Storage;
use crate::error::EngineError;
use std::path::{Path, PathBuf};

/// The value length of a deleted key.
pub const TOMBSTONE: u32 = u32::MAX;
/// Bytes after which a block ends. A block is read, checked or copied in one go, while a worker may
/// be waiting for this core.
const BLOCK_BYTES: usize = 64 << 10;
const INDEX_ENTRY: usize = 24;
const TAIL: usize = 64;
const MAGIC: &[u8; 8] = b"MSSTATE1";

/// The checkpoint, operator and epoch that a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileOwner {
    /// A hash of the checkpoint's id.
    pub checkpoint: u64,
    /// The operator's number.
    pub operator: u32,
    /// Whether the file is a snapshot (the whole state) or a delta (changes only).
    pub snapshot: bool,
    /// A delta's epoch, or the last epoch that a snapshot includes.
    pub epoch: u64,
}

/// The index entry of a block: its location in the file.
#[derive(Clone, Copy, Debug)]
pub struct BlockLocation {
    /// The key group of the block's entries.
    pub group: u16,
    entries: u32,
    offset: u64,
    length: u32,
    crc: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// Appends an encoded entry to `out`. The value `None` marks the key as deleted.
#[inline]
pub fn put_entry(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    let value_length = value.map_or(TOMBSTONE, |value| value.len() as u32);
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(&value_length.to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value.unwrap_or_default());
}

/// An entry of a block.
#[derive(Debug)]
pub struct StateEntry<'b> {
    /// The key.
    pub key: &'b [u8],
    /// The value of the key; `None` if the key was deleted.
    pub value: Option<&'b [u8]>,
    /// Offset of the next entry in the block.
    pub next: usize,
}

/// Reads the entry at an offset; `None` if it is truncated.
#[inline]
pub fn entry_at(bytes: &[u8], at: usize) -> Option<StateEntry<'_>> {
    let (key_length, value_length) = (u32_at(bytes, at)?, u32_at(bytes, at + 4)?);
    let gone = value_length == TOMBSTONE;
    let value_length = if gone { 0 } else { value_length as usize };
    let rest = &bytes[at + 8..];
    let (key, rest) = rest.split_at_checked(key_length as usize)?;
    let value = rest.get(..value_length)?;
    let next = at + 8 + key.len() + value_length;
    Some(StateEntry { key, value: (!gone).then_some(value), next })
}

/// Calls `apply` with every entry of a block. `None` if the block is truncated; the entries before
/// the cut have been applied then. Returns the first error of `apply`.
pub fn entries(
    bytes: &[u8],
    mut apply: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), EngineError>,
) -> Result<Option<()>, EngineError> {
    let mut at = 0;
    while at < bytes.len() {
        let Some(entry) = entry_at(bytes, at) else { return Ok(None) };
        apply(entry.key, entry.value)?;
        at = entry.next;
    }
    Ok(Some(()))
}

/// Builds a file in pieces, which the caller may write and drop as they are built: compaction does,
/// so that a snapshot is never in memory as a whole.
#[derive(Debug)]
pub struct StateFileWriter {
    owner: FileOwner,
    index: Vec<BlockLocation>,
    written: u64,
    entries: u64,
    /// Bytes that the caller has not taken yet.
    out: Vec<u8>,
}

impl StateFileWriter {
    /// Starts an empty file.
    pub fn new(owner: FileOwner) -> Self {
        Self { owner, index: Vec::new(), written: 0, entries: 0, out: Vec::new() }
    }

    /// Adds the entries of a key group, encoded by [`put_entry`], in blocks that end with the entry
    /// that reaches `BLOCK_BYTES`. A group without entries has no block.
    pub fn group(&mut self, group: u16, entries: &[u8]) {
        let mut from = 0;
        while from < entries.len() {
            let (mut to, mut count) = (from, 0);
            while to < entries.len() && to - from < BLOCK_BYTES {
                let key = u32_at(entries, to).unwrap_or(0) as usize;
                let value =
                    u32_at(entries, to + 4).filter(|v| *v != TOMBSTONE).unwrap_or(0) as usize;
                to += 8 + key + value;
                count += 1;
            }
            let block = &entries[from..to.min(entries.len())];
            self.index.push(BlockLocation {
                group,
                entries: count,
                offset: self.written,
                length: block.len() as u32,
                crc: crc32fast::hash(block),
            });
            self.entries += u64::from(count);
            self.written += block.len() as u64;
            self.out.extend_from_slice(block);
            from = to;
            yield_to_worker();
        }
    }

    /// The bytes written since the last [`clear`](Self::clear).
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Drops [`bytes`](Self::bytes) after the caller has written them.
    pub fn clear(&mut self) {
        self.out.clear();
    }

    /// Ends the file. Returns its last bytes, and the file with its index.
    pub fn finish(mut self, path: PathBuf) -> (Vec<u8>, StateFile) {
        let index_at = self.out.len();
        for block in &self.index {
            self.out.extend_from_slice(&u32::from(block.group).to_le_bytes());
            self.out.extend_from_slice(&block.entries.to_le_bytes());
            self.out.extend_from_slice(&block.offset.to_le_bytes());
            self.out.extend_from_slice(&block.length.to_le_bytes());
            self.out.extend_from_slice(&block.crc.to_le_bytes());
        }
        let index_crc = crc32fast::hash(&self.out[index_at..]);
        let tail_at = self.out.len();
        self.out.extend_from_slice(MAGIC);
        self.out.extend_from_slice(&self.owner.checkpoint.to_le_bytes());
        self.out.extend_from_slice(&self.owner.epoch.to_le_bytes());
        self.out.extend_from_slice(&self.owner.operator.to_le_bytes());
        self.out.extend_from_slice(&u32::from(self.owner.snapshot).to_le_bytes());
        self.out.extend_from_slice(&self.entries.to_le_bytes());
        self.out.extend_from_slice(&self.written.to_le_bytes());
        self.out.extend_from_slice(&(self.index.len() as u64).to_le_bytes());
        self.out.extend_from_slice(&index_crc.to_le_bytes());
        let crc = crc32fast::hash(&self.out[tail_at..]);
        self.out.extend_from_slice(&crc.to_le_bytes());
        let file = StateFile { path, owner: self.owner, index: self.index, entries: self.entries };
        (self.out, file)
    }
}

/// A complete file with its index in memory.
#[derive(Clone, Debug)]
pub struct StateFile {
    /// Path of the file.
    pub path: PathBuf,
    /// The checkpoint, operator and epoch that the file belongs to.
    pub owner: FileOwner,
    /// The blocks of the file, ordered by key group.
    pub index: Vec<BlockLocation>,
    /// Number of entries.
    pub entries: u64,
}

impl StateFile {
    /// Reads a file's tail and index. An error if they are unreadable or damaged, or name another
    /// owner.
    pub fn open(storage: &dyn Storage, path: &Path, owner: FileOwner) -> Result<Self, EngineError> {
        let io = |error: std::io::Error| unreadable(path, &error);
        let size = storage.size(path).map_err(io)?;
        if size < TAIL as u64 {
            return Err(damaged(path, "its end is missing"));
        }
        let tail = storage.read_range(path, size - TAIL as u64, TAIL).map_err(io)?;
        // The magic ends with the version.
        if tail[..7] != MAGIC[..7] {
            return Err(damaged(path, "it is truncated, or it is not a state file"));
        }
        let word = |at| u64_at(&tail, at).unwrap_or(0);
        let half = |at| u32_at(&tail, at).unwrap_or(0);
        if half(TAIL - 4) != crc32fast::hash(&tail[..TAIL - 4]) {
            return Err(damaged(path, "the CRC of its tail does not match"));
        }
        if tail[7] != MAGIC[7] {
            return Err(Fault::OtherVersion.error(path));
        }
        let found = FileOwner {
            checkpoint: word(8),
            epoch: word(16),
            operator: half(24),
            snapshot: half(28) != 0,
        };
        if found != owner {
            return Err(EngineError::operator(
                "CHECKPOINT_FOREIGN_FILE",
                format!(
                    "{} belongs to another checkpoint, operator or epoch (operator {}, epoch {})",
                    path.display(),
                    found.operator,
                    found.epoch
                ),
                "Restore the right file, or start over with an empty checkpointLocation",
            ));
        }
        let (written, blocks) = (word(40), word(48));
        let index_bytes = blocks.checked_mul(INDEX_ENTRY as u64);
        let whole =
            index_bytes.and_then(|bytes| bytes.checked_add(written)?.checked_add(TAIL as u64));
        if whole != Some(size) {
            return Err(damaged(path, "its size differs from the size in its tail"));
        }
        let index = storage.read_range(path, written, blocks as usize * INDEX_ENTRY).map_err(io)?;
        if crc32fast::hash(&index) != half(56) {
            return Err(damaged(path, "the CRC of its index does not match"));
        }
        let block = |bytes: &[u8]| BlockLocation {
            group: u32_at(bytes, 0).unwrap_or(0) as u16,
            entries: u32_at(bytes, 4).unwrap_or(0),
            offset: u64_at(bytes, 8).unwrap_or(0),
            length: u32_at(bytes, 16).unwrap_or(0),
            crc: u32_at(bytes, 20).unwrap_or(0),
        };
        let index = index.chunks_exact(INDEX_ENTRY).map(block).collect();
        Ok(Self { path: path.to_path_buf(), owner, index, entries: word(32) })
    }

    /// Appends the entries of a block to `out` and checks their CRC. An error if the file is
    /// unreadable or damaged; damaged bytes are then in `out`.
    pub fn read_block(
        &self,
        storage: &dyn Storage,
        block: &BlockLocation,
        out: &mut Vec<u8>,
    ) -> Result<(), EngineError> {
        let from = out.len();
        storage
            .append_range(&self.path, block.offset, block.length as usize, out)
            .map_err(|error| unreadable(&self.path, &error))?;
        if crc32fast::hash(&out[from..]) != block.crc {
            let what = format!(
                "the CRC of its block at byte {} (key group {}) does not match",
                block.offset, block.group
            );
            return Err(damaged(&self.path, &what));
        }
        Ok(())
    }

    /// Size of all blocks, in bytes.
    pub fn bytes(&self) -> u64 {
        self.index.iter().map(|block| u64::from(block.length)).sum()
    }

    /// Calls `apply` with the entries of some key groups. An error if a block is unreadable or
    /// damaged, or the first error of `apply`. Entries of earlier blocks have been applied then.
    pub fn read(
        &self,
        storage: &dyn Storage,
        groups: std::ops::Range<u64>,
        mut apply: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut bytes = Vec::new();
        for block in self.index.iter().filter(|b| groups.contains(&u64::from(b.group))) {
            bytes.clear();
            self.read_block(storage, block, &mut bytes)?;
            if entries(&bytes, &mut apply)?.is_none() {
                return Err(damaged(&self.path, "an entry is longer than its block"));
            }
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::env::simulated_storage::SimStorage;
    use proptest::prelude::*;

    const OWNER: FileOwner = FileOwner { checkpoint: 7, operator: 2, snapshot: false, epoch: 5 };

    fn sample(storage: &SimStorage, path: &Path) -> StateFile {
        let mut writer = StateFileWriter::new(OWNER);
        let mut group = Vec::new();
        put_entry(&mut group, b"key", Some(b"value"));
        put_entry(&mut group, b"gone", None);
        writer.group(3, &group);
        group.clear();
        put_entry(&mut group, b"", Some(b""));
        writer.group(200, &group);
        let (bytes, file) = writer.finish(path.to_path_buf());
        storage.write_durable(path, &bytes).unwrap();
        file
    }

    type Entries = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    fn all(storage: &SimStorage, path: &Path) -> Result<Entries, EngineError> {
        let mut found = Vec::new();
        StateFile::open(storage, path, OWNER)?.read(storage, 0..256, |key, value| {
            found.push((key.to_vec(), value.map(<[u8]>::to_vec)));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_refused_by_name() {
        let (storage, path) = (SimStorage::new(1), Path::new("/s/5.delta"));
        let file = sample(&storage, path);
        let (size, whole) = (storage.size(path).unwrap(), all(&storage, path).unwrap());
        assert_eq!((whole.len() as u64, file.entries), (3, 3));
        assert_eq!(whole[1], (b"gone".to_vec(), None));
        for at in 0..size as usize {
            storage.damage(path, |bytes| bytes[at] ^= 0x10).unwrap();
            let error = all(&storage, path).unwrap_err();
            assert!(error.to_string().contains("/s/5.delta"), "byte {at}: {error}");
            storage.damage(path, |bytes| bytes[at] ^= 0x10).unwrap();
        }
        for _ in 0..size {
            storage.damage(path, |bytes| bytes.truncate(bytes.len() - 1)).unwrap();
            assert_eq!(all(&storage, path).unwrap_err().condition(), "CHECKPOINT_DAMAGED");
        }
    }

    #[test]
    fn a_file_of_another_version_is_not_damage() {
        let (storage, path) = (SimStorage::new(1), Path::new("/s/5.delta"));
        sample(&storage, path);
        let renew = |bytes: &mut Vec<u8>| {
            let tail = bytes.len() - TAIL;
            bytes[tail + 7] = b'2';
            let crc = crc32fast::hash(&bytes[tail..tail + TAIL - 4]);
            bytes[tail + TAIL - 4..].copy_from_slice(&crc.to_le_bytes());
        };
        storage.damage(path, renew).unwrap();
        let error = StateFile::open(&storage, path, OWNER).unwrap_err();
        assert_eq!(error.condition(), "CHECKPOINT_VERSION_UNSUPPORTED");
    }

    #[test]
    fn a_file_of_another_checkpoint_is_foreign() {
        let (storage, path) = (SimStorage::new(1), Path::new("/s/5.delta"));
        sample(&storage, path);
        let other = FileOwner { checkpoint: 8, ..OWNER };
        let error = StateFile::open(&storage, path, other).unwrap_err();
        assert_eq!(error.condition(), "CHECKPOINT_FOREIGN_FILE");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = entries(&bytes, |_, _| Ok(()));
            let (storage, path) = (SimStorage::new(1), Path::new("/s/x"));
            storage.write(path, &bytes).unwrap();
            prop_assert!(StateFile::open(&storage, path, OWNER).is_err());
        }
    }
}
