//! One direction of a TCP connection: reassembles segments to a stream with gaps.
//!
//! Stream offsets count from the byte after the SYN, or from the first captured byte if there is
//! none, in 64 bits; sequence numbers are compared modulo 2^32. If segments overlap, the byte that
//! was captured first counts. A hole becomes a gap when the other endpoint has acknowledged it and
//! later data was captured, or at the end of the connection or of the packet capture. Until then
//! later data is buffered, up to [`HELD_BYTES_MAX`] per direction and [`ALL_HELD_BYTES_MAX`] in
//! total. Beyond that the hole is reported as a gap and counted.

use super::Part;
use super::history::{History, RingNumber};
use super::output::{Ended, EventSink, Lane, Output};
use millstream_engine::capture::{Gap, GapCause, IgnoredReason};
use std::collections::BTreeMap;

/// Maximum number of buffered bytes per direction.
const HELD_BYTES_MAX: usize = 4 << 20;
/// Maximum number of buffered bytes of all directions.
const ALL_HELD_BYTES_MAX: usize = 12 << 20;
/// The memory of a buffered segment in addition to its bytes.
const HELD_OVERHEAD: usize = 96;
/// The largest distance from the next byte that a TCP window allows.
const WINDOW_MAX: i64 = 1 << 30;

/// State shared by all directions.
#[derive(Default)]
pub(super) struct Shared {
    pub history: History,
    /// Number of bytes buffered after holes.
    pub held_bytes: usize,
}

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Half {
    /// The sequence number of the SYN, if known.
    pub syn: Option<u32>,
    /// Whether the sequence number of stream offset 0 is known.
    pub is_synced: bool,
    /// Stream offset of the next byte to deliver.
    pub next: u64,
    /// Sequence number of the next byte to deliver.
    next_number: u32,
    /// The stream offset after the last byte seen, captured or not.
    seen_end: u64,
    /// The stream offset up to which the other endpoint has acknowledged.
    acked: u64,
    /// The stream offset of the FIN.
    fin: Option<u64>,
    /// Whether the half-close was delivered.
    pub is_closed: bool,
    ring: RingNumber,
    cold: Option<Box<Cold>>,
}

/// State that a direction needs only while data is missing.
#[derive(Default)]
struct Cold {
    /// Segments after a hole, by stream offset, without overlaps.
    held: BTreeMap<u64, Vec<u8>>,
    held_bytes: usize,
    /// Ranges that packets contained but the snap length cut off, by their ends.
    cut: BTreeMap<u64, u64>,
    /// The part of [`Shared::held_bytes`] that belongs to this direction.
    accounted: usize,
}

impl Cold {
    fn insert(&mut self, at: u64, data: Vec<u8>) {
        self.held_bytes += data.len() + HELD_OVERHEAD;
        self.held.insert(at, data);
    }

    fn cost(&self) -> usize {
        self.held_bytes + HELD_OVERHEAD * self.cut.len()
    }

    /// Removes and returns the segment at a stream offset.
    fn take(&mut self, at: u64) -> Option<Vec<u8>> {
        let data = self.held.first_entry().filter(|first| *first.key() == at)?.remove();
        self.held_bytes -= data.len() + HELD_OVERHEAD;
        Some(data)
    }
}

/// The parts of a TCP segment that concern its own direction.
pub(super) struct Segment<'p> {
    /// Sequence number of its first byte.
    pub number: u32,
    pub data: Part<'p>,
    pub is_fin: bool,
}

/// The context of a direction: its output and the shared state.
pub(super) struct Cx<'c, S> {
    pub lane: Lane,
    /// Identifies the direction within the import.
    pub owner: u64,
    pub shared: &'c mut Shared,
    pub out: &'c mut Output<S>,
}

impl Half {
    /// Sets the sequence number of stream offset 0.
    pub(super) fn sync(&mut self, number: u32) {
        self.is_synced = true;
        self.next_number = number;
    }

    /// The sequence number of stream offset 0.
    pub(super) fn first_number(&self) -> u32 {
        self.next_number.wrapping_sub(self.next as u32)
    }

    /// The stream offset of a sequence number, negative for numbers before offset 0.
    pub(super) fn place(&self, number: u32) -> i64 {
        let distance = number.wrapping_sub(self.next_number) as i32;
        self.next as i64 + i64::from(distance)
    }

    /// Processes an acknowledgement of the other endpoint.
    pub(super) fn acknowledge<S: EventSink>(
        &mut self,
        number: u32,
        cx: &mut Cx<'_, S>,
    ) -> Result<(), Ended> {
        let place = self.place(number);
        if !self.is_synced || place <= self.acked as i64 || place - self.next as i64 > WINDOW_MAX {
            return Ok(());
        }
        self.acked = place as u64;
        self.deliver(cx)
    }

    /// Processes a segment: delivers it, buffers it after a hole, or compares it with earlier data.
    /// Segments beyond the window, and keep-alives, are only counted.
    pub(super) fn segment<S: EventSink>(
        &mut self,
        segment: &Segment<'_>,
        cx: &mut Cx<'_, S>,
    ) -> Result<(), Ended> {
        let (start, length) = (self.place(segment.number), segment.data.length);
        if start - self.next as i64 > WINDOW_MAX {
            cx.out.counts.out_of_window += u64::from(length > 0 || segment.is_fin);
            return Ok(());
        }
        // A keep-alive: its sequence number is one below the next, and it has at most one byte,
        // which has no meaning.
        let send_next = self.seen_end as i64 + i64::from(self.fin.is_some());
        if length <= 1 && !segment.is_fin && start == send_next - 1 {
            cx.out.counts.keep_alives += 1;
            return Ok(());
        }
        // The fast path: the segment is in order, as most are.
        let is_next = start == self.next as i64 && self.cold.is_none() && self.fin.is_none();
        if is_next && !segment.is_fin && segment.data.data.len() == length {
            return self.append(segment.data.data, cx);
        }
        self.unusual(start, segment, cx)
    }

    /// Delivers bytes at the next stream offset.
    fn append<S: EventSink>(&mut self, data: &[u8], cx: &mut Cx<'_, S>) -> Result<(), Ended> {
        if data.is_empty() {
            return Ok(());
        }
        cx.out.data(cx.lane, self.next, data)?;
        cx.shared.history.push(cx.owner, &mut self.ring, self.next, data);
        self.advance(data.len() as u64);
        Ok(())
    }

    fn advance(&mut self, bytes: u64) {
        self.next += bytes;
        self.next_number = self.next_number.wrapping_add(bytes as u32);
        self.seen_end = self.seen_end.max(self.next);
    }

    /// Processes a segment that is out of order, retransmitted, cut off, contains a FIN, or follows
    /// a FIN.
    #[cold]
    fn unusual<S: EventSink>(
        &mut self,
        start: i64,
        segment: &Segment<'_>,
        cx: &mut Cx<'_, S>,
    ) -> Result<(), Ended> {
        let mut data = segment.data;
        // Counts the bytes before the first sequence number that was seen.
        let before = usize::try_from(-start).unwrap_or(0).min(data.length);
        cx.out.counts.before_start_bytes += before as u64;
        data = data.after(before);
        let start = (start + before as i64).max(0) as u64;
        let end = start + data.length as u64;
        if segment.is_fin && self.fin.is_none() && end >= self.next {
            self.fin = Some(end);
            self.drop_behind_fin(end, cx)?;
            self.seen_end = end.max(self.next);
        }
        if let Some(fin) = self.fin.filter(|fin| end > *fin) {
            if data.length > 0 {
                let at = fin.max(start);
                cx.out.ignored(cx.lane, at, end - at, IgnoredReason::AfterFin)?;
            }
            data = data.first(fin.saturating_sub(start) as usize);
        }
        if data.length > 0 {
            self.compare(start, data.data, cx)?;
            self.hold(start, data);
            self.seen_end = self.seen_end.max(start + data.length as u64);
        }
        self.deliver(cx)
    }

    /// Compares retransmitted bytes with those captured first, and reports differences.
    fn compare<S: EventSink>(
        &self,
        start: u64,
        data: &[u8],
        cx: &mut Cx<'_, S>,
    ) -> Result<(), Ended> {
        let (mut differing, mut first) = (0, None);
        if start < self.next {
            let old = &data[..data.len().min((self.next - start) as usize)];
            let (known, count, place) = cx.shared.history.compare(cx.owner, self.ring, start, old);
            (differing, first) = (count, place);
            cx.out.counts.resent_bytes += old.len() as u64;
            cx.out.counts.resent_bytes_unchecked += old.len() as u64 - known;
        }
        let end = start + data.len() as u64;
        for (&at, held) in self.held_over(start, end) {
            let (from, to) = (at.max(start), (at + held.len() as u64).min(end));
            for place in from..to {
                if held[(place - at) as usize] != data[(place - start) as usize] {
                    differing += 1;
                    first.get_or_insert(place);
                }
            }
            cx.out.counts.resent_bytes += to - from;
        }
        match first {
            Some(at) => cx.out.conflict(cx.lane, at, differing),
            None => Ok(()),
        }
    }

    /// The buffered segments that overlap a range.
    fn held_over(&self, start: u64, end: u64) -> impl Iterator<Item = (&u64, &Vec<u8>)> {
        let cold = self.cold.as_deref();
        let first = cold.and_then(|cold| cold.held.range(..=start).next_back());
        let first = first.filter(move |(at, held)| *at + held.len() as u64 > start);
        let others = cold.map(|cold| cold.held.range(start.saturating_add(1)..end.max(start + 1)));
        first.into_iter().chain(others.into_iter().flatten())
    }

    /// Buffers the bytes that are not buffered yet, and records the range that the snap length cut
    /// off.
    fn hold(&mut self, start: u64, data: Part<'_>) {
        let (from, to) = (start.max(self.next), start + data.data.len() as u64);
        let mut pieces = Vec::new();
        let mut at = from;
        if from < to {
            for (&place, held) in self.held_over(from, to) {
                if place > at {
                    pieces.push((at, place));
                }
                at = at.max(place + held.len() as u64);
            }
            if at < to {
                pieces.push((at, to));
            }
        }
        let end = start + data.length as u64;
        if pieces.is_empty() && (end <= to || end <= self.next) {
            return;
        }
        let cold = self.cold.get_or_insert_default();
        for (from, to) in pieces {
            let bytes = &data.data[(from - start) as usize..(to - start) as usize];
            cold.insert(from, bytes.to_vec());
        }
        if end > to && end > self.next {
            add_range(&mut cold.cut, to.max(self.next), end);
        }
    }

    /// Drops buffered data after the FIN, because it is not part of the stream, and reports it as
    /// ignored.
    fn drop_behind_fin<S: EventSink>(&mut self, fin: u64, cx: &mut Cx<'_, S>) -> Result<(), Ended> {
        let Some(cold) = &mut self.cold else { return Ok(()) };
        while let Some((at, held)) = cold.held.pop_last() {
            cold.held_bytes -= held.len() + HELD_OVERHEAD;
            let end = at + held.len() as u64;
            if end <= fin {
                cold.insert(at, held);
                break;
            }
            let from = at.max(fin);
            cx.out.ignored(cx.lane, from, end - from, IgnoredReason::AfterFin)?;
            if at < fin {
                cold.insert(at, held[..(fin - at) as usize].to_vec());
                break;
            }
        }
        Ok(())
    }

    /// Delivers buffered data, across holes that are acknowledged or for which too much is
    /// buffered.
    fn deliver<S: EventSink>(&mut self, cx: &mut Cx<'_, S>) -> Result<(), Ended> {
        loop {
            self.deliver_held(cx)?;
            let Some(hole_end) = self.hole_end() else { break };
            if hole_end > self.acked {
                let cost = self.account(cx.shared);
                let is_full = cx.shared.held_bytes > ALL_HELD_BYTES_MAX && cost > 0;
                if cost <= HELD_BYTES_MAX && !is_full {
                    break;
                }
                cx.out.counts.gaps_forced += 1;
            }
            self.pass_hole(hole_end, cx)?;
        }
        if self.fin == Some(self.next) && !self.is_closed {
            self.is_closed = true;
            cx.out.half_close(cx.lane, self.next)?;
        }
        let is_needed = self.cold.as_ref().is_some_and(|cold| {
            !cold.held.is_empty()
                || cold.cut.last_key_value().is_some_and(|(end, _)| *end > self.next)
        });
        if is_needed {
            self.account(cx.shared);
        } else {
            self.discard(cx.shared);
        }
        Ok(())
    }

    /// Updates the shared count of buffered bytes. Returns this direction's count.
    fn account(&mut self, shared: &mut Shared) -> usize {
        let Some(cold) = &mut self.cold else { return 0 };
        let cost = cold.cost();
        shared.held_bytes = shared.held_bytes - cold.accounted + cost;
        cold.accounted = cost;
        cost
    }

    fn deliver_held<S: EventSink>(&mut self, cx: &mut Cx<'_, S>) -> Result<(), Ended> {
        let next = |half: &mut Self| half.cold.as_mut()?.take(half.next);
        while let Some(data) = next(self) {
            self.append(&data, cx)?;
        }
        Ok(())
    }

    /// The end of the hole at the next stream offset, if later data was seen.
    fn hole_end(&self) -> Option<u64> {
        let held = self.cold.as_ref().and_then(|cold| cold.held.first_key_value());
        held.map(|(at, _)| *at).or(self.fin).filter(|end| *end > self.next)
    }

    /// Reports the bytes up to a stream offset as gaps, each with its cause.
    fn pass_hole<S: EventSink>(&mut self, end: u64, cx: &mut Cx<'_, S>) -> Result<(), Ended> {
        while self.next < end {
            let cut = self.cold.as_ref().and_then(|cold| {
                cold.cut.range(self.next + 1..).next().map(|(end, start)| (*start, *end))
            });
            let (to, cause) = match cut {
                Some((from, to)) if from <= self.next => (to.min(end), GapCause::Cut),
                Some((from, _)) => (from.min(end), GapCause::Lost),
                None => (end, GapCause::Lost),
            };
            let bytes = to - self.next;
            cx.out.gap(cx.lane, self.next, Gap::of_bytes(bytes, cause))?;
            self.advance(bytes);
        }
        if let Some(cold) = &mut self.cold {
            while cold.cut.first_key_value().is_some_and(|(end, _)| *end <= self.next) {
                cold.cut.pop_first();
            }
        }
        Ok(())
    }

    /// Ends the direction at the end of the connection or of the packet capture: every hole becomes
    /// a gap.
    pub(super) fn finish<S: EventSink>(&mut self, cx: &mut Cx<'_, S>) -> Result<(), Ended> {
        if !self.is_synced {
            return Ok(());
        }
        while let Some(end) = {
            self.deliver_held(cx)?;
            self.hole_end()
        } {
            self.pass_hole(end, cx)?;
        }
        // Without a FIN, the stream ends after the last byte that was acknowledged or seen, even if
        // no later data was captured.
        let end = self.fin.unwrap_or(self.acked.max(self.seen_end));
        self.pass_hole(end, cx)?;
        self.deliver(cx)
    }

    /// Frees the buffered data.
    pub(super) fn discard(&mut self, shared: &mut Shared) {
        if let Some(cold) = self.cold.take() {
            shared.held_bytes -= cold.accounted;
        }
    }
}

/// Adds a range to a map of disjoint ranges by their ends.
fn add_range(ranges: &mut BTreeMap<u64, u64>, mut from: u64, mut to: u64) {
    while let Some((&end, &start)) = ranges.range(from..).next() {
        if start > to {
            break;
        }
        ranges.remove(&end);
        (from, to) = (from.min(start), to.max(end));
    }
    ranges.insert(to, from);
}
