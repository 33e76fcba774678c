//! Lowering of operators with arbitrary state.

use super::{Lowering, PlacedChain, parts};
use crate::table::arbitrary_state::node::{StateMethod, StateOperator};
use crate::table::arbitrary_state::processor::TimeMode;
use crate::table::physical::arbitrary_state::{InstanceParts, KeyOutbox, initial_rows};
use crate::table::physical::join::watermark_lag_us;
use crate::table::physical::row_exchange::{BorrowedRows, RowOutbox};
use crate::table::physical::stages::BoxChain;
use crate::table::plan::Plan;
use crate::table::plan::time_window::has_watermark;
use crate::table::row::Slot;
use crate::table::types::DataType;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::state_log::StateLog;
use millstream_engine::runtime::tasklet::InboxTasklet;

impl Lowering<'_, '_> {
    /// Lowers an operator with arbitrary state. The keys are the first columns of its input.
    pub(super) fn arbitrary_state(
        &mut self,
        input: &Plan,
        keys: usize,
        operator: &StateOperator,
        down: BoxChain,
    ) -> Result<(), EngineError> {
        if operator.mode == TimeMode::EventTime {
            self.advances_by_watermark(input);
        }
        let types: Vec<_> = input.scope().columns.into_iter().map(|c| c.data_type).collect();
        let all = vec![true; types.len()];
        let producers = self.places(parts(input));
        let workers = self.places(self.parallelism);
        let gathers = self.gathers(&workers, down);
        let logs = self.job.operator(workers.len());
        // The initial state is read only before the first epoch of a query.
        let initial = match self.job.next_epoch() {
            0 => initial_rows(operator, keys, workers.len())?,
            _ => workers.iter().map(|_| Vec::new()).collect(),
        };
        let instances: Vec<_> = gathers
            .into_iter()
            .zip(logs)
            .zip(initial)
            .map(|((gather, log), initial)| {
                let parts = self.instance_parts(input, keys, operator, log);
                operator.build(InstanceParts { initial, ..parts }, gather)
            })
            .collect();
        if workers == [0] {
            let Some(instance) = instances.into_iter().next() else {
                unreachable!("there is one instance for each worker")
            };
            return self.feed(input, instance, &all);
        }
        let (outboxes, inlets) = self.job.rings(&producers, &workers);
        for (i, (inlets, instance)) in inlets.into_iter().zip(instances).enumerate() {
            let (port, name) = (self.job.tasklet_port(), format!("{} {i}", operator.method.name()));
            let inbox = InboxTasklet::new(port, name, inlets, BorrowedRows(instance));
            self.job.add_tasklet(workers[i], Box::new(inbox));
        }
        let chain = |outbox| {
            Box::new(KeyOutbox::new(keys, &types, RowOutbox::new(outbox, None))) as BoxChain
        };
        let downs: Vec<PlacedChain> =
            producers.into_iter().zip(outboxes.into_iter().map(chain)).collect();
        self.plan(input, downs, &all)
    }

    fn instance_parts(
        &self,
        input: &Plan,
        keys: usize,
        operator: &StateOperator,
        log: StateLog,
    ) -> InstanceParts {
        let columns = input.scope().columns;
        let width = columns.len();
        let types: Vec<_> = columns.iter().map(|column| column.data_type.clone()).collect();
        let tagged = |i: &usize| columns[*i].tag.delay_ms.is_some();
        let event = (keys..width)
            .find(tagged)
            .filter(|_| operator.mode == TimeMode::EventTime && !self.batch);
        let is_window = |i: usize| matches!(types[i], DataType::Struct(_));
        let lag_us = watermark_lag_us(input, self.semantics.zone);
        let method: StateMethod = operator.method;
        InstanceParts {
            operator: operator.clone(),
            keys,
            event: event.map(|i| (Slot::new(i, width), is_window(i))),
            // The error case does not occur: the event time was validated when the plan was built.
            event_time: operator.event_time().ok().flatten().filter(|_| !self.batch),
            late: self.late(method.name(), input.schema(), lag_us),
            lag_us,
            timed: !self.batch && has_watermark(input),
            continuous: self.job.trigger().is_continuous(),
            times: self.job.times(),
            env: self.job.env(),
            log,
            initial: Vec::new(),
            types,
        }
    }
}
