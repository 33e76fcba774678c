//! Model checks of the lock-free code: every interleaving of small programs.
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p millstream-engine --release --test loom`.
#![cfg(loom)]

use loom::thread;
use millstream_engine::ring::ring;
use millstream_engine::wake::ParkFlag;
use std::sync::Arc as StdArc;

#[test]
fn values_arrive_once_and_in_order_through_a_ring_that_wraps() {
    loom::model(|| {
        let (mut tx, mut rx) = ring::<Box<u32>>(2);
        let producer = thread::spawn(move || {
            let mut sent = 0;
            for i in 0..3 {
                match tx.push(Box::new(i)) {
                    Ok(()) => sent += 1,
                    Err(_) => break,
                }
                tx.publish();
            }
            sent
        });
        let mut got = Vec::new();
        for _ in 0..3 {
            if let Some(value) = rx.pop() {
                got.push(*value);
                rx.release();
            }
        }
        let sent = producer.join().unwrap();
        while let Some(value) = rx.pop() {
            got.push(*value);
        }
        assert_eq!(got, (0..sent).collect::<Vec<u32>>());
    });
}

#[test]
fn batched_publication_shows_whole_batches() {
    loom::model(|| {
        let (mut tx, mut rx) = ring::<u32>(4);
        let producer = thread::spawn(move || {
            tx.push(1).unwrap();
            tx.push(2).unwrap();
            tx.publish();
        });
        if let Some(first) = rx.pop() {
            assert_eq!(first, 1);
            assert_eq!(rx.pop(), Some(2), "published together");
        }
        producer.join().unwrap();
    });
}

#[test]
fn dropping_either_half_first_drops_every_value_once() {
    loom::model(|| {
        let (mut tx, mut rx) = ring::<loom::sync::Arc<()>>(2);
        let token = loom::sync::Arc::new(());
        let sent = token.clone();
        let producer = thread::spawn(move || {
            tx.push(sent).unwrap();
            tx.publish();
        });
        drop(rx.pop());
        drop(rx);
        producer.join().unwrap();
        assert_eq!(loom::sync::Arc::strong_count(&token), 1);
    });
}

/// The sleeper must never sleep over work: if it found none after announcing itself, the waker
/// must have seen the flag.
#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let flag = StdArc::new(ParkFlag::default());
        let (mut tx, mut rx) = ring::<u32>(1);
        let waker_flag = flag.clone();
        let waker = thread::spawn(move || {
            tx.push(7).unwrap();
            tx.publish();
            waker_flag.take()
        });
        flag.announce();
        let would_sleep = rx.is_empty();
        let woken = waker.join().unwrap();
        assert!(!would_sleep || woken, "slept over a published value with nobody to wake it");
    });
}

/// A marker is handed over behind the records pushed before it, never ahead of them.
#[test]
fn a_marker_never_overtakes_records() {
    use millstream_engine::event::{Event, Record};
    loom::model(|| {
        let (mut tx, mut rx) = ring::<Event<u32>>(4);
        let producer = thread::spawn(move || {
            tx.push(Event::Record(Record { value: 1, ingest_ns: 0 })).ok().unwrap();
            tx.publish();
            tx.push(Event::Marker(1)).ok().unwrap();
            tx.publish();
        });
        let mut seen_record = false;
        for _ in 0..3 {
            match rx.pop() {
                Some(Event::Record(_)) => seen_record = true,
                Some(Event::Marker(_)) => assert!(seen_record),
                _ => {}
            }
        }
        producer.join().unwrap();
    });
}
