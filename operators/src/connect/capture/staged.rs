//! Staged records: read from the recording and not emitted yet.

use std::collections::VecDeque;

/// The content of a stretch of staged bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Whole lines. Each of them, also the last one, has its line end. `is_text` says that all are
    /// UTF-8.
    Lines { is_text: bool },
    /// One record.
    Record,
    /// The first bytes of a rejected record.
    Rejected { length: u64, reason: &'static str },
}

/// A stretch of staged bytes that one event completed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub content: Content,
    /// The end of its bytes in the buffer. They begin where the previous stretch ends.
    pub end: usize,
    /// The event's number.
    pub event: u64,
    /// Wall-clock time of the event in microseconds.
    pub wall_us: i64,
    /// Monotonic time of the event.
    pub mono_ns: u64,
}

/// The staged bytes and their stretches, in the order of completion.
#[derive(Default)]
pub(super) struct Staged {
    pub bytes: Vec<u8>,
    stretches: VecDeque<Stretch>,
    /// The offset of the first byte that is not consumed.
    pub at: usize,
}

impl Staged {
    pub(super) fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// Number of bytes that are not consumed.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Adds a stretch, which covers all bytes after the previous stretch.
    pub(super) fn push(&mut self, stretch: Stretch) {
        self.stretches.push_back(Stretch { end: self.bytes.len(), ..stretch });
    }

    pub(super) fn first(&self) -> Option<Stretch> {
        self.stretches.front().copied()
    }

    pub(super) fn last(&self) -> Option<Stretch> {
        self.stretches.back().copied()
    }

    /// Number of stretches.
    pub(super) fn stretches(&self) -> usize {
        self.stretches.len()
    }

    /// Drops the bytes and stretches beyond these counts.
    pub(super) fn truncate(&mut self, bytes: usize, stretches: usize) {
        self.bytes.truncate(bytes);
        self.stretches.truncate(stretches);
    }

    /// Drops the first stretch.
    pub(super) fn pop(&mut self) {
        if let Some(stretch) = self.stretches.pop_front() {
            self.at = stretch.end;
        }
        if self.stretches.is_empty() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.stretches.clear();
        self.bytes.clear();
        self.at = 0;
    }

    /// Shrinks the buffer to 1 MiB after a large batch. Does nothing while records are staged.
    pub(super) fn shrink(&mut self) {
        const KEPT_BYTES: usize = 1 << 20;
        if self.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.bytes.shrink_to(KEPT_BYTES);
        }
    }
}
