//! An input as a `Sink` and an output as a `Stream`, polled by a small executor of the test's own.
#![cfg(feature = "futures")]

mod waiting;

use futures_core::Stream;
use futures_sink::Sink;
use millstream::stream::{Flow, InputSink, OutputStream, Query};
use millstream::{Config, EngineError, Trigger, WaitProfile};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

const POISON: u64 = u64::MAX;

struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread. A test that hangs fails: it has lost a wake-up.
fn block_on<F: Future>(what: &str, future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Sleeper(std::thread::current())));
    let began = std::time::Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park_timeout(Duration::from_secs(60));
        assert!(began.elapsed() < Duration::from_secs(60), "it hangs: {what}");
    }
}

async fn send(sink: &mut InputSink<u64>, value: u64) -> Result<(), EngineError> {
    poll_fn(|cx| Pin::new(&mut *sink).poll_ready(cx)).await?;
    Pin::new(&mut *sink).start_send(value)?;
    poll_fn(|cx| Pin::new(&mut *sink).poll_flush(cx)).await
}

async fn next(stream: &mut OutputStream<u64>) -> Option<Result<u64, EngineError>> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

fn identity() -> (InputSink<u64>, OutputStream<u64>, Query) {
    let flow = Flow::new("async");
    let (input, numbers) = flow.channel::<u64>();
    let (sink, output) = flow.output();
    let checked = numbers.map(|n| {
        assert!(n != POISON, "poison");
        n
    });
    checked.sink(sink);
    // No epoch ends, so none can wake a task by chance.
    let trigger = Trigger::Continuous { interval_ns: 3_600_000_000_000 };
    let config = Config { pin: false, wait: WaitProfile::Park, trigger, ..Config::default() };
    let query = flow.start(config).unwrap();
    (input.into_sink(), output.into_stream(), query)
}

#[test]
fn producers_wait_for_room_and_the_reader_for_results() {
    const PRODUCERS: u64 = 3;
    const EACH: u64 = 20_000;
    let (first, mut output, query) = identity();
    let sinks = (1..PRODUCERS).map(|_| first.clone()).collect::<Vec<_>>();
    let producers = std::iter::once(first).chain(sinks).enumerate().map(|(producer, mut sink)| {
        std::thread::spawn(move || {
            block_on("a producer", async {
                for n in 0..EACH {
                    send(&mut sink, producer as u64 * EACH + n).await.unwrap();
                }
                poll_fn(|cx| Pin::new(&mut sink).poll_close(cx)).await.unwrap();
                assert!(sink.input().is_none());
                assert_eq!(send(&mut sink, 0).await.unwrap_err().condition(), "CHANNEL_CLOSED");
            });
        })
    });
    let producers = producers.collect::<Vec<_>>();
    let mut seen = [0; PRODUCERS as usize];
    block_on("the reader", async {
        while let Some(value) = next(&mut output).await {
            let value = value.unwrap();
            let producer = (value / EACH) as usize;
            assert_eq!(value % EACH, seen[producer], "producer {producer}");
            seen[producer] += 1;
        }
        assert!(next(&mut output).await.is_none(), "an ended stream stays ended");
    });
    assert_eq!(seen, [EACH; PRODUCERS as usize]);
    producers.into_iter().for_each(|producer| producer.join().unwrap());
    query.await_termination().unwrap();
}

#[test]
fn a_failure_is_the_last_item_and_closes_the_sink() {
    let (mut input, mut output, query) = identity();
    block_on("a failed query", async {
        send(&mut input, 1).await.unwrap();
        assert_eq!(next(&mut output).await.unwrap().unwrap(), 1);
        send(&mut input, POISON).await.unwrap();
        let error = next(&mut output).await.unwrap().unwrap_err();
        assert_eq!(error.condition(), "OPERATOR_PANICKED");
        assert!(next(&mut output).await.is_none());
        assert_eq!(send(&mut input, 1).await.unwrap_err().condition(), "CHANNEL_CLOSED");
    });
    assert!(query.exception().is_some());
}

/// A sink that waits for room is woken when the query stops.
#[test]
fn a_stop_wakes_producers_that_wait_for_room() {
    let (mut input, output, query) = identity();
    let sent = Arc::new(AtomicUsize::new(0));
    let counts = sent.clone();
    let producer = std::thread::spawn(move || {
        block_on("a producer", async {
            while send(&mut input, 1).await.is_ok() {
                counts.fetch_add(1, Ordering::Relaxed);
            }
        });
    });
    // As many values are sent as input and output have room for: the producer waits, or soon will.
    waiting::until("a full channel", || sent.load(Ordering::Relaxed), |sent| *sent >= 8_192);
    query.stop().unwrap();
    producer.join().unwrap();
    drop(output);
}
