//! A bounded multi-producer single-consumer queue, for inputs that several threads push into.
//!
//! *Promise.* No push or pop blocks or allocates. A full queue gives the value back. Values of one
//! producer are popped in the order in which it pushed them.
//!
//! *How.* Vyukov's bounded queue with a single consumer. Each slot has a stamp: `i` says that the
//! slot is free for the value with index `i`, `i + 1` that this value is there to be popped. A
//! producer claims an index by a compare-and-swap of the tail, writes the value and then the stamp.
//! The consumer pops an index when its stamp says so, and stamps the slot for the next lap.
//!
//! *A producer that is descheduled* between its claim and its stamp hides the values after its own.
//! The consumer then sees an empty queue and does not wait; the producer must wake it after the
//! push returns, as after any push.
//!
//! *Threads.* The producing half can be cloned and shared; one thread pops.

use crate::sync::primitives::{Arc, AtomicUsize, Ordering, UnsafeCell};
use crossbeam_utils::CachePadded;
use std::mem::MaybeUninit;

struct Slot<T> {
    stamp: AtomicUsize,
    value: UnsafeCell<MaybeUninit<T>>,
}

struct Shared<T> {
    /// The next index to claim.
    tail: CachePadded<AtomicUsize>,
    slots: Box<[Slot<T>]>,
    mask: usize,
}

// SAFETY: a slot's value is touched by the producer that has claimed its index, until its stamp is
// stored, and then by the consumer alone, until it has stored the stamp of the next lap; the
// release stores and acquire loads of stamps order both. `T: Send` because values change threads.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as for `Sync`; the slots are plain memory.
unsafe impl<T: Send> Send for Shared<T> {}

/// The pushing half of a queue.
pub struct Producer<T>(Arc<Shared<T>>);

impl<T> Clone for Producer<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The popping half of a queue.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// The next index to pop.
    head: usize,
}

/// Creates a queue for `capacity` values, rounded up to a power of two; at least two.
pub fn queue<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    // With one slot, the stamp "free for the next lap" would equal the stamp "filled in this lap".
    let capacity = capacity.max(2).next_power_of_two();
    let slot = |index| Slot {
        stamp: AtomicUsize::new(index),
        value: UnsafeCell::new(MaybeUninit::uninit()),
    };
    let shared = Arc::new(Shared {
        tail: CachePadded::new(AtomicUsize::new(0)),
        slots: (0..capacity).map(slot).collect(),
        mask: capacity - 1,
    });
    (Producer(shared.clone()), Consumer { shared, head: 0 })
}

impl<T> Producer<T> {
    /// Adds a value, which is visible to the consumer once all values before it are. Gives it back
    /// if the queue is full.
    #[inline]
    pub fn push(&self, value: T) -> Result<(), T> {
        let shared = &*self.0;
        // ORDERING: relaxed: the index is a guess until the slot's stamp has confirmed it.
        let mut index = shared.tail.load(Ordering::Relaxed);
        loop {
            let slot = &shared.slots[index & shared.mask];
            // ORDERING: pairs with the release store in `Consumer::pop`: the consumer has read the
            // value of the lap before.
            let stamp = slot.stamp.load(Ordering::Acquire);
            match stamp.wrapping_sub(index) as isize {
                0 => {
                    // ORDERING: relaxed: the tail only hands out indices; the stamps order the
                    // rest.
                    match shared.tail.compare_exchange_weak(
                        index,
                        index.wrapping_add(1),
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    ) {
                        Ok(_) => {
                            // SAFETY: the stamp was `index`, so the slot holds no value, and the
                            // swap gave this index to this thread alone.
                            slot.value.with_mut(|cell| unsafe { (*cell).write(value) });
                            // ORDERING: pairs with the acquire load in `Consumer::pop`.
                            slot.stamp.store(index.wrapping_add(1), Ordering::Release);
                            return Ok(());
                        }
                        Err(now) => index = now,
                    }
                }
                // The value of the previous lap is still in the slot.
                behind if behind < 0 => return Err(value),
                // Another producer has taken this index.
                _ => index = shared.tail.load(Ordering::Relaxed),
            }
        }
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest value. Returns `None` if the queue is empty, or while the producer of the
    /// oldest value is still writing it.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let slot = &self.shared.slots[self.head & self.shared.mask];
        // ORDERING: pairs with the release store in `Producer::push`.
        if slot.stamp.load(Ordering::Acquire) != self.head.wrapping_add(1) {
            return None;
        }
        // SAFETY: the stamp says that the value of this index is written, and it is read once: the
        // head moves past it.
        let value = slot.value.with(|cell| unsafe { (*cell).assume_init_read() });
        // ORDERING: pairs with the acquire load in `Producer::push`: the read above happens before
        // the slot is written again.
        let next_lap = self.head.wrapping_add(self.shared.mask).wrapping_add(1);
        slot.stamp.store(next_lap, Ordering::Release);
        self.head = self.head.wrapping_add(1);
        Some(value)
    }

    /// The maximum number of values in the queue.
    pub fn capacity(&self) -> usize {
        self.shared.mask + 1
    }

    /// Values that are in the queue or being written into it now.
    pub fn claimed(&self) -> usize {
        // ORDERING: relaxed: a count. A push that happened before this call is counted, since
        // whatever ordered the two made the tail visible.
        self.shared.tail.load(Ordering::Relaxed).wrapping_sub(self.head)
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        // Producers may still write values after this loop. Those values are dropped with the
        // slots, and so are values behind one that was being written.
        while self.pop().is_some() {}
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Both halves are gone, so no index is claimed and unwritten. The stamp of each remaining
        // value is one more than its index.
        for (at, slot) in self.slots.iter().enumerate() {
            // ORDERING: relaxed: the reference count's own ordering made all stores visible here.
            let stamp = slot.stamp.load(Ordering::Relaxed);
            if stamp & self.mask == (at + 1) & self.mask {
                // SAFETY: such a stamp says that the slot holds a value, and nobody else is left. A
                // free slot's stamp is equal to its own index, modulo the capacity.
                slot.value.with_mut(|cell| unsafe { (*cell).assume_init_drop() });
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn full_queue_returns_the_value_and_a_dropped_queue_drops_its_values() {
        let token = std::sync::Arc::new(());
        let (tx, mut rx) = queue(2);
        for _ in 0..5 {
            tx.push(token.clone()).unwrap();
            tx.push(token.clone()).unwrap();
            assert!(tx.push(token.clone()).is_err());
            assert_eq!(rx.claimed(), 2);
            assert!(rx.pop().is_some() && rx.pop().is_some() && rx.pop().is_none());
        }
        tx.push(token.clone()).unwrap();
        drop(rx);
        assert_eq!(std::sync::Arc::strong_count(&token), 1, "dropped with the consumer");
        tx.push(token.clone()).unwrap();
        drop(tx);
        assert_eq!(std::sync::Arc::strong_count(&token), 1, "dropped with the slots");
    }

    #[test]
    fn each_producer_keeps_its_order() {
        const PRODUCERS: usize = 4;
        let (tx, mut rx) = queue::<Box<(usize, u64)>>(8);
        let count = if cfg!(miri) { 50 } else { 5_000 };
        std::thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let tx = tx.clone();
                scope.spawn(move || {
                    for number in 0..count {
                        let mut value = Box::new((producer, number));
                        while let Err(back) = tx.push(value) {
                            value = back;
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut next = [0; PRODUCERS];
            while next.iter().sum::<u64>() < PRODUCERS as u64 * count {
                match rx.pop() {
                    Some(value) => {
                        assert_eq!(value.1, next[value.0], "producer {}", value.0);
                        next[value.0] += 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
        assert!(rx.pop().is_none());
    }
}
