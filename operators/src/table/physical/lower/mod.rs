//! Lowering: translates a logical plan and a sink to the tasklets of a job.

mod aggregate;
mod arbitrary_state;
mod bare_join;
mod batch_time;
mod deduplicate;
mod join;
mod sources;
mod state_operators;

pub use bare_join::BareJoin;
pub use state_operators::state_operators;

use batch_time::with_batch_time;
use sources::Read;

use crate::event_time::future_skew::{FutureSkewFilter, FutureSkewLimit};
use crate::event_time::watermark::WatermarkAssigner;
use crate::table::expr::compile::{Compiled, Semantics, compile, fold};
use crate::table::expr::functions::row_origin::in_partition;
use crate::table::expr::{Node, Resolved};
use crate::table::physical::aggregate::hash_aggregate::Key;
use crate::table::physical::filter::Filter;
use crate::table::physical::generate::Generate;
use crate::table::physical::late_row::{LateOutput, LateRowOutput as LateSide, LateRows};
use crate::table::physical::project::Project;
use crate::table::physical::row_exchange::{BorrowedRows, RowOutbox};
use crate::table::physical::sort::{Limit, Offset, Sort};
use crate::table::physical::stages::BoxChain;
use crate::table::physical::table_signal::TableSignal;
use crate::table::physical::values_source::ValuesSource;
use crate::table::physical::window::WindowStage;
use crate::table::plan::analyzer::OutputMode;
use crate::table::plan::generator::Generator;
use crate::table::plan::optimizer::optimize;
use crate::table::plan::shared_sources::with_equal_readers;
use crate::table::plan::time_window::has_watermark;
use crate::table::plan::{Plan, Scan};
use crate::table::row::{Row, Slot};
use crate::table::types::{DataType, Schema};
use crate::table::value::Value;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::tasklet::{InboxTasklet, SourceTasklet, Tasklet};
use std::sync::Arc;

/// A chain and the worker that it runs on.
pub type PlacedChain = (usize, BoxChain);

/// Creates the tasklets of a source, one per partition, each with the chain after it. The flags
/// tell which columns are read.
pub type MakeSource<'s> = dyn FnMut(&mut Job, &Scan, &[bool], Vec<PlacedChain>) -> Result<Vec<Box<dyn Tasklet>>, EngineError>
    + 's;

/// The idle time-out of a partition in continuous mode, in nanoseconds. A partition without records
/// for this long does not hold back the watermark of its source while other partitions are active:
/// some partitions may never have records. It applies if the session's idle time-out is longer.
const PART_IDLE_NS: u64 = 100_000_000;

/// Adds the tasklets of a query to a job. `sink` is the last stage, `late` receives late rows,
/// `table` tells the sink in mode complete that the whole result was emitted, and `make_source`
/// creates sources.
pub fn lower(
    plan: &Plan,
    (mode, semantics): (OutputMode, Semantics),
    parallelism: usize,
    job: &mut Job,
    (sink, late, table): (BoxChain, Option<LateOutput>, TableSignal),
    make_source: &mut MakeSource<'_>,
) -> Result<(), EngineError> {
    let needed = vec![true; plan.width()];
    let plan = with_batch_time(optimize(&with_equal_readers(plan)), &job.times());
    let batch = !plan.is_streaming();
    let (merges, reads) = (merges_aggregates(&plan), Vec::new());
    let mut lowering = Lowering {
        mode,
        semantics,
        parallelism,
        batch,
        merges,
        late,
        table,
        job,
        make_source,
        reads,
    };
    lowering.feed(&plan, sink, &needed)?;
    lowering.open_sources()
}

struct Lowering<'j, 's> {
    mode: OutputMode,
    semantics: Semantics,
    parallelism: usize,
    /// Whether the query reads no stream, so that there is no event time.
    batch: bool,
    /// Whether a union merges the rows of an aggregation with other rows.
    merges: bool,
    /// Receives late rows, and rows too far ahead of the clock.
    late: Option<LateOutput>,
    /// Set by aggregations in mode complete.
    table: TableSignal,
    job: &'j mut Job,
    make_source: &'j mut MakeSource<'s>,
    /// The sources in the order of their first use in the plan.
    reads: Vec<Read>,
}

/// Whether a plan has a union above an aggregation.
fn merges_aggregates(plan: &Plan) -> bool {
    match plan {
        Plan::Union(_) => plan.has_aggregate(),
        _ => plan.inputs().into_iter().any(merges_aggregates),
    }
}

/// Marks the columns that an expression reads.
fn mark(expr: &Resolved, needed: &mut [bool]) {
    if let Node::Column(index, _) = &expr.node {
        needed[*index] = true;
    }
    expr.children().into_iter().for_each(|child| mark(child, needed));
}

impl Lowering<'_, '_> {
    /// Compiles an expression over rows of `width` columns. Constant subexpressions are folded.
    fn compile(&self, expr: &Resolved, width: usize) -> Compiled {
        compile(&fold(expr.clone(), self.semantics), width, self.semantics)
    }

    /// Lowers `plan` with one chain after it, which reads the `needed` columns. If the plan has
    /// several partitions, their rows are gathered.
    fn feed(&mut self, plan: &Plan, down: BoxChain, needed: &[bool]) -> Result<(), EngineError> {
        let producers = self.places(parts(plan));
        if producers.len() == 1 {
            return self.plan(plan, vec![(0, down)], needed);
        }
        let (outboxes, inlets) = self.job.rings(&producers, &[0]);
        let inlets = inlets.into_iter().flatten().collect();
        let port = self.job.tasklet_port();
        self.job.add_tasklet(
            0,
            Box::new(InboxTasklet::new(port, "gather".to_string(), inlets, BorrowedRows(down))),
        );
        let outbox = |outbox| Box::new(RowOutbox::new(outbox, None)) as BoxChain;
        let downs = producers.into_iter().zip(outboxes.into_iter().map(outbox)).collect();
        self.plan(plan, downs, needed)
    }

    /// Assigns instances to workers, in turn.
    fn places(&self, instances: usize) -> Vec<usize> {
        (0..instances).map(|i| i % self.job.workers()).collect()
    }

    /// Lowers `plan` with chains after it, one per partition, which read the `needed` columns.
    fn plan(
        &mut self,
        plan: &Plan,
        downs: Vec<PlacedChain>,
        needed: &[bool],
    ) -> Result<(), EngineError> {
        match plan {
            Plan::Scan(scan) => {
                self.read(scan, downs, needed);
                Ok(())
            }
            Plan::Alias(input, _) | Plan::QualifyFrom(input, ..) | Plan::Qualified(input, _) => {
                self.plan(input, downs, needed)
            }
            Plan::Values(_, rows) => {
                self.values(rows, downs);
                Ok(())
            }
            Plan::Project(input, exprs) => self.project(input, exprs, downs, needed),
            Plan::Filter(input, condition) => self.filter(input, condition, downs, needed),
            Plan::Generate(input, generator) => self.generate(input, generator, downs, needed),
            Plan::Sort(input, keys) => {
                let stage = Sort::new(keys, input.width(), self.semantics, only(downs));
                self.feed(input, Box::new(stage), &vec![true; input.width()])
            }
            Plan::Window(input, windows) => {
                let columns = input.scope().columns;
                let types: Vec<_> = columns.iter().map(|column| &column.data_type).collect();
                let stage = WindowStage::new(windows, &types, self.semantics, only(downs));
                self.feed(input, Box::new(stage), &vec![true; types.len()])
            }
            Plan::Offset(input, rows) => {
                self.feed(input, Box::new(Offset::new(*rows, only(downs))), needed)
            }
            Plan::Limit(input, most) => {
                let log = if limit_restarts(input, self.mode) {
                    None
                } else {
                    self.job.operator(1).pop()
                };
                let stage = Limit::new(*most, log, only(downs));
                self.feed(input, Box::new(stage), needed)
            }
            Plan::Union(inputs) => self.union(inputs, only(downs), needed),
            Plan::Aggregate(input, keys, calls) => self.aggregate(input, keys, calls, only(downs)),
            Plan::Join(join) if join.is_of_streams() => self.stream_join(join, only(downs), needed),
            Plan::Join(join) => self.join(join, only(downs)),
            Plan::Watermark { input, column, delay_ms, skew_ms } => {
                self.watermark(input, *column, (*delay_ms, *skew_ms), downs, needed)
            }
            Plan::ArbitraryState { input, keys, operator } => {
                self.arbitrary_state(input, *keys, operator, only(downs))
            }
            Plan::Deduplicate { input, keys, within } => {
                self.deduplicate(input, keys, *within, only(downs), needed)
            }
        }
    }

    fn values(&mut self, rows: &[Vec<Value>], downs: Vec<PlacedChain>) {
        for (worker, down) in downs {
            let source = ValuesSource::new(rows);
            let port = self.job.source_port(worker);
            self.job.add_tasklet(worker, Box::new(SourceTasklet::new(port, source, down)));
        }
    }

    /// Lowers a projection. Columns that no later stage reads are not computed, and their inputs
    /// are not read.
    fn project(
        &mut self,
        input: &Plan,
        exprs: &[(Resolved, String)],
        downs: Vec<PlacedChain>,
        needed: &[bool],
    ) -> Result<(), EngineError> {
        let width = input.width();
        let mut below = vec![false; width];
        let read = |((expr, _), needed): (&(Resolved, String), &bool)| {
            if *needed { expr.clone() } else { null(expr) }
        };
        let mut exprs: Vec<_> = exprs.iter().zip(needed).map(read).collect();
        exprs.iter().for_each(|expr| mark(expr, &mut below));
        // The last partition takes the expressions, and the others have copies.
        let mut parts = downs.len();
        let downs = over(downs, |down| {
            parts -= 1;
            let own = if parts == 0 { std::mem::take(&mut exprs) } else { exprs.clone() };
            let own = own.into_iter().map(|expr| in_partition(expr, parts)).collect();
            Box::new(Project::new(own, width, self.semantics, down))
        });
        self.plan(input, downs, &below)
    }

    fn filter(
        &mut self,
        input: &Plan,
        condition: &Resolved,
        downs: Vec<PlacedChain>,
        needed: &[bool],
    ) -> Result<(), EngineError> {
        let mut below = needed.to_vec();
        mark(condition, &mut below);
        let mut partition = 0;
        let downs = over(downs, |down| {
            let condition = in_partition(condition.clone(), partition);
            partition += 1;
            Box::new(Filter::new(&condition, input.width(), self.semantics, down))
        });
        self.plan(input, downs, &below)
    }

    fn generate(
        &mut self,
        input: &Plan,
        generator: &Generator,
        downs: Vec<PlacedChain>,
        needed: &[bool],
    ) -> Result<(), EngineError> {
        let columns = input.scope().columns;
        let types: Vec<_> = columns.iter().map(|c| &c.data_type).collect();
        let downs = over(downs, |down| {
            Box::new(Generate::new(generator, &types, needed, self.semantics, down))
        });
        let mut below = needed[..types.len()].to_vec();
        mark(&generator.array, &mut below);
        self.plan(input, downs, &below)
    }

    fn union(
        &mut self,
        inputs: &[Plan],
        down: BoxChain,
        needed: &[bool],
    ) -> Result<(), EngineError> {
        let producers = vec![0; inputs.len()];
        let (outboxes, inlets) = self.job.rings(&producers, &[0]);
        let inlets = inlets.into_iter().flatten().collect();
        let port = self.job.tasklet_port();
        let name = "union".to_string();
        let timed: Vec<_> = inputs.iter().map(|input| (1, has_watermark(input))).collect();
        let inbox = InboxTasklet::new(port, name, inlets, BorrowedRows(down));
        let inbox = inbox.watermarks(self.job.watermark_policy(), &timed);
        self.job.add_tasklet(0, Box::new(inbox));
        for (input, outbox) in inputs.iter().zip(outboxes) {
            self.feed(input, Box::new(RowOutbox::new(outbox, None)), needed)?;
        }
        Ok(())
    }

    /// Assigns watermarks by the event time in `column`. With `skew_ms`, rows more than this far
    /// ahead of the clock are dropped, and sent to the side output if there is one. Adds no stage
    /// to a batch query.
    fn watermark(
        &mut self,
        input: &Plan,
        column: usize,
        (delay_ms, skew_ms): (i64, Option<i64>),
        downs: Vec<PlacedChain>,
        needed: &[bool],
    ) -> Result<(), EngineError> {
        if self.batch {
            return self.plan(input, downs, needed);
        }
        let columns = input.scope().columns;
        let is_window = matches!(columns[column].data_type, DataType::Struct(_));
        let slot = Slot::new(column, columns.len());
        let resumed_us = self.job.resumed_watermark_ms().saturating_mul(1000);
        let trigger = self.job.trigger();
        let time = move |row: &Row<'_>| match (row.is_null(slot), is_window) {
            // A NULL event time counts as 1970, as in Spark.
            (true, _) => 0,
            (false, true) => Row(row.bytes(slot)).long(Slot::new(1, 2)) - 1,
            (false, false) => row.long(slot),
        };
        let times = self.job.times();
        // In micro-batch mode the partitions of a source share one event time, and the largest
        // event time counts, as in Spark. In continuous mode each partition has its own.
        let first = self.job.event_time(delay_ms);
        let shared = (!trigger.is_continuous()).then(|| first.clone());
        let mut own = Some(first);
        let late = skew_ms.map(|_| Arc::new(self.late("watermark", input.schema(), 0)));
        let job = &mut self.job;
        let downs = over(downs, |down| {
            let seen = shared.clone().or_else(|| own.take());
            let seen = seen.unwrap_or_else(|| job.event_time_of_partition(delay_ms));
            let (reporter, times_of) = (seen.clone(), times.clone());
            let stage = WatermarkAssigner::new(
                time, delay_ms, trigger, reporter, resumed_us, times_of, down,
            );
            let (Some(skew_ms), Some(late)) = (skew_ms, &late) else {
                return Box::new(stage) as BoxChain;
            };
            let limit = FutureSkewLimit::new(skew_ms, job.env(), times.clone(), trigger);
            let late = late.clone();
            let aside = move |row: Row<'_>, limit_us| late.send_ahead_to_side_output(row, limit_us);
            Box::new(FutureSkewFilter::new(time, aside, Some(limit), seen, stage))
        });
        let mut below = needed.to_vec();
        if skew_ms.is_some() && self.late.is_some() {
            // The side output receives all columns of a row.
            below.fill(true);
        }
        below[column] = true;
        self.plan(input, downs, &below)
    }

    /// Requests batches without new records when the watermark has advanced, if `input` has a
    /// watermark.
    fn advances_by_watermark(&mut self, input: &Plan) {
        if !self.batch && has_watermark(input) {
            self.job.request_no_data_batches();
        }
    }

    /// Creates the late-row check of an operator. `columns` are those of its input.
    fn late(&self, operator: &str, columns: Schema, lag_us: i64) -> LateRows {
        let side = self.late.as_ref().map(|output| LateSide {
            output: output.clone(),
            operator: operator.to_string(),
            columns,
        });
        LateRows::new(self.job.times(), self.job.trigger().is_continuous(), side).behind(lag_us)
    }

    /// Creates chains that gather the output of several instances into `down`. A single instance on
    /// worker 0 needs no ring.
    fn gathers(&mut self, workers: &[usize], down: BoxChain) -> Vec<BoxChain> {
        if workers == [0] {
            return vec![down];
        }
        let (outboxes, inlets) = self.job.rings(workers, &[0]);
        let port = self.job.tasklet_port();
        let inlets = inlets.into_iter().flatten().collect();
        let inbox = InboxTasklet::new(port, "gather".to_string(), inlets, BorrowedRows(down));
        self.job.add_tasklet(0, Box::new(inbox));
        let gather = |outbox| Box::new(RowOutbox::new(outbox, None)) as BoxChain;
        outboxes.into_iter().map(gather).collect()
    }

    /// Creates a grouping key. A plain column is copied without evaluating an expression.
    fn key(&self, expr: &Resolved, width: usize) -> Key {
        match &expr.node {
            Node::Column(index, _) => Key::column(*index, width, &expr.data_type),
            _ => Key::computed(self.compile(expr, width)),
        }
    }
}

/// Adds a stage before each chain.
fn over(downs: Vec<PlacedChain>, mut stage: impl FnMut(BoxChain) -> BoxChain) -> Vec<PlacedChain> {
    downs.into_iter().map(|(worker, down)| (worker, stage(down))).collect()
}

/// Whether a limit of `input` counts the rows of each epoch's table anew, because an aggregation
/// emits its whole table in each epoch. Otherwise the limit is one of the whole stream, also below
/// an aggregation in complete mode, as in Spark.
fn limit_restarts(input: &Plan, mode: OutputMode) -> bool {
    mode == OutputMode::Complete && input.has_aggregate()
}

/// The single chain after an operator that gathers its input.
fn only(downs: Vec<PlacedChain>) -> BoxChain {
    match downs.into_iter().next() {
        Some((_, down)) => down,
        None => unreachable!("such an operator has one part"),
    }
}

/// The number of partitions in which a plan's rows arrive.
fn parts(plan: &Plan) -> usize {
    match plan {
        Plan::Scan(scan) => scan.partitions(),
        Plan::Alias(input, _)
        | Plan::QualifyFrom(input, ..)
        | Plan::Qualified(input, _)
        | Plan::Project(input, _)
        | Plan::Filter(input, _)
        | Plan::Generate(input, _)
        | Plan::Watermark { input, .. } => parts(input),
        _ => 1,
    }
}

/// A NULL literal with the type of an expression.
fn null(expr: &Resolved) -> Resolved {
    let (node, data_type) = (Node::Literal(Value::Null), expr.data_type.clone());
    Resolved { node, data_type, nullable: true }
}

fn column(index: usize, expr: &Resolved) -> Resolved {
    Resolved {
        node: Node::Column(index, format!("#{index}")),
        data_type: expr.data_type.clone(),
        nullable: expr.nullable,
    }
}
