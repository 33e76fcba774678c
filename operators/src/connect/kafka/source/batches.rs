//! Batches of a Kafka source in micro-batch mode: how far one reads, and how it begins and ends.

use crate::connect::kafka::offsets::ByPartition;
use crate::connect::kafka::partition::Partition;
use crate::connect::kafka::requests::{Available, Pending};
use crate::connect::kafka::source::KafkaSource;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::error::EngineError;

/// The answer to the request of a plan.
pub(super) struct Plan {
    /// The first offsets, if the source had not started.
    pub(super) start: Option<ByPartition>,
    pub(super) available: Available,
    /// Whether the batch waits for `minOffsetsPerTrigger`.
    delayed: bool,
}

impl KafkaSource {
    /// Reduces a batch to `maxOffsetsPerTrigger`, each partition in proportion to its part of the
    /// backlog of all tasklets. A partition with a backlog gets at least one offset, so a batch may
    /// exceed the limit, as in Spark.
    fn limited(&self, latest: &ByPartition, available: &Available) -> ByPartition {
        let Some(limit) = self.config.max_offsets else { return latest.clone() };
        let total = available.backlog();
        if total <= limit {
            return latest.clone();
        }
        let mut ends = ByPartition::default();
        for (topic, at, end) in latest.iter() {
            let from = available.position(topic, at);
            let size = (end - from).max(0);
            let share = (limit as f64 * size as f64 / total as f64) as i64;
            let end = if size > 0 { (from + share.max(1)).min(end) } else { end };
            ends.set(topic, at, end);
        }
        ends
    }

    /// Whether a plan needs the offsets of all tasklets: a limit of the batch is one for all of
    /// them, however many there are.
    pub(super) fn plans_with_others(&self) -> bool {
        let is_limited = self.config.max_offsets.is_some() || self.config.min_offsets.is_some();
        is_limited && self.assignment.parts > 1
    }

    /// Asks for what a plan needs.
    pub(super) fn ask_plan(&self, extent: ReadLimit) -> Pending<Plan> {
        let (assignment, is_stream) = (self.assignment, self.config.is_stream);
        let with_others = self.plans_with_others();
        let known = self.is_started.then(|| self.offsets());
        let fixed = match extent {
            ReadLimit::AvailableAtStart => self.available_at_start.clone(),
            _ => None,
        };
        self.ask(move |asker| {
            let (own, start) = match known {
                Some(own) => (own, None),
                None => {
                    let start = assignment.own(asker.start()?);
                    (start.clone(), Some(start))
                }
            };
            let available = match (fixed, is_stream) {
                (_, false) => Available::new(asker.batch_end(&own)?, own),
                (Some(latest), true) => asker.fixed(latest, &own)?,
                (None, true) => asker.available(&own, start.is_some(), |topic, partition| {
                    with_others || assignment.is_own(topic, partition)
                })?,
            };
            let delayed = is_stream && asker.delays(assignment.part, available.backlog());
            Ok(Plan { start, available, delayed })
        })
    }

    pub(super) fn end_of_batch(
        &mut self,
        plan: Plan,
        extent: ReadLimit,
    ) -> Result<EndOffset, EngineError> {
        let is_first = plan.start.is_some();
        if let Some(start) = plan.start {
            self.go_to(&start)?;
        }
        let available = plan.available;
        if !self.config.is_stream || extent == ReadLimit::AvailableAtStart {
            self.available_at_start = Some(available.latest.clone());
        }
        let latest = self.assignment.own(available.latest.clone());
        if !self.config.is_stream {
            let end = Offset(latest.to_string());
            return Ok(EndOffset { end, has_new: is_first, exhausted: true, limited: false });
        }
        self.progress.set_planned(&latest);
        let own = self.offsets();
        if plan.delayed && !is_first {
            let end = Offset(own.to_string());
            return Ok(EndOffset { end, has_new: false, exhausted: false, limited: false });
        }
        let end = match extent {
            ReadLimit::All => latest.clone(),
            ReadLimit::RateLimited | ReadLimit::AvailableAtStart => {
                self.limited(&latest, &available)
            }
        };
        self.first_of_new = available.first_of_new;
        let has_new = is_first || end != own;
        let limited = end != latest;
        Ok(EndOffset { end: Offset(end.to_string()), has_new, exhausted: false, limited })
    }

    /// Applies the end of a batch once the first offsets of its new partitions are known. Returns
    /// whether it is applied.
    pub(super) fn apply_end(&mut self) -> Result<bool, EngineError> {
        if self.ending.is_none() {
            return Ok(true);
        }
        if !self.start()? {
            return Ok(false);
        }
        let Some((ends, asked)) = self.ending.take() else { return Ok(true) };
        let mut fresh = ByPartition::default();
        let mut is_complete = true;
        for (topic, at, _) in ends.iter().filter(|(topic, at, _)| !self.is_known(topic, *at)) {
            match self.first_of_new.get(topic, at) {
                Some(first) => fresh.set(topic, at, first),
                None => is_complete = false,
            }
        }
        if !is_complete {
            let asked = asked.unwrap_or_else(|| {
                let (ends, own) = (ends.clone(), self.offsets());
                self.ask(move |asker| asker.first_of_new(&ends, &own))
            });
            match asked.take()? {
                Some(first) => fresh = first,
                None => {
                    self.ending = Some((ends, Some(asked)));
                    return Ok(false);
                }
            }
        }
        if !fresh.0.is_empty() {
            self.add(&fresh)?;
        }
        self.begin_batch(&ends)?;
        Ok(true)
    }

    /// Limits the partitions to the end of a batch. All partitions in `ends` are known.
    pub(super) fn begin_batch(&mut self, ends: &ByPartition) -> Result<(), EngineError> {
        let is_gone = |known: &Partition| ends.get(&known.topic, known.partition).is_none();
        if self.partitions.iter().any(is_gone) {
            let mut offsets = ByPartition::default();
            for known in self.partitions.iter().filter(|known| !is_gone(known)) {
                offsets.set(&known.topic, known.partition, known.next);
            }
            self.go_to(&offsets)?;
        }
        self.open = 0;
        let mut to_move = Vec::new();
        for partition in &mut self.partitions {
            let end = ends.get(&partition.topic, partition.partition).unwrap_or(partition.next);
            partition.end = end;
            if end < partition.next {
                to_move.push((partition.lane, end));
            }
            partition.requeue(&mut self.taken);
            partition.skip_to_reached();
            partition.is_done = partition.next >= end;
            self.open += usize::from(!partition.is_done);
        }
        // Buffered records are processed again, and partitions that were paused for them resume.
        self.resume_paused()?;
        // A move may change the order of the partitions, so they are found by their lanes.
        for (lane, end) in to_move {
            if let Some(index) = self.partitions.iter().position(|known| known.lane == lane) {
                self.move_to(index, end)?;
            }
        }
        Ok(())
    }

    /// Switches to continuous mode after a batch that an earlier run had planned. Partitions then
    /// have no end offset.
    pub(super) fn leave_batch(&mut self) -> Result<(), EngineError> {
        for partition in self.partitions.iter_mut().filter(|known| known.end != i64::MAX) {
            (partition.end, partition.is_done) = (i64::MAX, false);
            partition.requeue(&mut self.taken);
        }
        self.resume_paused()
    }
}
