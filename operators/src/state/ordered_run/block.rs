//! The bytes of a block of entries.
//!
//! ```text
//! | base time, 8 | start, 2 | length, 2 | width, 1 | room | entries … | room |
//! ```
//! An entry is the distance of its time from the base, in as many bytes as the width says, and its row,
//! 4 bytes. The room before the first entry is that of entries that were removed. Times that are within
//! an hour are 4 bytes wide.

use super::{Entry, RowId};

/// Bytes before the entries.
const HEAD: usize = 13;
/// The least width. With it, an entry has at least 8 bytes.
const LEAST: usize = 4;

/// The bytes of a block with room for some entries of the least width.
#[inline]
pub(super) fn bytes_of(entries: usize) -> usize {
    HEAD + entries * (LEAST + 4)
}

#[inline]
fn half(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// The bytes of a block with room for entries of `bytes` bytes.
#[inline]
pub(super) fn bytes_with(bytes: usize) -> usize {
    HEAD + bytes
}

/// The distances that a width has room for.
#[inline]
fn mask(width: usize) -> u64 {
    u64::MAX >> (64 - 8 * width)
}

/// A block to be read.
#[derive(Clone, Copy)]
pub(super) struct Block<'b> {
    base_us: i64,
    len: usize,
    width: usize,
    /// Bytes from the first entry on.
    entries: &'b [u8],
}

impl<'b> Block<'b> {
    #[inline]
    pub fn of(bytes: &'b [u8]) -> Self {
        let base_us = bytes.first_chunk().map_or(0, |word| i64::from_le_bytes(*word));
        let width = usize::from(bytes[12]).clamp(LEAST, 8);
        let entries = &bytes[HEAD + half(bytes, 8) * (width + 4)..];
        Self { base_us, len: half(bytes, 10), width, entries }
    }

    #[inline]
    pub fn len(self) -> usize {
        self.len
    }

    /// An entry that is there.
    #[inline]
    pub fn get(self, at: usize) -> Entry {
        let entry = &self.entries[at * (self.width + 4)..][..self.width + 4];
        let word = entry.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let row = entry.last_chunk().map_or(0, |row| u32::from_le_bytes(*row));
        let time_us = self.base_us.wrapping_add((word & mask(self.width)) as i64);
        Entry { time_us, row: RowId(row) }
    }

    #[inline]
    pub fn entry(self, at: usize) -> Option<Entry> {
        (at < self.len).then(|| self.get(at))
    }

    #[inline]
    pub fn last(self) -> Option<Entry> {
        self.entry(self.len.wrapping_sub(1))
    }

    /// The first entry of which something does not hold that holds of all before it.
    #[inline]
    pub fn first_not(self, holds: impl Fn(&Entry) -> bool) -> usize {
        let (mut from, mut to) = (0, self.len);
        while from < to {
            let middle = (from + to) / 2;
            if holds(&self.get(middle)) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }

    /// The bytes of the entries from `from` on.
    pub fn bytes_from(self, from: usize) -> &'b [u8] {
        &self.entries[from * (self.width + 4)..self.len * (self.width + 4)]
    }

    fn covers(self, time_us: i64) -> bool {
        self.len > 0 && time_us.wrapping_sub(self.base_us) as u64 <= mask(self.width)
    }
}

/// A block to be changed.
pub(super) struct BlockMut<'b>(&'b mut [u8]);

impl<'b> BlockMut<'b> {
    #[inline]
    pub fn of(bytes: &'b mut [u8]) -> Self {
        Self(bytes)
    }

    #[inline]
    fn read(&self) -> Block<'_> {
        Block::of(self.0)
    }

    #[inline]
    fn start(&self) -> usize {
        half(self.0, 8)
    }

    fn set_base(&mut self, base_us: i64, width: usize) {
        self.0[..8].copy_from_slice(&base_us.to_le_bytes());
        self.0[12] = width as u8;
    }

    #[inline]
    fn set_extent(&mut self, start: usize, len: usize) {
        self.0[8..10].copy_from_slice(&(start as u16).to_le_bytes());
        self.0[10..12].copy_from_slice(&(len as u16).to_le_bytes());
    }

    /// Makes it a block without entries.
    pub fn clear(&mut self) {
        self.set_base(0, LEAST);
        self.set_extent(0, 0);
    }

    /// The base and the width.
    pub fn head(&self) -> (i64, usize) {
        let Block { base_us, width, .. } = self.read();
        (base_us, width)
    }

    /// Forgets the entries from `len` on. Returns their number.
    pub fn truncate(&mut self, len: usize) -> usize {
        let forgotten = self.read().len - len;
        self.set_extent(self.start(), len);
        forgotten
    }

    /// Makes it a block of `len` entries, whose bytes are of another one with this base and width.
    pub fn set(&mut self, (base_us, width): (i64, usize), len: usize, entries: &[u8]) {
        self.set_base(base_us, width);
        self.set_extent(0, len);
        self.0[HEAD..HEAD + entries.len()].copy_from_slice(entries);
    }

    /// Writes an entry whose time the base and the width cover. Places are counted from the first one
    /// for an entry.
    #[inline]
    fn write(&mut self, place: usize, (base_us, width): (i64, usize), entry: Entry) {
        let distance = entry.time_us.wrapping_sub(base_us) as u64;
        let bytes = &mut self.0[HEAD + place * (width + 4)..][..width + 4];
        // The row is written over what the distance does not need.
        if let Some(word) = bytes.first_chunk_mut() {
            *word = distance.to_le_bytes();
        }
        if let Some(row) = bytes.last_chunk_mut() {
            *row = { entry.row }.0.to_le_bytes();
        }
    }

    /// Moves entries, counted from the first place for one.
    fn shift(&mut self, entries: std::ops::Range<usize>, to: usize) {
        let bytes = self.read().width + 4;
        let from = HEAD + entries.start * bytes..HEAD + entries.end * bytes;
        self.0.copy_within(from, HEAD + to * bytes);
    }

    /// Moves all entries to the first places.
    fn shift_to_start(&mut self) {
        let (start, len) = (self.start(), self.read().len);
        self.shift(start..start + len, 0);
        self.set_extent(0, len);
    }

    /// Chooses a base and a width that cover a time beside those of the entries. Returns whether there
    /// is room for wider entries.
    #[cold]
    fn cover(&mut self, time_us: i64) -> bool {
        let block = self.read();
        let ends = [block.entry(0), block.last()].map(|end| end.map_or(time_us, |end| end.time_us));
        let (least, most) = (time_us.min(ends[0]), time_us.max(ends[1]));
        let (len, mut width) = (block.len, if block.len == 0 { LEAST } else { block.width });
        let base_us = loop {
            // Entries that come out of order do not move the base again.
            let early = least.saturating_sub_unsigned(mask(width) / 4);
            let covers = |base_us: &i64| most.wrapping_sub(*base_us) as u64 <= mask(width);
            match [early, least].into_iter().find(covers) {
                Some(base_us) => break base_us,
                None => width += 1,
            }
        };
        if HEAD + (len + 1) * (width + 4) > self.0.len() {
            return false;
        }
        self.shift_to_start();
        // From the last one on, as each may become wider.
        for at in (0..len).rev() {
            let entry = self.read().get(at);
            self.write(at, (base_us, width), entry);
        }
        self.set_base(base_us, width);
        true
    }

    /// Adds an entry behind the others. Returns whether there was room.
    pub fn append(&mut self, entry: Entry) -> bool {
        let len = self.read().len;
        self.insert(len, entry)
    }

    /// Adds an entry at a place. Returns whether there was room.
    #[inline]
    pub fn insert(&mut self, at: usize, entry: Entry) -> bool {
        if !self.read().covers(entry.time_us) && !self.cover(entry.time_us) {
            return false;
        }
        let (len, base) = (self.read().len, self.head());
        if at == 0 && self.start() > 0 {
            let start = self.start() - 1;
            self.write(start, base, entry);
            self.set_extent(start, len + 1);
            return true;
        }
        if HEAD + (self.start() + len + 1) * (base.1 + 4) > self.0.len() {
            // Not for a few places: as many entries are moved.
            if self.start() == 0 || self.start() < len / 4 {
                return false;
            }
            self.shift_to_start();
        }
        let start = self.start();
        if at < len {
            self.shift(start + at..start + len, start + at + 1);
        }
        self.write(start + at, base, entry);
        self.set_extent(start, len + 1);
        true
    }

    /// Removes an entry that is there.
    #[inline]
    pub fn remove(&mut self, at: usize) {
        let (start, len) = (self.start(), self.read().len);
        if at == 0 {
            return self.set_extent(start + 1, len - 1);
        }
        self.shift(start + at + 1..start + len, start + at);
        self.set_extent(start, len - 1);
    }
}
