//! Sorts the result table of each epoch at its marker, and implements LIMIT and OFFSET.

use crate::table::expr::compile::{Compiled, Semantics, compile, write_field};
use crate::table::expr::functions::order_values as order;
use crate::table::physical::stages::{BoxChain, Scratch};
use crate::table::plan::SortKey;
use crate::table::row::{Row, RowWriter, decode};
use crate::table::types::DataType;
use crate::table::value::Value;
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::pass_control;
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};
use millstream_engine::runtime::state_log::{StateLog, StateSlot};
use std::cmp::Ordering;

/// The maximum number of rows emitted per step.
const EMIT_STEP: usize = 256;

struct CompiledSortKey {
    value: Compiled,
    data_type: DataType,
    is_descending: bool,
    nulls_first: bool,
}

struct SortedRow {
    key: Vec<Value>,
    row: Vec<u8>,
    ingest_ns: u64,
}

/// Buffers the rows of an epoch and emits them in order at its marker.
pub(super) struct Sort {
    keys: Vec<CompiledSortKey>,
    held: Vec<SortedRow>,
    emitting: Option<(usize, Epoch)>,
    scratch: Scratch,
    down: BoxChain,
}

impl Sort {
    pub fn new(keys: &[SortKey], width: usize, semantics: Semantics, down: BoxChain) -> Self {
        let keys = keys.iter().map(|key| CompiledSortKey {
            value: compile(&key.expr, width, semantics),
            data_type: key.expr.data_type.clone(),
            is_descending: key.descending,
            nulls_first: key.nulls_first,
        });
        Self {
            keys: keys.collect(),
            held: Vec::new(),
            emitting: None,
            scratch: Scratch::default(),
            down,
        }
    }

    fn step(&mut self) -> Result<bool, EngineError> {
        let Some((mut next, epoch)) = self.emitting.take() else { return Ok(true) };
        let mut budget = EMIT_STEP;
        while next < self.held.len() && budget > 0 && self.down.is_ready() {
            let held = &self.held[next];
            self.down.push(Row(&held.row), held.ingest_ns)?;
            next += 1;
            budget -= 1;
        }
        if next < self.held.len() {
            self.emitting = Some((next, epoch));
            return Ok(false);
        }
        self.held.clear();
        self.down.marker(epoch)?;
        Ok(true)
    }
}

impl Stage for Sort {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.down.attach(io)
    }
    fn is_ready(&mut self) -> bool {
        self.emitting.is_none()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.down.watermark(micros)
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        let keys = &self.keys;
        self.held.sort_by(|a, b| {
            let columns = a.key.iter().zip(&b.key).zip(keys);
            columns.fold(Ordering::Equal, |so_far, ((a, b), key)| {
                so_far.then_with(|| match (a == &Value::Null, b == &Value::Null) {
                    (true, true) => Ordering::Equal,
                    (true, false) if key.nulls_first => Ordering::Less,
                    (false, true) if !key.nulls_first => Ordering::Less,
                    (true, false) | (false, true) => Ordering::Greater,
                    _ if key.is_descending => order(b, a),
                    _ => order(a, b),
                })
            })
        });
        self.emitting = Some((0, epoch));
        self.step()?;
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        if self.emitting.is_none() {
            return self.down.flush();
        }
        let ended = self.step()?;
        let below = self.down.flush()?;
        Ok(if ended || below == FlushStatus::Blocked { below } else { FlushStatus::Pending })
    }

    fn next_timer_ns(&self) -> Option<u64> {
        self.down.next_timer_ns()
    }
}

impl<'a> Push<Row<'a>> for Sort {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.scratch.reset();
        let mut bytes = Vec::new();
        let mut writer = RowWriter::new(&mut bytes, self.keys.len());
        for (index, key) in self.keys.iter().enumerate() {
            write_field(&key.value, self.scratch.cx(row), &mut writer, index)?;
        }
        let types: Vec<_> = self.keys.iter().map(|key| &key.data_type).collect();
        let key = decode(Row(&bytes), types.into_iter());
        self.held.push(SortedRow { key, row: row.0.to_vec(), ingest_ns });
        Ok(())
    }
}

/// The stage of LIMIT: passes on the first rows of the whole stream, or of each epoch's table.
pub(super) struct Limit {
    most: u64,
    taken: u64,
    /// The state log that stores the number of rows passed on; `None` if the count restarts in each
    /// epoch.
    log: Option<(StateLog, StateSlot)>,
    down: BoxChain,
}

impl Limit {
    pub fn new(most: u64, log: Option<StateLog>, down: BoxChain) -> Self {
        Self { most, taken: 0, log: log.map(|log| (log, StateSlot::default())), down }
    }
}

impl Stage for Limit {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        if let Some((log, _)) = &mut self.log {
            let taken = &mut self.taken;
            log.restore(|_, _, value| {
                let value = value.and_then(|value| value.try_into().ok());
                *taken = value.map_or(0, u64::from_le_bytes);
                Ok(())
            })?;
        }
        self.down.attach(io)
    }
    fn is_ready(&mut self) -> bool {
        self.down.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.down.watermark(micros)
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        match &mut self.log {
            Some((log, _)) => log.hand_over(epoch, 1, 8),
            None => self.taken = 0,
        }
        self.down.marker(epoch)
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        self.down.flush()
    }

    fn next_timer_ns(&self) -> Option<u64> {
        self.down.next_timer_ns()
    }
}

impl<'a> Push<Row<'a>> for Limit {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        if self.taken == self.most {
            return Ok(());
        }
        self.taken += 1;
        if let Some((log, slot)) = &mut self.log {
            log.put(slot, hash_bytes(&[]), &[], &self.taken.to_le_bytes());
        }
        self.down.push(row, ingest_ns)
    }
}

/// The stage of OFFSET: drops the first rows of a bounded table.
pub(super) struct Offset {
    rows: u64,
    dropped: u64,
    down: BoxChain,
}

impl Offset {
    pub fn new(rows: u64, down: BoxChain) -> Self {
        Self { rows, dropped: 0, down }
    }
}

impl Stage for Offset {
    pass_control!(down);
}

impl<'a> Push<Row<'a>> for Offset {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        if self.dropped < self.rows {
            self.dropped += 1;
            return Ok(());
        }
        self.down.push(row, ingest_ns)
    }
}
