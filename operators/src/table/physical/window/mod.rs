//! Window functions over tables.
//!
//! The stage buffers the rows of a table. At the marker it sorts them by the keys of PARTITION BY
//! and ORDER BY, and then emits partition after partition, each row with the results of the
//! functions. It runs in one instance, on batch queries only.
//!
//! *Cost.* Sorting costs O(n log n). A ranking function costs O(n) per partition. An aggregate over
//! a frame costs O(n) too, whatever the size of the frame ([`sliding`]); exceptions are functions
//! with a growing accumulator, such as `collect_list`, which are computed anew for each frame.

mod counter;
mod frame;
mod ranking;
mod sliding;

use crate::table::expr::Resolved;
use crate::table::expr::compile::{CellFn, Semantics, compile, fold};
use crate::table::expr::functions::order_values;
use crate::table::physical::accumulator::Function;
use crate::table::physical::stages::{BoxChain, CopiedColumn, Scratch, copy};
use crate::table::physical::window::frame::{Frames, Keys};
use crate::table::plan::SortKey;
use crate::table::plan::window_function::{WindowFunction, Windows};
use crate::table::row::{Row, RowWriter, Slot};
use crate::table::types::DataType;
use crate::table::value::Value;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};
use std::cmp::Ordering;

/// The maximum number of rows emitted per step.
const EMIT_STEP: usize = 256;

/// A row of the table, with its keys.
struct HeldRow {
    partition: Vec<Value>,
    order: Vec<Value>,
    row: Vec<u8>,
    ingest_ns: u64,
}

/// An expression with its type.
struct Expression {
    cell: CellFn,
    data_type: DataType,
}

impl Expression {
    fn value(&self, scratch: &Scratch, row: &[u8]) -> Result<Value, EngineError> {
        Ok((self.cell)(scratch.cx(Row(row)))?.value(&self.data_type))
    }
}

/// A compiled call.
enum Compute {
    RowNumber,
    Rank,
    DenseRank,
    PercentRank,
    CumulativeDistribution,
    Tile(i64),
    Shifted { value: Expression, offset: i64, default: Expression, ignores_nulls: bool },
    Nth { value: Expression, n: i64, ignores_nulls: bool },
    CounterDifference { value: Expression, start: Option<Expression> },
    Aggregate { function: Box<Function>, merges: bool },
}

/// The direction of a key of ORDER BY.
#[derive(Clone, Copy)]
struct Direction {
    descending: bool,
    nulls_first: bool,
}

/// The rows that are emitted: those of the partitions so far, and of the current one.
struct Emission {
    next: usize,
    /// The end of the current partition.
    end: usize,
    /// The results of each function for the rows of the current partition, which starts at `start`.
    start: usize,
    results: Vec<Vec<Value>>,
    epoch: Epoch,
}

/// Computes window functions over a table.
pub(super) struct WindowStage {
    partition: Vec<Expression>,
    order: Vec<Expression>,
    directions: Vec<Direction>,
    calls: Vec<(Compute, Frames)>,
    copied: Vec<CopiedColumn>,
    held: Vec<HeldRow>,
    emission: Option<Emission>,
    scratch: Scratch,
    out: Vec<u8>,
    down: BoxChain,
}

impl WindowStage {
    pub fn new(
        windows: &Windows,
        input: &[&DataType],
        semantics: Semantics,
        down: BoxChain,
    ) -> Self {
        let width = input.len();
        let expression = |expr: &Resolved| Expression {
            cell: compile(&fold(expr.clone(), semantics), width, semantics).cells(),
            data_type: expr.data_type.clone(),
        };
        let compute = |function: &WindowFunction| match function {
            WindowFunction::RowNumber => Compute::RowNumber,
            WindowFunction::Rank => Compute::Rank,
            WindowFunction::DenseRank => Compute::DenseRank,
            WindowFunction::PercentRank => Compute::PercentRank,
            WindowFunction::CumulativeDistribution => Compute::CumulativeDistribution,
            WindowFunction::Tile(tiles) => Compute::Tile(*tiles),
            WindowFunction::Shifted { value, offset, default, ignores_nulls } => Compute::Shifted {
                value: expression(value),
                offset: *offset,
                default: expression(default),
                ignores_nulls: *ignores_nulls,
            },
            WindowFunction::Nth { value, n, ignores_nulls } => {
                Compute::Nth { value: expression(value), n: *n, ignores_nulls: *ignores_nulls }
            }
            WindowFunction::CounterDifference { value, start } => Compute::CounterDifference {
                value: expression(value),
                start: start.as_ref().map(expression),
            },
            WindowFunction::Aggregate(call) => {
                let function = Function::new(call, width, semantics);
                let merges = call.user.is_none() && !call.distinct && function.merges_in_frames();
                Compute::Aggregate { function: Box::new(function), merges }
            }
        };
        let calls = windows
            .calls
            .iter()
            .map(|call| (compute(&call.function), Frames::new(&call.frame, &expression)));
        let calls = calls.collect();
        let copied = (0..width).map(|i| CopiedColumn {
            from: Slot::new(i, width),
            to: i,
            physical: input[i].physical(),
        });
        let direction =
            |key: &SortKey| Direction { descending: key.descending, nulls_first: key.nulls_first };
        Self {
            partition: windows.partition.iter().map(expression).collect(),
            order: windows.order.iter().map(|key| expression(&key.expr)).collect(),
            directions: windows.order.iter().map(direction).collect(),
            calls,
            copied: copied.collect(),
            held: Vec::new(),
            emission: None,
            scratch: Scratch::default(),
            out: Vec::new(),
            down,
        }
    }

    fn sort(&mut self) {
        let directions = &self.directions;
        let ascending = Direction { descending: false, nulls_first: true };
        self.held.sort_by(|a, b| {
            let partitions = a.partition.iter().zip(&b.partition);
            partitions
                .fold(Ordering::Equal, |so_far, (a, b)| {
                    so_far.then_with(|| compare(a, b, ascending))
                })
                .then_with(|| compare_keys(&a.order, &b.order, directions))
        });
    }

    /// Computes the results of the partition that starts at a row.
    fn begin_partition(&mut self, start: usize, epoch: Epoch) -> Result<Emission, EngineError> {
        let same = |other: &HeldRow| {
            let pairs = self.held[start].partition.iter().zip(&other.partition);
            let ascending = Direction { descending: false, nulls_first: true };
            pairs.into_iter().all(|(a, b)| compare(a, b, ascending) == Ordering::Equal)
        };
        let end = start + self.held[start..].partition_point(same);
        let rows = &self.held[start..end];
        let keys = Keys::new(rows, &self.directions);
        let mut results = Vec::with_capacity(self.calls.len());
        for (compute, frames) in &self.calls {
            self.scratch.reset();
            results.push(compute.results(rows, &keys, frames, &mut self.scratch)?);
        }
        Ok(Emission { next: start, start, end, results, epoch })
    }

    /// Emits some rows. Returns whether all have been emitted.
    fn step(&mut self) -> Result<bool, EngineError> {
        let Some(mut emission) = self.emission.take() else { return Ok(true) };
        let (width, mut budget) = (self.copied.len(), EMIT_STEP);
        while emission.next < self.held.len() && budget > 0 && self.down.is_ready() {
            if emission.next == emission.end {
                emission = self.begin_partition(emission.next, emission.epoch)?;
            }
            let held = &self.held[emission.next];
            self.out.clear();
            let mut writer = RowWriter::new(&mut self.out, width + emission.results.len());
            for CopiedColumn { from, to, physical } in &self.copied {
                copy(&mut writer, *to, Row(&held.row), *from, *physical);
            }
            for (i, results) in emission.results.iter().enumerate() {
                writer.value(width + i, &results[emission.next - emission.start]);
            }
            self.down.push(Row(&self.out), held.ingest_ns)?;
            emission.next += 1;
            budget -= 1;
        }
        if emission.next < self.held.len() {
            self.emission = Some(emission);
            return Ok(false);
        }
        self.held.clear();
        self.down.marker(emission.epoch)?;
        Ok(true)
    }
}

/// Compares two values in an order.
fn compare(a: &Value, b: &Value, direction: Direction) -> Ordering {
    match (a == &Value::Null, b == &Value::Null) {
        (true, true) => Ordering::Equal,
        (true, false) if direction.nulls_first => Ordering::Less,
        (true, false) => Ordering::Greater,
        (false, true) if direction.nulls_first => Ordering::Greater,
        (false, true) => Ordering::Less,
        _ if direction.descending => order_values(b, a),
        _ => order_values(a, b),
    }
}

/// Compares the keys of ORDER BY of two rows.
fn compare_keys(a: &[Value], b: &[Value], directions: &[Direction]) -> Ordering {
    let keys = a.iter().zip(b).zip(directions);
    keys.fold(Ordering::Equal, |so_far, ((a, b), direction)| {
        so_far.then_with(|| compare(a, b, *direction))
    })
}

impl Stage for WindowStage {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.down.attach(io)
    }
    fn is_ready(&mut self) -> bool {
        self.emission.is_none()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.down.watermark(micros)
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.sort();
        let emission = Emission { next: 0, start: 0, end: 0, results: Vec::new(), epoch };
        self.emission = Some(emission);
        self.step()?;
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        if self.emission.is_none() {
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

impl<'a> Push<Row<'a>> for WindowStage {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.scratch.reset();
        let values = |exprs: &[Expression], scratch: &Scratch| {
            exprs.iter().map(|expr| expr.value(scratch, row.0)).collect::<Result<Vec<_>, _>>()
        };
        let partition = values(&self.partition, &self.scratch)?;
        let order = values(&self.order, &self.scratch)?;
        self.held.push(HeldRow { partition, order, row: row.0.to_vec(), ingest_ns });
        Ok(())
    }
}
