//! One instance of an interval join.
//!
//! A new record first searches the buffered records of the other side and is then buffered itself,
//! unless the watermark rules out further matches. A record expires when the state watermark of its
//! side reaches its event time. If the record has had no match and the join preserves its side, its
//! result is emitted then. A semi or anti join removes a left record with its first match. If the
//! record is searching at that time, its search ends in the next step.
//!
//! *In the checkpoint* an unfinished search has an entry of its own: the time and the number of the
//! last examined record.
//!
//! *Bounds.* A step of a search examines at most [`STEP`] records. An unfinished search continues
//! between other records, after the last examined record; in an ordered join other records wait for
//! it. It skips records that arrived after the searching record, because they find the searching
//! record themselves. Records expire by a watermark when the searches of all records before it are
//! finished. A record that has expired on arrival is removed at the end of its own search.

use super::pairing::Pairing;
use super::range::IntervalRange;
use crate::event_time::watermark::{EventTimeFn, OperatorWatermark};
use crate::state::expiry_lanes::{Expiry, ExpiryLanes};
use crate::state::key_table::KeyTable;
use crate::state::keyed_runs::{KeyedRuns, add_keys, keys_memory, row_entries};
use crate::state::ordered_run::RowId;
use crate::stream::keyed_input::Either;
use crate::stream::operator::sided_records::{KeyBytes, SUFFIX, Side, SidedId, SidedRecords};
use crate::stream::operator::stepped::{RecordWork, StepWork};
use crate::stream::processor_state::{Kept, damaged, write};
use millstream_engine::checkpoint::key_group::{BuildStableHasher, hash_bytes};
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, UNTIMED};
use millstream_engine::measure::operator_state::JoinState;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::state_log::{StateLog, StateSlot};
use std::collections::HashMap;

/// Maximum number of records that a step of a search examines, or that expire in a step.
const STEP: usize = 64;
/// Maximum number of unfinished searches.
const SEARCHES: usize = 16;

/// The event times of both sides.
pub(super) type Times<L, R> = (EventTimeFn<L>, EventTimeFn<R>);

/// The caller's functions.
#[derive(Clone)]
pub(super) struct Calls<P, M, Z> {
    pub pairing: P,
    /// The condition on two records besides their key and their times, if there is one.
    pub condition: Option<M>,
    /// Called with each late record.
    pub late: Z,
}

/// A search for the matches of a record.
#[derive(Clone, Copy)]
struct Search {
    record: SidedId,
    /// The slot of the record's key.
    key: usize,
    number: u64,
    /// The times of the other side that the record may match. Both bounds are included.
    times_us: (i64, i64),
    /// The time and the number of the last record that was examined.
    last: Option<(i64, u64)>,
    ingest_ns: u64,
    matched: bool,
    /// Whether the record had expired when it arrived. It is then not in the expiry queue.
    expired: bool,
    /// Whether the checkpoint has an entry for this search.
    saved: bool,
}

#[cold]
fn limit_exceeded(bytes: u64, limit: u64) -> EngineError {
    EngineError::operator(
        "JOIN_STATE_LIMIT_EXCEEDED",
        format!("an interval join buffers {bytes} bytes, and its share of the limit is {limit}"),
        "Raise max_state_bytes. In continuous mode, Flow::idle_timeout lets the join continue \
        without a silent stream",
    )
}

/// The number of entries of removed records that are dropped at most from the front of an expiry
/// queue when an epoch ends.
const REMOVALS_OF_EPOCH: usize = 4096;

/// The bit that marks an unfinished search in the key of a checkpoint entry. It is combined with
/// the side.
const SEARCH: u8 = 4;

/// The state of the instance.
pub(super) struct IntervalWork<L, R, P, M, Z> {
    calls: Calls<P, M, Z>,
    times: Times<L, R>,
    range: IntervalRange,
    records: SidedRecords<L, R>,
    keys: KeyTable<KeyedRuns>,
    expiry: [ExpiryLanes; 2],
    searches: Vec<Search>,
    /// The number of unfinished searches at which no more records are taken.
    max_searches: usize,
    /// The memory of the buffered records at which the query fails, in bytes.
    max_state_bytes: Option<u64>,
    /// The encoded key of the current record.
    key: Vec<u8>,
    /// Buffer for the key of a search's entry.
    entry_key: Vec<u8>,
    /// Heap memory of keys that are not stored inline, in bytes.
    key_heap: u64,
    /// The join's metrics for this epoch.
    state: JoinState,
    log: StateLog,
}

impl<L, R, P, M, Z> IntervalWork<L, R, P, M, Z>
where
    L: Kept,
    R: Kept,
    P: Pairing<L, R>,
    M: FnMut(&L, &R) -> bool,
{
    pub fn new(
        calls: Calls<P, M, Z>,
        times: Times<L, R>,
        range: IntervalRange,
        log: StateLog,
    ) -> Self {
        Self {
            calls,
            times,
            range,
            records: SidedRecords::default(),
            keys: KeyTable::default(),
            expiry: [ExpiryLanes::default(), ExpiryLanes::default()],
            searches: Vec::with_capacity(SEARCHES),
            max_searches: SEARCHES,
            max_state_bytes: None,
            key: Vec::new(),
            entry_key: Vec::new(),
            key_heap: 0,
            state: JoinState::default(),
            log,
        }
    }

    /// Emits all matches of a record before those of the next one: a search is finished before
    /// another record is taken.
    pub fn ordered(self, is_ordered: bool) -> Self {
        Self { max_searches: if is_ordered { 1 } else { SEARCHES }, ..self }
    }

    /// Limits the memory of the buffered records of this instance, in bytes.
    pub fn limited(self, max_state_bytes: Option<u64>) -> Self {
        Self { max_state_bytes, ..self }
    }

    /// Fails if the buffered records have reached the limit.
    #[inline]
    fn check_limit(&self) -> Result<(), EngineError> {
        let Some(limit) = self.max_state_bytes else { return Ok(()) };
        let bytes = self.records.record_bytes()
            + self.records.len() as u64 * row_entries(true)
            + keys_memory(self.keys.len(), self.key_heap);
        if bytes < limit { Ok(()) } else { Err(limit_exceeded(bytes, limit)) }
    }

    /// Continues a search by one step. Returns whether it is finished.
    fn step<D: Push<P::Output>>(
        &mut self,
        search: &mut Search,
        down: &mut D,
    ) -> Result<bool, EngineError> {
        let Self { calls: Calls { pairing, condition, .. }, records, keys, log, state, .. } = self;
        let KeyedRuns { key, runs } = &mut keys[search.key];
        let key_bytes = || KeyBytes { hash: hash_bytes(key), bytes: key };
        let SidedId { side, id } = search.record;
        let other = side.other();
        let run = &mut runs[other.index()];
        let mut cursor = match search.last {
            None => run.seek(search.times_us.0, records.runs()),
            Some(last) => run.seek_behind(last, &records.numbers(other), records.runs()),
        };
        for _ in 0..log.keys_per_step(STEP) {
            let found = run.get(&mut cursor, records.runs());
            let found = found.filter(|entry| entry.time_us <= search.times_us.1);
            let Some(found) = found else { return Ok(true) };
            let number = records.number(other, found.row);
            let last = (found.time_us, number);
            search.last = Some(last);
            cursor.advance();
            if number > search.number {
                continue;
            }
            let (left, right) = match side {
                Side::Left => (id, found.row),
                Side::Right => (found.row, id),
            };
            let (Some(left), Some(right)) = (records.left(left), records.right(right)) else {
                continue;
            };
            if condition.as_mut().is_some_and(|condition| !condition(left, right)) {
                continue;
            }
            if let Some(output) = pairing.pair(left, right) {
                down.push(output, search.ingest_ns)?;
            }
            search.matched = true;
            state.matches += 1;
            let found = SidedId { side: other, id: found.row };
            match (P::REMOVES_MATCHED, side) {
                (true, Side::Left) => return Ok(true),
                (true, Side::Right) => {
                    // The key stays in the table, because this search refers to it.
                    records.remove(found, key_bytes(), run, log);
                    cursor = run.seek_behind(last, &records.numbers(other), records.runs());
                }
                (false, _) if P::PRESERVES[other.index()] => {
                    records.keep_matched(found, key_bytes(), log)?;
                }
                (false, _) => {}
            }
        }
        Ok(false)
    }

    /// Handles the first match of a buffered record, whose search is not finished. A record that
    /// needs no further match is removed. On a preserved side the match is recorded.
    fn first_match(&mut self, search: Search) -> Result<(), EngineError> {
        let SidedId { side, .. } = search.record;
        if Self::leaves_at_match(side) {
            self.remove(search.record, search.key);
        } else if P::PRESERVES[side.index()] {
            let entry = &self.keys[search.key];
            let key = KeyBytes { hash: entry.hash(), bytes: &entry.key };
            self.records.keep_matched(search.record, key, &mut self.log)?;
        }
        Ok(())
    }

    /// Whether a record of this side is removed with its first match.
    fn leaves_at_match(side: Side) -> bool {
        P::REMOVES_MATCHED && side == Side::Left
    }

    /// Emits the result of a record without a match, if the kind of join has one on this side.
    fn emit_unmatched<D: Push<P::Output>>(
        &mut self,
        SidedId { side, id }: SidedId,
        ingest_ns: u64,
        down: &mut D,
    ) -> Result<(), EngineError> {
        let output = match side {
            Side::Left => self.records.left(id).and_then(|left| self.calls.pairing.only_left(left)),
            Side::Right => {
                self.records.right(id).and_then(|right| self.calls.pairing.only_right(right))
            }
        };
        output.map_or(Ok(()), |output| down.push(output, ingest_ns))
    }

    /// Removes an expired record, and emits the result of one without a match.
    fn expire<D: Push<P::Output>>(
        &mut self,
        record: SidedId,
        ingest_ns: u64,
        down: &mut D,
    ) -> Result<(), EngineError> {
        let SidedId { side, id } = record;
        self.state.inputs[side.index()].evicted += 1;
        if P::PRESERVES[side.index()] && !self.records.is_matched(side, id) {
            self.emit_unmatched(record, ingest_ns, down)?;
        }
        let key = self.records.key(side, id) as usize;
        self.remove(record, key);
        self.release_key(key);
        Ok(())
    }

    /// Whether the record of a search was removed meanwhile, because the search of another record
    /// matched it.
    fn is_orphaned(&self, Search { record, number, .. }: &Search) -> bool {
        P::REMOVES_MATCHED && self.records.number(record.side, record.id) != *number
    }

    /// Ends a search that is finished or orphaned. A record that had expired on arrival is removed.
    fn end_search<D: Push<P::Output>>(
        &mut self,
        at: usize,
        down: &mut D,
    ) -> Result<(), EngineError> {
        let search = self.take_search(at);
        if search.expired && !self.is_orphaned(&search) {
            self.expire(search.record, search.ingest_ns, down)?;
        }
        self.release_key(search.key);
        Ok(())
    }

    /// Removes a search, also from the checkpoint.
    fn take_search(&mut self, at: usize) -> Search {
        let search = self.searches.remove(at);
        if search.saved {
            let hash = self.write_search_key(&search);
            self.log.delete_uncounted(&mut StateSlot::default(), hash, &self.entry_key);
        }
        search
    }

    /// The slot of a key. A new key is added.
    fn slot_of(&mut self, hash: u64, key: &[u8]) -> usize {
        self.keys.find(hash, key).unwrap_or_else(|| {
            let entry = KeyedRuns::new(key);
            self.key_heap += entry.key.heap();
            self.keys.insert_hashed(hash, entry)
        })
    }

    /// Makes a stored record visible to searches.
    fn buffer(&mut self, record: SidedId, key: usize) -> Result<(), EngineError> {
        let SidedId { side, .. } = record;
        let entry = &mut self.keys[key];
        let hash = entry.hash();
        let KeyedRuns { key: bytes, runs } = entry;
        let key = (key as u32, KeyBytes { hash, bytes });
        self.records.buffer(record, key, &mut runs[side.index()], &mut self.log)
    }

    /// Writes the key of a search's entry. Returns the hash of the record's key.
    fn write_search_key(&mut self, search: &Search) -> u64 {
        let entry = &self.keys[search.key];
        self.entry_key.clear();
        self.entry_key.extend_from_slice(&entry.key);
        self.entry_key.push(SEARCH + search.record.side.index() as u8);
        self.entry_key.extend_from_slice(&search.number.to_le_bytes());
        entry.hash()
    }

    /// Writes the progress of the searches to the checkpoint. An orphaned search ends.
    fn save_searches(&mut self) {
        let mut at = 0;
        while at < self.searches.len() {
            let search = self.searches[at];
            if self.is_orphaned(&search) {
                self.take_search(at);
                self.release_key(search.key);
                continue;
            }
            at += 1;
            let Some((time_us, number)) = search.last else { continue };
            let hash = self.write_search_key(&search);
            let mut progress = [0; 16];
            progress[..8].copy_from_slice(&time_us.to_le_bytes());
            progress[8..].copy_from_slice(&number.to_le_bytes());
            self.log.put_uncounted(&mut StateSlot::default(), hash, &self.entry_key, &progress);
            self.searches[at - 1].saved = true;
        }
    }

    /// Resumes a search from its checkpoint entry. An error if the entry is damaged.
    fn restore_search(
        &mut self,
        (record, number, time_us): (SidedId, u64, i64),
        progress: &[u8],
    ) -> Result<(), EngineError> {
        let (time, last) = progress.split_first_chunk::<8>().ok_or_else(damaged)?;
        let last = last.first_chunk::<8>().ok_or_else(damaged)?;
        self.searches.push(Search {
            record,
            key: self.records.key(record.side, record.id) as usize,
            number,
            times_us: self.range.around(record.side, time_us),
            last: Some((i64::from_le_bytes(*time), u64::from_le_bytes(*last))),
            ingest_ns: UNTIMED,
            matched: self.records.is_matched(record.side, record.id),
            expired: false,
            saved: true,
        });
        Ok(())
    }

    /// Takes the first element of a side's expiry queue that has expired by `by_us`, and returns its
    /// record. `None` if there is no such element, or if its record was removed before it expired.
    fn next_expired(&mut self, side: Side, by_us: i64) -> Option<RowId> {
        let Expiry { number, slot, .. } = self.expiry[side.index()].pop(by_us)?;
        let row = RowId(slot);
        (self.records.number(side, row) == number).then_some(row)
    }

    fn has_expired(&self, side: Side, by_us: i64) -> bool {
        self.expiry[side.index()].first_us().is_some_and(|first_us| first_us <= by_us)
    }

    /// Removes a record of a key. The key stays in the table until [`release_key`] is called.
    ///
    /// [`release_key`]: Self::release_key
    fn remove(&mut self, record: SidedId, key: usize) {
        let Some(entry) = self.keys.get_mut(key) else { return };
        let hash = entry.hash();
        let KeyedRuns { key, runs } = entry;
        let bytes = KeyBytes { hash, bytes: key };
        self.records.remove(record, bytes, &mut runs[record.side.index()], &mut self.log);
    }

    /// Drops up to `most` entries at the front of a side's expiry queue whose records a match has
    /// removed.
    fn skip_removed(&mut self, side: Side, most: usize) {
        if Self::leaves_at_match(side) {
            let records = &self.records;
            let is_removed =
                |expiry: Expiry| records.number(side, RowId(expiry.slot)) != expiry.number;
            self.expiry[side.index()].skip(most, is_removed);
        }
    }

    /// Frees a key without records, unless an unfinished search refers to it.
    fn release_key(&mut self, key: usize) {
        let is_unused = self.keys.get(key).is_some_and(KeyedRuns::is_empty);
        if is_unused && self.searches.iter().all(|search| search.key != key) {
            self.keys.free(key);
            self.key_heap -= std::mem::take(&mut self.keys[key].key).heap();
            self.keys.release();
        }
    }
}

impl<L, R, P, M, Z, D> StepWork<D> for IntervalWork<L, R, P, M, Z>
where
    L: Kept,
    R: Kept,
    P: Pairing<L, R>,
    M: FnMut(&L, &R) -> bool + Send,
    Z: Send,
    D: Push<P::Output>,
{
    fn restore(&mut self) -> Result<(), EngineError> {
        let mut entries: HashMap<_, _, BuildStableHasher> = HashMap::default();
        let mut searches: HashMap<Vec<u8>, Vec<u8>, BuildStableHasher> = HashMap::default();
        self.log.restore(|_, key, value| {
            let mark = key.len().checked_sub(SUFFIX).map_or(0, |at| key[at]);
            let entries = if mark >= SEARCH { &mut searches } else { &mut entries };
            match value {
                Some(value) => drop(entries.insert(key.to_vec(), value.to_vec())),
                None => drop(entries.remove(key)),
            }
            Ok(())
        })?;
        let mut expiries = Vec::new();
        for restored in SidedRecords::restored(entries)? {
            let time_us = match &restored.record {
                Either::Left(record) => (self.times.0)(record),
                Either::Right(record) => (self.times.1)(record),
            };
            let slot = self.slot_of(hash_bytes(&restored.key), &restored.key);
            let (side, number) = (restored.record.side(), restored.number);
            let mut search_key = restored.key.clone();
            search_key.push(SEARCH + side.index() as u8);
            search_key.extend_from_slice(&number.to_le_bytes());
            let run = &mut self.keys[slot].runs[side.index()];
            let SidedId { id, .. } =
                self.records.put_back(restored, time_us, (slot as u32, run))?;
            expiries.push((side, Expiry { time_us, number, slot: id.0 }));
            if let Some(progress) = searches.get(&search_key) {
                self.restore_search((SidedId { side, id }, number, time_us), progress)?;
            }
        }
        self.searches.sort_unstable_by_key(|search| search.number);
        // The expiries are sorted, so that they need few lanes.
        expiries.sort_unstable_by_key(|(_, expiry)| (expiry.time_us, expiry.number));
        expiries.into_iter().for_each(|(side, expiry)| self.expiry[side.index()].push(expiry));
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.searches.len() >= self.max_searches
    }

    fn keeps_unfinished(&self) -> bool {
        true
    }

    fn is_unfinished(&self) -> bool {
        !self.searches.is_empty()
    }

    /// Continues each search by one step, while the chain is ready; in an ordered join only the
    /// first one. Returns whether none is unfinished.
    fn finish(&mut self, down: &mut D) -> Result<bool, EngineError> {
        let mut at = 0;
        while at < self.searches.len() && down.is_ready() {
            let mut search = self.searches[at];
            let had_match = search.matched;
            let done = self.is_orphaned(&search) || self.step(&mut search, down)?;
            self.searches[at] = search;
            if search.matched && !had_match {
                self.first_match(search)?;
            }
            if done {
                self.end_search(at, down)?;
            } else if self.max_searches == 1 {
                break;
            } else {
                at += 1;
            }
        }
        Ok(self.searches.is_empty())
    }

    fn next_number(&self) -> u64 {
        self.records.next_number()
    }

    fn is_unfinished_before(&self, number: u64) -> bool {
        self.searches.iter().any(|search| search.number < number)
    }

    fn release(&mut self, watermark_us: i64, down: &mut D) -> Result<bool, EngineError> {
        let mut left = self.log.keys_per_step(STEP);
        for side in Side::BOTH {
            let Some(by_us) = self.range.state_watermark(side, watermark_us) else { continue };
            let preserves = P::PRESERVES[side.index()];
            while left > 0 && self.has_expired(side, by_us) {
                if preserves && !down.is_ready() {
                    return Ok(false);
                }
                left -= 1;
                let Some(id) = self.next_expired(side, by_us) else { continue };
                self.expire(SidedId { side, id }, UNTIMED, down)?;
            }
            if self.has_expired(side, by_us) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn hand_over(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.keys.end_epoch();
        self.save_searches();
        let of_queues: usize = self.expiry.iter().map(ExpiryLanes::memory).sum();
        let bytes =
            self.records.end_epoch() + (self.keys.memory() + of_queues) as u64 + self.key_heap;
        let mut state = std::mem::take(&mut self.state);
        for side in Side::BOTH {
            let input = &mut state.inputs[side.index()];
            (input.rows, input.bytes) = self.records.held(side);
            input.bytes += input.rows * row_entries(true);
            self.skip_removed(side, REMOVALS_OF_EPOCH);
            let first_us = self.expiry[side.index()].first_us();
            input.oldest_us = first_us.filter(|_| input.rows > 0);
        }
        add_keys(&mut state.inputs, keys_memory(self.keys.len(), self.key_heap));
        self.log.set_join_state(state);
        self.log.hand_over(epoch, self.records.len() as u64, bytes);
        Ok(())
    }

    fn lag_us(&self) -> i64 {
        self.range.lag_us()
    }
}

impl<K, L, R, P, M, Z, D> RecordWork<(K, Either<L, R>), D> for IntervalWork<L, R, P, M, Z>
where
    K: Kept,
    L: Kept,
    R: Kept,
    P: Pairing<L, R>,
    M: FnMut(&L, &R) -> bool + Send,
    Z: FnMut(Either<L, R>) + Send,
    D: Push<P::Output>,
{
    #[inline]
    fn record(
        &mut self,
        (key, record): (K, Either<L, R>),
        ingest_ns: u64,
        watermarks: &OperatorWatermark,
        down: &mut D,
    ) -> Result<(), EngineError> {
        let time_us = match &record {
            Either::Left(record) => (self.times.0)(record),
            Either::Right(record) => (self.times.1)(record),
        };
        self.state.inputs[record.side().index()].received += 1;
        if time_us <= watermarks.late_row_watermark_us() {
            self.log.count_late(1);
            (self.calls.late)(record);
            return Ok(());
        }
        self.key.clear();
        write(&key, &mut self.key)?;
        let hash = hash_bytes(&self.key);
        let found = self.keys.find(hash, &self.key);
        let record = self.records.store(record, time_us)?;
        let side = record.side;
        let mut search = Search {
            record,
            key: found.unwrap_or(0),
            number: self.records.number(side, record.id),
            times_us: self.range.around(side, time_us),
            last: None,
            ingest_ns,
            matched: false,
            expired: false,
            saved: false,
        };
        let done = found.is_none() || self.step(&mut search, down)?;
        if search.matched && Self::leaves_at_match(side) {
            self.records.discard(record);
            return Ok(());
        }
        // If the range lies entirely before the record, no future record can match it.
        let state_us = self.range.state_watermark(side, watermarks.watermark_us());
        search.expired = watermarks.is_in_band() && state_us.is_some_and(|us| time_us <= us);
        if done && search.expired {
            if P::PRESERVES[side.index()] && !search.matched {
                self.emit_unmatched(record, ingest_ns, down)?;
            }
            self.records.discard(record);
            found.into_iter().for_each(|key| self.release_key(key));
            return Ok(());
        }
        if search.matched && P::PRESERVES[side.index()] {
            self.records.set_matched(record);
        }
        let key = std::mem::take(&mut self.key);
        search.key = found.unwrap_or_else(|| self.slot_of(hash, &key));
        self.key = key;
        self.buffer(record, search.key)?;
        if !search.expired {
            let expiry = Expiry { time_us, number: search.number, slot: record.id.0 };
            self.expiry[side.index()].push(expiry);
        }
        if !done {
            self.searches.push(search);
        }
        self.check_limit()
    }
}
