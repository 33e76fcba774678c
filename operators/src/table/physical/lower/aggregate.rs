//! Lowering of aggregations: over groups, session windows, or slices of sliding windows. An
//! aggregation runs in one instance, or after an exchange by key, with or without pre-aggregation.

use super::{Lowering, column, mark, parts};
use crate::table::expr::common_subexpression::repeated;
use crate::table::expr::functions::as_grouping_key;
use crate::table::expr::{Node, Resolved};
use crate::table::physical::accumulator::Function;
use crate::table::physical::aggregate::hash_aggregate::{
    EventTimeKey, HashAggregate, Key, OutputRules,
};
use crate::table::physical::aggregate::partial_aggregate::PartialAggregate;
use crate::table::physical::aggregate::session_window::{SessionAggregate, SessionParts};
use crate::table::physical::aggregate::sliding_window::{SlidingParts, sliding_aggregate};
use crate::table::physical::join::watermark_lag_us;
use crate::table::physical::project::Project;
use crate::table::physical::row_exchange::{BorrowedRows, KeyHasher, RowOutbox};
use crate::table::physical::stages::BoxChain;
use crate::table::plan::Plan;
use crate::table::plan::aggregate_function::AggregateCall;
use crate::table::plan::analyzer::OutputMode;
use crate::table::plan::time_window::{EventKey, Lengths, Sliced, event_key, session_key, sliced};
use crate::table::types::{DataType, Field, Schema};
use millstream_engine::error::EngineError;
use millstream_engine::runtime::state_log::StateLog;
use millstream_engine::runtime::tasklet::InboxTasklet;

impl Lowering<'_, '_> {
    pub(super) fn aggregate(
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
            (Some(place), _) => Kind::Sessions { place, has_event_time: event.is_some() },
            (None, Some(Sliced { place, lengths, .. })) => {
                Kind::Slices { place: *place, lengths: *lengths }
            }
            (None, None) => Kind::Groups(event),
        };
        let is_only_instance =
            self.parallelism == 1 || keys.len() == usize::from(kind.place().is_some());
        let is_distributed = !is_only_instance || parts(input) > 1;
        let is_pre_aggregated = is_distributed && self.pre_aggregates(&kind, input, calls);
        if matches!(kind, Kind::Groups(_))
            && (!is_distributed || is_pre_aggregated)
            && let Some(Aggregation { input, keys, calls }) =
                with_common_subexpressions(input, keys, calls)
        {
            return self.aggregate(&input, &keys, &calls, down);
        }
        if self.mode != OutputMode::Complete {
            self.advances_by_watermark(input);
        }
        // Equal values must have equal bytes to be the same key.
        let mut keys: Vec<_> = keys.iter().map(|(key, _)| as_grouping_key(key.clone())).collect();
        let mut from = input;
        if let Some(Sliced { input, time, place, .. }) = sliced {
            // Windows combined from slices need the event time of each row instead of the window.
            (keys[place], from) = (time.clone(), input);
        }
        let lag_us = watermark_lag_us(from, self.semantics.zone);
        let grouping =
            Grouping { kind, keys, calls: calls.to_vec(), columns: from.schema(), lag_us };
        let mut needed = vec![false; from.width()];
        grouping.exprs().for_each(|expr| mark(expr, &mut needed));
        if !is_distributed || is_only_instance && !is_pre_aggregated {
            let Some(log) = self.job.operator(1).pop() else { unreachable!("one was requested") };
            let stage = self.aggregate_stage(&grouping, self.output_rules(true), log, down);
            return self.feed(from, stage, &needed);
        }
        let distribution = Distribution { is_only_instance, is_pre_aggregated };
        self.exchange(from, grouping, distribution, down, &needed)
    }

    /// Whether rows may be pre-aggregated before an exchange. They may not for session windows and
    /// slices, if each row has a result of its own (update mode of a continuous query), or if late
    /// rows have a side output. The functions must not depend on the order of rows, and their
    /// accumulators must fit in words.
    fn pre_aggregates(&self, kind: &Kind, input: &Plan, calls: &[AggregateCall]) -> bool {
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

    /// The output rules of an instance. A single instance does not count as the only one if a union
    /// merges its rows with other rows.
    fn output_rules(&self, is_only_instance: bool) -> OutputRules {
        OutputRules {
            mode: self.mode,
            continuous: self.job.trigger().is_continuous(),
            is_only_instance: is_only_instance && !self.merges,
            table: self.table.clone(),
        }
    }

    /// Creates the stage of one instance of an aggregation.
    fn aggregate_stage(
        &self,
        grouping: &Grouping,
        output: OutputRules,
        log: StateLog,
        down: BoxChain,
    ) -> BoxChain {
        let width = grouping.columns.fields.len();
        let Grouping { kind, keys, calls, columns, .. } = grouping;
        let functions = calls.iter().map(|call| Function::new(call, width, self.semantics));
        let functions = functions.collect();
        let others = keys.iter().enumerate().filter(|(i, _)| kind.place() != Some(*i));
        let own = others.map(|(_, key)| self.key(key, width)).collect();
        match *kind {
            Kind::Groups(key) => {
                let late = || self.late("aggregate", columns.clone(), grouping.lag_us);
                let event = key.map(|key| EventTimeKey { key, late: late() });
                Box::new(HashAggregate::new(own, functions, output, event, log, down))
            }
            Kind::Sessions { place, has_event_time } => {
                let parts = SessionParts {
                    keys: own,
                    window: self.compile(&keys[place], width).bytes(),
                    place,
                    functions,
                    output,
                    needs_key: !self.batch,
                    late: has_event_time
                        .then(|| self.late("session aggregate", columns.clone(), grouping.lag_us)),
                    evicts: has_event_time && self.mode == OutputMode::Append,
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

    /// Creates the exchange and the instances after it. It sends either the needed columns (keys,
    /// arguments, filters) or pre-aggregated groups to the instances that own the keys.
    fn exchange(
        &mut self,
        input: &Plan,
        grouping: Grouping,
        distribution: Distribution,
        down: BoxChain,
        needed: &[bool],
    ) -> Result<(), EngineError> {
        let Distribution { is_only_instance, is_pre_aggregated } = distribution;
        let width = input.width();
        let places = self.places(if is_only_instance { 1 } else { self.parallelism });
        let producers = self.places(parts(input));
        let gathers = self.gathers(&places, down);
        let (outboxes, inlets) = self.job.rings(&producers, &places);
        let sent = grouping.sent_rows();
        let output = self.output_rules(is_only_instance);
        let logs = self.job.operator(places.len());
        for (i, ((inlets, gather), log)) in inlets.into_iter().zip(gathers).zip(logs).enumerate() {
            let stage = if is_pre_aggregated {
                self.merge_stage(&grouping, output.clone(), log, gather)
            } else {
                self.aggregate_stage(&sent.grouping, output.clone(), log, gather)
            };
            let port = self.job.tasklet_port();
            let name = format!("aggregate {i}");
            self.job.add_tasklet(
                places[i],
                Box::new(InboxTasklet::new(port, name, inlets, BorrowedRows(stage))),
            );
        }
        let types: Vec<&DataType> = sent.columns.iter().map(|expr| &expr.data_type).collect();
        let chain = |outbox| -> BoxChain {
            if is_pre_aggregated {
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
            let exchange = RowOutbox::new(outbox, Some(KeyHasher::new(&types, sent.key_count)));
            Box::new(Project::new(sent.columns.clone(), width, self.semantics, Box::new(exchange)))
        };
        let downs = producers.into_iter().zip(outboxes.into_iter().map(chain)).collect();
        self.plan(input, downs, needed)
    }

    fn functions(&self, calls: &[AggregateCall], width: usize) -> Vec<Function> {
        calls.iter().map(|call| Function::new(call, width, self.semantics)).collect()
    }

    /// Creates the stage that merges the partial aggregates of [`PartialAggregate`].
    fn merge_stage(
        &self,
        grouping: &Grouping,
        output: OutputRules,
        log: StateLog,
        down: BoxChain,
    ) -> BoxChain {
        let Grouping { kind, keys, calls, columns, .. } = grouping;
        // The functions' arguments are not evaluated in this stage.
        let functions = self.functions(calls, columns.fields.len());
        let width = keys.len() + 1;
        let column = |(i, key): (usize, &Resolved)| Key::column(i, width, &key.data_type);
        let own = keys.iter().enumerate().map(column).collect();
        let event = kind.event();
        let late = || self.late("aggregate", columns.clone(), grouping.lag_us);
        let event = event.map(|key| EventTimeKey { key, late: late() });
        Box::new(HashAggregate::new(own, functions, output, event, log, down).of_partials())
    }
}

/// How an aggregation forms its groups.
#[derive(Clone)]
enum Kind {
    /// An aggregation by all keys, one of which may be an event time.
    Groups(Option<EventKey>),
    /// Session windows. `place` is the index of the window among the keys.
    Sessions { place: usize, has_event_time: bool },
    /// Sliding windows. `place` is the index of the window among the keys; the key at this index is
    /// the event time instead of the window.
    Slices { place: usize, lengths: Lengths },
}

impl Kind {
    /// The event time among the keys; `None` if no key has one or if the kind is not groups.
    fn event(&self) -> Option<EventKey> {
        match self {
            Self::Groups(event) => *event,
            Self::Sessions { .. } | Self::Slices { .. } => None,
        }
    }

    /// The index of the window key, which does not identify a group; `None` for groups.
    fn place(&self) -> Option<usize> {
        match self {
            Self::Groups(_) => None,
            Self::Sessions { place, .. } | Self::Slices { place, .. } => Some(*place),
        }
    }
}

/// How an aggregation is distributed over workers.
#[derive(Clone, Copy)]
struct Distribution {
    is_only_instance: bool,
    /// Whether rows are pre-aggregated before the exchange.
    is_pre_aggregated: bool,
}

/// The rows sent to the instances of an aggregation.
struct SentRows {
    /// The columns to send. The columns that identify a group come first.
    columns: Vec<Resolved>,
    /// The number of columns that identify a group.
    key_count: usize,
    /// The aggregation, over the columns of these rows.
    grouping: Grouping,
}

/// An aggregation as the logical plan has it: the input, the grouping keys and the aggregate calls.
struct Aggregation {
    input: Plan,
    keys: Vec<(Resolved, String)>,
    calls: Vec<AggregateCall>,
}

/// An aggregation that is being lowered. Its expressions refer to the columns of its input rows.
#[derive(Clone)]
struct Grouping {
    kind: Kind,
    keys: Vec<Resolved>,
    calls: Vec<AggregateCall>,
    columns: Schema,
    /// The difference between the query's watermark and the lower watermark of the rows, in
    /// microseconds.
    lag_us: i64,
}

impl Grouping {
    fn exprs(&self) -> impl Iterator<Item = &Resolved> {
        self.keys.iter().chain(self.calls.iter().flat_map(|c| c.args.iter().chain(&c.filter)))
    }

    /// Computes the columns that are sent to the instances, and the aggregation over them.
    fn sent_rows(&self) -> SentRows {
        let Self { kind, keys, calls, lag_us, .. } = self.clone();
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|i| kind.place() == Some(*i));
        let key_count = keys.len() - usize::from(kind.place().is_some());
        let mut sent: Vec<Resolved> = order.iter().map(|i| keys[*i].clone()).collect();
        let mut moved_keys = keys;
        for (to, i) in order.into_iter().enumerate() {
            moved_keys[i] = column(to, &sent[to]);
        }
        let mut moved = |expr: &Resolved| {
            // Constants are not sent. Some functions require a constant as an argument.
            if matches!(expr.node, Node::Literal(_)) || expr.is_constant() {
                return expr.clone();
            }
            sent.push(expr.clone());
            column(sent.len() - 1, expr)
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
        let columns = Schema::new(sent.iter().map(named).collect());
        let grouping = Self { kind, keys: moved_keys, calls, columns, lag_us };
        SentRows { columns: sent, key_count, grouping }
    }
}

/// Evaluates common subexpressions of keys and arguments once, in a projection below the
/// aggregation. `None` if there are no common subexpressions.
fn with_common_subexpressions(
    input: &Plan,
    keys: &[(Resolved, String)],
    calls: &[AggregateCall],
) -> Option<Aggregation> {
    // The arguments of a call with a filter are evaluated only for some rows.
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
    let input = Plan::Project(Box::new(input.clone()), named.collect());
    let read = |at, part: Resolved| column(width + at, &part);
    let of = |expr: &Resolved| common.replaced(expr.clone(), &read);
    let keys = keys.iter().map(|(key, name)| (of(key), name.clone())).collect();
    let call = |call: &AggregateCall| {
        let args = call.args.iter().map(of).collect();
        AggregateCall { args, filter: call.filter.as_ref().map(of), ..call.clone() }
    };
    Some(Aggregation { input, keys, calls: calls.iter().map(call).collect() })
}
