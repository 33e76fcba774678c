//! A bounded single-producer single-consumer ring: the queue between tasklets.
//!
//! *Promise.* Every call on a half is wait-free and allocates nothing. A full ring gives the value
//! back.
//!
//! *How.* Lamport's ring with two refinements. Each side keeps a private copy of the other side's
//! index and reloads it only when the copy says full (or empty). A side publishes its own index
//! once per drain ([`Producer::publish`], [`Consumer::release`]) instead of once per value. So the
//! cache line of an index moves once per burst and not once per value.
//!
//! *Indices* run from 0 to `usize::MAX` and wrap; the slot is the index modulo the capacity, a
//! power of two.
//!
//! *Threads.* The two halves are `Send`, not `Clone`: one thread pushes, one pops.

use crate::sync::primitives::{Arc, AtomicUsize, Ordering, UnsafeCell, fence};
use crossbeam_utils::CachePadded;
use std::mem::MaybeUninit;

struct Shared<T> {
    /// First index that is not yet visible to the consumer. Written by the producer only.
    tail: CachePadded<AtomicUsize>,
    /// First index that the producer must not yet overwrite. Written by the consumer only.
    head: CachePadded<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    mask: usize,
}

// SAFETY: a slot is touched by one side at a time: the producer owns the indices from its tail up
// to head + capacity, the consumer those from its head up to tail; ownership passes with the
// release store and acquire load of the two indices. `T: Send` because values change threads.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as for `Sync`; the slots are plain memory.
unsafe impl<T: Send> Send for Shared<T> {}

/// The pushing half of a ring.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// Next index to write; at or ahead of the published tail.
    next: usize,
    /// The producer's copy of the published tail.
    published: usize,
    /// The consumer's head as last read by the producer.
    head_seen: usize,
}

/// The popping half of a ring.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// Next index to read; at or ahead of the released head.
    next: usize,
    /// The consumer's copy of the released head.
    released: usize,
    /// The producer's tail as last read by the consumer.
    tail_seen: usize,
}

/// Creates a ring for `capacity` values, rounded up to a power of two.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1).next_power_of_two();
    let slots = (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared {
        tail: CachePadded::new(AtomicUsize::new(0)),
        head: CachePadded::new(AtomicUsize::new(0)),
        slots,
        mask: capacity - 1,
    });
    (
        Producer { shared: shared.clone(), next: 0, published: 0, head_seen: 0 },
        Consumer { shared, next: 0, released: 0, tail_seen: 0 },
    )
}

impl<T> Producer<T> {
    /// The capacity of the ring.
    pub fn capacity(&self) -> usize {
        self.shared.mask + 1
    }

    /// Whether a push would fail now. The consumer may free slots at any time.
    #[inline]
    pub fn is_full(&mut self) -> bool {
        if self.next.wrapping_sub(self.head_seen) <= self.shared.mask {
            return false;
        }
        // ORDERING: pairs with the release store of `head` in `Consumer::release`: the consumer's
        // reads of the slots that it gave back happen before we overwrite them.
        self.head_seen = self.shared.head.load(Ordering::Acquire);
        self.next.wrapping_sub(self.head_seen) > self.shared.mask
    }

    /// Writes `value` after the values pushed before, without publishing it: the consumer sees it
    /// after [`publish`](Self::publish). Gives the value back if the ring is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.is_full() {
            return Err(value);
        }
        let slot = &self.shared.slots[self.next & self.shared.mask];
        // SAFETY: `is_full` was false, so the index lies in the producer's part, where the
        // consumer neither reads nor writes, and the slot holds no value.
        slot.with_mut(|slot| unsafe { (*slot).write(value) });
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// Makes all pushed values visible to the consumer. Returns false if none were pushed since the
    /// last call.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.published == self.next {
            return false;
        }
        self.published = self.next;
        // ORDERING: pairs with the acquire load of `tail` in `Consumer::refresh`: the slots
        // written above happen before the consumer reads them.
        self.shared.tail.store(self.next, Ordering::Release);
        true
    }

    /// Whether the consumer was dropped. Values pushed from now on are dropped with the ring.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }
}

impl<T> Consumer<T> {
    #[inline]
    fn refresh(&mut self) -> bool {
        if self.next == self.tail_seen {
            // ORDERING: pairs with the release store in `Producer::publish`.
            self.tail_seen = self.shared.tail.load(Ordering::Acquire);
        }
        self.next != self.tail_seen
    }

    /// Whether nothing is visible to pop now. The producer may publish at any time.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        !self.refresh()
    }

    /// Number of values that can be popped now. The producer may publish more at any time.
    pub fn available(&mut self) -> usize {
        // ORDERING: pairs with the release store in `Producer::publish`.
        self.tail_seen = self.shared.tail.load(Ordering::Acquire);
        self.tail_seen.wrapping_sub(self.next)
    }

    /// The capacity of the ring.
    pub fn capacity(&self) -> usize {
        self.shared.mask + 1
    }

    /// Takes the oldest published value; `None` if there is none. Its slot goes back to the
    /// producer at [`release`](Self::release).
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if !self.refresh() {
            return None;
        }
        let slot = &self.shared.slots[self.next & self.shared.mask];
        // SAFETY: the index lies before the published tail and at or after our head, so the
        // producer has written the slot and will not touch it before `release`; it is read once,
        // because `next` moves past it.
        let value = slot.with(|slot| unsafe { (*slot).assume_init_read() });
        self.next = self.next.wrapping_add(1);
        Some(value)
    }

    /// The value that will be popped after `ahead` others, if it is known to be published. Does not
    /// look for newly published values.
    #[inline]
    pub fn peek(&self, ahead: usize) -> Option<&T> {
        if ahead >= self.tail_seen.wrapping_sub(self.next) {
            return None;
        }
        let slot = &self.shared.slots[self.next.wrapping_add(ahead) & self.shared.mask];
        // SAFETY: as in `pop`. The value is not read twice: the borrow of the consumer ends before
        // it is popped.
        Some(slot.with(|slot| unsafe { (*slot).assume_init_ref() }))
    }

    /// Returns the slots of all popped values to the producer. Returns false if none were popped
    /// since the last call.
    #[inline]
    pub fn release(&mut self) -> bool {
        if self.released == self.next {
            return false;
        }
        self.released = self.next;
        // ORDERING: pairs with the acquire load of `head` in `Producer::is_full`.
        self.shared.head.store(self.next, Ordering::Release);
        true
    }

    /// Whether the producer has been dropped. Values that it published can still be popped.
    pub fn is_abandoned(&self) -> bool {
        let abandoned = Arc::strong_count(&self.shared) == 1;
        // ORDERING: pairs with the release decrement when the producer's half was dropped, after
        // its last publish: a pop after this call sees all that it left.
        fence(Ordering::Acquire);
        abandoned
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        // Values are not lost when their producer is dropped between two drains.
        self.publish();
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // ORDERING: both halves are gone, and the reference count's own ordering made their last
        // stores visible here.
        let tail = self.tail.load(Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Relaxed);
        while head != tail {
            let slot = &self.slots[head & self.mask];
            // SAFETY: slots from head to tail hold values that were not popped, and both halves are
            // gone.
            slot.with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn values_that_are_known_to_be_published_can_be_seen_before_they_are_popped() {
        let (mut producer, mut consumer) = ring(4);
        (0..3).for_each(|n| producer.push(n.to_string()).unwrap());
        producer.publish();
        assert_eq!(consumer.peek(0), None, "nothing is known before the first pop");
        assert_eq!(consumer.pop().as_deref(), Some("0"));
        producer.push("3".to_string()).unwrap();
        producer.publish();
        let seen: Vec<_> = (0..4).map(|ahead| consumer.peek(ahead).cloned()).collect();
        assert_eq!(seen, [Some("1".to_string()), Some("2".to_string()), None, None]);
        assert_eq!(consumer.pop().as_deref(), Some("1"));
        assert_eq!(consumer.pop().as_deref(), Some("2"));
        assert_eq!(consumer.peek(0), None);
        assert_eq!(consumer.pop().as_deref(), Some("3"));
    }

    #[test]
    fn full_ring_returns_the_value_and_a_dropped_ring_drops_its_values() {
        let token = std::sync::Arc::new(());
        let (mut tx, mut rx) = ring(2);
        tx.push(token.clone()).unwrap();
        tx.push(token.clone()).unwrap();
        assert!(tx.push(token.clone()).is_err());
        assert!(rx.pop().is_none(), "nothing is visible before publish");
        assert!(tx.publish());
        drop(rx.pop());
        assert!(tx.is_full(), "a slot comes back at release");
        rx.release();
        assert!(!tx.is_full());
        drop((tx, rx));
        assert_eq!(std::sync::Arc::strong_count(&token), 1);
    }

    #[test]
    fn two_threads_pass_every_value_once_and_in_order() {
        let (mut tx, mut rx) = ring::<Box<u64>>(8);
        let count = if cfg!(debug_assertions) { 20_000 } else { 200_000 };
        let producer = std::thread::spawn(move || {
            for i in 0..count {
                let mut value = Box::new(i);
                while let Err(back) = tx.push(value) {
                    value = back;
                    tx.publish();
                    std::thread::yield_now();
                }
                if i % 3 == 0 {
                    tx.publish();
                }
            }
        });
        let mut expected = 0;
        while expected < count {
            match rx.pop() {
                Some(value) => {
                    assert_eq!(*value, expected);
                    expected += 1;
                }
                None => {
                    rx.release();
                    std::thread::yield_now();
                }
            }
        }
        producer.join().unwrap();
        assert!(rx.pop().is_none());
        assert!(rx.is_abandoned());
    }

    proptest! {
        /// Any sequence of calls behaves like a queue with a separate "visible" mark.
        #[test]
        fn the_ring_behaves_like_a_queue(capacity in 1usize..9, calls in proptest::collection::vec(0u8..4, 0..200)) {
            let (mut tx, mut rx) = ring(capacity);
            let capacity = tx.capacity();
            let (mut hidden, mut visible, mut unreleased) = (VecDeque::new(), VecDeque::new(), 0);
            for (i, call) in calls.into_iter().enumerate() {
                match call {
                    0 => {
                        let fits = hidden.len() + visible.len() + unreleased < capacity;
                        prop_assert_eq!(tx.push(i).is_ok(), fits);
                        if fits { hidden.push_back(i); }
                    }
                    1 => {
                        prop_assert_eq!(tx.publish(), !hidden.is_empty());
                        visible.append(&mut hidden);
                    }
                    2 => {
                        let expected = visible.pop_front();
                        prop_assert_eq!(rx.pop(), expected);
                        unreleased += usize::from(expected.is_some());
                    }
                    _ => {
                        prop_assert_eq!(rx.release(), unreleased > 0);
                        unreleased = 0;
                    }
                }
            }
        }
    }
}
