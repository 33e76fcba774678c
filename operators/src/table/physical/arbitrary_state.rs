//! The stages of one instance of a processor of rows: they collect rows by key, call the processor,
//! and emit its results.

use super::aggregate::hash_aggregate::{Key, write_keys};
use super::late_row::LateRows;
use super::row_exchange::RowOutbox;
use super::stages::{BoxChain, Scratch};
use crate::stream::operator::process::{Process, ProcessorParts, Typed};
use crate::stream::{Context, Processor, States, Timer, write_kept};
use crate::table::arbitrary_state::node::StateOperator;
use crate::table::arbitrary_state::processor::{
    InputRows, OutputRule, StateError, StatefulProcessor, StatefulProcessorHandle,
};
use crate::table::row::{Row, RowBuf, Slot, decode};
use crate::table::types::DataType;
use crate::table::value::Value;
use millstream_engine::checkpoint::key_group::{BuildStableHasher, hash_bytes};
use millstream_engine::env::Env;
use millstream_engine::epoch::event_time::BatchTimes;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::pass_control;
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};
use millstream_engine::runtime::state_log::StateLog;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// Maximum number of keys for which the processor is called in one step.
const STEP: usize = 256;

/// The keys of a group, as a row of their values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::table) struct RowKey(Vec<u8>);

/// The rows of one key.
pub(in crate::table) struct Group(Vec<RowBuf>);

/// The parts from which an instance is built.
pub(in crate::table) struct InstanceParts {
    pub operator: StateOperator,
    /// The types of the columns: the keys, then those of the rows.
    pub types: Vec<DataType>,
    /// The number of keys.
    pub keys: usize,
    /// The event time that decides whether a row is late, and whether it is a window.
    pub event: Option<(Slot, bool)>,
    /// The index of the output's event time.
    pub event_time: Option<usize>,
    pub(super) late: LateRows,
    pub lag_us: i64,
    /// Whether the rows have a watermark.
    pub timed: bool,
    pub continuous: bool,
    pub times: BatchTimes,
    pub env: Arc<dyn Env>,
    pub log: StateLog,
}

/// Builds an instance in front of a chain.
pub(in crate::table) fn instance<P: StatefulProcessor>(
    processor: P,
    states: Arc<States>,
    parts: InstanceParts,
    down: BoxChain,
) -> BoxChain {
    let InstanceParts { operator, types, keys, event, late, timed, continuous, .. } = parts;
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
    let rows =
        RowProcessor { processor, rule, types: types.into(), keys, name: operator.method.name() };
    Box::new(GroupRows {
        keys: key_columns,
        key: Vec::new(),
        scratch: Scratch::default(),
        event,
        late,
        places: HashMap::default(),
        groups: Vec::new(),
        marker: None,
        down: Typed(Process::new(rows, process, EmitRows { down }), None),
    })
}

/// Adapts a processor of rows to a processor of groups.
#[derive(Clone)]
pub(in crate::table) struct RowProcessor<P> {
    processor: P,
    rule: OutputRule,
    types: Arc<[DataType]>,
    keys: usize,
    name: &'static str,
}

impl<P: StatefulProcessor> RowProcessor<P> {
    fn key(&self, key: &RowKey) -> Vec<Value> {
        decode(Row(&key.0), self.types[..self.keys].iter())
    }

    /// Wraps an error of the user's function.
    fn failed(&self, error: StateError) -> EngineError {
        match error.downcast::<EngineError>() {
            Ok(error) => *error,
            Err(error) => EngineError::operator(
                match self.name {
                    "transformWithState" => "TRANSFORM_WITH_STATE_USER_FUNCTION_ERROR",
                    _ => "FLATMAPGROUPSWITHSTATE_USER_FUNCTION_ERROR",
                },
                format!("the function of {} failed: {error}", self.name),
                "See the reason that the function gave",
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
        let Self { processor, rule, types, keys, .. } = self;
        let rows = InputRows { rows: group.0.iter(), types, skip: *keys };
        let mut handle = StatefulProcessorHandle { cx, rule };
        let done = processor.handle_input_rows(&key, rows, &mut handle);
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

/// Passes the rows that a processor has emitted to the chain below.
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

/// Collects the rows of a batch by key. At the end of the batch it calls the processor for each
/// key, in the order in which the keys first appeared. In continuous mode it calls the processor
/// for each row immediately.
struct GroupRows<P: StatefulProcessor> {
    keys: Vec<Key>,
    key: Vec<u8>,
    scratch: Scratch,
    event: Option<(Slot, bool)>,
    late: LateRows,
    /// The index of each key's group.
    places: HashMap<Vec<u8>, usize, BuildStableHasher>,
    /// The groups. Reversed while the processor is called, so that the first group is last.
    groups: Vec<(RowKey, Group, u64)>,
    /// A marker to pass on after the groups.
    marker: Option<Epoch>,
    down: Typed<Group, Process<RowKey, RowProcessor<P>, EmitRows>>,
}

impl<P: StatefulProcessor> GroupRows<P> {
    /// Calls the processor for some groups, and passes the marker on after the last one.
    fn give(&mut self) -> Result<(), EngineError> {
        for _ in 0..STEP {
            if !self.down.is_ready() {
                return Ok(());
            }
            let Some((key, group, ingest_ns)) = self.groups.pop() else { break };
            self.down.push((key, group), ingest_ns)?;
        }
        match self.marker.filter(|_| self.groups.is_empty()) {
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
        self.marker.is_none() && self.down.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        if micros != millstream_engine::event::IDLE {
            self.late.advance(micros);
        }
        self.down.watermark(micros)
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.places.clear();
        self.groups.reverse();
        self.marker = Some(epoch);
        self.give()
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        if self.marker.is_none() {
            return self.down.flush();
        }
        self.give()?;
        let below = self.down.flush()?;
        Ok(if self.marker.is_some() { below.max(FlushStatus::Pending) } else { below })
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
            return self.down.push((RowKey(self.key.clone()), Group(vec![row])), ingest_ns);
        }
        match self.places.get(&self.key) {
            Some(place) => self.groups[*place].1.0.push(row),
            None => {
                self.places.insert(self.key.clone(), self.groups.len());
                self.groups.push((RowKey(self.key.clone()), Group(vec![row]), ingest_ns));
            }
        }
        Ok(())
    }
}

/// Sends rows to the instances that own their keys, by the hash of the key's encoding in
/// checkpoints.
pub(super) struct KeyOutbox {
    keys: Vec<Key>,
    scratch: Scratch,
    key: RowKey,
    encoded: Vec<u8>,
    down: RowOutbox,
}

impl KeyOutbox {
    /// Creates an outbox for rows whose first `keys` columns are the keys.
    pub fn new(keys: usize, types: &[DataType], down: RowOutbox) -> Self {
        let column = |i: usize| Key::column(i, types.len(), &types[i]);
        let keys = (0..keys).map(column).collect();
        let (scratch, key) = (Scratch::default(), RowKey(Vec::new()));
        Self { keys, scratch, key, encoded: Vec::new(), down }
    }
}

impl Stage for KeyOutbox {
    pass_control!(down);
}

impl<'a> Push<Row<'a>> for KeyOutbox {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.key.0.clear();
        self.encoded.clear();
        write_keys(&self.keys, &self.scratch, row, &mut self.key.0)?;
        write_kept(&self.key, &mut self.encoded)?;
        self.down.send(hash_bytes(&self.encoded), row, ingest_ns);
        Ok(())
    }
}
