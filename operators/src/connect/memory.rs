//! Rows pushed by the program, and results kept in a table to be read by name. For tests and
//! small embedded uses; typed streams have a faster edge (`stream::Flow::channel`).

use crate::table::row::{Row, decode, encode};
use crate::table::types::{DataType, Schema};
use crate::table::value::Value;
use millstream_engine::driver::Planned;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::latency::LatencyRecorder;
use millstream_engine::seam::Env;
use millstream_engine::stage::{Io, Push, Settled, Stage};
use millstream_engine::tasklet::{Offset, Polled, Source, StepCx};
use millstream_engine::wake::Waker;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// Encoded rows with their ingest times.
type Rows = VecDeque<(Vec<u8>, u64)>;

#[derive(Default)]
struct Shared {
    /// Rows not yet read, and whether the stream is closed.
    queue: Mutex<(Rows, bool)>,
    reader: OnceLock<(Arc<dyn Env>, Waker)>,
    /// Whether a query has it.
    claimed: AtomicBool,
}

/// Where a program adds rows. Clones push into the same stream.
#[derive(Clone)]
pub struct MemoryStream {
    schema: Schema,
    shared: Arc<Shared>,
}

impl MemoryStream {
    /// A stream with this schema.
    pub fn new(schema: Schema) -> Self {
        Self { schema, shared: Arc::default() }
    }

    /// Its columns.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Adds rows, all at once: in micro-batch mode they are never split over two batches that
    /// are planned before and after the call.
    pub fn add(&self, rows: impl IntoIterator<Item = Vec<Value>>) {
        let now_ns = self.shared.reader.get().map_or(0, |(env, _)| env.now_ns());
        let rows: Vec<_> = rows.into_iter().map(|row| (encode(&row), now_ns)).collect();
        self.shared.queue.lock().unwrap_or_else(|p| p.into_inner()).0.extend(rows);
        self.wake();
    }

    /// Says that nothing more will come.
    pub fn close(&self) {
        self.shared.queue.lock().unwrap_or_else(|p| p.into_inner()).1 = true;
        self.wake();
    }

    fn wake(&self) {
        if let Some((_, waker)) = self.shared.reader.get() {
            waker.wake();
        }
    }

    /// The source of one query; a second one is refused.
    pub fn source(&self, env: Arc<dyn Env>) -> Result<MemorySource, EngineError> {
        // ORDERING: relaxed: of several callers one sees `false`, and nothing else depends on it.
        if self.shared.claimed.swap(true, Ordering::Relaxed) {
            return Err(EngineError::operator(
                "MEMORY_STREAM_IN_USE",
                "a memory stream feeds one query, once",
                "Make another stream for another query",
            ));
        }
        let (stream, staged) = (self.clone(), Rows::new());
        Ok(MemorySource { stream, env, emitted: 0, staged, bound: None })
    }
}

/// The source.
pub struct MemorySource {
    stream: MemoryStream,
    env: Arc<dyn Env>,
    emitted: u64,
    staged: Rows,
    bound: Option<u64>,
}

impl MemorySource {
    fn stage(&mut self) -> bool {
        let mut queue = self.stream.shared.queue.lock().unwrap_or_else(|p| p.into_inner());
        self.staged.append(&mut queue.0);
        queue.1
    }
}

impl<D: for<'a> Push<Row<'a>>> Source<D> for MemorySource {
    fn name(&self) -> &str {
        "memory"
    }

    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        // Set once: the stream was claimed by this source.
        let _ = self.stream.shared.reader.set((self.env.clone(), io.waker.clone()));
        Ok(())
    }

    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        let mut closed = false;
        if self.bound.is_none() && self.staged.is_empty() {
            closed = self.stage();
        }
        let before = self.emitted;
        while self.emitted - before < cx.budget as u64
            && self.bound != Some(self.emitted)
            && down.ready()
        {
            let Some((row, ingest_ns)) = self.staged.pop_front() else { break };
            self.emitted += 1;
            down.push(Row(&row), ingest_ns)?;
        }
        if self.bound == Some(self.emitted) {
            self.bound = None;
            return Ok(Polled::AtBound);
        }
        Ok(match (self.emitted > before, closed) {
            (true, _) => Polled::Some,
            (false, true) if self.staged.is_empty() => Polled::Exhausted,
            (false, _) => Polled::Idle,
        })
    }

    fn position(&self) -> Offset {
        Offset(self.emitted.to_string())
    }

    fn plan(&mut self, _cx: &mut StepCx<'_>) -> Result<Planned, EngineError> {
        let exhausted = self.stage();
        let end = self.emitted + self.staged.len() as u64;
        Ok(Planned { end: Offset(end.to_string()), has_new: !self.staged.is_empty(), exhausted })
    }

    fn bound(&mut self, end: &Offset) -> Result<(), EngineError> {
        self.bound = Some(end.0.parse().unwrap_or(self.emitted));
        Ok(())
    }
}

/// A result table in memory.
#[derive(Clone)]
pub struct MemoryTable {
    schema: Schema,
    rows: Arc<Mutex<Vec<Vec<Value>>>>,
}

impl MemoryTable {
    /// An empty table.
    pub fn new(schema: Schema) -> Self {
        Self { schema, rows: Arc::default() }
    }

    /// Its columns.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// A copy of its rows.
    pub fn rows(&self) -> Vec<Vec<Value>> {
        self.rows.lock().unwrap_or_else(|p| p.into_inner()).clone()
    }

    /// Takes its rows out, leaving it empty.
    pub fn take(&self) -> Vec<Vec<Value>> {
        std::mem::take(&mut *self.rows.lock().unwrap_or_else(|p| p.into_inner()))
    }

    /// A sink that fills it: in output mode complete each epoch's table replaces the one before.
    pub fn sink(&self, complete: bool, latency: LatencyRecorder) -> MemorySink {
        let types = self.schema.fields.iter().map(|f| f.data_type.clone()).collect();
        MemorySink { table: self.clone(), types, complete, pending: Vec::new(), latency }
    }
}

/// The sink.
pub struct MemorySink {
    table: MemoryTable,
    types: Vec<DataType>,
    complete: bool,
    pending: Vec<Vec<Value>>,
    latency: LatencyRecorder,
}

impl MemorySink {
    fn deliver(&mut self) {
        if !self.pending.is_empty() {
            let mut rows = self.table.rows.lock().unwrap_or_else(|p| p.into_inner());
            if self.complete {
                rows.clear();
            }
            rows.append(&mut self.pending);
        }
        self.latency.stamp();
    }
}

impl Stage for MemorySink {
    fn ready(&mut self) -> bool {
        true
    }
    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }
    fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
        self.deliver();
        self.latency.publish();
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    fn settle(&mut self) -> Result<Settled, EngineError> {
        if !self.complete {
            self.deliver();
        }
        Ok(Settled::Clear)
    }
}

impl<'a> Push<Row<'a>> for MemorySink {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.pending.push(decode(row, self.types.iter()));
        self.latency.note(ingest_ns);
        Ok(())
    }
}
