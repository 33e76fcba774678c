//! The buffered records of two streams, in one slab per stream, and their checkpoint entries.
//!
//! *In the checkpoint* an entry's key is the record's key, the side and the arrival number. Its
//! value is a bit for a match, and the record in postcard's encoding. A restart restores the order
//! of arrival from the numbers.

use crate::state::ordered_run::{Entry, NumberedRows, RowId, Run, RunStore};
use crate::state::record_slab::{RecordSlab, Stored};
use crate::stream::keyed_input::Either;
use crate::stream::processor_state::{Kept, damaged, memory_of, write};
use millstream_engine::checkpoint::key_group::BuildStableHasher;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::state_log::{StateLog, StateSlot};
use std::collections::HashMap;

/// One of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stream) enum Side {
    Left,
    Right,
}

impl Side {
    /// Both sides, left first.
    pub const BOTH: [Side; 2] = [Side::Left, Side::Right];

    /// 0 for left, 1 for right.
    #[inline]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The other side.
    #[inline]
    pub fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

impl<L, R> Either<L, R> {
    /// The stream of the record.
    #[inline]
    pub(in crate::stream) fn side(&self) -> Side {
        match self {
            Self::Left(_) => Side::Left,
            Self::Right(_) => Side::Right,
        }
    }
}

/// A key with its hash.
#[derive(Clone, Copy)]
pub(in crate::stream) struct KeyBytes<'k> {
    pub hash: u64,
    pub bytes: &'k [u8],
}

/// A buffered record: its side and its slot in that side's slab.
#[derive(Clone, Copy, Debug)]
pub(in crate::stream) struct SidedId {
    pub side: Side,
    pub id: RowId,
}

/// A record restored from a checkpoint.
pub(in crate::stream) struct Restored<L, R> {
    pub key: Vec<u8>,
    pub number: u64,
    pub matched: bool,
    pub record: Either<L, R>,
}

/// The buffered records of both streams.
pub(in crate::stream) struct SidedRecords<L, R> {
    left: RecordSlab<L>,
    right: RecordSlab<R>,
    runs: RunStore,
    next_number: u64,
    entry_key: Vec<u8>,
    entry_value: Vec<u8>,
}

impl<L, R> Default for SidedRecords<L, R> {
    fn default() -> Self {
        Self {
            left: RecordSlab::default(),
            right: RecordSlab::default(),
            runs: RunStore::default(),
            next_number: 0,
            entry_key: Vec::new(),
            entry_value: Vec::new(),
        }
    }
}

/// The arrival numbers of a side's records.
struct Numbers<'r, L, R> {
    left: &'r RecordSlab<L>,
    right: &'r RecordSlab<R>,
    side: Side,
}

impl<L, R> NumberedRows for Numbers<'_, L, R> {
    #[inline]
    fn number(&self, id: RowId) -> u64 {
        match self.side {
            Side::Left => self.left.number(id),
            Side::Right => self.right.number(id),
        }
    }
}

/// Applies an expression to the slab of a side.
macro_rules! in_slab {
    ($records:expr, $side:expr, |$slab:ident| $body:expr) => {
        match $side {
            Side::Left => {
                let $slab = &$records.left;
                $body
            }
            Side::Right => {
                let $slab = &$records.right;
                $body
            }
        }
    };
    ($records:expr, mut $side:expr, |$slab:ident| $body:expr) => {
        match $side {
            Side::Left => {
                let $slab = &mut $records.left;
                $body
            }
            Side::Right => {
                let $slab = &mut $records.right;
                $body
            }
        }
    };
}

#[cold]
fn too_many() -> EngineError {
    EngineError::operator(
        "JOIN_STATE_TOO_LARGE",
        "an instance buffers more records than its slot indices allow",
        "Choose a smaller range or window, a smaller delay of the watermark, or more instances",
    )
}

impl<L: Kept, R: Kept> SidedRecords<L, R> {
    /// Stores a record with the next arrival number. It does not belong to a key yet.
    #[inline]
    pub fn store(&mut self, record: Either<L, R>, time_us: i64) -> Result<SidedId, EngineError> {
        let number = self.next_number;
        self.next_number += 1;
        self.store_as(record, (number, time_us), false)
    }

    fn store_as(
        &mut self,
        record: Either<L, R>,
        (number, time_us): (u64, i64),
        matched: bool,
    ) -> Result<SidedId, EngineError> {
        fn stored<T: Kept>(record: T, number: u64, time_us: i64, matched: bool) -> Stored<T> {
            let heap = if std::mem::needs_drop::<T>() {
                memory_of(&record, None).saturating_sub(size_of::<T>() as u32)
            } else {
                0
            };
            Stored { number, time_us, key: 0, heap, matched, record: Some(record) }
        }
        let side = record.side();
        let id = match record {
            Either::Left(record) => self.left.insert(stored(record, number, time_us, matched)),
            Either::Right(record) => self.right.insert(stored(record, number, time_us, matched)),
        };
        Ok(SidedId { side, id: id.ok_or_else(too_many)? })
    }

    /// Adds a stored record to its key's run and to the checkpoint. Fails if the run has no room or
    /// the record cannot be encoded.
    pub fn buffer(
        &mut self,
        record: SidedId,
        key: (u32, KeyBytes<'_>),
        run: &mut Run,
        log: &mut StateLog,
    ) -> Result<(), EngineError> {
        let (place, key) = key;
        self.place(record, place, run)?;
        self.log(record, key, log)
    }

    /// Adds a stored record to its key's run.
    fn place(
        &mut self,
        SidedId { side, id }: SidedId,
        key: u32,
        run: &mut Run,
    ) -> Result<(), EngineError> {
        let time_us = in_slab!(self, mut side, |slab| slab.get_mut(id).map_or(0, |stored| {
            stored.key = key;
            stored.time_us
        }));
        let Self { left, right, runs, .. } = self;
        let inserted = run.insert(Entry { time_us, row: id }, &Numbers { left, right, side }, runs);
        inserted.map_err(|_| too_many())
    }

    /// Writes the checkpoint entry of a record. Without a checkpoint the record is only counted.
    fn log(
        &mut self,
        SidedId { side, id }: SidedId,
        key: KeyBytes<'_>,
        log: &mut StateLog,
    ) -> Result<(), EngineError> {
        if !log.is_on() {
            log.put(&mut StateSlot::default(), 0, &[], &[]);
            return Ok(());
        }
        self.write_entry_key(key.bytes, side, in_slab!(self, side, |slab| slab.number(id)));
        let value = &mut self.entry_value;
        value.clear();
        in_slab!(self, side, |slab| if let Some(stored) = slab.get(id) {
            value.push(u8::from(stored.matched));
            write(&stored.record, value)?;
        });
        log.put(&mut StateSlot::default(), key.hash, &self.entry_key, &self.entry_value);
        Ok(())
    }

    fn write_entry_key(&mut self, key: &[u8], side: Side, number: u64) {
        self.entry_key.clear();
        self.entry_key.extend_from_slice(key);
        self.entry_key.push(side.index() as u8);
        self.entry_key.extend_from_slice(&number.to_le_bytes());
    }

    /// Frees a stored record that was not buffered.
    pub fn discard(&mut self, SidedId { side, id }: SidedId) {
        in_slab!(self, mut side, |slab| drop(slab.remove(id)));
    }

    /// Removes a buffered record.
    pub fn remove(
        &mut self,
        SidedId { side, id }: SidedId,
        key: KeyBytes<'_>,
        run: &mut Run,
        log: &mut StateLog,
    ) {
        let (number, time_us) = (self.number(side, id), self.time_us(side, id));
        let Self { left, right, runs, .. } = self;
        run.remove(Entry { time_us, row: id }, &Numbers { left, right, side }, runs);
        in_slab!(self, mut side, |slab| drop(slab.remove(id)));
        if log.is_on() {
            self.write_entry_key(key.bytes, side, number);
        }
        log.delete(&mut StateSlot::default(), key.hash, &self.entry_key);
    }

    /// Marks a stored record as matched. Returns whether this is its first match.
    #[inline]
    pub fn set_matched(&mut self, SidedId { side, id }: SidedId) -> bool {
        in_slab!(self, mut side, |slab| slab
            .get_mut(id)
            .is_some_and(|stored| !std::mem::replace(&mut stored.matched, true)))
    }

    /// Marks a buffered record as matched, also in the checkpoint.
    #[inline]
    pub fn keep_matched(
        &mut self,
        record: SidedId,
        key: KeyBytes<'_>,
        log: &mut StateLog,
    ) -> Result<(), EngineError> {
        if self.set_matched(record) && log.is_on() {
            self.log(record, key, log)?;
        }
        Ok(())
    }

    /// Decodes the committed records, ascending by arrival number. An error if an entry of the
    /// checkpoint is damaged, or if its record cannot be decoded as the type that the query
    /// expects.
    pub fn restored(
        entries: HashMap<Vec<u8>, Vec<u8>, BuildStableHasher>,
    ) -> Result<Vec<Restored<L, R>>, EngineError> {
        let mut restored = Vec::with_capacity(entries.len());
        for (mut key, value) in entries {
            let at = key.len().checked_sub(SUFFIX).ok_or_else(damaged)?;
            let (side, number) = key[at..].split_first_chunk::<1>().ok_or_else(damaged)?;
            let number = u64::from_le_bytes(number.try_into().map_err(|_| damaged())?);
            let (matched, bytes) = value.split_first().ok_or_else(damaged)?;
            let record = match side {
                [0] => read(bytes).map(Either::Left)?,
                [1] => read(bytes).map(Either::Right)?,
                _ => return Err(damaged()),
            };
            key.truncate(at);
            restored.push(Restored { key, number, matched: *matched == 1, record });
        }
        restored.sort_unstable_by_key(|restored| restored.number);
        Ok(restored)
    }

    /// Restores a record from the checkpoint, and makes new arrival numbers larger than its number.
    pub fn put_back(
        &mut self,
        restored: Restored<L, R>,
        time_us: i64,
        (key, run): (u32, &mut Run),
    ) -> Result<SidedId, EngineError> {
        let Restored { number, matched, record, .. } = restored;
        self.next_number = self.next_number.max(number + 1);
        let record = self.store_as(record, (number, time_us), matched)?;
        self.place(record, key, run)?;
        Ok(record)
    }
}

/// Length of the suffix of an entry's key, in bytes: the side and the number.
pub(in crate::stream) const SUFFIX: usize = 9;

/// Decodes a record, which was encoded as an `Option`. An error if it is `None`, or if the bytes are
/// too few or too many.
fn read<V: Kept>(bytes: &[u8]) -> Result<V, EngineError> {
    match postcard::take_from_bytes::<Option<V>>(bytes) {
        Ok((Some(value), [])) => Ok(value),
        _ => Err(damaged()),
    }
}

impl<L, R> SidedRecords<L, R> {
    /// A record of the left stream.
    #[inline]
    pub fn left(&self, id: RowId) -> Option<&L> {
        self.left.record(id)
    }

    /// A record of the right stream.
    #[inline]
    pub fn right(&self, id: RowId) -> Option<&R> {
        self.right.record(id)
    }

    /// The arrival number of a record. For a removed record, another number: that of a later record
    /// in its slot, or one that no record has.
    #[inline]
    pub fn number(&self, side: Side, id: RowId) -> u64 {
        in_slab!(self, side, |slab| slab.number(id))
    }

    /// The arrival number of the next record.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The slot of a record's key.
    pub fn key(&self, side: Side, id: RowId) -> u32 {
        in_slab!(self, side, |slab| slab.get(id).map_or(u32::MAX, |stored| stored.key))
    }

    /// The event time of a record.
    pub fn time_us(&self, side: Side, id: RowId) -> i64 {
        in_slab!(self, side, |slab| slab.get(id).map_or(0, |stored| stored.time_us))
    }

    /// Whether a record has had a match.
    pub fn is_matched(&self, side: Side, id: RowId) -> bool {
        in_slab!(self, side, |slab| slab.get(id).is_some_and(|stored| stored.matched))
    }

    /// The arrival numbers of a side's records.
    pub fn numbers(&self, side: Side) -> impl NumberedRows + use<'_, L, R> {
        Numbers { left: &self.left, right: &self.right, side }
    }

    /// The store of the runs.
    pub fn runs(&self) -> &RunStore {
        &self.runs
    }

    /// Number of records of both sides.
    pub fn len(&self) -> usize {
        self.left.len() + self.right.len()
    }

    /// Number and memory (in bytes) of a side's records.
    pub fn held(&self, side: Side) -> (u64, u64) {
        in_slab!(self, side, |slab| (slab.len() as u64, slab.memory()))
    }

    /// Memory of the records of both sides, without that of free slots, in bytes.
    pub fn record_bytes(&self) -> u64 {
        self.left.record_bytes() + self.right.record_bytes()
    }

    /// Ends an epoch: frees some memory that no recent epoch has needed. Returns the memory in use,
    /// in bytes.
    pub fn end_epoch(&mut self) -> u64 {
        self.left.end_epoch();
        self.right.end_epoch();
        self.runs.end_epoch();
        self.left.memory() + self.right.memory() + self.runs.memory() as u64
    }
}
