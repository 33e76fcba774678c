//! Lowering of joins: of a stream with a table, and of two streams.

use super::{Lowering, PlacedChain, mark, parts};
use crate::table::expr::resolve::ScopeColumn;
use crate::table::physical::aggregate::hash_aggregate::Key;
use crate::table::physical::join::{
    AsofJoin, Config, JoinCondition, JoinSide, JoinTime, Results, SideConfig, SideFlow, SideOutbox,
    SidedRow, StateGuard, StreamJoin, TableJoin, TableJoinParts, watermark_lag_us,
};
use crate::table::physical::stages::BoxChain;
use crate::table::plan::analyzer::OutputMode;
use crate::table::plan::time_window::has_watermark;
use crate::table::plan::{Join, JoinKind, Plan, Scan};
use crate::table::row::{Slot, encode};
use crate::table::types::DataType;
use millstream_engine::epoch::watermark_policy::WatermarkPolicy;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::exchange::Inlet;
use millstream_engine::runtime::job::{AtStateLimit, JoinOrder, StateLimit};
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::state_log::StateLog;
use millstream_engine::runtime::tasklet::{InboxTasklet, Tasklet, TaskletPort};
use std::sync::Arc;

impl Lowering<'_, '_> {
    /// Lowers a join of a stream with a table, whose rows are part of the plan.
    pub(super) fn join(&mut self, join: &Join, down: BoxChain) -> Result<(), EngineError> {
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
            closest: join.closest,
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

    /// Lowers a join of two streams. An exchange sends the rows of both to the instances that own
    /// their keys.
    pub(super) fn stream_join(
        &mut self,
        join: &Join,
        down: BoxChain,
        needed: &[bool],
    ) -> Result<(), EngineError> {
        let condition = JoinCondition::of(join, self.semantics.zone);
        let inputs = [&join.left, &join.right];
        let widths = inputs.map(Plan::width);
        let (leaves, below) = columns_read(&condition, widths, needed);
        if JoinSide::BOTH.iter().any(|side| condition.time.shift_us(*side).is_some()) {
            self.advances_by_watermark(&Plan::Join(Box::new(join.clone())));
        }
        let order = self.job.join_order();
        if order == JoinOrder::OfInput && is_fed_by_one(join) {
            return Err(ordered_unsupported());
        }
        let workers = match order {
            JoinOrder::OfInstances => self.places(self.parallelism),
            JoinOrder::OfInput => self.places(1),
        };
        let gathers = self.gathers(&workers, down);
        let policy = self.job.watermark_policy();
        // The watermarks of one side's partitions are always combined by their minimum. The
        // watermark policy applies only between the sides.
        let gathered = inputs.map(|input| policy == WatermarkPolicy::Max && parts(input) > 1);
        let producers = JoinSide::BOTH.map(|side| match gathered[side.index()] {
            true => vec![0],
            false => self.places(parts(inputs[side.index()])),
        });
        let (left_outboxes, left_inlets) = self.job.rings::<SidedRow>(&producers[0], &workers);
        let (right_outboxes, right_inlets) = self.job.rings::<SidedRow>(&producers[1], &workers);
        let timed: Vec<_> = inputs
            .iter()
            .zip(&producers)
            .map(|(input, producers)| (producers.len(), has_watermark(input)))
            .collect();
        let limit = self.state_limit(join).map(|limit| (limit, self.side_flows(&producers)));
        let operator = self.job.operators();
        let logs = self.job.operator(workers.len());
        let inlets = left_inlets.into_iter().zip(right_inlets);
        for (i, ((inlets, gather), log)) in inlets.zip(gathers).zip(logs).enumerate() {
            let config = self.join_config(join, &condition, (&leaves, &below), log);
            let is_continuous = self.job.trigger().is_continuous();
            let guard = limit.as_ref().map(|(limit, flows)| {
                StateGuard::new(*limit, workers.len(), flows.clone()).continuous(is_continuous)
            });
            let inbox = Inbox {
                port: self.job.tasklet_port(),
                name: format!("join {i}"),
                inlets: inlets.0.into_iter().chain(inlets.1).collect(),
                timed: &timed,
            };
            let tasklet = self.join_tasklet(join, Config { guard, ..config }, inbox, gather);
            self.job.add_tasklet(workers[i], tasklet);
        }
        let outboxes = [left_outboxes, right_outboxes];
        let mut event_times = [0..0, 0..0];
        for ((side, outboxes), producers) in JoinSide::BOTH.into_iter().zip(outboxes).zip(producers)
        {
            let (input, below) = (inputs[side.index()], &below[side.index()]);
            let begin = self.job.event_times();
            let chain = |(number, outbox)| {
                let keys = self.join_keys(&condition, side, widths[side.index()]);
                let flow = limit.as_ref().map(|(_, flows)| (flows[side.index()].clone(), number));
                Box::new(SideOutbox::new(side, keys, outbox).with_flow(flow)) as BoxChain
            };
            let chains = outboxes.into_iter().enumerate().map(chain);
            let mut downs: Vec<PlacedChain> = producers.into_iter().zip(chains).collect();
            match (gathered[side.index()], downs.pop()) {
                (true, Some((_, down))) => self.feed(input, down, below)?,
                (_, last) => {
                    downs.extend(last);
                    self.plan(input, downs, below)?;
                }
            }
            event_times[side.index()] = begin..self.job.event_times();
        }
        self.job.set_join_event_times(operator, event_times);
        Ok(())
    }

    /// Creates the tasklet of an instance of a join of two streams.
    fn join_tasklet(
        &self,
        join: &Join,
        config: Config,
        inbox: Inbox<'_>,
        down: BoxChain,
    ) -> Box<dyn Tasklet> {
        let results = match self.mode {
            OutputMode::Update => Results::Immediate,
            _ => Results::Final,
        };
        let is_ordered = self.job.join_order() == JoinOrder::OfInput;
        match join.closest {
            Some(closest) => {
                self.inbox_tasklet(inbox, AsofJoin::new(config, (closest, results), down))
            }
            None => self.inbox_tasklet(inbox, StreamJoin::new(config, down).ordered(is_ordered)),
        }
    }

    fn inbox_tasklet<S: Push<SidedRow> + 'static>(
        &self,
        Inbox { port, name, inlets, timed }: Inbox<'_>,
        stage: S,
    ) -> Box<dyn Tasklet> {
        let inbox = InboxTasklet::new(port, name, inlets, stage);
        Box::new(self.with_order(inbox.watermarks(self.job.watermark_policy(), timed)))
    }

    /// Sets the order in which the inputs of a join are read.
    fn with_order<T: Send, D: Push<T>>(&self, inbox: InboxTasklet<T, D>) -> InboxTasklet<T, D> {
        match self.job.join_order().reads_one_after_another(self.job.trigger()) {
            true => inbox.one_after_another(),
            false => inbox,
        }
    }

    /// The limit of a join's state, if there is one. At the limit the query fails where no side can
    /// be paused: if one source feeds both sides, or in micro-batch mode, in which each batch must
    /// end.
    fn state_limit(&self, join: &Join) -> Option<StateLimit> {
        let limit = self.job.state_limit()?;
        let can_pause = self.job.trigger().is_continuous() && !is_fed_by_one(join);
        Some(if can_pause { limit } else { StateLimit { then: AtStateLimit::Fail, ..limit } })
    }

    /// Creates the flow control of both sides of a join.
    fn side_flows(&self, producers: &[Vec<usize>; 2]) -> [Arc<SideFlow>; 2] {
        let wakers = |workers: &Vec<usize>| {
            workers.iter().map(|worker| self.job.waker(*worker).clone()).collect()
        };
        [SideFlow::new(wakers(&producers[0])), SideFlow::new(wakers(&producers[1]))]
    }

    fn join_keys(&self, condition: &JoinCondition, side: JoinSide, width: usize) -> Vec<Key> {
        let keys = condition.keys.iter();
        keys.map(|key| self.key(&key.sides[side.index()], width)).collect()
    }

    /// The configuration of an instance of a join of two streams.
    pub(super) fn join_config(
        &self,
        join: &Join,
        condition: &JoinCondition,
        (leaves, below): (&[bool], &[Vec<bool>; 2]),
        log: StateLog,
    ) -> Config {
        let inputs = [&join.left, &join.right];
        let width: usize = inputs.iter().map(|input| input.width()).sum();
        // The join has one watermark, the lower one of its inputs.
        let zone = self.semantics.zone;
        let lag_us =
            inputs.map(|input| watermark_lag_us(input, zone)).into_iter().fold(0, i64::max);
        let sides = JoinSide::BOTH.map(|side| {
            let input = inputs[side.index()];
            let columns = input.scope().columns;
            let from = if side == JoinSide::Left { 0 } else { width - columns.len() };
            let slot = |i: usize| Slot::new(i, columns.len());
            let column = |(i, c): (usize, &ScopeColumn)| {
                leaves[from + i].then(|| (slot(i), from + i, c.data_type.physical()))
            };
            let time = match condition.time {
                JoinTime::Range(range) => Some(range.columns[side.index()]),
                JoinTime::None | JoinTime::Key { .. } => None,
            };
            let tagged = |i: &usize| columns[*i].tag.delay_ms.is_some() && below[side.index()][*i];
            // Decides whether a row is late: the time column of the range, or the column that is
            // the key by which rows expire, if it has a watermark and is read. Otherwise the first
            // column that has a watermark and is read.
            let decisive = time.or_else(|| condition.time_key(side));
            let event = decisive.filter(tagged).or_else(|| (0..columns.len()).find(tagged));
            let is_window = |i: usize| matches!(columns[i].data_type, DataType::Struct(_));
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
            guard: None,
        }
    }
}

/// The input of an instance of a join of two streams.
struct Inbox<'i> {
    port: TaskletPort,
    name: String,
    /// The inlets of the left side, then those of the right side.
    inlets: Vec<Inlet<SidedRow>>,
    /// For each side, the number of its inlets, and whether it has an event time.
    timed: &'i [(usize, bool)],
}

/// Whether one source feeds both sides of a join.
fn is_fed_by_one(join: &Join) -> bool {
    let shares = |scan: &&Scan| join.right.scans().iter().any(|other| scan.shares_source(other));
    join.left.scans().iter().any(shares)
}

fn ordered_unsupported() -> EngineError {
    EngineError::operator(
        "ORDERED_JOIN_UNSUPPORTED",
        "millstream.join.ordered is set, and one source feeds both sides of a join: its rows reach the \
         join on two ways, of which none is the first",
        "Unset millstream.join.ordered, or read the source twice under two names",
    )
}

/// The columns that a join of two streams emits or compares, and the columns of each side that must
/// be read.
pub(super) fn columns_read(
    condition: &JoinCondition,
    widths: [usize; 2],
    needed: &[bool],
) -> (Vec<bool>, [Vec<bool>; 2]) {
    let mut leaves = vec![false; widths[0] + widths[1]];
    leaves.iter_mut().zip(needed).for_each(|(leaves, needed)| *leaves |= needed);
    condition.rest.iter().for_each(|rest| mark(rest, &mut leaves));
    let (left, right) = leaves.split_at(widths[0]);
    let mut below = [left.to_vec(), right.to_vec()];
    for side in JoinSide::BOTH {
        let below = &mut below[side.index()];
        condition.keys.iter().for_each(|key| mark(&key.sides[side.index()], below));
        condition.own[side.index()].iter().for_each(|own| mark(own, below));
        if let JoinTime::Range(range) = condition.time {
            below[range.columns[side.index()]] = true;
        }
    }
    (leaves, below)
}
