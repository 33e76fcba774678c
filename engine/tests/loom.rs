//! Model checks of the lock-free code: every interleaving of small programs.
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p millstream-engine --release --test loom`.
#![cfg(loom)]

use loom::thread;
use millstream_engine::sync::ring::{Consumer, ring};
use millstream_engine::sync::waker::ParkFlag;
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

/// The sleeper must not sleep while there is work: if it found none after its announcement, the
/// waker must have seen the flag.
#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let flag = StdArc::new(ParkFlag::default());
        let (mut tx, mut rx) = ring::<u32>(1);
        let waker_flag = flag.clone();
        let waker = thread::spawn(move || {
            tx.push(7).unwrap();
            tx.publish();
            waker_flag.claim_wakeup()
        });
        flag.prepare_park();
        let would_sleep = rx.is_empty();
        let woken = waker.join().unwrap();
        assert!(!would_sleep || woken, "slept over a published value with nobody to wake it");
    });
}

/// A marker arrives after the records that were pushed before it.
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

/// Values of several producers arrive once, each producer's in its order.
#[test]
fn values_of_several_producers_arrive_once_and_in_order() {
    use millstream_engine::sync::mpsc::queue;
    let mut model = loom::model::Builder::new();
    // Checking every interleaving of three threads takes hours. Two preemptions are enough to find
    // the faults of queues; voluntary switches are not limited.
    model.preemption_bound = Some(2);
    model.check(|| {
        let (tx, mut rx) = queue::<Box<(usize, u32)>>(2);
        let push =
            |tx: millstream_engine::sync::mpsc::Producer<Box<(usize, u32)>>, producer, values| {
                (0..values).take_while(|n| tx.push(Box::new((producer, *n))).is_ok()).count() as u32
            };
        let first = (tx.clone(), move |tx| push(tx, 0, 2));
        let second = (tx, move |tx| push(tx, 1, 1));
        let first = thread::spawn(move || (first.1)(first.0));
        let second = thread::spawn(move || (second.1)(second.0));
        let mut next = [0; 2];
        let mut take = |value: Box<(usize, u32)>| {
            assert_eq!(value.1, next[value.0], "in the producer's order");
            next[value.0] += 1;
        };
        for _ in 0..2 {
            if let Some(value) = rx.pop() {
                take(value);
            }
        }
        let sent = [first.join().unwrap(), second.join().unwrap()];
        while let Some(value) = rx.pop() {
            take(value);
        }
        assert_eq!(next, sent);
    });
}

/// A waiting producer is woken although the consumer fences only once per capacity: it must not
/// sleep while there is space and the consumer has stopped.
#[test]
fn a_producer_that_waits_for_room_is_woken() {
    use millstream_engine::sync::waker::SpaceNotifier;
    const CAPACITY: usize = 2;
    loom::model(|| {
        let (room, work) = (StdArc::new(ParkFlag::default()), StdArc::new(ParkFlag::default()));
        let (mut tx, mut rx) = ring::<u32>(CAPACITY);
        let mut notice = SpaceNotifier::new(CAPACITY);
        let (consumer_room, consumer_work) = (room.clone(), work.clone());
        // Pops all values and returns whether waiting producers must be notified.
        let drain = |rx: &mut Consumer<u32>, notice: &mut SpaceNotifier| {
            let mut popped = 0;
            while rx.pop().is_some() {
                popped += 1;
            }
            rx.release();
            notice.popped(popped);
            notice.is_due(true)
        };
        let consumer = thread::spawn(move || {
            // Drains, announces that it will sleep, and drains once more.
            let mut rang = drain(&mut rx, &mut notice) && consumer_room.claim_wakeup();
            consumer_work.prepare_park();
            rang |= drain(&mut rx, &mut notice) && consumer_room.claim_wakeup();
            (rang, rx, notice)
        });
        let (mut woke, mut waits) = (false, false);
        for value in 0..3 {
            if tx.push(value).is_err() {
                room.prepare_park();
                waits = tx.is_full();
                break;
            }
            tx.publish();
            woke |= work.claim_wakeup();
        }
        let (rang, mut rx, mut notice) = consumer.join().unwrap();
        // A consumer that is woken drains once more.
        let rings = woke && drain(&mut rx, &mut notice);
        assert!(!waits || rang || rings, "waits for room that nobody tells it of");
    });
}
