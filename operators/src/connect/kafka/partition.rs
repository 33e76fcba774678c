//! The state of a partition that a Kafka source reads.

use crate::connect::kafka::consumer::Message;
use std::collections::VecDeque;
use std::sync::Arc;

/// The number of buffered records beyond the batch's end from which on a partition is paused.
pub const MAX_KEPT: usize = 4096;

/// The state of a partition.
pub struct Partition {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    /// The offset of the next record to emit.
    pub(super) next: i64,
    /// The end offset of the current batch; `i64::MAX` outside of a batch.
    pub(super) end: i64,
    /// Whether the partition has reached the end of the batch.
    pub(super) is_done: bool,
    /// The partition's number in `SourcePartitions`.
    pub(super) lane: usize,
    /// The time at which the partition was found to be at its end, on the monotonic clock in
    /// nanoseconds; `None` if a record has arrived since.
    pub(super) at_end_ns: Option<u64>,
    /// Whether the watermark passes over the partition.
    pub(super) is_idle: bool,
    /// All records below this offset were taken from the consumer.
    pub(super) reached: i64,
    /// Buffered records beyond the end of the batch.
    pub(super) kept: VecDeque<Message>,
    /// The number of buffered records that were put back into [`KafkaSource::taken`]. They are the
    /// partition's next records.
    pub(super) requeued: usize,
    pub(super) is_paused: bool,
}

impl Partition {
    /// A partition that is read from the offset `next`.
    pub(super) fn new(topic: Arc<str>, partition: i32, next: i64, lane: usize) -> Self {
        Self {
            topic,
            partition,
            lane,
            at_end_ns: None,
            is_idle: false,
            next,
            end: i64::MAX,
            is_done: false,
            reached: next,
            kept: VecDeque::new(),
            requeued: 0,
            is_paused: false,
        }
    }

    /// Puts the buffered records in front of all other taken messages.
    pub(super) fn requeue(&mut self, taken: &mut VecDeque<Message>) {
        self.requeued += self.kept.len();
        for message in self.kept.drain(..).rev() {
            taken.push_front(message);
        }
    }

    /// Advances the next offset past transaction markers and deleted records, which are never
    /// delivered. Stops at the end of the batch.
    pub(super) fn skip_to_reached(&mut self) {
        if self.requeued == 0 {
            self.next = self.next.max(self.reached.min(self.end));
        }
    }
}
