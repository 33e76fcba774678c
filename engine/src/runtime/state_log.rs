//! The state log of an operator instance: changes of keyed state are recorded as they happen and
//! handed to the driver at the marker.
//!
//! A change is written into a chunk of memory: hash, lengths, key, value. A key that changes again
//! in the same epoch overwrites its value in place, if the new value fits. So unless keys are
//! deleted and written again, the log of an epoch grows with the number of changed keys, not of
//! changes. The driver returns written chunks for reuse, and frees those that no recent epoch has
//! needed.
//!
//! *Long values.* Once more than 4 KiB are reserved for the value of a key, its changes are written
//! once per epoch, at the marker ([`StateLog::when_to_write`]). A value that only grows is better
//! kept in parts, separate entries that are extended within an epoch ([`StateLog::begin_part`]);
//! then an epoch writes only what was added.
//!
//! *Threads.* The worker of the operator; chunks travel to the driver and back.

use crate::checkpoint::CommittedState;
use crate::checkpoint::changes::{CHUNK_BYTES, HEAD, SPARE_CHUNKS, StateChanges, TOMBSTONE};
use crate::checkpoint::key_group::{KEY_GROUPS, hash_bytes};
use crate::collections::high_water::HighWater;
use crate::epoch::protocol::Report;
use crate::error::EngineError;
use crate::event::Epoch;
use crate::measure::operator_state::JoinState;
use crossbeam_channel::{Receiver, Sender, bounded};

/// A key whose last written value has a larger capacity is written once per epoch, at the marker.
const LONG_BYTES: u32 = if cfg!(test) { 24 } else { 4 << 10 };
/// The offset of a value that will be written at the marker.
const DEFERRED: u32 = u32::MAX;
/// Initial capacity of a part, and the capacity up to which it doubles, in bytes.
const PART_BYTES: usize = 32;
const PART_BYTES_MAX: usize = 16 << 10;

/// The location of a key's last change, so that the next change in the same epoch can overwrite it.
#[derive(Clone, Copy, Debug, Default)]
pub struct StateSlot {
    /// The generation in which the change was written; 0 if there is none.
    generation: u32,
    chunk: u32,
    /// Offset of the value length, or [`DEFERRED`].
    at: u32,
    /// Capacity for the value at that offset, in bytes. Kept across generations, to recognise long
    /// values.
    room: u32,
}

/// When a changed value must be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteTiming {
    /// The value must be written now.
    Immediately,
    /// The value must be written at the marker, because it is long.
    AtMarker {
        /// Whether this is the key's first change since the value was last written. If so, the
        /// stage must remember the key until the marker.
        first: bool,
    },
}

/// The log of changes of one operator instance.
pub struct StateLog {
    operator: usize,
    groups: std::ops::Range<u64>,
    snapshot: Option<CommittedState>,
    /// Whether changes are recorded. True if the query has a checkpoint.
    on: bool,
    reports: Sender<Report>,
    chunks: Vec<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
    back: Sender<Vec<u8>>,
    /// The recent maximum number of chunks per epoch.
    needed: HighWater,
    generation: u32,
    updated: u64,
    removed: u64,
    late: u64,
    most_keys: usize,
    join: Option<JoinState>,
}

impl StateLog {
    pub(crate) fn new(
        operator: usize,
        (instance, instances): (usize, usize),
        snapshot: Option<CommittedState>,
        reports: Sender<Report>,
    ) -> Self {
        let (back, spare) = bounded(SPARE_CHUNKS);
        // The first key group of an instance: the inverse of `instance_of`.
        let first = |i: usize| (i as u64 * KEY_GROUPS).div_ceil(instances as u64);
        Self {
            operator,
            groups: first(instance)..first(instance + 1),
            on: snapshot.is_some(),
            snapshot,
            reports,
            chunks: Vec::new(),
            spare,
            back,
            needed: HighWater::default(),
            generation: 1,
            updated: 0,
            removed: 0,
            late: 0,
            most_keys: usize::MAX,
            join: None,
        }
    }

    pub(crate) fn with_max_keys_per_step(self, most_keys: usize) -> Self {
        Self { most_keys, ..self }
    }

    /// The number of keys to process in one step, at most `wanted`.
    #[inline]
    pub fn keys_per_step(&self, wanted: usize) -> usize {
        wanted.min(self.most_keys)
    }

    /// Counts late records. A record that is late for several windows may be counted for each.
    #[inline]
    pub fn count_late(&mut self, records: u64) {
        self.late += records;
    }

    /// Counts a removed row or window that has no key of its own.
    #[inline]
    pub fn count_removed(&mut self) {
        self.removed += 1;
    }

    /// Calls `apply` with hash, key and value of each committed change to the keys of this
    /// instance. The changes of a key come oldest first; `None` means that the key was deleted.
    /// Call this once, before the first change; a second call reads nothing.
    pub fn restore(
        &mut self,
        mut apply: impl FnMut(u64, &[u8], Option<&[u8]>) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let Some(snapshot) = self.snapshot.take() else { return Ok(()) };
        snapshot.read(self.groups.clone(), |key, value| apply(hash_bytes(key), key, value))
    }

    /// Whether changes are recorded.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// The number of this epoch within the log. Wraps around, and is never 0.
    #[inline]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Counts a written key unless it was counted in this epoch. `generation` is the generation in
    /// which the key was last counted, and is updated.
    #[inline]
    pub fn count_updated(&mut self, generation: &mut u32) {
        self.updated += u64::from(*generation != self.generation);
        *generation = self.generation;
    }

    /// Replaces the number of written rows of a key: `before` rows were counted in this epoch, and
    /// `now` rows count instead.
    #[inline]
    pub fn recount_updated(&mut self, before: usize, now: usize) {
        self.updated = self.updated + now as u64 - before as u64;
    }

    /// Records a key's new value. A key is counted once per epoch, and again after a deletion.
    #[inline]
    pub fn put(&mut self, slot: &mut StateSlot, hash: u64, key: &[u8], value: &[u8]) {
        self.updated += u64::from(slot.generation != self.generation);
        self.put_uncounted(slot, hash, key, value);
        // The generation shows that the key has been counted, also if no changes are recorded.
        slot.generation = self.generation;
    }

    /// Returns when a changed value must be written. If more than 4 KiB are reserved for the last
    /// written value, the new one is written at the marker, so that it is not copied at every
    /// change. If no changes are recorded, the result is `Immediately`.
    #[inline]
    pub fn when_to_write(&mut self, slot: &mut StateSlot) -> WriteTiming {
        if slot.room <= LONG_BYTES || !self.on {
            return WriteTiming::Immediately;
        }
        let first = slot.generation != self.generation || slot.at != DEFERRED;
        (slot.generation, slot.at) = (self.generation, DEFERRED);
        WriteTiming::AtMarker { first }
    }

    /// Like [`when_to_write`](Self::when_to_write), for values written by [`put`](Self::put). A
    /// value that is deferred to the marker is counted here, and must then be written by
    /// [`put_uncounted`](Self::put_uncounted).
    #[inline]
    pub fn when_to_put(&mut self, slot: &mut StateSlot) -> WriteTiming {
        let changed = slot.generation == self.generation;
        let at = self.when_to_write(slot);
        if at != WriteTiming::Immediately {
            self.updated += u64::from(!changed);
        }
        at
    }

    /// Appends to the value that [`begin_part`](Self::begin_part) started. Returns false, and
    /// changes nothing, if the value has too little capacity left or belongs to another epoch, or
    /// if no changes are recorded.
    #[inline]
    pub fn extend_part(&mut self, slot: &StateSlot, bytes: &[u8]) -> bool {
        if slot.generation != self.generation || slot.at == DEFERRED || !self.on {
            return false;
        }
        let (at, chunk) = (slot.at as usize, &mut self.chunks[slot.chunk as usize]);
        let length_at = |at: usize, chunk: &[u8]| {
            u32::from_le_bytes([chunk[at], chunk[at + 1], chunk[at + 2], chunk[at + 3]]) as usize
        };
        let (key, length) = (length_at(at - 4, chunk), length_at(at, chunk));
        if length + bytes.len() > slot.room as usize {
            return false;
        }
        let end = at + 8 + key + length;
        chunk[end..end + bytes.len()].copy_from_slice(bytes);
        chunk[at..at + 4].copy_from_slice(&((length + bytes.len()) as u32).to_le_bytes());
        true
    }

    /// Writes an entry that is not counted as a row and that [`extend_part`](Self::extend_part) can
    /// extend. `slot` is the slot of the previous part and becomes that of the new one. A part that
    /// follows another one in the same epoch has twice its capacity, up to a limit, and at least
    /// the length of `value`. Does nothing if no changes are recorded.
    pub fn begin_part(&mut self, slot: &mut StateSlot, hash: u64, key: &[u8], value: &[u8]) {
        if !self.on {
            return;
        }
        let before = if slot.generation == self.generation { slot.room as usize } else { 0 };
        let room = (before * 2).clamp(PART_BYTES, PART_BYTES_MAX).max(value.len());
        *slot = self.append(hash, key, Some(value), room);
    }

    /// Like [`put`](Self::put), without counting a row. Does nothing if changes are not recorded.
    #[inline]
    pub fn put_uncounted(&mut self, slot: &mut StateSlot, hash: u64, key: &[u8], value: &[u8]) {
        if !self.on {
            return;
        }
        let in_epoch = slot.generation == self.generation && slot.at != DEFERRED;
        if in_epoch && value.len() <= slot.room as usize {
            let at = slot.at as usize;
            let chunk = &mut self.chunks[slot.chunk as usize];
            chunk[at..at + 4].copy_from_slice(&(value.len() as u32).to_le_bytes());
            // The value length is followed by the capacity and the key.
            let key_and_value = at + 8 + key.len();
            chunk[key_and_value..key_and_value + value.len()].copy_from_slice(value);
            return;
        }
        // A value that has outgrown its capacity is likely to grow again, so it gets twice its
        // length. The versions of one epoch up to a deletion take at most four times the length of
        // the longest.
        let outgrown = in_epoch && slot.room > 0;
        let room = if outgrown { value.len() * 2 } else { value.len() };
        *slot = self.append(hash, key, Some(value), room);
    }

    /// Records that a key was deleted. The slot is reset, because a later value in this epoch must
    /// follow the deletion instead of overwriting the entry before it.
    pub fn delete(&mut self, slot: &mut StateSlot, hash: u64, key: &[u8]) {
        self.removed += 1;
        self.delete_uncounted(slot, hash, key);
    }

    /// Like [`delete`](Self::delete), without counting a row.
    pub fn delete_uncounted(&mut self, slot: &mut StateSlot, hash: u64, key: &[u8]) {
        *slot = StateSlot::default();
        if self.on {
            self.append(hash, key, None, 0);
        }
    }

    fn append(&mut self, hash: u64, key: &[u8], value: Option<&[u8]>, room: usize) -> StateSlot {
        let bytes = value.unwrap_or_default();
        let room = room.min(u32::MAX as usize);
        let length = HEAD + key.len() + room;
        if self.chunks.last().is_none_or(|chunk| chunk.len() + length > CHUNK_BYTES) {
            let chunk = self.spare.try_recv().unwrap_or_default();
            self.chunks.push(chunk);
        }
        let index = self.chunks.len() - 1;
        let chunk = &mut self.chunks[index];
        if chunk.capacity() < chunk.len() + length {
            chunk.reserve_exact(CHUNK_BYTES.max(length));
        }
        chunk.extend_from_slice(&hash.to_le_bytes());
        chunk.extend_from_slice(&(key.len() as u32).to_le_bytes());
        let at = chunk.len() as u32;
        chunk.extend_from_slice(&value.map_or(TOMBSTONE, |v| v.len() as u32).to_le_bytes());
        chunk.extend_from_slice(&(room as u32).to_le_bytes());
        chunk.extend_from_slice(key);
        chunk.extend_from_slice(bytes);
        chunk.resize(chunk.len() + room - bytes.len(), 0);
        StateSlot { generation: self.generation, chunk: index as u32, at, room: room as u32 }
    }

    /// Sets the join metrics that the next [`hand_over`](Self::hand_over) reports.
    pub fn set_join_state(&mut self, join: JoinState) {
        self.join = Some(join);
    }

    /// Hands the changes of the epoch to the driver. Call this at the marker, before forwarding it.
    pub fn hand_over(&mut self, epoch: Epoch, rows: u64, memory_bytes: u64) {
        self.needed.note(self.chunks.len());
        let keep = self.needed.end_epoch(0);
        let changes = StateChanges {
            operator: self.operator,
            rows,
            updated: std::mem::take(&mut self.updated),
            removed: std::mem::take(&mut self.removed),
            late: std::mem::take(&mut self.late),
            memory_bytes,
            join: self.join.take(),
            chunks: std::mem::take(&mut self.chunks),
            back: self.back.clone(),
            spare: self.spare.clone(),
            keep,
        };
        self.generation = self.generation.wrapping_add(1).max(1);
        // The send fails only while the query is being torn down, after the driver has ended.
        drop(self.reports.send(Report::State { epoch, changes }));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::checkpoint::key_group::instance_of;
    use crate::checkpoint::{Checkpoint, EpochMode, QueryDescription};
    use crate::env::SimEnv;
    use crossbeam_channel::unbounded;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    #[derive(Clone, Debug)]
    enum Op {
        Put(u8, Vec<u8>),
        /// Appends to the parts of a key.
        Grow(u8, Vec<u8>),
        Delete(u8),
        Marker,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            6 => (0u8..40, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(k, v)| Op::Put(k, v)),
            6 => (0u8..4, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(k, v)| Op::Grow(k, v)),
            2 => (0u8..40).prop_map(Op::Delete),
            2 => Just(Op::Marker),
        ];
        proptest::collection::vec(op, 0..120)
    }

    proptest! {
        /// The state restored with any parallelism equals a map's content at the last marker.
        #[test]
        fn restored_state_is_the_map_at_the_last_marker(
            ops in ops(), writers in 1usize..4, readers in 1usize..5, compact: bool,
        ) {
            let env = Arc::new(SimEnv::new(1));
            let operators = vec!["map".into()];
            let shape = QueryDescription { operators, ..QueryDescription::default() };
            let folder = Path::new("/c");
            let (mut checkpoint, _) = Checkpoint::open(env.clone(), folder, &shape, &mut |_| Ok(true)).unwrap();
            let (reports, inbox) = unbounded();
            let log = |i| StateLog::new(0, (i, writers), Some(checkpoint.snapshot(0)), reports.clone());
            let mut logs: Vec<StateLog> = (0..writers).map(log).collect();
            let mut slots = BTreeMap::<Vec<u8>, StateSlot>::new();
            let (mut live, mut marked) = (BTreeMap::new(), BTreeMap::new());
            // Each part of a key is an entry with a key of three bytes: the key twice and the
            // number of the part.
            let mut parts = BTreeMap::<u8, (StateSlot, u8)>::new();
            let mut deferred = Vec::new();
            let mut epoch = 0;
            for op in ops {
                match op {
                    Op::Put(key, value) => {
                        let key = vec![key; 4];
                        let hash = hash_bytes(&key);
                        let log = &mut logs[instance_of(hash, writers)];
                        let slot = slots.entry(key.clone()).or_default();
                        match log.when_to_put(slot) {
                            WriteTiming::Immediately => log.put(slot, hash, &key, &value),
                            WriteTiming::AtMarker { first: true } => deferred.push(key.clone()),
                            WriteTiming::AtMarker { first: false } => assert!(deferred.contains(&key)),
                        }
                        live.insert(key, value);
                    }
                    Op::Grow(k, bytes) => {
                        let (slot, next) = parts.entry(k).or_default();
                        let last = |part: u8| vec![k, k, part];
                        let hash = |part: u8| hash_bytes(&last(part));
                        let of = |part: u8| instance_of(hash(part), writers);
                        if *next > 0 && logs[of(*next - 1)].extend_part(slot, &bytes) {
                            live.entry(last(*next - 1)).or_insert_with(Vec::new).extend(bytes);
                            continue;
                        }
                        // A slot belongs to the log of one instance, so it is reset when the key
                        // moves to another instance.
                        if *next > 0 && of(*next) != of(*next - 1) {
                            *slot = StateSlot::default();
                        }
                        logs[of(*next)].begin_part(slot, hash(*next), &last(*next), &bytes);
                        live.insert(last(*next), bytes);
                        *next += 1;
                    }
                    Op::Delete(key) => {
                        let key = vec![key; 4];
                        let hash = hash_bytes(&key);
                        // The next put reuses the slot, as operators do.
                        let slot = slots.entry(key.clone()).or_default();
                        logs[instance_of(hash, writers)].delete(slot, hash, &key);
                        live.remove(&key);
                    }
                    Op::Marker => {
                        for key in deferred.drain(..) {
                            let (hash, slot) = (hash_bytes(&key), slots.entry(key.clone()).or_default());
                            if let Some(value) = live.get(&key) {
                                logs[instance_of(hash, writers)].put_uncounted(slot, hash, &key, value);
                            }
                        }
                        logs.iter_mut().for_each(|log| log.hand_over(epoch, 0, 0));
                        while let Ok(Report::State { changes, .. }) = inbox.try_recv() {
                            checkpoint.add_changes(changes);
                        }
                        checkpoint.write_state(epoch).unwrap();
                        let mode = EpochMode::Continuous;
                        checkpoint.write_offsets(epoch, &[], mode, (0, 0), vec![]).unwrap();
                        checkpoint.write_commit(epoch, 0).unwrap();
                        if compact {
                            checkpoint.compact_now(epoch).unwrap();
                        }
                        epoch += 1;
                        marked = live.clone();
                    }
                }
            }
            drop(checkpoint);
            env.sim_storage().power_failure();
            let (checkpoint, recovery) = Checkpoint::open(env.clone(), folder, &shape, &mut |_| Ok(true)).unwrap();
            prop_assert_eq!(recovery.next_epoch, epoch);
            let mut restored = BTreeMap::new();
            for reader in 0..readers {
                let snapshot = Some(checkpoint.snapshot(0));
                let mut log = StateLog::new(0, (reader, readers), snapshot, reports.clone());
                log.restore(|hash, key, value| {
                    assert_eq!(instance_of(hash, readers), reader);
                    match value {
                        Some(value) => drop(restored.insert(key.to_vec(), value.to_vec())),
                        None => drop(restored.remove(key)),
                    }
                    Ok(())
                }).unwrap();
            }
            prop_assert_eq!(restored, marked);
        }
    }

    /// The number of spare chunks after epochs with the given numbers of changes.
    fn spares_after(epochs: impl IntoIterator<Item = u64>) -> Vec<usize> {
        let env = Arc::new(SimEnv::new(1));
        let shape =
            QueryDescription { operators: vec!["map".into()], ..QueryDescription::default() };
        let (checkpoint, _) =
            Checkpoint::open(env, Path::new("/c"), &shape, &mut |_| Ok(true)).unwrap();
        let (reports, inbox) = unbounded();
        let mut log = StateLog::new(0, (0, 1), Some(checkpoint.snapshot(0)), reports);
        let epoch = |(epoch, changes)| {
            for n in 0..changes {
                log.put(&mut StateSlot::default(), n, &n.to_le_bytes(), &[0; 100]);
            }
            log.hand_over(epoch, 0, 0);
            let Ok(Report::State { changes, .. }) = inbox.try_recv() else { panic!("no changes") };
            changes.drain(|_, _, _| {});
            log.spare.len()
        };
        (0..).zip(epochs).map(epoch).collect()
    }

    #[test]
    fn chunks_of_a_burst_are_freed() {
        let steady = spares_after([2000; 50]);
        assert!(steady[0] >= 4 && steady.iter().all(|spares| *spares == steady[0]), "{steady:?}");
        let burst = spares_after([100_000].into_iter().chain([2000; 200]));
        assert!(burst[0] > 180, "the next burst may come soon: {burst:?}");
        assert_eq!(burst[200], steady[0]);
    }
}
