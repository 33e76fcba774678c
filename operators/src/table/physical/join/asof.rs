//! The stage of one instance of an ASOF join of two streams. A *backward* join (`>=`, `>`) joins each
//! left row with the last right row before it, a *forward* join (`<=`, `<`) with the first one after
//! it.
//!
//! The match of a left row is *final* when no closer right row can arrive: in a backward join when
//! the watermark has reached the left row, in a forward join when it has reached the right row.
//!
//! *Final* (append mode): a left row waits until its match is final. It is emitted at most once.
//! *Immediate* (update mode): a left row is emitted at once, and again for each closer right row
//! that arrives before its match is final. Without a match, a left row is emitted only by a LEFT
//! join. A left row whose time is NULL or whose own condition is not true is never buffered: it has
//! no match.
//!
//! *State.* The state of a key contains the left rows whose match is not final, and the right rows
//! that are newer than the watermark. In a backward join it also contains the last right row at or
//! before the watermark, which the next left row may match. Left and right rows expire in common
//! time order there, so a left row is matched with the right row that is the last one at the left
//! row's time. In a forward join a right row expires together with the left rows that it matches. A
//! left row without a later right row stays.
//!
//! *Order.* In append mode the left rows of a backward join are emitted by time and arrival, those of
//! a forward join in the order of their right rows. Among right rows of the same time, the one that
//! arrived last is the closest.
//!
//! *Bounded steps.* In update mode, the left rows for which a new right row is closer are emitted
//! again in bounded steps. Until all are emitted, other rows, watermarks and the marker wait.

use super::super::stages::{BoxChain, Scratch};
use super::buffer::{Buffer, NewRow};
use super::expiry::Expiry;
use super::keys::is_unmatchable;
use super::output::Pairs;
use super::probe::STEP;
use super::run::Entry;
use super::side::{JoinSide, SidedRow};
use super::stage::{Config, SideConfig, held_sides};
use super::state_limit::StateGuard;
use crate::event_time::pending_watermark::PendingWatermark;
use crate::table::physical::aggregate::hash_aggregate::write_keys;
use crate::table::physical::late_row::LateRows;
use crate::table::plan::{Closest, JoinKind};
use crate::table::row::Row;
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, UNTIMED, is_idle};
use millstream_engine::runtime::stage::{FlushStatus, Io, LateEmission, Push, Stage};

/// When left rows are emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Results {
    /// Once, when the watermark guarantees that no closer right row can arrive.
    Final,
    /// At once, and again for each closer right row that arrives.
    Immediate,
}

/// A right row for which left rows are emitted again.
#[derive(Clone, Copy)]
struct Change {
    /// The index of the join key.
    key: usize,
    right: Entry,
    /// The first left time for which the right row is the closest, and the end of these times.
    times_us: (i64, i64),
    /// The time and the number of the last left row that was emitted; `None` before the first.
    last: Option<(i64, u64)>,
    ingest_ns: u64,
}

/// For each side, whether its rows expire by the watermark alone. A left row of a forward join also
/// needs a right row after it.
fn expires(closest: Closest) -> [bool; 2] {
    [matches!(closest, Closest::AtOrBefore | Closest::Before), true]
}

/// The stage of one instance of an ASOF join of two streams.
pub(in super::super) struct AsofJoin {
    /// Whether left rows without a match are emitted with NULLs.
    keeps_left: bool,
    closest: Closest,
    results: Results,
    sides: [SideConfig; 2],
    /// For each join key, whether NULL equals NULL.
    null_safe: Vec<bool>,
    buffer: Buffer,
    pairs: Pairs,
    key: Vec<u8>,
    row: Vec<u8>,
    scratch: Scratch,
    /// Left rows that are not all emitted again yet.
    change: Option<Change>,
    /// In a forward join, an expired right row some of whose left rows are still buffered.
    expiring: Option<Expiry>,
    /// A watermark whose expired rows have not all been processed yet.
    passing: PendingWatermark,
    /// Whether [`Stage::flush`] still has to return [`FlushStatus::NextEpoch`] once, because it has
    /// worked on expired rows while no marker was pending.
    late_emission: LateEmission,
    /// In micro-batch mode: a marker to pass on when expiry is complete.
    marker: Option<Epoch>,
    guard: Option<StateGuard>,
    down: BoxChain,
}

impl AsofJoin {
    pub fn new(config: Config, (closest, results): (Closest, Results), down: BoxChain) -> Self {
        let Config { kind, mut sides, null_safe, width, log, guard, .. } = config;
        let copies = sides.each_mut().map(|side| std::mem::take(&mut side.copies));
        Self {
            keeps_left: kind == JoinKind::LeftOuter,
            closest,
            results,
            sides,
            null_safe,
            buffer: Buffer::new(expires(closest), log),
            pairs: Pairs::new(copies, width),
            key: Vec::new(),
            row: Vec::new(),
            scratch: Scratch::default(),
            change: None,
            expiring: None,
            passing: PendingWatermark::default(),
            late_emission: LateEmission::default(),
            marker: None,
            guard,
            down,
        }
    }

    /// The number of buffered rows, and the memory for them in bytes.
    pub fn state(&self) -> (u64, u64) {
        self.buffer.state()
    }

    fn late(&self) -> &LateRows {
        &self.sides[0].late
    }

    /// Whether right rows after a left row match it.
    fn is_forward(&self) -> bool {
        matches!(self.closest, Closest::AtOrAfter | Closest::After)
    }

    /// Whether a right row with the time of the left row does not match it.
    fn is_strict(&self) -> bool {
        matches!(self.closest, Closest::Before | Closest::After)
    }

    /// The closest right row of a key for a left row at `time_us`; `None` if there is none.
    fn closest(&self, key: usize, time_us: i64) -> Option<Entry> {
        let run = &self.buffer.keys[key].runs[JoinSide::Right.index()];
        let store = &self.buffer.runs;
        // Times are in whole microseconds, so adding one makes an inclusive end exclusive.
        let behind_us = time_us.saturating_add(1);
        if self.is_forward() {
            let mut first = run.seek(if self.is_strict() { behind_us } else { time_us }, store);
            let first_us = run.get(&mut first, store)?.time_us;
            return run.before(run.seek(first_us.saturating_add(1), store), store);
        }
        let end_us = if self.is_strict() { time_us } else { behind_us };
        run.before(run.seek(end_us, store), store)
    }

    /// The left times, from the first to the end, for which a right row at `time_us` is the closest
    /// of those with a key.
    fn left_times_us(&self, key: usize, time_us: i64) -> (i64, i64) {
        let rights = &self.buffer.keys[key].runs[JoinSide::Right.index()];
        let store = &self.buffer.runs;
        if self.is_forward() {
            let before = rights.before(rights.seek(time_us, store), store);
            let inclusive = i64::from(!self.is_strict());
            let begin_us = before.map_or(i64::MIN, |row| row.time_us.saturating_add(inclusive));
            return (begin_us, time_us.saturating_add(inclusive));
        }
        let mut behind = rights.seek(time_us.saturating_add(1), store);
        let next_us = rights.get(&mut behind, store).map_or(i64::MAX, |next| next.time_us);
        let strict = i64::from(self.is_strict());
        (time_us.saturating_add(strict), next_us.saturating_add(strict))
    }

    /// Emits a left row with its closest right row. Without a right row, it is emitted with NULLs
    /// in a LEFT join and dropped otherwise.
    fn emit(
        &mut self,
        row: Row<'_>,
        found: Option<Entry>,
        ingest_ns: u64,
    ) -> Result<(), EngineError> {
        if found.is_none() && !self.keeps_left {
            return Ok(());
        }
        self.pairs.begin(JoinSide::Left, row);
        if let Some(found) = found {
            self.pairs.complete(JoinSide::Right, self.buffer.rows.row(found.row));
            self.buffer.matches += 1;
        }
        self.down.push(self.pairs.row(), ingest_ns)
    }

    /// Begins to emit again the left rows for which a new right row is the closest.
    fn begin_change(&mut self, key: usize, right: Entry, ingest_ns: u64) {
        // Among the right rows of its time, the new row is the last, because it arrived last.
        let times_us = self.left_times_us(key, right.time_us);
        self.change = Some(Change { key, right, times_us, last: None, ingest_ns });
    }

    /// Emits up to [`STEP`] more left rows of the current change, while the chain is ready. Returns
    /// whether all are emitted.
    fn continue_change(&mut self) -> Result<bool, EngineError> {
        let Some(Change { key, right, times_us, mut last, ingest_ns }) = self.change else {
            return Ok(true);
        };
        let store = &self.buffer.runs;
        let lefts = &self.buffer.keys[key].runs[JoinSide::Left.index()];
        let mut cursor = match last {
            None => lefts.seek(times_us.0, store),
            Some(last) => lefts.seek_behind(last, &self.buffer.rows, store),
        };
        for _ in 0..self.buffer.step(STEP) {
            let left = lefts.get(&mut cursor, store).filter(|left| left.time_us < times_us.1);
            let Some(left) = left else {
                self.change = None;
                return Ok(true);
            };
            if !self.down.is_ready() {
                break;
            }
            cursor.advance();
            last = Some((left.time_us, self.buffer.rows.number(left.row)));
            self.pairs.begin(JoinSide::Left, self.buffer.rows.row(left.row));
            self.pairs.complete(JoinSide::Right, self.buffer.rows.row(right.row));
            self.buffer.matches += 1;
            self.down.push(self.pairs.row(), ingest_ns)?;
        }
        self.change = Some(Change { key, right, times_us, last, ingest_ns });
        Ok(false)
    }

    /// Removes a left row that the watermark has reached. In append mode, emits the row first.
    fn expire_left(&mut self, expiry: Expiry) -> Result<(), EngineError> {
        let Some(left) = self.buffer.first_expired(JoinSide::Left, expiry) else { return Ok(()) };
        let key = expiry.slot as usize;
        self.remove_left(key, left)?;
        self.buffer.release(key);
        Ok(())
    }

    /// Removes the first left row of a key, whose match is final. In append mode, emits the row
    /// first.
    fn remove_left(&mut self, key: usize, left: Entry) -> Result<(), EngineError> {
        if self.results == Results::Final {
            let mut row = std::mem::take(&mut self.row);
            row.clear();
            row.extend_from_slice(self.buffer.rows.row(left.row).0);
            let found = self.closest(key, left.time_us);
            self.emit(Row(&row), found, UNTIMED)?;
            self.row = row;
        }
        self.buffer.remove_first(key, JoinSide::Left, left);
        self.buffer.count_evicted(JoinSide::Left);
        Ok(())
    }

    /// Removes the right rows before one that the watermark has reached: no later left row can
    /// match them.
    fn expire_right(&mut self, right: Expiry) {
        let key = right.slot as usize;
        loop {
            let Some(entry) = self.buffer.keys.get(key) else { return };
            let run = &entry.runs[JoinSide::Right.index()];
            let Some(first) = run.first(&self.buffer.runs) else { return };
            if (first.time_us, self.buffer.rows.number(first.row)) >= (right.time_us, right.number)
            {
                return;
            }
            self.buffer.remove_first(key, JoinSide::Right, first);
            self.buffer.count_evicted(JoinSide::Right);
        }
    }

    /// Runs one bounded step of the expiry of a forward join: removes right rows that the watermark
    /// has reached, each with the left rows that it matches. Returns whether all are processed.
    fn expire_forward(&mut self, watermark_us: i64) -> Result<bool, EngineError> {
        for _ in 0..self.buffer.step(STEP) {
            let next = self.expiring.take();
            let next = next.or_else(|| self.buffer.next_expired(JoinSide::Right, watermark_us));
            let Some(expiry) = next else { return Ok(true) };
            let right = self.buffer.first_expired(JoinSide::Right, expiry);
            let Some(right) = right else { continue };
            let key = expiry.slot as usize;
            let lefts = &self.buffer.keys[key].runs[JoinSide::Left.index()];
            let end_us = right.time_us.saturating_add(i64::from(!self.is_strict()));
            let left = lefts.first(&self.buffer.runs).filter(|left| left.time_us < end_us);
            let Some(left) = left else {
                self.buffer.remove_first(key, JoinSide::Right, right);
                self.buffer.count_evicted(JoinSide::Right);
                self.buffer.release(key);
                continue;
            };
            self.expiring = Some(expiry);
            if self.results == Results::Final && !self.down.is_ready() {
                return Ok(false);
            }
            self.remove_left(key, left)?;
        }
        Ok(false)
    }

    /// Runs one bounded step of expiry. Returns whether all expired rows are processed.
    fn expire(&mut self, watermark_us: i64) -> Result<bool, EngineError> {
        if self.is_forward() {
            return self.expire_forward(watermark_us);
        }
        for _ in 0..self.buffer.step(STEP) {
            let firsts = JoinSide::BOTH.map(|side| self.buffer.first_expiry_us(side));
            let [left_us, right_us] = firsts.map(|first| first.unwrap_or(i64::MAX));
            let least_us = left_us.min(right_us);
            if firsts == [None, None] || least_us > watermark_us {
                return Ok(true);
            }
            if left_us <= right_us {
                if !self.down.is_ready() {
                    return Ok(false);
                }
                if let Some(left) = self.buffer.next_expired(JoinSide::Left, watermark_us) {
                    self.expire_left(left)?;
                }
            } else if let Some(right) = self.buffer.next_expired(JoinSide::Right, watermark_us) {
                self.expire_right(right);
            }
        }
        Ok(false)
    }

    /// Continues the current change, then expiry, then passes on the marker. If watermarks arrive
    /// between records, the marker is passed on before expiry: rows that expire after it belong to
    /// the next epoch.
    fn continue_work(&mut self) -> Result<(), EngineError> {
        if !self.continue_change()? {
            return Ok(());
        }
        let in_band = self.late().is_in_band();
        if in_band && self.marker.is_some() {
            self.pass_marker()?;
            // The results of what is left belong to the next epoch, also if this call finishes it.
            if self.has_work() {
                self.late_emission.note();
            }
        }
        if let Some(watermark_us) = self.passing.us() {
            let all_expired = self.expire(watermark_us)?;
            self.check_limit()?;
            if !all_expired {
                return Ok(());
            }
        }
        self.passing.pass(in_band, 0, &mut self.down)?;
        self.pass_marker()
    }

    /// Whether left rows are to be emitted again, or expired rows to be processed.
    fn has_work(&self) -> bool {
        self.change.is_some() || self.passing.is_waiting()
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

    /// Pauses or resumes a side, depending on the size of the buffered rows, or fails if the limit
    /// is to end the query. Does nothing without a limit.
    #[inline]
    fn check_limit(&mut self) -> Result<(), EngineError> {
        match &mut self.guard {
            Some(guard) => guard.check(self.buffer.row_bytes(), expires(self.closest)),
            None => Ok(()),
        }
    }

    /// Buffers a row that is not late and satisfies the condition on its own side. If results are
    /// immediate, emits a left row with its closest match so far, or the left rows whose match a
    /// right row changes.
    fn take(
        &mut self,
        side: JoinSide,
        row: Row<'_>,
        (time_us, ingest_ns): (i64, u64),
    ) -> Result<(), EngineError> {
        let hash = hash_bytes(&self.key);
        let number = self.buffer.take_number();
        let found = self.buffer.keys.find(hash, &self.key);
        if side == JoinSide::Left && self.results == Results::Immediate {
            let closest = found.and_then(|key| self.closest(key, time_us));
            self.emit(row, closest, ingest_ns)?;
        }
        let key = self.buffer.find_or_insert_key(found, hash, &self.key);
        let new = NewRow { side, row, number, time_us, matched: false, expires: true };
        let id = self.buffer.insert(key, new)?;
        if side == JoinSide::Right && self.results == Results::Immediate {
            self.begin_change(key, Entry { time_us, row: id }, ingest_ns);
            self.continue_change()?;
        }
        self.check_limit()?;
        let watermark_us = self.late().watermark_us();
        if self.late().is_in_band() && time_us <= watermark_us {
            self.passing.repeat(watermark_us);
        }
        Ok(())
    }
}

impl Stage for AsofJoin {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        let columns = JoinSide::BOTH.map(|side| self.sides[side.index()].time);
        self.buffer.restore(|side, row, _| {
            let slot = columns[side.index()]?;
            (!row.is_null(slot)).then(|| row.long(slot))
        })?;
        self.down.attach(io)
    }
    fn is_ready(&mut self) -> bool {
        self.marker.is_none() && self.change.is_none() && self.down.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        if !is_idle(micros) {
            self.sides.iter_mut().for_each(|side| side.late.advance(micros));
        }
        self.passing.arrive(micros);
        self.continue_work()
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        if !self.late().is_in_band() {
            self.passing.begin_batch(Some(self.late().watermark_us()));
        }
        self.marker = Some(epoch);
        self.continue_work()
    }
    fn end(&mut self) -> Result<(), EngineError> {
        // The query ends. Rows that are not expired yet stay in the checkpoint, if there is one.
        self.passing.clear();
        self.down.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        let has_results = self.has_work();
        if !has_results && self.marker.is_none() && !self.late_emission.is_owed() {
            return self.down.flush();
        }
        if has_results && self.marker.is_none() {
            self.late_emission.note();
        }
        self.continue_work()?;
        let below = self.down.flush()?;
        let has_results = self.has_work();
        Ok(self.late_emission.combine(below, self.marker.is_some(), has_results))
    }
    fn next_timer_ns(&self) -> Option<u64> {
        self.down.next_timer_ns()
    }
}

impl Push<SidedRow> for AsofJoin {
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
        let may_match = match &of_side.own {
            Some(own) => own(self.scratch.cx(row))? == Some(true),
            None => true,
        };
        let time = of_side.time.filter(|slot| may_match && !row.is_null(*slot));
        let Some(time) = time else {
            return match side {
                JoinSide::Left => self.emit(row, None, ingest_ns),
                JoinSide::Right => Ok(()),
            };
        };
        self.key.clear();
        write_keys(&of_side.keys, &self.scratch, row, &mut self.key)?;
        let unmatchable = is_unmatchable(&self.key, &self.null_safe);
        // A right row that cannot match is dropped. A left row that cannot match is buffered like
        // the others, and has no match later. A forward join would never remove it.
        if unmatchable && side == JoinSide::Right {
            return Ok(());
        }
        if unmatchable && self.is_forward() {
            return self.emit(row, None, ingest_ns);
        }
        self.take(side, row, (row.long(time), ingest_ns))
    }
}
