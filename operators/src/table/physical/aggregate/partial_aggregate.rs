//! Partial aggregation: the first of two levels of an aggregation over several workers. Each
//! partition of the input pre-aggregates its rows by key. A group is sent as one row to the
//! instance that owns its key: the keys, the number of rows, and the accumulators' words.
//!
//! Groups are buffered only while input is available, and only up to a bound
//! ([`PreaggregationLimit`], which also decides when rows are sent without buffering). All groups
//! are flushed before a marker or watermark that arrived after them. A row that is late by a
//! buffered watermark is sent as a group of its own, after this watermark. The buffer is not part
//! of the state and is never in a checkpoint.

use crate::event_time::pending_watermark::PendingWatermark;
use crate::state::hash_index::HashIndex;
use crate::state::preaggregation::PreaggregationLimit;
use crate::table::physical::accumulator::Function;
use crate::table::physical::aggregate::hash_aggregate::{Key, copy_key, write_keys};
use crate::table::physical::row_exchange::RowOutbox;
use crate::table::physical::stages::Scratch;
use crate::table::plan::time_window::EventKey;
use crate::table::row::{Row, RowWriter};
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};

/// A buffered group, which is sent as one row.
struct PartialGroup {
    hash: u64,
    /// The byte range of the group's key in `key_bytes`.
    key: std::ops::Range<usize>,
    /// The ingest time of the group's first row.
    ingest_ns: u64,
}

/// A row that is late by the buffered watermark, as a group of its own. It is sent after the
/// watermark.
struct RowAfterWatermark {
    hash: u64,
    row: std::ops::Range<usize>,
    ingest_ns: u64,
}

/// The stage of a partial aggregation.
pub(in crate::table::physical) struct PartialAggregate {
    keys: Vec<Key>,
    event: Option<EventKey>,
    functions: Vec<Function>,
    /// The number of words per group: one for the number of rows, and the words of all functions.
    words_each: usize,
    index: HashIndex,
    groups: Vec<PartialGroup>,
    /// The keys of all groups, one after another. `words` has their accumulators.
    key_bytes: Vec<u8>,
    words: Vec<u64>,
    /// The late rows to send after the watermark, and the bytes of these rows.
    behind: Vec<RowAfterWatermark>,
    behind_bytes: Vec<u8>,
    /// During a flush, the number of groups and late rows that have been sent; `None` outside a
    /// flush.
    leaving: Option<usize>,
    hold: PreaggregationLimit,
    /// A watermark to pass on after the buffered groups.
    watermark: PendingWatermark,
    marker: Option<Epoch>,
    scratch: Scratch,
    key: Vec<u8>,
    single: Vec<u64>,
    value: Vec<u8>,
    out: Vec<u8>,
    down: RowOutbox,
}

impl PartialAggregate {
    /// Creates the stage. All functions must be storable in words.
    pub fn new(
        keys: Vec<Key>,
        event: Option<EventKey>,
        functions: Vec<Function>,
        down: RowOutbox,
    ) -> Self {
        let words_each = 1 + functions.iter().map(Function::words).sum::<usize>();
        Self {
            keys,
            event,
            functions,
            words_each,
            index: HashIndex::default(),
            groups: Vec::new(),
            key_bytes: Vec::new(),
            words: Vec::new(),
            behind: Vec::new(),
            behind_bytes: Vec::new(),
            leaving: None,
            hold: PreaggregationLimit::default(),
            watermark: PendingWatermark::default(),
            marker: None,
            scratch: Scratch::default(),
            key: Vec::new(),
            single: vec![0; words_each],
            value: Vec::new(),
            out: Vec::new(),
            down,
        }
    }

    /// The number of rows that a flush would send now.
    fn held(&self) -> usize {
        self.groups.len() + self.behind.len()
    }

    /// Whether the current row is late by the buffered watermark. The row's key is in `self.key`.
    /// False without an event time among the keys, without a buffered watermark and for a NULL
    /// time.
    #[inline]
    fn is_late(&self) -> bool {
        let (Some(event), Some(watermark_us)) = (self.event, self.watermark.us()) else {
            return false;
        };
        event
            .expires_us(Row(&self.key), self.keys.len())
            .is_some_and(|expires_us| expires_us <= watermark_us)
    }

    /// Encodes the current row as a group of its own into `self.out`. The row's key is in
    /// `self.key`.
    fn write_single(&mut self, row: Row<'_>) -> Result<(), EngineError> {
        self.single.fill(0);
        Self::add(&self.functions, &self.scratch, row, &mut self.single)?;
        Self::write(&self.keys, &self.key, &self.single, &mut self.value, &mut self.out);
        Ok(())
    }

    /// The index of the group with the key in `self.key`, created if it is missing.
    #[inline]
    fn group(&mut self, hash: u64, ingest_ns: u64) -> usize {
        let Self { index, groups, key_bytes, key, .. } = self;
        let same = |at: usize| {
            let group: &PartialGroup = &groups[at];
            group.hash == hash && key_bytes[group.key.clone()] == **key
        };
        if let Some(at) = index.find(hash, same) {
            return at;
        }
        let at = groups.len();
        let from = key_bytes.len();
        key_bytes.extend_from_slice(key);
        groups.push(PartialGroup { hash, key: from..key_bytes.len(), ingest_ns });
        self.words.resize(self.words.len() + self.words_each, 0);
        index.add(hash, at, |at| groups[at].hash);
        self.hold.add_group(self.held());
        at
    }

    fn add(
        functions: &[Function],
        scratch: &Scratch,
        row: Row<'_>,
        to: &mut [u64],
    ) -> Result<(), EngineError> {
        let [rows, to @ ..] = to else { unreachable!("there is always this word") };
        *rows += 1;
        let mut to = to;
        for function in functions {
            let (words, rest) = std::mem::take(&mut to).split_at_mut(function.words());
            function.add_words(words, scratch.cx(row))?;
            to = rest;
        }
        Ok(())
    }

    /// Writes the output row of a group into `out`.
    fn write(keys: &[Key], key: &[u8], words: &[u64], value: &mut Vec<u8>, out: &mut Vec<u8>) {
        value.clear();
        words.iter().for_each(|word| value.extend_from_slice(&word.to_le_bytes()));
        out.clear();
        let mut writer = RowWriter::new(out, keys.len() + 1);
        for (index, column) in keys.iter().enumerate() {
            copy_key((Row(key), index, keys.len()), index, column.physical(), &mut writer);
        }
        writer.bytes(keys.len(), value);
    }

    /// Sends as many groups as the next stage accepts. Returns whether all groups and late rows,
    /// the watermark and the marker have been sent.
    fn leave(&mut self) -> Result<bool, EngineError> {
        let mut next = match self.leaving {
            Some(next) => next,
            None => {
                self.hold.flushed(self.held());
                0
            }
        };
        let groups = self.groups.len();
        loop {
            if next == groups
                && let Some(micros) = self.watermark.take_us()
            {
                self.down.watermark(micros)?;
            }
            if next == self.held() {
                break;
            }
            if !self.down.is_ready() {
                self.leaving = Some(next);
                return Ok(false);
            }
            if let Some(group) = self.groups.get(next) {
                let words = &self.words[next * self.words_each..][..self.words_each];
                let key = &self.key_bytes[group.key.clone()];
                Self::write(&self.keys, key, words, &mut self.value, &mut self.out);
                self.down.send(group.hash, Row(&self.out), group.ingest_ns);
            } else {
                let RowAfterWatermark { hash, row, ingest_ns } = &self.behind[next - groups];
                self.down.send(*hash, Row(&self.behind_bytes[row.clone()]), *ingest_ns);
            }
            next += 1;
        }
        self.leaving = None;
        self.index.clear(self.groups.iter().map(|group| group.hash));
        self.groups.clear();
        self.key_bytes.clear();
        self.words.clear();
        self.behind.clear();
        self.behind_bytes.clear();
        // A watermark that arrived during the flush is passed on now.
        self.watermark.pass(true, 0, &mut self.down)?;
        if let Some(epoch) = self.marker.take() {
            self.down.marker(epoch)?;
        }
        Ok(true)
    }
}

impl Stage for PartialAggregate {
    #[inline]
    fn is_ready(&mut self) -> bool {
        let open = self.marker.is_none() && self.leaving.is_none() && !self.hold.is_full();
        open && (!self.hold.is_bypassed() || self.down.is_ready())
    }

    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.watermark.arrive(micros);
        if self.held() == 0 { self.leave().map(drop) } else { Ok(()) }
    }

    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.marker = Some(epoch);
        self.leave().map(drop)
    }

    fn end(&mut self) -> Result<(), EngineError> {
        // Sources end only after a marker, so no groups are buffered here.
        self.down.end()
    }

    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        // Called for every flush, even if the buffer is full, because the method counts its calls.
        let dry = self.hold.is_input_idle();
        let leaves = self.leaving.is_some() || self.marker.is_some() || self.hold.is_full();
        let gone = self.held() > 0 && (dry || leaves) && self.leave()?;
        let below = self.down.flush()?;
        Ok(below.and(match (gone || self.held() == 0, self.leaving) {
            (true, _) => FlushStatus::Flushed,
            (false, None) => FlushStatus::Buffered,
            (false, Some(_)) => FlushStatus::Pending,
        }))
    }

    fn next_timer_ns(&self) -> Option<u64> {
        self.down.next_timer_ns()
    }
}

impl<'a> Push<Row<'a>> for PartialAggregate {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.scratch.reset();
        self.key.clear();
        write_keys(&self.keys, &self.scratch, row, &mut self.key)?;
        let hash = hash_bytes(&self.key);
        if self.hold.is_bypassed() {
            self.hold.add(0);
            self.write_single(row)?;
            self.down.send(hash, Row(&self.out), ingest_ns);
            return Ok(());
        }
        if self.is_late() {
            self.write_single(row)?;
            let from = self.behind_bytes.len();
            self.behind_bytes.extend_from_slice(&self.out);
            self.behind.push(RowAfterWatermark {
                hash,
                row: from..self.behind_bytes.len(),
                ingest_ns,
            });
            self.hold.add_group(self.held());
        } else {
            let at = self.group(hash, ingest_ns) * self.words_each;
            let words = &mut self.words[at..at + self.words_each];
            Self::add(&self.functions, &self.scratch, row, words)?;
        }
        self.hold.add(self.held());
        Ok(())
    }
}
