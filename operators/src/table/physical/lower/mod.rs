//! Lowering: turns a logical plan and a sink into the tasklets of a job.

mod bare_join;

pub use bare_join::BareJoin;

use super::accumulator::{Function, SESSIONS, TIME};
use super::deduplicate::{Deduplicate, EventTimeRule};
use super::join::{
    Config, JoinCondition, JoinTime, LateRowOutput, SideConfig, SideOutbox, SidedRow, StreamJoin,
    TableJoin, TableJoinParts, describe_join, watermark_lag_us,
};
use super::stages::{BorrowedRows, BoxChain, Filter, Generate, KeyHasher, Project, RowOutbox};
use crate::event_time::future_skew::{FutureSkewFilter, FutureSkewLimit};
use crate::event_time::watermark::Watermark;
use crate::table::expr::common_subexpression::repeated;
use crate::table::expr::compile::{Compiled, Semantics, compile, fold};
use crate::table::expr::functions::as_grouping_key;
use crate::table::expr::resolve::ScopeColumn;
use crate::table::expr::{Node, Resolved};
use crate::table::physical::aggregate::hash_aggregate::{EventTimeKey, HashAggregate, Key};
use crate::table::physical::aggregate::partial_aggregate::PartialAggregate;
use crate::table::physical::aggregate::session_window::{SessionAggregate, SessionParts};
use crate::table::physical::aggregate::sliding_window::{SlidingParts, sliding_aggregate};
use crate::table::physical::fan_out::fan_out;
use crate::table::physical::late_row::{LateOutput, LateRowOutput as LateSide, LateRows};
use crate::table::physical::sort::{Limit, Offset, Sort};
use crate::table::physical::values_source::ValuesSource;
use crate::table::plan::aggregate_function::AggregateCall;
use crate::table::plan::analyzer::OutputMode;
use crate::table::plan::optimizer::optimize;
use crate::table::plan::shared_sources::with_equal_readers;
use crate::table::plan::time_window::{
    EventKey, Lengths, Sliced, event_key, has_watermark, session_key, sliced,
};
use crate::table::plan::{Join, JoinKind, Plan, Scan};
use crate::table::row::{Row, Slot, encode};
use crate::table::types::{DataType, Field, Schema};
use crate::table::value::Value;
use millstream_engine::checkpoint::Layout;
use millstream_engine::epoch::event_time::{BatchTimes, WatermarkPolicy};
use millstream_engine::error::EngineError;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::state_log::StateLog;
use millstream_engine::runtime::tasklet::{InboxTasklet, SourceTasklet, Tasklet};
use std::convert::Infallible;
use std::sync::Arc;

/// A chain and the worker that it runs on.
pub type PlacedChain = (usize, BoxChain);

/// Creates the tasklets of a source's parts, each with the chain behind it. The flags say which
/// columns are read.
pub type MakeSource<'s> = dyn FnMut(&mut Job, &Scan, &[bool], Vec<PlacedChain>) -> Result<Vec<Box<dyn Tasklet>>, EngineError>
    + 's;

/// Continuous mode: a part of a source without records for this long is idle, so that its watermark
/// is ignored. A part may have nothing to read at all. In nanoseconds.
const PART_IDLE_NS: u64 = 100_000_000;

/// Adds the tasklets of a query to a job. `sink` is the last stage, `late` receives late rows,
/// `make_source` creates sources.
pub fn lower(
    plan: &Plan,
    (mode, semantics): (OutputMode, Semantics),
    parallelism: usize,
    job: &mut Job,
    (sink, late): (BoxChain, Option<LateOutput>),
    make_source: &mut MakeSource<'_>,
) -> Result<(), EngineError> {
    let needed = vec![true; plan.width()];
    let plan = timed(optimize(&with_equal_readers(plan)), &job.times());
    let batch = !plan.is_streaming();
    let (merges, reads) = (merges_aggregates(&plan), Vec::new());
    let mut lowering =
        Lowering { mode, semantics, parallelism, batch, merges, late, job, make_source, reads };
    lowering.feed(&plan, sink, &needed)?;
    lowering.open_sources()
}

/// Replaces the current time in the plan by the time of the batch.
fn timed(plan: Plan, times: &BatchTimes) -> Plan {
    fn of_batch(expr: Resolved, times: &BatchTimes) -> Resolved {
        match &expr.node {
            Node::Call("current_timestamp", _) => {
                Resolved { node: Node::BatchTime(times.clone()), ..expr }
            }
            _ => expr.map_children(&mut |child| of_batch(child, times)),
        }
    }
    fn reads_clock(expr: &Resolved) -> bool {
        matches!(&expr.node, Node::Call("current_timestamp", _))
            || expr.children().into_iter().any(reads_clock)
    }
    let timed_here = plan.exprs().into_iter().any(reads_clock);
    let exprs = match timed_here {
        true => plan.map_exprs(&mut |expr| Ok::<_, Infallible>(of_batch(expr, times))),
        false => Ok(plan),
    };
    let made = exprs.and_then(|plan| plan.map_inputs(&mut |input| Ok(timed(input, times))));
    match made {
        Ok(plan) => plan,
    }
}

/// Describes each stateful operator of a query, in the order in which [`lower`] numbers them. An
/// operator can restore only the state of one with the same description.
pub fn state_operators(plan: &Plan, mode: OutputMode) -> Vec<(String, Layout)> {
    let mut operators = Vec::new();
    if joins_streams(plan) {
        // A condition may have gone into the join.
        describe(&optimize(plan), mode, &mut operators);
    } else {
        describe(plan, mode, &mut operators);
    }
    operators
}

/// Whether two streams are joined.
fn joins_streams(plan: &Plan) -> bool {
    matches!(plan, Plan::Join(join) if join.is_of_streams())
        || plan.inputs().into_iter().any(joins_streams)
}

fn describe(plan: &Plan, mode: OutputMode, out: &mut Vec<(String, Layout)>) {
    let typed = |expr: &Resolved| format!("{expr} {}", expr.data_type);
    match plan {
        Plan::Limit(..) if mode != OutputMode::Complete => {
            let layout = Layout { keys: String::new(), values: vec!["count".to_string()] };
            out.push(("limit".to_string(), layout));
        }
        Plan::Aggregate(input, keys, calls) => {
            let column =
                |(i, (key, _)): (usize, &(Resolved, String))| format!("k{i} {}", key.data_type);
            let mut columns: Vec<_> = keys.iter().enumerate().map(column).collect();
            let session = session_key(input, keys);
            let slices = match optimize(plan) {
                Plan::Aggregate(input, keys, calls) if mode == OutputMode::Append => {
                    sliced(&input, &keys, &calls).map(|sliced| sliced.place)
                }
                _ => None,
            };
            if let Some(place) = session.or(slices) {
                columns.remove(place);
            }
            if slices.is_some() {
                columns.push("slice TIMESTAMP".to_string());
            }
            let kind = |call| {
                let function = Function::new(call, input.width(), Semantics::default());
                function.start().kind().to_string()
            };
            let kinds = calls.iter().map(kind);
            let values = session.map(|_| SESSIONS.to_string()).into_iter().chain(kinds).collect();
            let layout = Layout { keys: columns.join(", "), values };
            let keys: Vec<_> = keys.iter().map(|(key, _)| typed(key)).collect();
            let call = |call: &AggregateCall| {
                let args: Vec<_> = call.args.iter().map(typed).collect();
                let arg = if args.is_empty() { "*".to_string() } else { args.join(", ") };
                let filter = call.filter.as_ref().map(|f| format!(" where {f}"));
                let name = match &call.user {
                    Some(user) => format!("{user:?}"),
                    None => format!("{:?}", call.function).to_lowercase(),
                };
                let distinct = if call.distinct { "distinct " } else { "" };
                format!("{name}({distinct}{arg}){}", filter.unwrap_or_default())
            };
            let calls: Vec<_> = calls.iter().map(call).collect();
            let by = if slices.is_some() { "aggregate by slices of" } else { "aggregate by" };
            let what = format!("{by} ({}): {}", keys.join(", "), calls.join(", "));
            out.push((what, layout));
        }
        Plan::Deduplicate { input, keys, within } => {
            let columns = input.scope().columns;
            let column = |(i, key): (usize, &usize)| format!("k{i} {}", columns[*key].data_type);
            let keys_of: Vec<_> = keys.iter().enumerate().map(column).collect();
            let layout = Layout { keys: keys_of.join(", "), values: vec![TIME.to_string()] };
            let names: Vec<_> = keys.iter().map(|key| columns[*key].name.clone()).collect();
            let within = if *within { " within the watermark" } else { "" };
            out.push((format!("deduplicate by ({}){within}", names.join(", ")), layout));
        }
        Plan::Join(join) if join.is_of_streams() => out.push(describe_join(join)),
        _ => {}
    }
    plan.inputs().into_iter().for_each(|input| describe(input, mode, out));
}

struct Lowering<'j, 's> {
    mode: OutputMode,
    semantics: Semantics,
    parallelism: usize,
    /// Whether there is no stream, and so no event time.
    batch: bool,
    /// Whether the rows of an aggregation are merged with other rows through a union.
    merges: bool,
    /// Receives late rows.
    late: Option<LateOutput>,
    job: &'j mut Job,
    make_source: &'j mut MakeSource<'s>,
    /// In the order in which they are first read.
    reads: Vec<Read>,
}

/// A source, created when all its readers are known.
struct Read {
    scan: Scan,
    /// The columns that are read.
    needed: Vec<bool>,
    /// For each part, its worker and the chains behind it.
    parts: Vec<(usize, Vec<BoxChain>)>,
}

/// Whether the result of an aggregation goes through a union.
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
    /// Compiles an expression over rows of `width` columns; constant parts are computed now.
    fn compile(&self, expr: &Resolved, width: usize) -> Compiled {
        compile(&fold(expr.clone(), self.semantics), width, self.semantics)
    }

    /// Puts the stages of `plan` in front of one chain, which reads the `needed` columns. Rows in
    /// several parts are gathered.
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

    /// Adds chains, one per part, as readers of a source.
    fn read(&mut self, scan: &Scan, downs: Vec<PlacedChain>, needed: &[bool]) {
        // A table shares its source with no other.
        let found = match scan.streaming {
            true => self.reads.iter_mut().find(|read| read.scan.shares_source(scan)),
            false => None,
        };
        let Some(read) = found else {
            let parts = downs.into_iter().map(|(worker, down)| (worker, vec![down])).collect();
            return self.reads.push(Read { scan: scan.clone(), needed: needed.to_vec(), parts });
        };
        read.needed.iter_mut().zip(needed).for_each(|(all, needed)| *all |= needed);
        for ((_, branches), (_, down)) in read.parts.iter_mut().zip(downs) {
            branches.push(down);
        }
    }

    /// Creates the tasklets of all sources, each of which feeds all its readers.
    fn open_sources(mut self) -> Result<(), EngineError> {
        for Read { scan, needed, parts } in std::mem::take(&mut self.reads) {
            let places: Vec<usize> = parts.iter().map(|(worker, _)| *worker).collect();
            let downs = parts.into_iter().map(|(worker, branches)| (worker, fan_out(branches)));
            let idle_ns = self.job.idle_timeout();
            if places.len() > 1 {
                let soon = idle_ns.map_or(PART_IDLE_NS, |ns| ns.min(PART_IDLE_NS));
                self.job.set_idle_timeout(Some(soon));
            }
            let tasklets = (self.make_source)(self.job, &scan, &needed, downs.collect())?;
            self.job.set_idle_timeout(idle_ns);
            let seats = places.into_iter().zip(tasklets);
            seats.for_each(|(worker, tasklet)| self.job.add_tasklet(worker, tasklet));
        }
        Ok(())
    }

    /// The workers of a number of instances.
    fn places(&self, instances: usize) -> Vec<usize> {
        (0..instances).map(|i| i % self.job.workers()).collect()
    }

    /// Puts the stages of `plan` in front of chains, one per part, which read the `needed` columns.
    fn plan(
        &mut self,
        plan: &Plan,
        downs: Vec<PlacedChain>,
        needed: &[bool],
    ) -> Result<(), EngineError> {
        let over = |downs: Vec<PlacedChain>, stage: &mut dyn FnMut(BoxChain) -> BoxChain| {
            downs.into_iter().map(|(worker, down)| (worker, stage(down))).collect::<Vec<_>>()
        };
        match plan {
            Plan::Scan(scan) => {
                self.read(scan, downs, needed);
                Ok(())
            }
            Plan::Alias(input, _) | Plan::QualifyFrom(input, ..) | Plan::Qualified(input, _) => {
                self.plan(input, downs, needed)
            }
            Plan::Values(_, rows) => {
                for (worker, down) in downs {
                    let source = ValuesSource::new(rows);
                    let port = self.job.source_port(worker);
                    self.job.add_tasklet(worker, Box::new(SourceTasklet::new(port, source, down)));
                }
                Ok(())
            }
            Plan::Project(input, exprs) => {
                let width = input.width();
                let mut below = vec![false; width];
                // Columns that nothing reads are not computed, and columns that only they read are
                // missing below.
                let read = |((expr, _), needed): (&(Resolved, String), &bool)| {
                    if *needed { expr.clone() } else { null(expr) }
                };
                let mut exprs: Vec<_> = exprs.iter().zip(needed).map(read).collect();
                exprs.iter().for_each(|expr| mark(expr, &mut below));
                let mut parts = downs.len();
                let downs = over(downs, &mut |down| {
                    parts -= 1;
                    let own = if parts == 0 { std::mem::take(&mut exprs) } else { exprs.clone() };
                    Box::new(Project::new(own, width, self.semantics, down))
                });
                self.plan(input, downs, &below)
            }
            Plan::Filter(input, condition) => {
                let mut below = needed.to_vec();
                mark(condition, &mut below);
                let downs = over(downs, &mut |down| {
                    Box::new(Filter::new(condition, input.width(), self.semantics, down))
                });
                self.plan(input, downs, &below)
            }
            Plan::Generate(input, generator) => {
                let columns = input.scope().columns;
                let types: Vec<_> = columns.iter().map(|c| &c.data_type).collect();
                let downs = over(downs, &mut |down| {
                    Box::new(Generate::new(generator, &types, needed, self.semantics, down))
                });
                let mut below = needed[..types.len()].to_vec();
                mark(&generator.array, &mut below);
                self.plan(input, downs, &below)
            }
            Plan::Sort(input, keys) => {
                let stage = Sort::new(keys, input.width(), self.semantics, only(downs));
                self.feed(input, Box::new(stage), &vec![true; input.width()])
            }
            Plan::Offset(input, rows) => {
                self.feed(input, Box::new(Offset::new(*rows, only(downs))), needed)
            }
            Plan::Limit(input, most) => {
                let log = if self.mode == OutputMode::Complete {
                    None
                } else {
                    self.job.operator(1).pop()
                };
                let stage = Limit::new(*most, log, only(downs));
                self.feed(input, Box::new(stage), needed)
            }
            Plan::Union(inputs) => {
                let producers = vec![0; inputs.len()];
                let (outboxes, inlets) = self.job.rings(&producers, &[0]);
                let inlets = inlets.into_iter().flatten().collect();
                let port = self.job.tasklet_port();
                let name = "union".to_string();
                let timed: Vec<bool> = inputs.iter().map(has_watermark).collect();
                let inbox = InboxTasklet::new(port, name, inlets, BorrowedRows(only(downs)));
                let inbox = inbox.watermarks(self.job.watermark_policy(), &timed);
                self.job.add_tasklet(0, Box::new(inbox));
                for (input, outbox) in inputs.iter().zip(outboxes) {
                    self.feed(input, Box::new(RowOutbox::new(outbox, None)), needed)?;
                }
                Ok(())
            }
            Plan::Aggregate(input, keys, calls) => self.aggregate(input, keys, calls, only(downs)),
            Plan::Join(join) if join.is_of_streams() => self.stream_join(join, only(downs), needed),
            Plan::Join(join) => self.join(join, only(downs)),
            Plan::Watermark { input, column, delay_ms, skew_ms } => {
                if self.batch {
                    return self.plan(input, downs, needed);
                }
                let columns = input.scope().columns;
                let window = matches!(columns[*column].data_type, DataType::Struct(_));
                let slot = Slot::new(*column, columns.len());
                let resumed_us = self.job.resumed_watermark_ms().saturating_mul(1000);
                let continuous = self.job.trigger().is_continuous();
                let time = move |row: &Row<'_>| match (row.is_null(slot), window) {
                    // As Spark counts it.
                    (true, _) => 0,
                    (false, true) => Row(row.bytes(slot)).long(Slot::new(1, 2)) - 1,
                    (false, false) => row.long(slot),
                };
                let resumed = (resumed_us, self.job.times());
                // Between batches the parts of a source share one event time, as in Spark: the part
                // that is furthest ahead decides. In continuous mode each part is read at its own
                // pace, and the slowest decides.
                let shared = (!continuous).then(|| self.job.event_time(*delay_ms));
                let late = skew_ms.map(|_| Arc::new(self.late("watermark", input.schema(), 0)));
                let job = &mut self.job;
                let downs = over(downs, &mut |down| {
                    let seen = shared.clone().unwrap_or_else(|| job.event_time(*delay_ms));
                    let resumed = resumed.clone();
                    let times = resumed.1.clone();
                    let stage =
                        Watermark::new(time, *delay_ms, continuous, seen.clone(), resumed, down);
                    let (Some(skew_ms), Some(late)) = (skew_ms, &late) else {
                        return Box::new(stage) as BoxChain;
                    };
                    let skew = FutureSkewLimit::new(*skew_ms, job.env(), times, continuous);
                    let late = late.clone();
                    let aside =
                        move |row: Row<'_>, limit_us| late.send_ahead_to_side_output(row, limit_us);
                    Box::new(FutureSkewFilter::new(time, aside, Some(skew), seen, stage))
                });
                let mut below = needed.to_vec();
                if skew_ms.is_some() && self.late.is_some() {
                    // The side output shows all columns of a row.
                    below.fill(true);
                }
                below[*column] = true;
                self.plan(input, downs, &below)
            }
            Plan::Deduplicate { input, keys, within } => {
                self.deduplicate(input, keys, *within, only(downs), needed)
            }
        }
    }

    fn deduplicate(
        &mut self,
        input: &Plan,
        keys: &[usize],
        within: bool,
        down: BoxChain,
        needed: &[bool],
    ) -> Result<(), EngineError> {
        let columns = input.scope().columns;
        let width = columns.len();
        let mut below = needed.to_vec();
        keys.iter().for_each(|key| below[*key] = true);
        let tagged = |i: &usize| columns[*i].tag.delay_ms.is_some();
        let of_keys = keys.iter().copied().find(tagged);
        // A row is late by any event time that it still has; one that nothing reads is missing.
        let time = match (within, of_keys) {
            (true, _) => (0..width).find(tagged),
            (false, None) => (0..width).find(|i| needed[*i] && tagged(i)),
            (false, of_keys) => of_keys,
        };
        let continuous = self.job.trigger().is_continuous();
        self.advances_by_watermark(input);
        let event = time.filter(|_| !self.batch).map(|time| {
            below[time] = true;
            let delay_us = columns[time].tag.delay_ms.unwrap_or(0).saturating_mul(1000);
            EventTimeRule {
                field: Slot::new(time, width),
                window: matches!(columns[time].data_type, DataType::Struct(_)),
                keep_us: if within { Some(delay_us) } else { of_keys.map(|_| 0) },
                late: self.late("deduplicate", input.schema(), watermark_lag_us(input)),
            }
        });
        let of_key = |i: &usize| {
            let node = Node::Column(*i, columns[*i].name.clone());
            let (data_type, nullable) = (columns[*i].data_type.clone(), columns[*i].nullable);
            self.key(&as_grouping_key(Resolved { node, data_type, nullable }), width)
        };
        let keys = keys.iter().map(of_key).collect();
        let Some(log) = self.job.operator(1).pop() else { unreachable!("one was asked for") };
        let stage = Deduplicate::new(keys, event, continuous, log, down);
        self.feed(input, Box::new(stage), &below)
    }

    /// Requests a batch whenever the watermark has advanced, even if the operator will evict
    /// nothing. So no row of the next batch is judged by an older watermark than the one by which
    /// state was evicted.
    fn advances_by_watermark(&mut self, input: &Plan) {
        if !self.batch && has_watermark(input) {
            self.job.request_no_data_batches();
        }
    }

    /// How an operator over rows with these columns treats late rows.
    fn late(&self, operator: &str, columns: Schema, lag_us: i64) -> LateRows {
        let side = self.late.as_ref().map(|output| LateSide {
            output: output.clone(),
            operator: operator.to_string(),
            columns,
        });
        LateRows::new(self.job.times(), self.job.trigger().is_continuous(), side).behind(lag_us)
    }

    /// Joins with a table, whose rows are part of the plan.
    fn join(&mut self, join: &Join, down: BoxChain) -> Result<(), EngineError> {
        let held = |plan: &Plan| match plan {
            Plan::Values(_, rows) => Some(rows.iter().map(|row| encode(row)).collect()),
            _ => None,
        };
        let (left, right) = (held(&join.left), held(&join.right));
        let is_left_probe = right.is_some() && join.kind != JoinKind::RightOuter;
        let rows = if is_left_probe { right } else { left };
        let Some(rows) = rows else { unreachable!("tables are read before this") };
        let types =
            |plan: &Plan| plan.scope().columns.into_iter().map(|c| c.data_type).collect::<Vec<_>>();
        let parts = TableJoinParts {
            kind: join.kind,
            condition: join.condition.as_ref(),
            in_operands: join.in_operands.as_ref(),
            match_range: join.match_range,
            types: (types(&join.left), types(&join.right)),
            is_left_probe,
            rows,
            live: join.live.clone(),
            continuous: self.job.trigger().is_continuous(),
            semantics: self.semantics,
        };
        let stage = TableJoin::new(parts, down)?;
        let comes = if is_left_probe { &join.left } else { &join.right };
        self.feed(comes, Box::new(stage), &vec![true; comes.width()])
    }

    /// Both sides are streams: their rows are brought to the instances that own their keys.
    fn stream_join(
        &mut self,
        join: &Join,
        down: BoxChain,
        needed: &[bool],
    ) -> Result<(), EngineError> {
        let condition = JoinCondition::of(join);
        let inputs = [&join.left, &join.right];
        let widths = inputs.map(Plan::width);
        let (leaves, below) = columns_read(&condition, widths, needed);
        if LateRowOutput::BOTH.iter().any(|side| condition.time.shift_us(*side).is_some()) {
            self.advances_by_watermark(&Plan::Join(Box::new(join.clone())));
        }
        let workers = self.places(self.parallelism);
        let gathers = self.gathers(&workers, down);
        let policy = self.job.watermark_policy();
        // Parts of one side are merged by the slowest, whatever is the policy between the sides.
        let gathered = inputs.map(|input| policy == WatermarkPolicy::Max && parts(input) > 1);
        let producers = LateRowOutput::BOTH.map(|side| match gathered[side.index()] {
            true => vec![0],
            false => self.places(parts(inputs[side.index()])),
        });
        let (left_outboxes, left_inlets) = self.job.rings::<SidedRow>(&producers[0], &workers);
        let (right_outboxes, right_inlets) = self.job.rings::<SidedRow>(&producers[1], &workers);
        let mut timed = Vec::new();
        for (input, producers) in inputs.iter().zip(&producers) {
            timed.extend(producers.iter().map(|_| has_watermark(input)));
        }
        let logs = self.job.operator(workers.len());
        let inlets = left_inlets.into_iter().zip(right_inlets);
        for (i, ((inlets, gather), log)) in inlets.zip(gathers).zip(logs).enumerate() {
            let config = self.join_config(join, &condition, (&leaves, &below), log);
            let stage = StreamJoin::new(config, gather);
            let inlets = inlets.0.into_iter().chain(inlets.1).collect();
            let port = self.job.tasklet_port();
            let inbox = InboxTasklet::new(port, format!("join {i}"), inlets, stage);
            self.job.add_tasklet(workers[i], Box::new(inbox.watermarks(policy, &timed)));
        }
        let outboxes = [left_outboxes, right_outboxes];
        for ((side, outboxes), producers) in
            LateRowOutput::BOTH.into_iter().zip(outboxes).zip(producers)
        {
            let (input, below) = (inputs[side.index()], &below[side.index()]);
            let chain = |outbox| {
                let keys = self.join_keys(&condition, side, widths[side.index()]);
                Box::new(SideOutbox::new(side, keys, outbox)) as BoxChain
            };
            let mut downs: Vec<PlacedChain> =
                producers.into_iter().zip(outboxes.into_iter().map(chain)).collect();
            match (gathered[side.index()], downs.pop()) {
                (true, Some((_, down))) => self.feed(input, down, below)?,
                (_, last) => {
                    downs.extend(last);
                    self.plan(input, downs, below)?;
                }
            }
        }
        Ok(())
    }

    /// Chains that bring what instances give together; one instance needs no rings.
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

    fn join_keys(&self, condition: &JoinCondition, side: LateRowOutput, width: usize) -> Vec<Key> {
        let keys = condition.keys.iter();
        keys.map(|key| self.key(&key.sides[side.index()], width)).collect()
    }

    /// What an instance of a join of two streams is made of.
    fn join_config(
        &self,
        join: &Join,
        condition: &JoinCondition,
        (leaves, below): (&[bool], &[Vec<bool>; 2]),
        log: StateLog,
    ) -> Config {
        let inputs = [&join.left, &join.right];
        let width: usize = inputs.iter().map(|input| input.width()).sum();
        let sides = LateRowOutput::BOTH.map(|side| {
            let input = inputs[side.index()];
            let columns = input.scope().columns;
            let from = if side == LateRowOutput::Left { 0 } else { width - columns.len() };
            let slot = |i: usize| Slot::new(i, columns.len());
            let column = |(i, c): (usize, &ScopeColumn)| {
                leaves[from + i].then(|| (slot(i), from + i, c.data_type.physical()))
            };
            let time = match condition.time {
                JoinTime::Range(range) => Some(range.columns[side.index()]),
                JoinTime::None | JoinTime::Key { .. } => None,
            };
            let tagged = |i: &usize| columns[*i].tag.delay_ms.is_some() && below[side.index()][*i];
            // A row is late by the time of the range, else by any event time that it still has.
            let event = time.filter(tagged).or_else(|| (0..columns.len()).find(tagged));
            let is_window = |i: usize| matches!(columns[i].data_type, DataType::Struct(_));
            let lag_us = watermark_lag_us(input);
            SideConfig {
                keys: self.join_keys(condition, side, columns.len()),
                own: condition.own[side.index()]
                    .as_ref()
                    .map(|own| self.compile(own, columns.len()).bool()),
                time: time.map(slot),
                event: event.map(|i| (slot(i), is_window(i))),
                late: self.late("join", input.schema(), lag_us),
                copies: columns.iter().enumerate().filter_map(column).collect(),
            }
        });
        Config {
            kind: join.kind,
            sides,
            null_safe: condition.keys.iter().map(|key| key.null_safe).collect(),
            time: condition.time,
            rest: condition.rest.as_ref().map(|rest| self.compile(rest, width).bool()),
            width,
            log,
        }
    }

    /// A key of a group: a column is read without a detour.
    fn key(&self, expr: &Resolved, width: usize) -> Key {
        match &expr.node {
            Node::Column(index, _) => Key::column(*index, width, &expr.data_type),
            _ => Key::computed(self.compile(expr, width)),
        }
    }

    fn aggregate(
        &mut self,
        input: &Plan,
        keys: &[(Resolved, String)],
        calls: &[AggregateCall],
        down: BoxChain,
    ) -> Result<(), EngineError> {
        let event = event_key(input, keys).filter(|_| !self.batch);
        let by_slices = self.mode == OutputMode::Append && !self.batch;
        let sliced = if by_slices { sliced(input, keys, calls) } else { None };
        let kind = match (session_key(input, keys), &sliced) {
            (Some(place), _) => Kind::Sessions { place, timed: event.is_some() },
            (None, Some(Sliced { place, lengths, .. })) => {
                Kind::Slices { place: *place, lengths: *lengths }
            }
            (None, None) => Kind::Groups(event),
        };
        let is_only_instance =
            self.parallelism == 1 || keys.len() == usize::from(kind.place().is_some());
        let spread = !is_only_instance || parts(input) > 1;
        let in_two_levels = spread && self.combines(&kind, input, calls);
        if matches!(kind, Kind::Groups(_))
            && (!spread || in_two_levels)
            && let Some((input, keys, calls)) = with_shared_columns(input, keys, calls)
        {
            return self.aggregate(&input, &keys, &calls, down);
        }
        if self.mode != OutputMode::Complete {
            self.advances_by_watermark(input);
        }
        // Equal values are one key.
        let mut keys: Vec<_> = keys.iter().map(|(key, _)| as_grouping_key(key.clone())).collect();
        let mut from = input;
        if let Some(Sliced { input, time, place, .. }) = sliced {
            // Windows that are combined from slices need the time of a row.
            (keys[place], from) = (time.clone(), input);
        }
        let lag_us = watermark_lag_us(from);
        let grouping =
            Grouping { kind, keys, calls: calls.to_vec(), columns: from.schema(), lag_us };
        let mut needed = vec![false; from.width()];
        grouping.exprs().for_each(|expr| mark(expr, &mut needed));
        if !spread || is_only_instance && !in_two_levels {
            let Some(log) = self.job.operator(1).pop() else { unreachable!("one was asked for") };
            let stage = self.grouped(&grouping, true, log, down);
            return self.feed(from, stage, &needed);
        }
        self.exchanged(from, grouping, in_two_levels, is_only_instance, down, &needed)
    }

    /// Whether an aggregation over several workers pre-aggregates before the exchange. It must not
    /// if each row has a result of its own, or if late rows go to a side output, which needs the
    /// rows as they came.
    fn combines(&self, kind: &Kind, input: &Plan, calls: &[AggregateCall]) -> bool {
        let at_once = self.job.trigger().is_continuous() && self.mode == OutputMode::Update;
        let width = input.width();
        let plain = |call: &AggregateCall| {
            let in_any_order = call.user.is_none() && !call.distinct;
            in_any_order
                && call.function.is_commutative()
                && Function::new(call, width, self.semantics).is_plain()
        };
        matches!(kind, Kind::Groups(_))
            && !at_once
            && self.late.is_none()
            && calls.iter().all(plain)
    }

    /// The stage of one instance of an aggregation.
    fn grouped(
        &self,
        grouping: &Grouping,
        is_only_instance: bool,
        log: StateLog,
        down: BoxChain,
    ) -> BoxChain {
        let width = grouping.columns.fields.len();
        let Grouping { kind, keys, calls, columns, .. } = grouping;
        let functions = calls.iter().map(|call| Function::new(call, width, self.semantics));
        let functions = functions.collect();
        let others = keys.iter().enumerate().filter(|(i, _)| kind.place() != Some(*i));
        let own = others.map(|(_, key)| self.key(key, width)).collect();
        let (continuous, is_only_instance) =
            (self.job.trigger().is_continuous(), is_only_instance && !self.merges);
        match *kind {
            Kind::Groups(key) => {
                let late = || self.late("aggregate", columns.clone(), grouping.lag_us);
                let event = key.map(|key| EventTimeKey { key, late: late() });
                let modes = (self.mode, continuous, is_only_instance);
                Box::new(HashAggregate::new(own, functions, modes, event, log, down))
            }
            Kind::Sessions { place, timed } => {
                let parts = SessionParts {
                    keys: own,
                    window: self.compile(&keys[place], width).bytes(),
                    place,
                    functions,
                    mode: self.mode,
                    continuous,
                    is_only_instance,
                    needs_key: !self.batch,
                    late: timed
                        .then(|| self.late("session aggregate", columns.clone(), grouping.lag_us)),
                    evicts: timed && self.mode == OutputMode::Append,
                    log,
                };
                Box::new(SessionAggregate::new(parts, down))
            }
            Kind::Slices { place, lengths } => {
                let parts = SlidingParts {
                    keys: own,
                    time: self.compile(&keys[place], width).long(),
                    lengths,
                    place,
                    functions,
                    late: self.late("sliding aggregate", columns.clone(), grouping.lag_us),
                    log,
                };
                sliding_aggregate(parts, down)
            }
        }
    }

    /// Sends rows to the instances that own their keys: either only the needed columns (keys,
    /// arguments, filters), or rows pre-aggregated by key.
    fn exchanged(
        &mut self,
        input: &Plan,
        grouping: Grouping,
        in_two_levels: bool,
        is_only_instance: bool,
        down: BoxChain,
        needed: &[bool],
    ) -> Result<(), EngineError> {
        let width = input.width();
        let places = self.places(if is_only_instance { 1 } else { self.parallelism });
        let producers = self.places(parts(input));
        let gathers = self.gathers(&places, down);
        let (outboxes, inlets) = self.job.rings(&producers, &places);
        let (partial, hashed, over_partial) = grouping.over_partial_rows();
        let logs = self.job.operator(places.len());
        for (i, ((inlets, gather), log)) in inlets.into_iter().zip(gathers).zip(logs).enumerate() {
            let stage = if in_two_levels {
                self.of_partials(&grouping, is_only_instance, log, gather)
            } else {
                self.grouped(&over_partial, is_only_instance, log, gather)
            };
            let port = self.job.tasklet_port();
            let name = format!("aggregate {i}");
            self.job.add_tasklet(
                places[i],
                Box::new(InboxTasklet::new(port, name, inlets, BorrowedRows(stage))),
            );
        }
        let types: Vec<&DataType> = partial.iter().map(|expr| &expr.data_type).collect();
        let chain = |outbox| -> BoxChain {
            if in_two_levels {
                let keys = grouping.keys.iter().map(|key| self.key(key, width)).collect();
                let functions = self.functions(&grouping.calls, width);
                let event = grouping.kind.event();
                return Box::new(PartialAggregate::new(
                    keys,
                    event,
                    functions,
                    RowOutbox::new(outbox, None),
                ));
            }
            let exchange = RowOutbox::new(outbox, Some(KeyHasher::new(&types, hashed)));
            Box::new(Project::new(partial.clone(), width, self.semantics, Box::new(exchange)))
        };
        let downs = producers.into_iter().zip(outboxes.into_iter().map(chain)).collect();
        self.plan(input, downs, needed)
    }

    fn functions(&self, calls: &[AggregateCall], width: usize) -> Vec<Function> {
        calls.iter().map(|call| Function::new(call, width, self.semantics)).collect()
    }

    /// The stage that merges the rows of [`PartialAggregate`].
    fn of_partials(
        &self,
        grouping: &Grouping,
        is_only_instance: bool,
        log: StateLog,
        down: BoxChain,
    ) -> BoxChain {
        let Grouping { kind, keys, calls, columns, .. } = grouping;
        // Their arguments are never evaluated.
        let functions = self.functions(calls, columns.fields.len());
        let width = keys.len() + 1;
        let column = |(i, key): (usize, &Resolved)| Key::column(i, width, &key.data_type);
        let own = keys.iter().enumerate().map(column).collect();
        let event = kind.event();
        let late = || self.late("aggregate", columns.clone(), grouping.lag_us);
        let event = event.map(|key| EventTimeKey { key, late: late() });
        let modes =
            (self.mode, self.job.trigger().is_continuous(), is_only_instance && !self.merges);
        Box::new(HashAggregate::new(own, functions, modes, event, log, down).of_partials())
    }
}

/// Of a join of two streams: the columns of both sides that leave or are compared in pairs, and the
/// columns that are read of each side.
fn columns_read(
    condition: &JoinCondition,
    widths: [usize; 2],
    needed: &[bool],
) -> (Vec<bool>, [Vec<bool>; 2]) {
    let mut leaves = vec![false; widths[0] + widths[1]];
    leaves.iter_mut().zip(needed).for_each(|(leaves, needed)| *leaves |= needed);
    condition.rest.iter().for_each(|rest| mark(rest, &mut leaves));
    let (left, right) = leaves.split_at(widths[0]);
    let mut below = [left.to_vec(), right.to_vec()];
    for side in LateRowOutput::BOTH {
        let below = &mut below[side.index()];
        condition.keys.iter().for_each(|key| mark(&key.sides[side.index()], below));
        condition.own[side.index()].iter().for_each(|own| mark(own, below));
        if let JoinTime::Range(range) = condition.time {
            below[range.columns[side.index()]] = true;
        }
    }
    (leaves, below)
}

/// The single chain behind an operator that gathers its input.
fn only(downs: Vec<PlacedChain>) -> BoxChain {
    match downs.into_iter().next() {
        Some((_, down)) => down,
        None => unreachable!("such an operator has one part"),
    }
}

/// The number of parts in which a plan's rows arrive.
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

/// The kind of an aggregation.
#[derive(Clone)]
enum Kind {
    /// By all its keys, one of which may be an event time.
    Groups(Option<EventKey>),
    /// By session windows and the other keys.
    Sessions { place: usize, timed: bool },
    /// By sliding windows, for which the keys contain the time, and the other keys.
    Slices { place: usize, lengths: Lengths },
}

impl Kind {
    /// The event time among the keys of groups.
    fn event(&self) -> Option<EventKey> {
        match self {
            Self::Groups(event) => *event,
            Self::Sessions { .. } | Self::Slices { .. } => None,
        }
    }

    /// The position of a key that does not identify a group.
    fn place(&self) -> Option<usize> {
        match self {
            Self::Groups(_) => None,
            Self::Sessions { place, .. } | Self::Slices { place, .. } => Some(*place),
        }
    }
}

/// An aggregation over rows with some columns.
#[derive(Clone)]
struct Grouping {
    kind: Kind,
    keys: Vec<Resolved>,
    calls: Vec<AggregateCall>,
    columns: Schema,
    /// How far the watermark of the rows is behind that of the query.
    lag_us: i64,
}

impl Grouping {
    fn exprs(&self) -> impl Iterator<Item = &Resolved> {
        self.keys.iter().chain(self.calls.iter().flat_map(|c| c.args.iter().chain(&c.filter)))
    }

    /// The columns that the aggregation needs, the number of them that identify a group, and the
    /// same aggregation over rows of these columns.
    fn over_partial_rows(&self) -> (Vec<Resolved>, usize, Self) {
        let Self { kind, keys, calls, lag_us, .. } = self.clone();
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|i| kind.place() == Some(*i));
        let hashed = keys.len() - usize::from(kind.place().is_some());
        let mut partial: Vec<Resolved> = order.iter().map(|i| keys[*i].clone()).collect();
        let mut moved_keys = keys;
        for (to, i) in order.into_iter().enumerate() {
            moved_keys[i] = column(to, &partial[to]);
        }
        let mut moved = |expr: &Resolved| {
            // Constants need not travel, and some functions want to see them.
            if matches!(expr.node, Node::Literal(_)) || expr.is_constant() {
                return expr.clone();
            }
            partial.push(expr.clone());
            column(partial.len() - 1, expr)
        };
        let calls = calls
            .iter()
            .map(|call| AggregateCall {
                args: call.args.iter().map(&mut moved).collect(),
                filter: call.filter.as_ref().map(&mut moved),
                ..call.clone()
            })
            .collect();
        let named = |e: &Resolved| Field::new(e.to_string(), e.data_type.clone(), e.nullable);
        let columns = Schema::new(partial.iter().map(named).collect());
        (partial, hashed, Self { kind, keys: moved_keys, calls, columns, lag_us })
    }
}

/// Common subexpressions of keys and arguments, computed once below the aggregation; `None` if
/// there are none.
#[expect(clippy::type_complexity, reason = "what an aggregation is made of")]
fn with_shared_columns(
    input: &Plan,
    keys: &[(Resolved, String)],
    calls: &[AggregateCall],
) -> Option<(Plan, Vec<(Resolved, String)>, Vec<AggregateCall>)> {
    // With a filter an argument is not always computed.
    let unfiltered = calls.iter().filter(|call| call.filter.is_none());
    let exprs: Vec<&Resolved> =
        keys.iter().map(|(key, _)| key).chain(unfiltered.flat_map(|call| &call.args)).collect();
    let common = repeated(&exprs);
    if common.parts.is_empty() {
        return None;
    }
    let scope = input.scope();
    let own = scope.columns.iter().enumerate().map(|(i, c)| Resolved {
        node: Node::Column(i, c.name.clone()),
        data_type: c.data_type.clone(),
        nullable: c.nullable,
    });
    let all: Vec<Resolved> = own.chain(common.parts.iter().cloned()).collect();
    let width = scope.columns.len();
    let named = all.into_iter().enumerate().map(|(i, expr)| (expr, format!("#{i}")));
    let plan = Plan::Project(Box::new(input.clone()), named.collect());
    let read = |at, part: Resolved| column(width + at, &part);
    let of = |expr: &Resolved| common.replaced(expr.clone(), &read);
    let keys = keys.iter().map(|(key, name)| (of(key), name.clone())).collect();
    let call = |call: &AggregateCall| {
        let args = call.args.iter().map(of).collect();
        AggregateCall { args, filter: call.filter.as_ref().map(of), ..call.clone() }
    };
    Some((plan, keys, calls.iter().map(call).collect()))
}

/// The NULL of an expression's type.
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
