//! The state of a processor for a key: values, lists and maps. Each part is recorded for the
//! checkpoint as it changes.
//!
//! *In the checkpoint* an entry's key is the record's key, the number of the state (0: timers), and
//! the part: nothing for a value, an index for a list, the map key for a map. Keys and values are
//! in postcard's encoding. A value is preceded by its expiry time.

use millstream_engine::checkpoint::key_group::BuildStableHasher;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::state_log::{StateLog, StateSlot};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::marker::PhantomData;
use std::time::Duration;

/// The expiry time of state that never expires.
pub(super) const NEVER: i64 = i64::MAX;
/// The state number of timers.
pub(super) const TIMERS: u16 = 0;

/// A type that can be kept in state: anything that serde can write and read back.
pub trait Kept: Serialize + DeserializeOwned + Send + 'static {}
impl<V: Serialize + DeserializeOwned + Send + 'static> Kept for V {}

/// Time to live: how long state is kept after it was last written, in processing time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ttl(Option<Duration>);

impl Ttl {
    /// State is kept until it is cleared.
    pub const NONE: Self = Self(None);

    /// State expires after this time. Expired state is invisible at once and removed soon after, in
    /// micro-batch mode at the end of a batch. Each item of a list and each entry of a map has a
    /// time of its own.
    pub const fn after(time: Duration) -> Self {
        Self(Some(time))
    }

    fn expires_us(self, now_us: i64) -> i64 {
        let after = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(NEVER);
        self.0.map_or(NEVER, |time| now_us.saturating_add(after(time)))
    }

    /// The time; `None` if state is kept until it is cleared.
    #[cfg(feature = "sql")]
    pub(crate) fn duration(self) -> Option<Duration> {
        self.0
    }

    pub(super) fn is_some(self) -> bool {
        self.0.is_some()
    }
}

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident<$($param:ident),+>;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<$($param),+>(pub(super) usize, PhantomData<fn() -> ($($param,)+)>);

        impl<$($param),+> Clone for $name<$($param),+> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<$($param),+> Copy for $name<$($param),+> {}
    )*};
}

handles! {
    /// One value for each key.
    ValueState<V>;
    /// A list for each key, which grows at its end.
    ListState<V>;
    /// A map for each key.
    MapState<K, V>;
}

type MakeCell = Box<dyn Fn() -> Box<dyn Cell> + Send + Sync>;

/// The states of a processor, declared before it is created.
#[derive(Default)]
pub struct States {
    makes: Vec<MakeCell>,
    names: Vec<String>,
    pub(super) expires: bool,
}

impl States {
    fn declare(&mut self, what: &str, name: &str, ttl: Ttl, make: MakeCell) -> usize {
        self.makes.push(make);
        self.names.push(format!("{what} {name}"));
        self.expires |= ttl.is_some();
        self.makes.len() - 1
    }

    /// Declares a value for each key. Checkpoint entries identify a state by its order of
    /// declaration. A restart is refused if the kinds, the names or the order of the states have
    /// changed.
    pub fn value<V: Kept>(&mut self, name: &str, ttl: Ttl) -> ValueState<V> {
        let make = move || Box::new(ValueCell::<V> { ttl, held: None }) as Box<dyn Cell>;
        ValueState(self.declare("value", name, ttl, Box::new(make)), PhantomData)
    }

    /// Declares a list for each key, like [`value`](Self::value).
    pub fn list<V: Kept>(&mut self, name: &str, ttl: Ttl) -> ListState<V> {
        let empty = move || ListCell::<V> { ttl, items: BTreeMap::new() };
        let make = move || Box::new(empty()) as Box<dyn Cell>;
        ListState(self.declare("list", name, ttl, Box::new(make)), PhantomData)
    }

    /// Declares a map for each key, like [`value`](Self::value).
    pub fn map<K: Kept + Hash + Eq, V: Kept>(&mut self, name: &str, ttl: Ttl) -> MapState<K, V> {
        let make = move || {
            let entries = HashMap::with_hasher(BuildStableHasher::default());
            Box::new(MapCell::<K, V> { ttl, entries }) as Box<dyn Cell>
        };
        MapState(self.declare("map", name, ttl, Box::new(make)), PhantomData)
    }

    /// The description that a checkpoint depends on.
    pub(crate) fn description(&self) -> String {
        self.names.join(", ")
    }

    /// Number of states per key.
    pub(super) fn count(&self) -> usize {
        self.makes.len()
    }

    pub(super) fn cells(&self) -> Box<[Box<dyn Cell>]> {
        self.makes.iter().map(|make| make()).collect()
    }
}

/// The parts that record changes of a key's state.
pub(super) struct ChangeWriter<'n> {
    pub log: &'n mut StateLog,
    /// Number of state entries of all keys.
    pub parts: &'n mut u64,
    /// Approximate memory of the values of all state entries, in bytes.
    pub memory: &'n mut u64,
    pub hash: u64,
    pub key: &'n [u8],
    /// The processing time, in microseconds since 1970.
    pub now_us: i64,
    pub buffer: &'n mut Buffer,
}

/// Buffers for an encoded entry.
#[derive(Default)]
pub(super) struct Buffer {
    key: Vec<u8>,
    value: Vec<u8>,
}

/// Appends a value in postcard's encoding.
pub(crate) fn write<V: Serialize + ?Sized>(
    value: &V,
    out: &mut Vec<u8>,
) -> Result<(), EngineError> {
    match postcard::to_extend(value, std::mem::take(out)) {
        Ok(written) => {
            *out = written;
            Ok(())
        }
        Err(error) => Err(EngineError::operator(
            "STATE_NOT_WRITABLE",
            format!("a key or a value cannot be serialized: {error}"),
            "Sequences and maps must know their length, and types must not be self-describing",
        )),
    }
}

pub(super) fn damaged() -> EngineError {
    EngineError::operator(
        "STATE_NOT_READABLE",
        "the checkpoint's state does not fit the types of this operator",
        "Start over with another checkpoint, or use the types that this one was written with",
    )
}

/// The approximate memory of a value, in bytes. The heap memory of a type with a destructor is
/// estimated by the encoded length, which is `written` if the value was already encoded.
pub(super) fn memory_of<V: Serialize>(value: &V, written: Option<usize>) -> u32 {
    let apart = if std::mem::needs_drop::<V>() {
        written.unwrap_or_else(|| postcard::experimental::serialized_size(value).unwrap_or(0))
    } else {
        0
    };
    u32::try_from(size_of::<V>() + apart).unwrap_or(u32::MAX)
}

impl ChangeWriter<'_> {
    /// Starts the entry key of a part of a state.
    fn begin(&mut self, state: usize) -> &mut Vec<u8> {
        begin_key(self.key, (state + 1) as u16, &mut self.buffer.key)
    }

    /// Records a value under the entry key in the buffer, which [`begin`](Self::begin) must have
    /// started, and adds its approximate memory to the total. Returns that memory. Fails if the
    /// value cannot be encoded; it is encoded only if changes are recorded.
    fn put<V: Serialize>(
        &mut self,
        slot: &mut StateSlot,
        value: &V,
        expires_us: i64,
    ) -> Result<u32, EngineError> {
        let Buffer { key, value: out } = &mut *self.buffer;
        if self.log.is_on() {
            out.clear();
            out.extend_from_slice(&expires_us.to_le_bytes());
            write(value, out)?;
        }
        // The expiry time before the value does not count for the value's length.
        let memory = memory_of(value, self.log.is_on().then(|| out.len() - size_of::<i64>()));
        self.log.put(slot, self.hash, key, out);
        *self.memory += u64::from(memory);
        Ok(memory)
    }

    /// Deletes the entry whose key is in the buffer, which [`begin`](Self::begin) must have
    /// started. Subtracts the memory of its value, and one from the number of parts.
    fn erase(&mut self, memory: u32) {
        self.log.delete(&mut StateSlot::default(), self.hash, &self.buffer.key);
        *self.parts -= 1;
        self.release(memory);
    }

    /// Subtracts the memory of a value that is replaced or deleted.
    fn release(&mut self, memory: u32) {
        *self.memory -= u64::from(memory);
    }

    /// Records that a timer was set or removed.
    pub fn timer(&mut self, kind: u8, time_us: i64, there: bool) {
        let key = begin_key(self.key, TIMERS, &mut self.buffer.key);
        key.push(kind);
        key.extend_from_slice(&time_us.to_le_bytes());
        if there {
            self.log.put(&mut StateSlot::default(), self.hash, key, &NEVER.to_le_bytes());
            *self.parts += 1;
        } else {
            self.erase(0);
        }
    }
}

fn begin_key<'b>(key: &[u8], state: u16, out: &'b mut Vec<u8>) -> &'b mut Vec<u8> {
    out.clear();
    out.extend_from_slice(key);
    out.extend_from_slice(&state.to_le_bytes());
    out
}

/// Splits the rest of an entry's key into the number of the state and the part.
pub(super) fn split_key(rest: &[u8]) -> Option<(u16, &[u8])> {
    let (state, part) = rest.split_first_chunk::<2>()?;
    Some((u16::from_le_bytes(*state), part))
}

/// One state of one key.
pub(super) trait Cell: Send {
    fn any(&mut self) -> &mut dyn Any;
    fn any_ref(&self) -> &dyn Any;
    fn is_empty(&self) -> bool;
    /// Restores an entry of the checkpoint; `None` if it was deleted. Returns the changes in the
    /// number of entries and in their memory.
    fn restore(&mut self, part: &[u8], value: Option<&[u8]>) -> Result<(i64, i64), EngineError>;
    /// Removes expired state. Returns the next expiry time.
    fn expire(&mut self, state: usize, notes: &mut ChangeWriter<'_>) -> Result<i64, EngineError>;
}

/// A value with its expiry time.
struct ExpiringValue<V> {
    value: V,
    expires_us: i64,
    slot: StateSlot,
    /// Approximate memory of the value, in bytes; see [`memory_of`].
    memory: u32,
}

impl<V: Kept> ExpiringValue<V> {
    fn read(bytes: &[u8]) -> Result<Self, EngineError> {
        let (expires, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let value = postcard::from_bytes(rest).map_err(|_| damaged())?;
        let memory = memory_of(&value, Some(rest.len()));
        let expires_us = i64::from_le_bytes(*expires);
        Ok(Self { value, expires_us, slot: StateSlot::default(), memory })
    }
}

/// The changes in the number of entries and in their memory when `after` replaces `before`.
fn more<V>(before: Option<&ExpiringValue<V>>, after: Option<&ExpiringValue<V>>) -> (i64, i64) {
    let of =
        |held: Option<&ExpiringValue<V>>| held.map_or((0, 0), |held| (1, i64::from(held.memory)));
    let (before, after) = (of(before), of(after));
    (after.0 - before.0, after.1 - before.1)
}

pub(super) struct ValueCell<V> {
    ttl: Ttl,
    held: Option<ExpiringValue<V>>,
}

impl<V: Kept> Cell for ValueCell<V> {
    fn any(&mut self) -> &mut dyn Any {
        self
    }
    fn any_ref(&self) -> &dyn Any {
        self
    }
    fn is_empty(&self) -> bool {
        self.held.is_none()
    }
    fn restore(&mut self, _part: &[u8], value: Option<&[u8]>) -> Result<(i64, i64), EngineError> {
        let held = value.map(ExpiringValue::read).transpose()?;
        let before = std::mem::replace(&mut self.held, held);
        Ok(more(before.as_ref(), self.held.as_ref()))
    }
    fn expire(&mut self, state: usize, notes: &mut ChangeWriter<'_>) -> Result<i64, EngineError> {
        match &self.held {
            Some(held) if held.expires_us <= notes.now_us => {
                let memory = held.memory;
                self.held = None;
                notes.begin(state);
                notes.erase(memory);
                Ok(NEVER)
            }
            held => Ok(held.as_ref().map_or(NEVER, |held| held.expires_us)),
        }
    }
}

pub(super) struct ListCell<V> {
    ttl: Ttl,
    /// The items by index. The index ascends in insertion order.
    items: BTreeMap<u64, ExpiringValue<V>>,
}

impl<V: Kept> ListCell<V> {
    fn pop(&mut self, state: usize, notes: &mut ChangeWriter<'_>) {
        if let Some((number, held)) = self.items.pop_first() {
            notes.begin(state).extend_from_slice(&number.to_le_bytes());
            notes.erase(held.memory);
        }
    }
}

impl<V: Kept> Cell for ListCell<V> {
    fn any(&mut self) -> &mut dyn Any {
        self
    }
    fn any_ref(&self) -> &dyn Any {
        self
    }
    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
    fn restore(&mut self, part: &[u8], value: Option<&[u8]>) -> Result<(i64, i64), EngineError> {
        let number = u64::from_le_bytes(part.try_into().map_err(|_| damaged())?);
        let before = match value {
            None => self.items.remove(&number),
            Some(value) => self.items.insert(number, ExpiringValue::read(value)?),
        };
        Ok(more(before.as_ref(), value.and_then(|_| self.items.get(&number))))
    }
    fn expire(&mut self, state: usize, notes: &mut ChangeWriter<'_>) -> Result<i64, EngineError> {
        loop {
            match self.items.first_key_value() {
                None => return Ok(NEVER),
                Some((_, held)) if held.expires_us > notes.now_us => return Ok(held.expires_us),
                Some(_) => self.pop(state, notes),
            }
        }
    }
}

pub(super) struct MapCell<K, V> {
    ttl: Ttl,
    entries: HashMap<K, ExpiringValue<V>, BuildStableHasher>,
}

impl<K: Kept + Hash + Eq, V: Kept> Cell for MapCell<K, V> {
    fn any(&mut self) -> &mut dyn Any {
        self
    }
    fn any_ref(&self) -> &dyn Any {
        self
    }
    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    fn restore(&mut self, part: &[u8], value: Option<&[u8]>) -> Result<(i64, i64), EngineError> {
        let key: K = postcard::from_bytes(part).map_err(|_| damaged())?;
        let Some(value) = value else {
            return Ok(more(self.entries.remove(&key).as_ref(), None));
        };
        let mut held = ExpiringValue::read(value)?;
        held.memory = held.memory.saturating_add(memory_of(&key, Some(part.len())));
        let now = (1, i64::from(held.memory));
        let before = more(None, self.entries.insert(key, held).as_ref());
        Ok((now.0 - before.0, now.1 - before.1))
    }
    fn expire(&mut self, state: usize, notes: &mut ChangeWriter<'_>) -> Result<i64, EngineError> {
        let (now_us, mut next_us, mut wrong) = (notes.now_us, NEVER, None);
        self.entries.retain(|key, held| {
            if held.expires_us > now_us {
                next_us = next_us.min(held.expires_us);
                return true;
            }
            match write(key, notes.begin(state)) {
                Ok(()) => notes.erase(held.memory),
                Err(error) => wrong = Some(error),
            }
            false
        });
        wrong.map_or(Ok(next_us), Err)
    }
}

/// The state with a number. Panics if it is not of type `C`, which means that it was declared for
/// another processor.
fn of_kind<C: Cell + 'static>(cells: &mut [Box<dyn Cell>], state: usize) -> &mut C {
    match cells.get_mut(state).and_then(|cell| cell.any().downcast_mut()) {
        Some(cell) => cell,
        None => panic!("state {state} was declared for another processor"),
    }
}

fn of_kind_ref<C: Cell + 'static>(cells: &[Box<dyn Cell>], state: usize) -> &C {
    match cells.get(state).and_then(|cell| cell.any_ref().downcast_ref()) {
        Some(cell) => cell,
        None => panic!("state {state} was declared for another processor"),
    }
}

/// The states of the current key.
pub(super) struct Cells<'c> {
    pub cells: &'c mut [Box<dyn Cell>],
    pub notes: ChangeWriter<'c>,
    /// The earliest expiry time of the state entries that this call has written.
    pub expires_us: i64,
}

impl<'c> Cells<'c> {
    pub fn value<V: Kept>(&self, state: ValueState<V>) -> Option<&V> {
        let cell: &ValueCell<V> = of_kind_ref(self.cells, state.0);
        let now_us = self.notes.now_us;
        cell.held.as_ref().filter(|held| held.expires_us > now_us).map(|held| &held.value)
    }

    pub fn set_value<V: Kept>(
        &mut self,
        state: ValueState<V>,
        value: V,
    ) -> Result<(), EngineError> {
        let cell: &mut ValueCell<V> = of_kind(self.cells, state.0);
        let expires_us = cell.ttl.expires_us(self.notes.now_us);
        self.expires_us = self.expires_us.min(expires_us);
        *self.notes.parts += u64::from(cell.held.is_none());
        let mut slot = cell.held.as_ref().map(|held| held.slot).unwrap_or_default();
        self.notes.begin(state.0);
        let memory = self.notes.put(&mut slot, &value, expires_us)?;
        let before = cell.held.replace(ExpiringValue { value, expires_us, slot, memory });
        self.notes.release(before.map_or(0, |held| held.memory));
        Ok(())
    }

    pub fn clear_value<V: Kept>(&mut self, state: ValueState<V>) {
        let cell: &mut ValueCell<V> = of_kind(self.cells, state.0);
        if let Some(held) = cell.held.take() {
            self.notes.begin(state.0);
            self.notes.erase(held.memory);
        }
    }

    pub fn list<V: Kept>(&self, state: ListState<V>) -> impl Iterator<Item = &V> {
        let cell: &ListCell<V> = of_kind_ref(self.cells, state.0);
        let now_us = self.notes.now_us;
        cell.items.values().filter(move |held| held.expires_us > now_us).map(|held| &held.value)
    }

    pub fn push<V: Kept>(&mut self, state: ListState<V>, value: V) -> Result<(), EngineError> {
        let cell: &mut ListCell<V> = of_kind(self.cells, state.0);
        let expires_us = cell.ttl.expires_us(self.notes.now_us);
        self.expires_us = self.expires_us.min(expires_us);
        *self.notes.parts += 1;
        let number = cell.items.last_key_value().map_or(0, |(last, _)| last + 1);
        let mut slot = StateSlot::default();
        self.notes.begin(state.0).extend_from_slice(&number.to_le_bytes());
        let memory = self.notes.put(&mut slot, &value, expires_us)?;
        cell.items.insert(number, ExpiringValue { value, expires_us, slot, memory });
        Ok(())
    }

    pub fn clear_list<V: Kept>(&mut self, state: ListState<V>) {
        let cell: &mut ListCell<V> = of_kind(self.cells, state.0);
        while !cell.items.is_empty() {
            cell.pop(state.0, &mut self.notes);
        }
    }

    pub fn entry<K: Kept + Hash + Eq, V: Kept>(
        &self,
        state: MapState<K, V>,
        key: &K,
    ) -> Option<&V> {
        let cell: &MapCell<K, V> = of_kind_ref(self.cells, state.0);
        let now_us = self.notes.now_us;
        cell.entries.get(key).filter(|held| held.expires_us > now_us).map(|held| &held.value)
    }

    pub fn entries<K: Kept + Hash + Eq, V: Kept>(
        &self,
        state: MapState<K, V>,
    ) -> impl Iterator<Item = (&K, &V)> {
        let cell: &MapCell<K, V> = of_kind_ref(self.cells, state.0);
        let now_us = self.notes.now_us;
        let there = cell.entries.iter().filter(move |(_, held)| held.expires_us > now_us);
        there.map(|(key, held)| (key, &held.value))
    }

    pub fn insert<K: Kept + Hash + Eq, V: Kept>(
        &mut self,
        state: MapState<K, V>,
        key: K,
        value: V,
    ) -> Result<(), EngineError> {
        let cell: &mut MapCell<K, V> = of_kind(self.cells, state.0);
        let expires_us = cell.ttl.expires_us(self.notes.now_us);
        self.expires_us = self.expires_us.min(expires_us);
        let before = cell.entries.get(&key);
        *self.notes.parts += u64::from(before.is_none());
        let mut slot = before.map(|held| held.slot).unwrap_or_default();
        let part = self.notes.begin(state.0);
        let own = part.len();
        write(&key, part)?;
        let of_key = memory_of(&key, Some(part.len() - own));
        let of_value = self.notes.put(&mut slot, &value, expires_us)?;
        *self.notes.memory += u64::from(of_key);
        let memory = of_value.saturating_add(of_key);
        let before = cell.entries.insert(key, ExpiringValue { value, expires_us, slot, memory });
        self.notes.release(before.map_or(0, |held| held.memory));
        Ok(())
    }

    pub fn remove<K: Kept + Hash + Eq, V: Kept>(
        &mut self,
        state: MapState<K, V>,
        key: &K,
    ) -> Result<(), EngineError> {
        let cell: &mut MapCell<K, V> = of_kind(self.cells, state.0);
        if let Some(held) = cell.entries.remove(key) {
            write(key, self.notes.begin(state.0))?;
            self.notes.erase(held.memory);
        }
        Ok(())
    }

    pub fn clear_map<K: Kept + Hash + Eq, V: Kept>(
        &mut self,
        state: MapState<K, V>,
    ) -> Result<(), EngineError> {
        let cell: &mut MapCell<K, V> = of_kind(self.cells, state.0);
        for (key, held) in cell.entries.drain() {
            write(&key, self.notes.begin(state.0))?;
            self.notes.erase(held.memory);
        }
        Ok(())
    }
}
