//! Millstream's ring compared with rtrb and crossbeam's queues: the same items, capacity and
//! threads, in alternating samples. `cargo bench -p millstream-benches --bench ring`.
//!
//! `burst`: one thread pushes and pops bursts of 64, the cost of the code alone. `stream`: two
//! threads at their maximum rate.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millstream_engine::sync::ring::ring;
use std::hint::black_box;
use std::time::{Duration, Instant};

type Item = [u64; 8];
const CAPACITY: usize = 1024;
const BURST: usize = 64;

fn burst(c: &mut Criterion) {
    let mut group = c.benchmark_group("burst");
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function("millstream", |b| {
        let (mut tx, mut rx) = ring::<Item>(CAPACITY);
        b.iter(|| {
            for i in 0..BURST as u64 {
                let _ = tx.push([i; 8]);
            }
            tx.publish();
            while let Some(item) = rx.pop() {
                black_box(item);
            }
            rx.release();
        });
    });
    group.bench_function("rtrb", |b| {
        let (mut tx, mut rx) = rtrb::RingBuffer::<Item>::new(CAPACITY);
        b.iter(|| {
            for i in 0..BURST as u64 {
                let _ = tx.push([i; 8]);
            }
            while let Ok(item) = rx.pop() {
                black_box(item);
            }
        });
    });
    group.bench_function("crossbeam ArrayQueue", |b| {
        let queue = crossbeam_queue::ArrayQueue::<Item>::new(CAPACITY);
        b.iter(|| {
            for i in 0..BURST as u64 {
                let _ = queue.push([i; 8]);
            }
            while let Some(item) = queue.pop() {
                black_box(item);
            }
        });
    });
    group.bench_function("crossbeam channel", |b| {
        let (tx, rx) = crossbeam_channel::bounded::<Item>(CAPACITY);
        b.iter(|| {
            for i in 0..BURST as u64 {
                let _ = tx.try_send([i; 8]);
            }
            while let Ok(item) = rx.try_recv() {
                black_box(item);
            }
        });
    });
    group.finish();
}

/// Sends `count` items from another thread to this one.
fn pass(
    count: u64,
    mut push: impl FnMut(Item, bool) -> bool + Send,
    mut pop: impl FnMut() -> Option<Item>,
) -> Duration {
    std::thread::scope(|scope| {
        let start = Instant::now();
        scope.spawn(move || {
            for i in 0..count {
                while !push([i; 8], i % BURST as u64 == BURST as u64 - 1 || i + 1 == count) {
                    std::hint::spin_loop();
                }
            }
        });
        let mut got = 0;
        while got < count {
            match pop() {
                Some(item) => {
                    black_box(item);
                    got += 1;
                }
                None => std::hint::spin_loop(),
            }
        }
        start.elapsed()
    })
}

fn stream(c: &mut Criterion) {
    let mut group = c.benchmark_group("stream");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.bench_function("millstream", |b| {
        b.iter_custom(|count| {
            let (mut tx, mut rx) = ring::<Item>(CAPACITY);
            let push = move |item, last| {
                let pushed = tx.push(item).is_ok();
                // Items are published once per burst, as a drain does, and whenever the ring is
                // full.
                if last || !pushed {
                    tx.publish();
                }
                pushed
            };
            pass(count, push, || {
                let item = rx.pop();
                if item.is_none() {
                    rx.release();
                }
                item
            })
        });
    });
    // Publishes each item. The comparison with `millstream` shows the effect of publishing once per
    // burst.
    group.bench_function("millstream, each published", |b| {
        b.iter_custom(|count| {
            let (mut tx, mut rx) = ring::<Item>(CAPACITY);
            let push = move |item, _| {
                let pushed = tx.push(item).is_ok();
                tx.publish();
                pushed
            };
            pass(count, push, || {
                let item = rx.pop();
                rx.release();
                item
            })
        });
    });
    group.bench_function("rtrb", |b| {
        b.iter_custom(|count| {
            let (mut tx, mut rx) = rtrb::RingBuffer::<Item>::new(CAPACITY);
            pass(count, move |item, _| tx.push(item).is_ok(), || rx.pop().ok())
        });
    });
    group.bench_function("crossbeam ArrayQueue", |b| {
        b.iter_custom(|count| {
            let queue = crossbeam_queue::ArrayQueue::<Item>::new(CAPACITY);
            pass(count, |item, _| queue.push(item).is_ok(), || queue.pop())
        });
    });
    group.bench_function("crossbeam channel", |b| {
        b.iter_custom(|count| {
            let (tx, rx) = crossbeam_channel::bounded::<Item>(CAPACITY);
            pass(count, move |item, _| tx.try_send(item).is_ok(), || rx.try_recv().ok())
        });
    });
    group.finish();
}

criterion_group!(benches, burst, stream);
criterion_main!(benches);
