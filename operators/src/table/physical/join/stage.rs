//! The stage of one instance of a join of two streams.
//!
//! A row first searches the buffered rows of the other side for matches. Then the row is buffered.
//! A row expires when its time is at or before the state watermark of its side. When unmatched rows
//! of a preserved side expire, an outer join emits them with NULLs, and LEFT ANTI as they are.
//!
//! *Order.* Matches are emitted in the arrival order of the rows that complete them. The matches of
//! one row are ordered by time and arrival of the other side's rows. If a row has more matches than
//! fit in a step, its matches are interleaved with those of other rows. Rows that expire unmatched
//! are emitted by time and arrival, left before right.
//!
//! *Bounded steps.* The matches of a row, and expired rows, are processed in bounded steps, between
//! which other rows are processed. In continuous mode a marker does not wait for these steps: the
//! progress of searches is in the checkpoint. In micro-batch mode a batch emits all its matches
//! before its marker.
//!
//! *Expiry during searches.* Rows expire by a watermark when the searches of all rows before it are
//! finished. Searches of later rows go on meanwhile: they match no row that this watermark removes.
//! A row that has expired on arrival is removed at the end of its own search. After a restart the
//! watermark of the checkpoint removes rows only when the restored searches are finished.
//!
//! *Watermarks.* The watermark after a join is a lower bound of the event times in rows that the
//! join may still emit.

use super::super::stages::{BoxChain, Scratch};
use super::buffer::{Buffer, NewRow, RestoredSearch};
use super::condition::JoinTime;
use super::expiry::Expiry;
use super::keys::is_unmatchable;
use super::output::{Copied, Pairs};
use super::probe::{Pending, Prober, STEP, Search};
use super::run::Entry;
use super::side::{JoinSide, SidedRow};
use super::state_limit::StateGuard;
use crate::event_time::watermark_queue::WatermarkQueue;
use crate::table::expr::compile::BoolFn;
use crate::table::physical::aggregate::hash_aggregate::{Key, write_keys};
use crate::table::physical::late_row::LateRows;
use crate::table::plan::JoinKind;
use crate::table::row::{Row, Slot};
use crate::table::types::Physical;
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, UNTIMED, is_idle};
use millstream_engine::runtime::stage::{FlushStatus, Io, LateEmission, Push, Stage};
use millstream_engine::runtime::state_log::StateLog;

/// The maximum number of unfinished searches. At this number, the join accepts no more rows.
const SEARCHES: usize = 1024;
/// The maximum number of search steps in a row, before the stage continues with other work.
const SEARCH_STEPS: usize = 16;

/// The configuration of one side of the join.
pub(in super::super) struct SideConfig {
    pub keys: Vec<Key>,
    /// The condition that reads only this side.
    pub own: Option<BoolFn>,
    /// The time column of this side if the join condition bounds the difference of two times.
    pub time: Option<Slot>,
    /// The column that decides whether a row is late, and whether its type is a window.
    pub event: Option<(Slot, bool)>,
    pub late: LateRows,
    /// The columns of this side that are emitted or compared: slot, output index, physical type.
    pub copies: Vec<(Slot, usize, Physical)>,
}

impl SideConfig {
    /// Whether a row is late. A late row is also sent to the side output. False without an event
    /// time, and for a NULL time.
    pub fn is_late(&self, row: Row<'_>) -> bool {
        let Some((slot, window)) = self.event.filter(|(slot, _)| !row.is_null(*slot)) else {
            return false;
        };
        let time_us =
            if window { Row(row.bytes(slot)).long(Slot::new(1, 2)) } else { row.long(slot) };
        let is_late = time_us <= self.late.late_row_watermark_us();
        if is_late {
            self.late.send_to_side_output(row);
        }
        is_late
    }
}

/// The configuration of an instance of the join.
pub(in super::super) struct Config {
    pub kind: JoinKind,
    pub sides: [SideConfig; 2],
    /// For each join key, whether NULL equals NULL.
    pub null_safe: Vec<bool>,
    pub time: JoinTime,
    /// The remaining condition, which is evaluated for each pair of rows.
    pub rest: Option<BoolFn>,
    /// The number of columns of both sides together.
    pub width: usize,
    pub log: StateLog,
    pub guard: Option<StateGuard>,
}

/// The stage of one instance of a join of two streams.
pub(in super::super) struct StreamJoin {
    kind: JoinKind,
    sides: [SideConfig; 2],
    null_safe: Vec<bool>,
    time: JoinTime,
    rest: Option<BoolFn>,
    preserves: [bool; 2],
    buffer: Buffer,
    pairs: Pairs,
    searches: Vec<Pending>,
    /// The rows that were restored from the checkpoint have smaller numbers.
    restored_before: u64,
    /// The number of unfinished searches at which no more rows are taken.
    max_searches: usize,
    /// The index of the search to continue next.
    next_search: usize,
    key: Vec<u8>,
    /// A copy of the buffered row that is being processed.
    row: Vec<u8>,
    scratch: Scratch,
    /// The rows that the current step of expiry has taken from the queue.
    expired: Vec<Expiry>,
    /// The watermarks whose expired rows have not all been processed yet.
    passing: WatermarkQueue,
    /// Whether [`Stage::flush`] still has to return [`FlushStatus::NextEpoch`] once, because it has
    /// worked on searches or expired rows while no marker was pending.
    late_emission: LateEmission,
    /// A marker that is not passed on yet. In micro-batch mode it waits for searches and expiry.
    marker: Option<Epoch>,
    guard: Option<StateGuard>,
    down: BoxChain,
}

/// For each side, whether the guard has paused it.
pub(super) fn held_sides(guard: Option<&StateGuard>) -> [bool; 2] {
    JoinSide::BOTH.map(|side| guard.is_some_and(|guard| guard.is_held(side)))
}

/// The time of a row to be buffered. `None` if the time is NULL; such a row is dropped.
fn time_of(
    time: JoinTime,
    column: Option<Slot>,
    row: Row<'_>,
    key: &[u8],
    keys: usize,
) -> Option<i64> {
    match (time, column) {
        (JoinTime::None, _) => Some(0),
        (JoinTime::Key { key: event, .. }, _) => event.expires_us(Row(key), keys),
        (JoinTime::Range(_), Some(slot)) => (!row.is_null(slot)).then(|| row.long(slot)),
        (JoinTime::Range(_), None) => None,
    }
}

impl StreamJoin {
    pub fn new(config: Config, down: BoxChain) -> Self {
        let Config { kind, mut sides, null_safe, time, rest, width, log, guard } = config;
        let left = matches!(kind, JoinKind::LeftOuter | JoinKind::FullOuter | JoinKind::LeftAnti);
        let right = matches!(kind, JoinKind::RightOuter | JoinKind::FullOuter);
        let copies: [Vec<Copied>; 2] =
            sides.each_mut().map(|side| std::mem::take(&mut side.copies));
        let expires = JoinSide::BOTH.map(|side| time.shift_us(side).is_some());
        Self {
            kind,
            sides,
            null_safe,
            time,
            rest,
            preserves: [left, right],
            buffer: Buffer::new(expires, log),
            pairs: Pairs::new(copies, width),
            searches: Vec::new(),
            restored_before: 0,
            max_searches: SEARCHES,
            next_search: 0,
            key: Vec::new(),
            row: Vec::new(),
            scratch: Scratch::default(),
            expired: Vec::with_capacity(STEP),
            passing: WatermarkQueue::default(),
            late_emission: LateEmission::default(),
            marker: None,
            guard,
            down,
        }
    }

    /// Emits all matches of a row before those of the next one: a search is finished before another
    /// row is taken.
    pub fn ordered(self, is_ordered: bool) -> Self {
        Self { max_searches: if is_ordered { 1 } else { SEARCHES }, ..self }
    }

    /// The number of buffered rows, and the memory for them in bytes.
    pub fn state(&self) -> (u64, u64) {
        self.buffer.state()
    }

    fn late(&self) -> &LateRows {
        &self.sides[0].late
    }

    /// The state watermark of a side when the watermark is `watermark_us`; `None` if the side's
    /// rows never expire.
    fn state_watermark(&self, side: JoinSide, watermark_us: i64) -> Option<i64> {
        self.time.shift_us(side).map(|shift_us| watermark_us.saturating_add(shift_us))
    }

    /// Emits a row that has no match: in a LEFT ANTI join the row itself, otherwise with NULLs for
    /// the other side.
    fn emit_unmatched(
        &mut self,
        side: JoinSide,
        row: Row<'_>,
        ingest_ns: u64,
    ) -> Result<(), EngineError> {
        if self.kind == JoinKind::LeftAnti {
            return self.down.push(row, ingest_ns);
        }
        self.pairs.begin(side, row);
        self.down.push(self.pairs.row(), ingest_ns)
    }

    /// Runs one step of a search. Returns whether the search is finished.
    fn search(&mut self, row: Row<'_>, search: &mut Search) -> Result<bool, EngineError> {
        let mut prober = Prober {
            kind: self.kind,
            buffer: &mut self.buffer,
            pairs: &mut self.pairs,
            rest: &self.rest,
            scratch: &mut self.scratch,
            preserves: self.preserves,
            down: &mut self.down,
        };
        prober.step(row, search)
    }

    /// The inclusive range of the other side's times that a row may match.
    fn times_us(&self, side: JoinSide, time_us: i64) -> (i64, i64) {
        match self.time {
            JoinTime::Range(range) => range.around(side, time_us),
            JoinTime::None | JoinTime::Key { .. } => (i64::MIN, i64::MAX),
        }
    }

    /// Whether a row of this side is removed at its first match. LEFT SEMI emits the row at this
    /// match and never again, and LEFT ANTI never emits it.
    fn leaves_at_match(&self, side: JoinSide) -> bool {
        side == JoinSide::Left && matches!(self.kind, JoinKind::LeftSemi | JoinKind::LeftAnti)
    }

    /// Frees a key without rows, unless an unfinished search refers to the key.
    fn release(&mut self, key: usize) {
        if self.buffer.is_unused(key) && self.searches.iter().all(|p| p.search.key != key) {
            self.buffer.release(key);
        }
    }

    /// Runs up to [`SEARCH_STEPS`] steps of unfinished searches, in turn, while the chain is ready.
    /// Returns whether all are finished.
    fn go_on_searching(&mut self) -> Result<bool, EngineError> {
        for _ in 0..SEARCH_STEPS {
            if self.searches.is_empty() || !self.down.is_ready() {
                break;
            }
            let at = if self.next_search < self.searches.len() { self.next_search } else { 0 };
            let Pending { mut search, row: id, time_us, .. } = self.searches[at];
            // While this search was suspended, another row may have matched this row and removed
            // it.
            let mut done = self.buffer.rows.number(id) != search.number;
            if !done {
                let mut row = std::mem::take(&mut self.row);
                row.clear();
                row.extend_from_slice(self.buffer.rows.row(id).0);
                let had_match = search.matched;
                done = self.search(Row(&row), &mut search)?;
                self.row = row;
                self.searches[at].search = search;
                if search.matched && !had_match {
                    self.first_match(search, id, time_us);
                }
            }
            // An ordered join finishes the first search before the next one.
            self.next_search = if self.max_searches == 1 { 0 } else { at + 1 };
            if done {
                self.end_search(at)?;
                self.next_search = at;
            }
        }
        Ok(self.searches.is_empty())
    }

    /// Ends a search that is finished or whose row is gone. A row that had expired on arrival
    /// expires now.
    fn end_search(&mut self, at: usize) -> Result<(), EngineError> {
        let Pending { search, row, time_us, is_expired, is_saved } = self.searches.remove(at);
        let Search { key, side, number, ingest_ns, .. } = search;
        if is_saved {
            self.buffer.erase_search(key, side, number);
        }
        if is_expired && self.buffer.rows.number(row) == number {
            self.expire_row((key, side), (Entry { time_us, row }, false), ingest_ns)?;
        }
        self.release(key);
        Ok(())
    }

    /// Removes an expired row. On a preserved side, emits it if it has no match. `is_first` tells
    /// whether it is the first row of its key and side.
    fn expire_row(
        &mut self,
        (key, side): (usize, JoinSide),
        (entry, is_first): (Entry, bool),
        ingest_ns: u64,
    ) -> Result<(), EngineError> {
        if self.preserves[side.index()] && !self.buffer.rows.is_matched(entry.row) {
            let mut row = std::mem::take(&mut self.row);
            row.clear();
            row.extend_from_slice(self.buffer.rows.row(entry.row).0);
            self.emit_unmatched(side, Row(&row), ingest_ns)?;
            self.row = row;
        }
        match is_first {
            true => self.buffer.remove_first(key, side, entry),
            false => self.buffer.remove(key, side, entry),
        }
        self.buffer.count_evicted(side);
        Ok(())
    }

    /// Handles the first match of a buffered row. A left row of LEFT SEMI or LEFT ANTI is removed,
    /// because further matches cannot change its result. On a side whose unmatched rows are
    /// emitted, the match is recorded.
    fn first_match(&mut self, search: Search, id: super::rows::RowId, time_us: i64) {
        if self.leaves_at_match(search.side) {
            let entry = Entry { time_us, row: id };
            self.buffer.remove(search.key, search.side, entry);
        } else if self.preserves[search.side.index()] {
            self.buffer.set_matched(search.key, search.side, id);
        }
    }

    /// Runs one bounded step of expiry. Returns whether all expired rows are processed.
    fn expire(&mut self, watermark_us: i64) -> Result<bool, EngineError> {
        let mut left = self.buffer.step(STEP);
        for side in JoinSide::BOTH {
            let Some(by_us) = self.state_watermark(side, watermark_us) else { continue };
            let preserves = self.preserves[side.index()];
            if preserves
                && left > 0
                && self.buffer.has_expired(side, by_us)
                && !self.down.is_ready()
            {
                return Ok(false);
            }
            let mut expired = std::mem::take(&mut self.expired);
            self.buffer.take_expired(side, by_us, left, &mut expired);
            left -= expired.len();
            for &expiry in &expired {
                // Only a row whose search is unfinished may outlast later rows of its run.
                let found = match self.searches.is_empty() {
                    true => self.buffer.first_expired(side, expiry).map(|first| (first, true)),
                    false => self.buffer.find_expired(side, expiry),
                };
                let Some(found) = found else { continue };
                let key = expiry.slot as usize;
                self.expire_row((key, side), found, UNTIMED)?;
                self.release(key);
            }
            self.expired = expired;
            if self.buffer.has_expired(side, by_us) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Continues searches, then expiry, then passes on the marker. If watermarks arrive between
    /// records, the marker is passed on before expiry: rows that expire after it belong to the next
    /// epoch.
    fn continue_expiry(&mut self) -> Result<(), EngineError> {
        let is_in_band = self.late().is_in_band();
        let all_finished = self.go_on_searching()?;
        if is_in_band && self.marker.is_some() {
            // The marker does not wait: matches found later belong to the next epoch.
            self.save_searches()?;
            self.pass_marker()?;
            // So do the rows that expire now, also if this call finishes the expiry.
            if self.has_work() {
                self.late_emission.note();
            }
        }
        if !all_finished && (!is_in_band || self.watermark_waits()) {
            return Ok(());
        }
        if let Some(watermark_us) = self.passing.us() {
            let all_expired = self.expire(watermark_us)?;
            self.check_limit()?;
            if !all_expired {
                return Ok(());
            }
        }
        self.passing.pass(is_in_band, self.time.lag_us(), &mut self.down)?;
        self.pass_marker()
    }

    /// Whether the next watermark waits for the searches of rows before it.
    fn watermark_waits(&self) -> bool {
        let number = self.passing.number();
        self.passing.is_waiting() && self.searches.iter().any(|p| p.search.number < number)
    }

    /// Whether there are unfinished searches or expired rows.
    fn has_work(&self) -> bool {
        self.passing.is_waiting() || !self.searches.is_empty()
    }

    /// Pauses or resumes a side, depending on the size of the buffered rows, or fails if the limit
    /// is to end the query. Does nothing without a limit.
    #[inline]
    fn check_limit(&mut self) -> Result<(), EngineError> {
        match &mut self.guard {
            Some(guard) => {
                let expires = JoinSide::BOTH.map(|side| self.time.shift_us(side).is_some());
                guard.check(self.buffer.row_bytes(), expires)
            }
            None => Ok(()),
        }
    }

    /// Writes the progress of unfinished searches to the checkpoint. A search whose row was removed
    /// by a match of another row ends.
    fn save_searches(&mut self) -> Result<(), EngineError> {
        let mut at = 0;
        while at < self.searches.len() {
            let Pending { search, row, is_saved, .. } = &mut self.searches[at];
            if self.buffer.rows.number(*row) != search.number {
                self.end_search(at)?;
                continue;
            }
            if let Some(last) = search.last {
                self.buffer.save_search(search.key, (search.side, search.number), last);
                *is_saved = true;
            }
            at += 1;
        }
        Ok(())
    }

    fn pass_marker(&mut self) -> Result<(), EngineError> {
        match self.marker.take() {
            Some(epoch) => {
                self.buffer.hand_over(epoch, held_sides(self.guard.as_ref()));
                self.down.marker(epoch)
            }
            None => Ok(()),
        }
    }
}

impl Stage for StreamJoin {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        let (time, keys) = (self.time, self.null_safe.len());
        let columns = JoinSide::BOTH.map(|side| self.sides[side.index()].time);
        let restored = self
            .buffer
            .restore(|side, row, key| time_of(time, columns[side.index()], row, key, keys))?;
        self.restored_before = self.buffer.next_number();
        for RestoredSearch { side, key, number, entry, last } in restored {
            let times_us = self.times_us(side, entry.time_us);
            let matched = self.buffer.rows.is_matched(entry.row);
            let last = Some(last);
            let search = Search { side, key, number, times_us, last, ingest_ns: UNTIMED, matched };
            let Entry { time_us, row } = entry;
            let (is_expired, is_saved) = (false, true);
            self.searches.push(Pending { search, row, time_us, is_expired, is_saved });
        }
        self.down.attach(io)
    }
    fn is_ready(&mut self) -> bool {
        self.marker.is_none() && self.searches.len() < self.max_searches && self.down.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        if !is_idle(micros) {
            self.sides.iter_mut().for_each(|side| side.late.advance(micros));
        }
        self.passing.arrive(micros, self.buffer.next_number());
        self.continue_expiry()
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        if !self.late().is_in_band() {
            self.passing.begin_batch(self.late().watermark_us());
        }
        self.marker = Some(epoch);
        self.continue_expiry()
    }
    fn end(&mut self) -> Result<(), EngineError> {
        // The query ends. Unfinished searches and unexpired rows stay in the checkpoint, if there
        // is one.
        self.searches.clear();
        self.passing.clear();
        self.down.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        let works = self.has_work();
        if !works && self.marker.is_none() && !self.late_emission.is_owed() {
            return self.down.flush();
        }
        if works && self.marker.is_none() {
            self.late_emission.note();
        }
        self.continue_expiry()?;
        let below = self.down.flush()?;
        let works = self.has_work();
        Ok(self.late_emission.combine(below, self.marker.is_some(), works))
    }
    fn next_timer_ns(&self) -> Option<u64> {
        self.down.next_timer_ns()
    }
}

impl Push<SidedRow> for StreamJoin {
    fn push(&mut self, sided: SidedRow, ingest_ns: u64) -> Result<(), EngineError> {
        let SidedRow { side, row, .. } = sided;
        let row = Row(&row);
        self.buffer.count_received(side);
        let of_side = &self.sides[side.index()];
        if of_side.is_late(row) {
            self.buffer.count_late();
            return Ok(());
        }
        self.scratch.reset();
        if let Some(own) = &of_side.own
            && own(self.scratch.cx(row))? != Some(true)
        {
            if self.preserves[side.index()] {
                self.emit_unmatched(side, row, ingest_ns)?;
            }
            return Ok(());
        }
        self.key.clear();
        write_keys(&of_side.keys, &self.scratch, row, &mut self.key)?;
        let time_us = time_of(self.time, of_side.time, row, &self.key, self.null_safe.len());
        let Some(time_us) = time_us else { return Ok(()) };
        let unmatchable = is_unmatchable(&self.key, &self.null_safe);
        if unmatchable && !self.preserves[side.index()] {
            return Ok(());
        }
        self.take(side, row, (time_us, ingest_ns), unmatchable)
    }

    #[inline]
    fn prefetch(&self, sided: &SidedRow) {
        self.buffer.keys.prefetch_hash(sided.hash);
    }
}

impl StreamJoin {
    /// Searches for the matches of a row whose key is in `self.key`, and buffers the row, unless it
    /// needs no further match. An `unmatchable` row is only buffered. A search that is not finished
    /// at once continues in later steps.
    fn take(
        &mut self,
        side: JoinSide,
        row: Row<'_>,
        (time_us, ingest_ns): (i64, u64),
        unmatchable: bool,
    ) -> Result<(), EngineError> {
        let hash = hash_bytes(&self.key);
        let number = self.buffer.take_number();
        let found = self.buffer.keys.find(hash, &self.key);
        let times_us = self.times_us(side, time_us);
        let key = found.unwrap_or(0);
        let mut search =
            Search { side, key, number, times_us, last: None, ingest_ns, matched: false };
        let done = found.is_none() || unmatchable || self.search(row, &mut search)?;
        if search.matched && self.leaves_at_match(side) {
            return Ok(());
        }
        let key = self.buffer.find_or_insert_key(found, hash, &self.key);
        let matched = search.matched && self.preserves[side.index()];
        // The side's state watermark may have passed the row, although the row is not late by its
        // own event time. Then the row expires in the next step, or at the end of its search.
        let (is_in_band, watermark_us) = (self.late().is_in_band(), self.late().watermark_us());
        let state_us = self.state_watermark(side, watermark_us).filter(|_| is_in_band);
        let is_expired = state_us.is_some_and(|state_us| time_us <= state_us);
        let new = NewRow { side, row, number, time_us, matched, expires: done || !is_expired };
        let id = self.buffer.insert(key, new)?;
        if !done {
            self.searches.push(Pending { search, row: id, time_us, is_expired, is_saved: false });
        } else if is_expired {
            self.passing.repeat(watermark_us, self.restored_before);
        }
        self.check_limit()
    }
}
