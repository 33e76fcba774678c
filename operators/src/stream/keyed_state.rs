//! The states of aggregates: in memory only, or also in checkpoints.
//!
//! The type of the flow decides. A flow without a checkpoint does not require serde, and its state
//! is a plain hash table. A flow with a checkpoint requires serde, and records the changes of
//! states.
//!
//! *In the checkpoint* an entry's key is the record's key in postcard's encoding. Its value is the
//! key's hash, then the state in the same encoding. Keys are assigned to instances by this hash, so
//! equal keys reach the same instance whatever their encoding. A restart compares the stored hash:
//! if a key's hash had changed, its records would be sent to an instance without its state.
//!
//! *Limits.* A key's whole state is written after each of its records, or once per epoch after it
//! has become longer than 4 KiB. For large states use the lists and maps of a
//! [processor](crate::stream::Processor), which write only what has changed.

use crate::stream::processor_state::{Kept, damaged, write};
use crate::stream::recipe::CheckpointManifest;
use millstream_engine::checkpoint::StateLayout;
use millstream_engine::checkpoint::key_group::hash_key;
use millstream_engine::collections::linear_hash_table::LinearHashTable;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::state_log::{StateLog, StateSlot, WriteTiming};
use std::hash::Hash;

/// A flow without a checkpoint. The keys and states of aggregates need no serde.
#[derive(Clone, Copy, Debug)]
pub enum InMemory {}

/// A flow with a checkpoint. Keys and states must be types that serde can write and read.
#[derive(Clone, Copy, Debug)]
pub enum Checkpointed {}

/// A kind of flow that can keep states of type `S` for keys of type `K`.
#[diagnostic::on_unimplemented(
    message = "the flow cannot checkpoint the state `{S}` of a key `{K}`",
    note = "a flow with a checkpoint stores keys and states with serde: implement \
            `Serialize` and `Deserialize` for both, with owned types such as `String`"
)]
pub trait StateBackend<K, S>: 'static {
    /// The states of an instance.
    #[doc(hidden)]
    type States: KeyedState<K, S> + 'static;
    /// Creates the states of all instances.
    #[doc(hidden)]
    fn states(job: &mut Job, instances: usize) -> Vec<Self::States>;
    /// Adds an aggregate to the checkpoint manifest. `aggregate` is the type name of the aggregate.
    #[doc(hidden)]
    fn describe(kept: &mut CheckpointManifest, aggregate: &str);
}

impl<K, S> StateBackend<K, S> for InMemory
where
    K: Hash + Eq + Clone + Send + 'static,
    S: Default + Send + 'static,
{
    type States = Plain<K, S>;
    fn states(_: &mut Job, instances: usize) -> Vec<Plain<K, S>> {
        (0..instances).map(|_| Plain(LinearHashTable::default())).collect()
    }
    fn describe(kept: &mut CheckpointManifest, _: &str) {
        kept.has_unpersisted_state = true;
    }
}

impl<K, S> StateBackend<K, S> for Checkpointed
where
    K: Kept + Hash + Eq + Clone,
    S: Kept + Default,
{
    type States = CheckpointedState<K, S>;
    fn states(job: &mut Job, instances: usize) -> Vec<CheckpointedState<K, S>> {
        let noted = |log| CheckpointedState {
            entries: LinearHashTable::default(),
            value: Vec::new(),
            deferred: Vec::new(),
            memory: 0,
            log,
        };
        job.operator(instances).into_iter().map(noted).collect()
    }
    fn describe(kept: &mut CheckpointManifest, aggregate: &str) {
        let [key, state] = [std::any::type_name::<K>(), std::any::type_name::<S>()].map(plain_name);
        let aggregate = plain_name(aggregate);
        let name = aggregate.split('<').next().unwrap_or_default();
        kept.shape.operators.push(format!("aggregate by {key}: {name} with state {state}"));
        kept.shape.layouts.push(StateLayout::default());
    }
}

/// A type's name without module paths, so that a type can be moved between modules.
pub(super) fn plain_name(name: &str) -> String {
    let (mut plain, mut rest) = (String::new(), name);
    while let Some((before, behind)) = rest.split_once("::") {
        plain.push_str(before);
        let module = plain.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_').len();
        if module < plain.len() {
            plain.truncate(module);
        } else {
            plain.push_str("::");
        }
        rest = behind;
    }
    plain + rest
}

/// A state for each key.
pub trait KeyedState<K, S>: Send {
    /// Calls a function with the state of a key.
    fn with<R>(&mut self, key: &K, body: impl FnOnce(&mut S) -> R) -> Result<R, EngineError>;
    /// Restores the state of an earlier run. Called before the first record.
    fn restore(&mut self) -> Result<(), EngineError>;
    /// Hands the changes to the checkpoint. Called before the marker is forwarded.
    fn hand_over(&mut self, epoch: Epoch) -> Result<(), EngineError>;
}

/// States in memory only.
pub struct Plain<K, S>(LinearHashTable<(K, S)>);

impl<K: Hash + Eq + Clone, S: Default> Plain<K, S> {
    /// Adds a key with its initial state. Not inlined, because most records have a known key.
    #[cold]
    #[inline(never)]
    fn begin(&mut self, hash: u64, key: &K) -> &mut S {
        let entry = (key.clone(), S::default());
        &mut self.0.insert_unique(hash, entry, |(key, _)| hash_key(key)).1
    }
}

impl<K: Hash + Eq + Clone + Send, S: Default + Send> KeyedState<K, S> for Plain<K, S> {
    #[inline(always)]
    fn with<R>(&mut self, key: &K, body: impl FnOnce(&mut S) -> R) -> Result<R, EngineError> {
        let hash = hash_key(key);
        if let Some((_, state)) = self.0.find_mut(hash, |(other, _)| other == key) {
            return Ok(body(state));
        }
        Ok(body(self.begin(hash, key)))
    }
    #[inline(always)]
    fn restore(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    #[inline(always)]
    fn hand_over(&mut self, _: Epoch) -> Result<(), EngineError> {
        Ok(())
    }
}

/// Implements the control side of a stage with keyed states.
macro_rules! keep_states {
    ($down:ident) => {
        fn attach(
            &mut self,
            io: &mut millstream_engine::runtime::stage::Io<'_>,
        ) -> Result<(), millstream_engine::error::EngineError> {
            self.states.restore()?;
            self.$down.attach(io)
        }
        #[inline]
        fn is_ready(&mut self) -> bool {
            self.$down.is_ready()
        }
        fn watermark(&mut self, micros: i64) -> Result<(), millstream_engine::error::EngineError> {
            self.$down.watermark(micros)
        }
        fn marker(
            &mut self,
            epoch: millstream_engine::event::Epoch,
        ) -> Result<(), millstream_engine::error::EngineError> {
            self.states.hand_over(epoch)?;
            self.$down.marker(epoch)
        }
        fn end(&mut self) -> Result<(), millstream_engine::error::EngineError> {
            self.$down.end()
        }
        #[inline]
        fn flush(
            &mut self,
        ) -> Result<
            millstream_engine::runtime::stage::FlushStatus,
            millstream_engine::error::EngineError,
        > {
            self.$down.flush()
        }
        #[inline]
        fn next_timer_ns(&self) -> Option<u64> {
            self.$down.next_timer_ns()
        }
    };
}
pub(super) use keep_states;

struct Entry<K, S> {
    key: K,
    /// The encoded key.
    bytes: Box<[u8]>,
    state: S,
    /// The slot of the key's last recorded change.
    slot: StateSlot,
    /// Length of the hash and the state when they were last written: an estimate of the heap
    /// memory. 0 for a state without a destructor.
    written: u32,
}

impl<K: Hash, S: Kept> Entry<K, S> {
    /// Changes the state and records its new value.
    #[inline]
    fn change<R>(
        &mut self,
        hash: u64,
        ChangeWriter { log, value, deferred, memory }: ChangeWriter<'_>,
        body: impl FnOnce(&mut S) -> R,
    ) -> Result<R, EngineError> {
        let output = body(&mut self.state);
        match log.when_to_put(&mut self.slot) {
            WriteTiming::Immediately => {
                self.encode(hash, value, memory)?;
                log.put(&mut self.slot, hash, &self.bytes, value);
            }
            WriteTiming::AtMarker { first: true } => deferred.push((hash, self.bytes.clone())),
            WriteTiming::AtMarker { first: false } => {}
        }
        Ok(output)
    }

    /// Encodes the hash and the state, and updates the total memory.
    fn encode(
        &mut self,
        hash: u64,
        out: &mut Vec<u8>,
        memory: &mut u64,
    ) -> Result<(), EngineError> {
        out.clear();
        out.extend_from_slice(&hash.to_le_bytes());
        write(&self.state, out)?;
        if std::mem::needs_drop::<S>() {
            self.count(out.len(), memory);
        }
        Ok(())
    }

    fn count(&mut self, length: usize, memory: &mut u64) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut self.written, length);
        *memory = *memory + u64::from(length) - u64::from(before);
    }
}

/// The parts that record a changed state.
struct ChangeWriter<'n> {
    log: &'n mut StateLog,
    value: &'n mut Vec<u8>,
    deferred: &'n mut Vec<(u64, Box<[u8]>)>,
    memory: &'n mut u64,
}

/// States in memory that are also written to checkpoints.
pub struct CheckpointedState<K, S> {
    entries: LinearHashTable<Entry<K, S>>,
    /// Buffer for an encoded state.
    value: Vec<u8>,
    /// Hashes and keys of long states, which are written at the marker.
    deferred: Vec<(u64, Box<[u8]>)>,
    /// Approximate heap memory of keys and states, in bytes.
    memory: u64,
    log: StateLog,
}

/// Adds a key that is not in the table.
#[cold]
#[inline(never)]
fn add<K: Hash, S>(
    entries: &mut LinearHashTable<Entry<K, S>>,
    hash: u64,
    (key, bytes, state): (K, Box<[u8]>, S),
) -> &mut Entry<K, S> {
    let entry = Entry { key, bytes, state, slot: StateSlot::default(), written: 0 };
    entries.insert_unique(hash, entry, |entry| hash_key(&entry.key))
}

impl<K: Kept + Hash + Eq + Clone, S: Kept + Default> KeyedState<K, S> for CheckpointedState<K, S> {
    #[inline]
    fn with<R>(&mut self, key: &K, body: impl FnOnce(&mut S) -> R) -> Result<R, EngineError> {
        let Self { log, value, deferred, memory, .. } = self;
        let (hash, notes) = (hash_key(key), ChangeWriter { log, value, deferred, memory });
        if let Some(entry) = self.entries.find_mut(hash, |entry| entry.key == *key) {
            return entry.change(hash, notes, body);
        }
        let mut bytes = Vec::new();
        write(key, &mut bytes)?;
        *notes.memory += key_memory::<K>(&bytes);
        let new = (key.clone(), bytes.into_boxed_slice(), S::default());
        add(&mut self.entries, hash, new).change(hash, notes, body)
    }

    fn restore(&mut self) -> Result<(), EngineError> {
        let Self { entries, log, memory, .. } = self;
        log.restore(|_, bytes, value| {
            let key: K = read(bytes)?;
            let hash = hash_key(&key);
            let Some(value) = value else {
                let hash_of = |entry: &Entry<K, S>| hash_key(&entry.key);
                if let Some(entry) = entries.remove(hash, |entry| entry.key == key, hash_of) {
                    *memory -= key_memory::<K>(&entry.bytes) + u64::from(entry.written);
                }
                return Ok(());
            };
            let length = if std::mem::needs_drop::<S>() { value.len() } else { 0 };
            let (written, state) = value.split_first_chunk::<8>().ok_or_else(damaged)?;
            let state: S = read(state)?;
            if u64::from_le_bytes(*written) != hash {
                return Err(hashed_otherwise());
            }
            let entry = match entries.find_mut(hash, |entry| entry.key == key) {
                Some(entry) => {
                    entry.state = state;
                    entry
                }
                None => {
                    *memory += key_memory::<K>(bytes);
                    add(entries, hash, (key, bytes.into(), state))
                }
            };
            entry.count(length, memory);
            Ok(())
        })
    }

    fn hand_over(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        let Self { entries, log, value, deferred, memory, .. } = self;
        for (hash, bytes) in deferred.drain(..) {
            if let Some(entry) = entries.find_mut(hash, |entry| entry.bytes == bytes) {
                entry.encode(hash, value, memory)?;
                log.put_uncounted(&mut entry.slot, hash, &entry.bytes, value);
            }
        }
        let keys = self.entries.len() as u64;
        // The table needs about 48 bytes per entry in addition to the entry itself.
        let bytes = keys * (size_of::<Entry<K, S>>() + 48) as u64 + self.memory;
        self.log.hand_over(epoch, keys, bytes);
        Ok(())
    }
}

/// Approximate heap memory of a key: its encoding and the key itself.
fn key_memory<K>(bytes: &[u8]) -> u64 {
    let copies = if std::mem::needs_drop::<K>() { 2 } else { 1 };
    (bytes.len() * copies) as u64
}

/// Decodes a value that must fill all the bytes.
fn read<V: Kept>(bytes: &[u8]) -> Result<V, EngineError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(damaged()),
    }
}

fn hashed_otherwise() -> EngineError {
    EngineError::operator(
        "STATE_NOT_READABLE",
        "the hash of a key differs from the one in the checkpoint",
        "The key's `Hash` must not change while a checkpoint is used: start over with another one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_have_no_module_paths() {
        assert_eq!(plain_name(std::any::type_name::<u64>()), "u64");
        assert_eq!(plain_name(std::any::type_name::<(String, Vec<u8>)>()), "(String, Vec<u8>)");
        let name = std::any::type_name::<std::collections::BTreeMap<String, Option<[u8; 3]>>>();
        assert_eq!(plain_name(name), "BTreeMap<String, Option<[u8; 3]>>");
        assert_eq!(plain_name("a::b::Min<c::main::{{closure}}>"), "Min<{{closure}}>");
        assert_eq!(plain_name("<a::B as c::D>::E"), "<B as D>::E");
    }
}
