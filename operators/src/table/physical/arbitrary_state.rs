//! The stages of an operator with arbitrary state: they collect rows by key, call the user's
//! processor, and emit its results.

use super::aggregate::hash_aggregate::{Key, write_keys};
use super::late_row::LateRows;
use super::row_exchange::RowOutbox;
use super::stages::{BoxChain, Scratch};
use crate::stream::operator::process::{Process, ProcessorParts, Typed};
use crate::stream::{Context, Processor, States, Timer, write_kept};
use crate::table::arbitrary_state::node::{StateMethod, StateOperator};
use crate::table::arbitrary_state::processor::{
    InputRows, OutputRule, StateError, StatefulProcessor, StatefulProcessorHandle,
};
use crate::table::row::{Row, RowBuf, Slot, decode, encode};
use crate::table::types::DataType;
use crate::table::value::Value;
use millstream_engine::checkpoint::key_group::{BuildStableHasher, hash_bytes, instance_of};
use millstream_engine::env::Env;
use millstream_engine::epoch::event_time::BatchTimes;
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, UNTIMED};
use millstream_engine::pass_control;
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};
use millstream_engine::runtime::state_log::StateLog;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// The maximum number of keys for which the processor is called in one step.
const STEP: usize = 256;

/// The grouping keys of a row, encoded as a row that has only the keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::table) struct RowKey(Vec<u8>);

/// The rows of one key that are passed to the processor in one call.
#[derive(Default)]
pub(in crate::table) struct Group {
    /// The key's rows of the initial state.
    initial: Vec<Vec<Value>>,
    rows: Vec<RowBuf>,
}

/// A row of the initial state: its key, and its other values.
pub(in crate::table) struct InitialRow {
    key: RowKey,
    values: Vec<Value>,
}

/// The parts from which an instance is built.
pub(in crate::table) struct InstanceParts {
    pub operator: StateOperator,
    /// The types of the columns: those of the keys first, then those of the row.
    pub types: Vec<DataType>,
    /// The number of keys.
    pub keys: usize,
    /// The column that decides whether a row is late, and whether its type is a window; `None`
    /// outside event-time mode.
    pub event: Option<(Slot, bool)>,
    /// The index of the output's event time column; `None` if the output names no event time, and
    /// in a batch query.
    pub event_time: Option<usize>,
    pub(super) late: LateRows,
    pub lag_us: i64,
    /// Whether the input rows have a watermark.
    pub timed: bool,
    pub continuous: bool,
    pub times: BatchTimes,
    pub env: Arc<dyn Env>,
    pub log: StateLog,
    /// The initial state of this instance's keys; empty if an epoch has been committed.
    pub initial: Vec<InitialRow>,
}

/// Encodes the keys of rows, and hashes them to find the instance that owns the keys.
struct KeyWriter {
    keys: Vec<Key>,
    scratch: Scratch,
    key: RowKey,
    encoded: Vec<u8>,
}

impl KeyWriter {
    /// Creates a writer for rows whose first `keys` columns are the keys.
    fn new(keys: usize, types: &[DataType]) -> Self {
        let column = |i: usize| Key::column(i, types.len(), &types[i]);
        let keys = (0..keys).map(column).collect();
        let (scratch, key) = (Scratch::default(), RowKey(Vec::new()));
        Self { keys, scratch, key, encoded: Vec::new() }
    }

    /// Encodes the keys of a row. Returns the hash of their checkpoint encoding, which selects the
    /// instance.
    fn hash(&mut self, row: Row<'_>) -> Result<u64, EngineError> {
        self.key.0.clear();
        self.encoded.clear();
        write_keys(&self.keys, &self.scratch, row, &mut self.key.0)?;
        write_kept(&self.key, &mut self.encoded)?;
        Ok(hash_bytes(&self.encoded))
    }
}

/// Reads the initial state and splits its rows by instance.
pub(in crate::table) fn initial_rows(
    operator: &StateOperator,
    keys: usize,
    instances: usize,
) -> Result<Vec<Vec<InitialRow>>, EngineError> {
    let mut of_instances: Vec<_> = (0..instances).map(|_| Vec::new()).collect();
    let Some(initial) = &operator.initial else { return Ok(of_instances) };
    let mut writer = KeyWriter::new(keys, &initial.types);
    for mut values in (initial.read)()? {
        let hash = writer.hash(Row(&encode(&values)))?;
        values.drain(..keys);
        let row = InitialRow { key: writer.key.clone(), values };
        of_instances[instance_of(hash, instances)].push(row);
    }
    Ok(of_instances)
}

/// Builds an instance of the operator, which emits into `down`.
pub(in crate::table) fn instance<P: StatefulProcessor>(
    processor: P,
    states: Arc<States>,
    parts: InstanceParts,
    down: BoxChain,
) -> BoxChain {
    let InstanceParts { operator, types, keys, event, late, timed, continuous, initial, .. } =
        parts;
    let rule = operator.rule(parts.event_time, timed);
    let process = ProcessorParts {
        states,
        times: parts.times,
        continuous,
        timed,
        lag_us: parts.lag_us,
        defers_timers: true,
        env: parts.env,
        log: parts.log,
    };
    let width = types.len();
    let column = |i: usize| Key::column(i, width, &types[i]);
    let key_columns = (0..keys).map(column).collect();
    let rows = RowProcessor { processor, rule, types: types.into(), keys, method: operator.method };
    let mut stage = GroupRows {
        keys: key_columns,
        key: Vec::new(),
        scratch: Scratch::default(),
        event,
        late,
        places: HashMap::default(),
        groups: Vec::new(),
        gives: false,
        marker: None,
        down: Typed(Process::new(rows, process, EmitRows { down }), None),
    };
    initial.into_iter().for_each(|row| stage.group(row.key, UNTIMED).initial.push(row.values));
    if stage.late.is_in_band() {
        stage.end_of_groups();
    }
    Box::new(stage)
}

/// Adapts a user's [`StatefulProcessor`] to a processor of groups.
#[derive(Clone)]
pub(in crate::table) struct RowProcessor<P> {
    processor: P,
    rule: OutputRule,
    types: Arc<[DataType]>,
    keys: usize,
    method: StateMethod,
}

impl<P: StatefulProcessor> RowProcessor<P> {
    fn key(&self, key: &RowKey) -> Vec<Value> {
        decode(Row(&key.0), self.types[..self.keys].iter())
    }

    /// Converts an error of the user's function. An [`EngineError`] is passed on unchanged.
    fn failed(&self, error: StateError) -> EngineError {
        match error.downcast::<EngineError>() {
            Ok(error) => *error,
            Err(error) => EngineError::operator(
                match self.method {
                    StateMethod::Transform => "TRANSFORM_WITH_STATE_USER_FUNCTION_ERROR",
                    StateMethod::FlatMapGroups | StateMethod::MapGroups => {
                        "FLATMAPGROUPSWITHSTATE_USER_FUNCTION_ERROR"
                    }
                },
                format!("the function of {} failed: {error}", self.method.name()),
                "See the error of the function",
            ),
        }
    }
}

impl<P: StatefulProcessor> Processor<RowKey, Group> for RowProcessor<P> {
    type Output = Vec<u8>;

    fn record(
        &mut self,
        key: &RowKey,
        group: Group,
        cx: &mut Context<'_, Vec<u8>>,
    ) -> Result<(), EngineError> {
        let key = self.key(key);
        let Self { processor, rule, types, keys, method } = self;
        let mut handle = StatefulProcessorHandle { cx, rule };
        let Group { initial, rows } = group;
        // A function of groups is also called for a key that has only an initial state.
        let has_rows = !rows.is_empty() || method.is_of_groups();
        let rows = InputRows { rows: rows.iter(), types, skip: *keys };
        let mut initial = initial.into_iter();
        let mut done =
            initial.try_for_each(|row| processor.handle_initial_state(&key, row, &mut handle));
        if has_rows && done.is_ok() {
            done = processor.handle_input_rows(&key, rows, &mut handle);
        }
        done.map_err(|error| self.failed(error))
    }

    fn timer(
        &mut self,
        key: &RowKey,
        timer: Timer,
        cx: &mut Context<'_, Vec<u8>>,
    ) -> Result<(), EngineError> {
        let (Timer::EventTime(us) | Timer::ProcessingTime(us)) = timer;
        let key = self.key(key);
        let Self { processor, rule, .. } = self;
        let mut handle = StatefulProcessorHandle { cx, rule };
        let done = processor.handle_expired_timer(&key, us.div_euclid(1000), &mut handle);
        done.map_err(|error| self.failed(error))
    }
}

/// Passes the rows that a processor emits to the next stage.
pub(in crate::table) struct EmitRows {
    down: BoxChain,
}

impl Stage for EmitRows {
    pass_control!(down);
}

impl Push<Vec<u8>> for EmitRows {
    fn push(&mut self, row: Vec<u8>, ingest_ns: u64) -> Result<(), EngineError> {
        self.down.push(Row(&row), ingest_ns)
    }
}

/// Calls the processor for each row immediately, if watermarks arrive between records (continuous
/// mode). Otherwise collects the rows of a batch by key. At the end of the batch, calls the
/// processor for each key, in the order in which the keys first appeared.
struct GroupRows<P: StatefulProcessor> {
    keys: Vec<Key>,
    key: Vec<u8>,
    scratch: Scratch,
    event: Option<(Slot, bool)>,
    late: LateRows,
    /// The index of each key's group in `groups`.
    places: HashMap<Vec<u8>, usize, BuildStableHasher>,
    /// The groups for which the processor was not called yet. While it is being called, they are in
    /// reverse order and are taken from the end.
    groups: Vec<(RowKey, Group, u64)>,
    /// Whether collection has ended and the processor is being called for the groups.
    gives: bool,
    /// A marker to pass on after the processor was called for all groups.
    marker: Option<Epoch>,
    down: Typed<Group, Process<RowKey, RowProcessor<P>, EmitRows>>,
}

impl<P: StatefulProcessor> GroupRows<P> {
    /// The group of a key, created if it is missing.
    fn group(&mut self, key: RowKey, ingest_ns: u64) -> &mut Group {
        let place = match self.places.get(&key.0) {
            Some(place) => *place,
            None => {
                self.places.insert(key.0.clone(), self.groups.len());
                self.groups.push((key, Group::default(), ingest_ns));
                self.groups.len() - 1
            }
        };
        &mut self.groups[place].1
    }

    /// Ends the collection of rows. The processor is then called for the groups, in their order.
    fn end_of_groups(&mut self) {
        self.places.clear();
        self.groups.reverse();
        self.gives = !self.groups.is_empty();
    }

    /// Calls the processor for up to [`STEP`] groups. After the last group, passes on a pending
    /// marker.
    fn give(&mut self) -> Result<(), EngineError> {
        for _ in 0..STEP {
            if !self.down.is_ready() {
                return Ok(());
            }
            let Some((key, group, ingest_ns)) = self.groups.pop() else { break };
            self.down.push((key, group), ingest_ns)?;
        }
        self.gives = !self.groups.is_empty();
        match self.marker.filter(|_| !self.gives) {
            Some(epoch) => {
                self.marker = None;
                self.down.marker(epoch)
            }
            None => Ok(()),
        }
    }
}

impl<P: StatefulProcessor> Stage for GroupRows<P> {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.down.attach(io)
    }
    fn is_ready(&mut self) -> bool {
        self.marker.is_none() && !self.gives && self.down.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        if !millstream_engine::event::is_idle(micros) {
            self.late.advance(micros);
        }
        self.down.watermark(micros)
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        if !self.gives {
            self.end_of_groups();
        }
        self.marker = Some(epoch);
        self.give()
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        if self.marker.is_none() && !self.gives {
            return self.down.flush();
        }
        self.give()?;
        let below = self.down.flush()?;
        let is_left = self.marker.is_some() || self.gives;
        Ok(if is_left { below.max(FlushStatus::Pending) } else { below })
    }
    fn next_timer_ns(&self) -> Option<u64> {
        self.down.next_timer_ns()
    }
}

impl<'a, P: StatefulProcessor> Push<Row<'a>> for GroupRows<P> {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        if let Some((slot, window)) = self.event
            && !row.is_null(slot)
        {
            let time_us =
                if window { Row(row.bytes(slot)).long(Slot::new(1, 2)) } else { row.long(slot) };
            if time_us <= self.late.late_row_watermark_us() {
                self.late.send_to_side_output(row);
                self.down.0.count_late();
                return Ok(());
            }
        }
        self.key.clear();
        self.scratch.reset();
        write_keys(&self.keys, &self.scratch, row, &mut self.key)?;
        let row = RowBuf::from_slice(row.0);
        if self.late.is_in_band() {
            let group = Group { initial: Vec::new(), rows: vec![row] };
            return self.down.push((RowKey(self.key.clone()), group), ingest_ns);
        }
        if let Some(place) = self.places.get(&self.key) {
            self.groups[*place].1.rows.push(row);
            return Ok(());
        }
        let key = RowKey(self.key.clone());
        self.group(key, ingest_ns).rows.push(row);
        Ok(())
    }
}

/// Sends rows to the instances that own their keys. The hash of the key's checkpoint encoding
/// selects the instance.
pub(super) struct KeyOutbox {
    writer: KeyWriter,
    down: RowOutbox,
}

impl KeyOutbox {
    /// Creates an outbox for rows whose first `keys` columns are the keys.
    pub fn new(keys: usize, types: &[DataType], down: RowOutbox) -> Self {
        Self { writer: KeyWriter::new(keys, types), down }
    }
}

impl Stage for KeyOutbox {
    pass_control!(down);
}

impl<'a> Push<Row<'a>> for KeyOutbox {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        let hash = self.writer.hash(row)?;
        self.down.send(hash, row, ingest_ns);
        Ok(())
    }
}
