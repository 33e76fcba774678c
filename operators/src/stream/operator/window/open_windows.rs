//! The open windows of all keys, by key and by closing time.
//!
//! *In the checkpoint* the key of a window's entry is the record's key, a mark, and the start. Its
//! value is the end and the window's content.

use super::assigner::Window;
use crate::state::expiry_queue::ExpiryQueue;
use crate::state::key_table::{KeyTable, KeyedEntry, key_heap};
use crate::stream::processor_state::{Kept, damaged, write};
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::state_log::{StateLog, StateSlot, WriteTiming};
use smallvec::SmallVec;
use std::collections::VecDeque;

/// The mark in the key of a window's entry. Entries of records have their side at this position.
pub(super) const WINDOW: u8 = 2;
/// Length of the suffix of an entry's key, in bytes: the mark and the start.
pub(super) const SUFFIX: usize = 9;
/// Maximum number of spare window lists.
const SPARES: usize = 256;

/// The content of a window.
pub(super) trait Held: Send + Sized {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), EngineError>;
    fn read(bytes: &[u8]) -> Result<Self, EngineError>;
}

/// An open window of a key.
pub(super) struct OpenWindow<H> {
    pub window: Window,
    pub held: H,
    /// The time of the next check. A session may have been extended by then.
    due_us: i64,
    slot: StateSlot,
    /// Length of the window's encoded content when it was last written: an estimate of its heap
    /// memory.
    written: u32,
}

/// The windows of a key, with the operator's other data for the key.
pub(super) struct KeyWindows<K, H, X> {
    /// The key; `None` in a free slot.
    pub key: Option<K>,
    pub hash: u64,
    pub bytes: SmallVec<[u8; 40]>,
    /// The open windows, ordered by start.
    pub windows: VecDeque<OpenWindow<H>>,
    pub more: X,
}

impl<K, H, X> KeyedEntry for KeyWindows<K, H, X> {
    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }
    #[inline]
    fn key(&self) -> &[u8] {
        &self.bytes
    }
}

/// The result of [`OpenWindows::next_due`].
pub(super) enum NextDue {
    /// No window is due.
    Nothing,
    /// The window of this check does not close now: it is a session that was extended, or it was
    /// merged or removed.
    Later,
    /// A window closes: the slot of its key, and its index among the key's windows.
    Closes(usize, usize),
}

/// The result of opening a window.
pub(super) struct Opened {
    /// The index of the window among the windows of its key.
    pub index: usize,
    pub has_changed: bool,
}

/// The open windows of all keys.
pub(super) struct OpenWindows<K, H, X> {
    pub keys: KeyTable<KeyWindows<K, H, X>>,
    due: ExpiryQueue,
    spares: Vec<VecDeque<OpenWindow<H>>>,
    /// Number of open windows.
    count: u64,
    /// Approximate heap memory of keys and window contents, in bytes.
    heap: u64,
    /// The encoded key of the current record.
    key: Vec<u8>,
    entry_key: Vec<u8>,
    entry_value: Vec<u8>,
    /// Keys and starts of windows with long values, which are written at the marker.
    deferred: Vec<(u32, i64)>,
}

impl<K, H, X> Default for OpenWindows<K, H, X> {
    fn default() -> Self {
        Self {
            keys: KeyTable::default(),
            due: ExpiryQueue::default(),
            spares: Vec::new(),
            count: 0,
            heap: 0,
            key: Vec::new(),
            entry_key: Vec::new(),
            entry_value: Vec::new(),
            deferred: Vec::new(),
        }
    }
}

impl<K: Kept + Clone, H: Held, X: Default> OpenWindows<K, H, X> {
    /// The slot of a key. A new key is added. Fails if the key cannot be encoded.
    #[inline]
    pub fn place(&mut self, key: &K) -> Result<usize, EngineError> {
        self.key.clear();
        write(key, &mut self.key)?;
        let hash = hash_bytes(&self.key);
        Ok(match self.keys.find(hash, &self.key) {
            Some(at) => at,
            None => self.add(hash, key.clone()),
        })
    }

    fn add(&mut self, hash: u64, key: K) -> usize {
        let bytes = SmallVec::from_slice(&self.key);
        self.heap += key_heap(&bytes);
        let windows = self.spares.pop().unwrap_or_default();
        let key = Some(key);
        self.keys.insert(KeyWindows { key, hash, bytes, windows, more: X::default() })
    }

    /// Inserts a window into the list of its key. Returns its index.
    fn insert(&mut self, at: usize, index: usize, window: Window, held: H) -> usize {
        let due_us = window.end_us;
        let open = OpenWindow { window, held, due_us, slot: StateSlot::default(), written: 0 };
        self.keys[at].windows.insert(index, open);
        self.due.add(due_us, at as u32);
        self.count += 1;
        index
    }

    /// The index of the window with this start; as an error, the index at which it would be
    /// inserted.
    fn search(&self, at: usize, start_us: i64) -> Result<usize, usize> {
        let windows = &self.keys[at].windows;
        let last = windows.len().wrapping_sub(1);
        // Most records belong to the last window.
        if windows.get(last).is_some_and(|open| open.window.start_us == start_us) {
            return Ok(last);
        }
        let index = windows.partition_point(|open| open.window.start_us < start_us);
        match windows.get(index).is_some_and(|open| open.window.start_us == start_us) {
            true => Ok(index),
            false => Err(index),
        }
    }

    /// Opens a window of a key, unless it is already open. `has_changed` is true if the window is
    /// new.
    #[inline]
    pub fn open(&mut self, at: usize, window: Window, held: impl FnOnce() -> H) -> Opened {
        match self.search(at, window.start_us) {
            Ok(index) => Opened { index, has_changed: false },
            Err(index) => {
                Opened { index: self.insert(at, index, window, held()), has_changed: true }
            }
        }
    }

    /// Opens a session of a key and merges the sessions that it touches; `merge` adds the content
    /// of one of them. `has_changed` is true if the session is new or longer than before.
    pub fn open_session(
        &mut self,
        at: usize,
        window: Window,
        held: impl FnOnce() -> H,
        mut merge: impl FnMut(&mut H, H),
        log: &mut StateLog,
    ) -> Opened {
        let windows = &self.keys[at].windows;
        // Sessions do not overlap, so their ends are ordered too. Sessions that touch are merged.
        let from = windows.partition_point(|open| open.window.end_us < window.start_us);
        let to = windows.partition_point(|open| open.window.start_us <= window.end_us);
        if from == to {
            return Opened { index: self.insert(at, from, window, held()), has_changed: true };
        }
        for _ in from + 1..to {
            let Some(other) = self.remove(at, from + 1, log) else { break };
            let first = &mut self.keys[at].windows[from];
            first.window.end_us = first.window.end_us.max(other.window.end_us);
            merge(&mut first.held, other.held);
        }
        let before = self.keys[at].windows[from].window;
        let start_us = before.start_us.min(window.start_us);
        let end_us = before.end_us.max(window.end_us);
        if start_us != before.start_us {
            // The entry is deleted because its key contains the start, which changes.
            self.erase(at, from, log);
        }
        self.keys[at].windows[from].window = Window { start_us, end_us };
        let has_changed = to - from > 1 || before != Window { start_us, end_us };
        Opened { index: from, has_changed }
    }

    /// Takes the next check that is due at the watermark `by_us`. Call this until it returns
    /// `Nothing`. `Later` means that this check closes nothing: the window is gone, or has become
    /// longer and is checked again.
    pub fn next_due(&mut self, by_us: i64) -> NextDue {
        let Some((time_us, at)) = self.due.take(by_us) else { return NextDue::Nothing };
        let Some(entry) = self.keys.get_mut(at as usize) else { return NextDue::Later };
        // A session that was merged into another one no longer exists.
        let index = entry.windows.iter().position(|open| open.due_us == time_us);
        let Some(index) = index else { return NextDue::Later };
        let open = &mut entry.windows[index];
        if open.window.end_us <= by_us {
            return NextDue::Closes(at as usize, index);
        }
        open.due_us = open.window.end_us;
        self.due.add(open.due_us, at);
        NextDue::Later
    }

    /// Removes a window, also from the checkpoint.
    pub fn remove(&mut self, at: usize, index: usize, log: &mut StateLog) -> Option<OpenWindow<H>> {
        self.erase(at, index, log);
        self.take(at, index)
    }

    /// Removes a window from memory. Its checkpoint entry stays. `None` if there is no window at the
    /// index.
    pub fn take(&mut self, at: usize, index: usize) -> Option<OpenWindow<H>> {
        let open = self.keys[at].windows.remove(index)?;
        self.count -= 1;
        self.heap -= u64::from(open.written);
        Some(open)
    }

    /// Deletes the checkpoint entry of a window.
    fn erase(&mut self, at: usize, index: usize, log: &mut StateLog) {
        let start_us = self.keys[at].windows[index].window.start_us;
        self.erase_entry(at, start_us, log);
        self.keys[at].windows[index].slot = StateSlot::default();
    }

    /// Deletes the checkpoint entry of the window with this start, which may already be removed by
    /// [`take`](Self::take).
    pub fn erase_entry(&mut self, at: usize, start_us: i64, log: &mut StateLog) {
        self.write_key(at, start_us);
        let hash = self.keys[at].hash;
        log.delete(&mut StateSlot::default(), hash, &self.entry_key);
    }

    /// Frees a key that has no windows. Does nothing for a key with windows, or a freed one.
    pub fn release(&mut self, at: usize) {
        let entry = &mut self.keys[at];
        if !entry.windows.is_empty() || entry.key.take().is_none() {
            return;
        }
        let windows = std::mem::take(&mut entry.windows);
        if self.spares.len() < SPARES {
            self.spares.push(windows);
        }
        self.keys.free(at);
        let bytes = std::mem::take(&mut self.keys[at].bytes);
        self.heap -= key_heap(&bytes);
        self.keys.release();
    }

    fn write_key(&mut self, at: usize, start_us: i64) {
        self.entry_key.clear();
        self.entry_key.extend_from_slice(&self.keys[at].bytes);
        self.entry_key.push(WINDOW);
        self.entry_key.extend_from_slice(&start_us.to_le_bytes());
    }

    /// Records a change of a window's content: at once, or at the marker if the content is long.
    /// Fails if the content cannot be encoded.
    #[inline]
    pub fn changed(
        &mut self,
        at: usize,
        index: usize,
        log: &mut StateLog,
    ) -> Result<(), EngineError> {
        let open = &mut self.keys[at].windows[index];
        let start_us = open.window.start_us;
        match log.when_to_put(&mut open.slot) {
            WriteTiming::Immediately if !log.is_on() => log.put(&mut open.slot, 0, &[], &[]),
            WriteTiming::Immediately => {
                self.encode(at, index)?;
                let KeyWindows { hash, windows, .. } = &mut self.keys[at];
                log.put(&mut windows[index].slot, *hash, &self.entry_key, &self.entry_value);
            }
            WriteTiming::AtMarker { first: true } => self.deferred.push((at as u32, start_us)),
            WriteTiming::AtMarker { first: false } => {}
        }
        Ok(())
    }

    /// Encodes a window's entry.
    fn encode(&mut self, at: usize, index: usize) -> Result<(), EngineError> {
        self.write_key(at, self.keys[at].windows[index].window.start_us);
        let open = &mut self.keys[at].windows[index];
        self.entry_value.clear();
        self.entry_value.extend_from_slice(&open.window.end_us.to_le_bytes());
        open.held.write(&mut self.entry_value)?;
        if std::mem::needs_drop::<H>() {
            let written = u32::try_from(self.entry_value.len()).unwrap_or(u32::MAX);
            let before = std::mem::replace(&mut open.written, written);
            self.heap = self.heap + u64::from(written) - u64::from(before);
        }
        Ok(())
    }

    /// Restores a window from its checkpoint entry. Returns the slot of its key and its index.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(usize, usize), EngineError> {
        let at = key.len().checked_sub(SUFFIX).ok_or_else(damaged)?;
        let (bytes, suffix) = key.split_at(at);
        let start_us = i64::from_le_bytes(suffix[1..].try_into().map_err(|_| damaged())?);
        let (end, held) = value.split_first_chunk::<8>().ok_or_else(damaged)?;
        let window = Window { start_us, end_us: i64::from_le_bytes(*end) };
        let at = self.restore_key(bytes)?;
        let held = H::read(held)?;
        let index = self.open(at, window, || held).index;
        Ok((at, index))
    }

    /// The slot of a key from the checkpoint.
    pub fn restore_key(&mut self, bytes: &[u8]) -> Result<usize, EngineError> {
        let (key, []) = postcard::take_from_bytes::<K>(bytes).map_err(|_| damaged())? else {
            return Err(damaged());
        };
        self.key.clear();
        self.key.extend_from_slice(bytes);
        let hash = hash_bytes(bytes);
        Ok(match self.keys.find(hash, bytes) {
            Some(at) => at,
            None => self.add(hash, key),
        })
    }

    /// Writes deferred changes and frees memory. Returns the number of windows and their memory in
    /// bytes.
    pub fn end_epoch(&mut self, log: &mut StateLog) -> Result<(u64, u64), EngineError> {
        while let Some((at, start_us)) = self.deferred.pop() {
            let at = at as usize;
            if self.keys.get(at).is_none_or(|entry| entry.key.is_none()) {
                continue;
            }
            if let Ok(index) = self.search(at, start_us) {
                self.encode(at, index)?;
                let KeyWindows { hash, windows, .. } = &mut self.keys[at];
                log.put_uncounted(
                    &mut windows[index].slot,
                    *hash,
                    &self.entry_key,
                    &self.entry_value,
                );
            }
        }
        self.keys.end_epoch();
        self.due.end_epoch();
        let windows = self.count * size_of::<OpenWindow<H>>() as u64;
        let bytes = (self.keys.memory() + self.due.memory()) as u64 + windows + self.heap;
        Ok((self.count, bytes))
    }
}
