//! Lowering of deduplication.

use super::Lowering;
use crate::table::expr::functions::as_grouping_key;
use crate::table::expr::{Node, Resolved};
use crate::table::physical::deduplicate::{Deduplicate, EventTimeRule};
use crate::table::physical::join::watermark_lag_us;
use crate::table::physical::stages::BoxChain;
use crate::table::plan::Plan;
use crate::table::row::Slot;
use crate::table::types::DataType;
use millstream_engine::error::EngineError;

impl Lowering<'_, '_> {
    pub(super) fn deduplicate(
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
        // The column that decides whether a row is late. With `within` it is the first event time.
        // Otherwise it is the one among the keys, or else the first that a later stage reads.
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
                expires_null: within,
                late: self.late(
                    "deduplicate",
                    input.schema(),
                    watermark_lag_us(input, self.semantics.zone),
                ),
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
}
