//! The producer of the Kafka sink and the acknowledgements of its records.
//!
//! *Threads.* A thread of the producer receives the acknowledgements. It wakes the worker when the
//! last one has arrived, if the sink waits for it: at the end of an epoch, or because the
//! producer's queue is full. It also wakes it when a record could not be delivered, and when fewer
//! than half of [`MAX_PENDING`] are left. At other times a wake-up would only cost the worker a
//! round.

use millstream_engine::sync::waker::Waker;
use rdkafka::ClientContext;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{ProducerContext, ThreadedProducer};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The number of unacknowledged records of an epoch at which the sink blocks.
pub const MAX_PENDING: u64 = 100_000;

/// A producer whose acknowledgements are counted.
pub type RecordProducer = ThreadedProducer<Context>;

/// Counters of acknowledgements, updated by the threads of the producers.
#[derive(Default)]
pub struct Deliveries {
    /// The number of unacknowledged records of each generation. Epochs have generations 0 and 1 in
    /// turn.
    pending: [AtomicU64; 2],
    /// Whether the sink waits until none is pending, for even and for odd epochs.
    awaited: [AtomicBool; 2],
    /// Whether `failed` has a reason. A flag, because the sink asks at each step.
    has_failed: AtomicBool,
    failed: Mutex<Option<String>>,
    waker: OnceLock<Waker>,
}

impl Deliveries {
    /// Sets the worker to wake.
    pub fn wake(&self, waker: Waker) {
        // A second call would fail. There is none, because one worker runs the sink.
        drop(self.waker.set(waker));
    }

    /// Counts a record. Call this before it is sent: its acknowledgement may arrive at once.
    #[inline]
    pub fn add(&self, generation: usize) {
        self.pending[generation].fetch_add(1, Ordering::Relaxed);
    }

    /// Undoes [`add`](Self::add) for a record that could not be sent.
    pub fn remove(&self, generation: usize) {
        // All other acknowledgements may have arrived since `add`. Then none of them was the last.
        if self.pending[generation].fetch_sub(1, Ordering::SeqCst) == 1
            && self.awaited[generation].load(Ordering::SeqCst)
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
    }

    /// Sets whether the last acknowledgement wakes the worker. After setting it, check `pending` once
    /// more.
    pub fn set_awaited(&self, generation: usize, is_awaited: bool) {
        // ORDERING: sequentially consistent, like the decrement of `pending` and the load after it:
        // either the producer's thread sees the flag, or the sink sees that none is pending.
        self.awaited[generation].store(is_awaited, Ordering::SeqCst);
    }

    /// The number of unacknowledged records.
    #[inline]
    pub fn pending(&self, generation: usize) -> u64 {
        // ORDERING: acquires the producer thread's decrement, so that its stored error is visible.
        // Sequentially consistent because of `set_awaited`; for a load that costs nothing more.
        self.pending[generation].load(Ordering::SeqCst)
    }

    /// The first record that was not delivered, and why; `None` if none has failed.
    #[inline]
    pub fn failure(&self) -> Option<String> {
        // ORDERING: acquire: pairs with the release after the reason is stored.
        if !self.has_failed.load(Ordering::Acquire) {
            return None;
        }
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Receives the delivery reports of a producer: acknowledgements and errors.
pub struct Context(pub Arc<Deliveries>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    /// The generation of the record's epoch: 0 or 1.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, generation: usize) {
        let mut failed = false;
        if let Err((error, record)) = result {
            failed = true;
            let mut first = self.0.failed.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| {
                let (topic, partition) = (record.topic(), record.partition());
                let size = record.payload().map_or(0, <[u8]>::len);
                format!(
                    "a record of {size} bytes for topic {topic}, partition {partition}: {error}"
                )
            });
            drop(first);
            // ORDERING: release: see `failure`.
            self.0.has_failed.store(true, Ordering::Release);
        }
        // ORDERING: see `pending` and `set_awaited`.
        let before = self.0.pending[generation].fetch_sub(1, Ordering::SeqCst);
        let is_last = before == 1 && self.0.awaited[generation].load(Ordering::SeqCst);
        if (is_last || failed || before == MAX_PENDING / 2)
            && let Some(waker) = self.0.waker.get()
        {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_awaited_acknowledgement_wakes_the_worker() {
        let (deliveries, waker) = (Deliveries::default(), Waker::thread());
        deliveries.wake(waker.clone());
        let is_woken = || {
            waker.flag().prepare_park();
            deliveries.add(0);
            deliveries.remove(0);
            // A wake-up claims the flag, which nobody else can claim then.
            !waker.flag().claim_wakeup()
        };
        assert!(!is_woken());
        deliveries.set_awaited(0, true);
        assert!(is_woken());
        deliveries.set_awaited(0, false);
        deliveries.set_awaited(1, true);
        assert!(!is_woken(), "another epoch");
    }
}
