//! The encoding of a block of entries.
//!
//! ```text
//! | base time, 8 | start, 2 | length, 2 | width, 1 | free slots | entries … | free bytes |
//! ```
//! An entry is the distance of its time from the base time, in `width` bytes, and its row, in 4
//! bytes. `start` is the number of free slots before the first entry, which removed entries have
//! left. `length` is the number of entries. A width of 4 bytes is enough for times within an hour.

use super::{Entry, RowId};

/// Size of the header before the entries, in bytes.
const HEAD: usize = 13;
/// The smallest width, in bytes. An entry then takes 8 bytes.
const LEAST: usize = 4;

/// The size of a block for a number of entries of the smallest width, in bytes.
#[inline]
pub(super) fn bytes_of(entries: usize) -> usize {
    HEAD + entries * (LEAST + 4)
}

#[inline]
fn half(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// The size of a block for entries of `bytes` bytes in total.
#[inline]
pub(super) fn bytes_with(bytes: usize) -> usize {
    HEAD + bytes
}

/// The largest distance that fits into a width.
#[inline]
fn mask(width: usize) -> u64 {
    u64::MAX >> (64 - 8 * width)
}

/// A decoded block, for reading.
#[derive(Clone, Copy)]
pub(super) struct Block<'b> {
    base_us: i64,
    len: usize,
    width: usize,
    /// The bytes from the first entry to the end of the block.
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

    /// The entry at an index, which must be less than the length.
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

    /// The index of the first entry for which `holds` is false. `holds` must be true for all
    /// entries before it and false for all entries after it.
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

    /// The encoded entries from index `from` on.
    pub fn bytes_from(self, from: usize) -> &'b [u8] {
        &self.entries[from * (self.width + 4)..self.len * (self.width + 4)]
    }

    fn covers(self, time_us: i64) -> bool {
        self.len > 0 && time_us.wrapping_sub(self.base_us) as u64 <= mask(self.width)
    }
}

/// A block for writing.
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

    /// Makes the block empty.
    pub fn clear(&mut self) {
        self.set_base(0, LEAST);
        self.set_extent(0, 0);
    }

    /// The base time and the width.
    pub fn head(&self) -> (i64, usize) {
        let Block { base_us, width, .. } = self.read();
        (base_us, width)
    }

    /// Removes the entries from index `len` on. Returns how many were removed.
    pub fn truncate(&mut self, len: usize) -> usize {
        let forgotten = self.read().len - len;
        self.set_extent(self.start(), len);
        forgotten
    }

    /// Replaces the content by `len` encoded entries, which were encoded with this base and width.
    pub fn set(&mut self, (base_us, width): (i64, usize), len: usize, entries: &[u8]) {
        self.set_base(base_us, width);
        self.set_extent(0, len);
        self.0[HEAD..HEAD + entries.len()].copy_from_slice(entries);
    }

    /// Writes an entry whose time fits the base and the width. `place` is an index from the end of
    /// the header, so it counts the free slots before the first entry.
    #[inline]
    fn write(&mut self, place: usize, (base_us, width): (i64, usize), entry: Entry) {
        let distance = entry.time_us.wrapping_sub(base_us) as u64;
        let bytes = &mut self.0[HEAD + place * (width + 4)..][..width + 4];
        // The distance is written as 8 bytes. The row then overwrites the bytes that the width does
        // not need.
        if let Some(word) = bytes.first_chunk_mut() {
            *word = distance.to_le_bytes();
        }
        if let Some(row) = bytes.last_chunk_mut() {
            *row = { entry.row }.0.to_le_bytes();
        }
    }

    /// Moves encoded entries within the block. Indices count from the end of the header.
    fn shift(&mut self, entries: std::ops::Range<usize>, to: usize) {
        let bytes = self.read().width + 4;
        let from = HEAD + entries.start * bytes..HEAD + entries.end * bytes;
        self.0.copy_within(from, HEAD + to * bytes);
    }

    /// Moves all entries to the end of the header.
    fn shift_to_start(&mut self) {
        let (start, len) = (self.start(), self.read().len);
        self.shift(start..start + len, 0);
        self.set_extent(0, len);
    }

    /// Changes the base and the width so that they cover `time_us` and the times of all entries.
    /// Returns false if the wider entries and one more do not fit into the block.
    #[cold]
    fn cover(&mut self, time_us: i64) -> bool {
        let block = self.read();
        let ends = [block.entry(0), block.last()].map(|end| end.map_or(time_us, |end| end.time_us));
        let (least, most) = (time_us.min(ends[0]), time_us.max(ends[1]));
        let (len, mut width) = (block.len, if block.len == 0 { LEAST } else { block.width });
        let base_us = loop {
            // The base is chosen below the smallest time, so that later out-of-order entries need
            // no other base.
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
        // The last entry is rewritten first, because a wider entry would overwrite the next one.
        for at in (0..len).rev() {
            let entry = self.read().get(at);
            self.write(at, (base_us, width), entry);
        }
        self.set_base(base_us, width);
        true
    }

    /// Appends an entry. Returns false if the block is full.
    pub fn append(&mut self, entry: Entry) -> bool {
        let len = self.read().len;
        self.insert(len, entry)
    }

    /// Inserts an entry at an index. Returns false, with the entries unchanged, if the block is full
    /// or cannot represent the entry's time.
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
            // All entries are moved, so this must gain at least a quarter of their number in free
            // slots.
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

    /// Removes the entry at an index, which must be less than the length.
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
