//! A service and its query: in whichever order handles are dropped, and whether or not results are
//! read, everything ends. A watchdog fails a test that hangs and prints its current step.

use millstream::stream::{
    Count, Flow, Input, Output, PushError, Query, RecvError, RecvTimeoutError,
};
use millstream::{Config, EngineError, Trigger, WaitProfile};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const WAITS: [WaitProfile; 3] = [WaitProfile::Spin, WaitProfile::Balanced, WaitProfile::Park];
const HOUR_NS: u64 = 3_600_000_000_000;
/// Continuous mode with one epoch per hour, so that only the tested events wake a worker, and
/// micro-batch mode.
const TRIGGERS: [Trigger; 2] =
    [Trigger::Continuous { interval_ns: HOUR_NS }, Trigger::AsSoonAsPossible];
/// The capacity of an input in records, and of an output in results.
const CAPACITY: u64 = 4_096;
/// A number of records that exceeds the capacities of input, output and the batch between them.
const MORE_THAN_FITS: u64 = 40_000;

/// Runs `body` on another thread, and fails if it has not returned in time.
fn within<R: Send + 'static>(what: &str, body: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, watch) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = body();
        // If the watchdog has failed the test, there is no receiver.
        let _ = done.send(());
        result
    });
    match watch.recv_timeout(Duration::from_secs(60)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs: {what}"),
        // The sender was dropped by a panic.
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

fn config(wait: WaitProfile, trigger: Trigger) -> Config {
    Config { pin: false, wait, trigger, ..Config::default() }
}

/// Waits until `condition` holds. The watchdog limits the time.
fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

fn all_configs() -> impl Iterator<Item = Config> {
    WAITS.into_iter().flat_map(|wait| TRIGGERS.map(|trigger| config(wait, trigger)))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Nothing was pushed.
    Empty,
    /// No thread reads, so output, input and everything between them are full.
    Full,
    /// An operator panics, and no caller has seen the error yet.
    Panics,
    /// The query has failed, and a caller has seen the error.
    Failed,
}

const STATES: [State; 4] = [State::Empty, State::Full, State::Panics, State::Failed];
const POISON: u64 = u64::MAX;

/// Suppresses the backtraces of deliberate panics, of which there are hundreds.
fn expect_poison() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload_as_str() != Some("poison") {
                hook(panic);
            }
        }));
    });
}

/// A query in a state, and its handles.
fn query_in(state: State, config: Config, parallelism: usize) -> (Input<u64>, Output<u64>, Query) {
    expect_poison();
    let flow = Flow::new("order").parallelism(parallelism);
    let flow = flow.unread_output_timeout(Duration::ZERO);
    let (mut input, numbers) = flow.channel::<u64>();
    let (sink, output) = flow.output();
    let checked = numbers.map(|n| {
        assert!(n != POISON, "poison");
        n
    });
    checked.key_by(|n| n % 4).aggregate(Count).map(|(_, count)| count).sink(sink);
    let query = flow.start(config).unwrap();
    match state {
        State::Empty => {}
        State::Full => fill(&mut input, &query),
        State::Panics => input.push(POISON).unwrap(),
        State::Failed => {
            input.push(POISON).unwrap();
            assert_eq!(query.await_termination().unwrap_err().condition(), "OPERATOR_PANICKED");
        }
    }
    (input, output, query)
}

/// Fills the output and then the input. With one instance, no record moves afterwards.
fn fill(input: &mut Input<u64>, query: &Query) {
    // One more than the output's capacity: all records are taken, and the sink waits with the last
    // result.
    (0..CAPACITY + 1).for_each(|_| input.push(1).unwrap());
    assert_eq!(query.await_termination().unwrap_err().condition(), "OUTPUT_NOT_READ");
    while input.try_push(1).is_ok() {}
}

/// Every order in which handles can be dropped.
fn orders(handles: usize) -> Vec<Vec<usize>> {
    if handles == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for order in orders(handles - 1) {
        for at in 0..handles {
            let mut order = order.clone();
            order.insert(at, handles - 1);
            all.push(order);
        }
    }
    all
}

#[test]
fn handles_can_be_dropped_in_any_order() {
    for config in all_configs() {
        for state in STATES {
            let orders = orders(4);
            for some in orders.chunks(4) {
                let all = some.iter().map(|order| {
                    let (order, config) = (order.clone(), config.clone());
                    std::thread::spawn(move || drop_in_order(order, state, config))
                });
                let all = all.collect::<Vec<_>>();
                all.into_iter().for_each(|one| one.join().unwrap());
            }
        }
    }
}

/// Drops input, output, query and a clone of the input in the given order.
fn drop_in_order(order: Vec<usize>, state: State, config: Config) {
    const NAMES: [&str; 4] = ["input", "output", "query", "clone"];
    let parallelism = 1 + order[0] % 2;
    let names = order.iter().map(|handle| NAMES[*handle]).collect::<Vec<_>>();
    let (wait, trigger) = (config.wait, config.trigger);
    let what = format!("{names:?}, {state:?}, {wait:?}, {trigger:?}, x{parallelism}");
    within(&what, move || {
        let (input, output, query) = query_in(state, config, parallelism);
        let clone = input.clone();
        let mut handles: [Option<Box<dyn Send>>; 4] = [
            Some(Box::new(input)),
            Some(Box::new(output)),
            Some(Box::new(query)),
            Some(Box::new(clone)),
        ];
        order.into_iter().for_each(|handle| drop(handles[handle].take()));
    });
}

#[test]
fn stop_ends_a_query_with_unread_output_and_loses_nothing() {
    for config in all_configs() {
        for parallelism in [1, 2] {
            let what = format!("{:?}, {:?}, x{parallelism}", config.wait, config.trigger);
            let config = config.clone();
            within(&what, move || {
                let flow = Flow::new("unread").parallelism(parallelism);
                let flow = flow.unread_output_timeout(Duration::ZERO);
                let (mut input, numbers) = flow.channel::<u64>();
                let (sink, mut output) = flow.output();
                numbers.flat_map(|n| [2 * n, 2 * n + 1]).sink(sink);
                let query = flow.start(config).unwrap();
                let push = std::thread::spawn(move || {
                    for n in 0.. {
                        if input.push(n).is_err() {
                            return input;
                        }
                    }
                    unreachable!("the input is closed before")
                });
                let unread = query.await_termination().unwrap_err();
                assert_eq!(unread.condition(), "OUTPUT_NOT_READ");
                query.stop().unwrap();
                let mut input = push.join().unwrap();
                // Each committed record has its results, in order.
                let committed = input.committed();
                assert!(committed >= CAPACITY / 2, "{committed}");
                for result in 0..2 * committed {
                    assert_eq!(output.try_recv(), Some(result));
                }
                assert_eq!(output.try_recv(), None);
                assert!(matches!(output.recv(), Err(RecvError::Ended)));
                assert!(matches!(input.push(0), Err(PushError::Closed(0))));
            });
        }
    }
}

/// When a flow with a checkpoint is restarted from its last commit, a reader of both runs sees
/// every result exactly once.
#[test]
fn a_stopped_flow_with_unread_output_continues_from_its_checkpoint() {
    for (number, trigger) in TRIGGERS.into_iter().enumerate() {
        within(&format!("{trigger:?}"), move || {
            let name = format!("unread-{}-{number}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            let (mut results, mut pushed) = (Vec::new(), 0u64);
            while pushed < MORE_THAN_FITS {
                let flow = Flow::new("unread").checkpoint(&folder);
                let (mut input, numbers) = flow.channel::<u64>();
                let (sink, mut output) = flow.output();
                numbers.key_by(|_| 0u64).aggregate(Count).sink(sink);
                let query = flow.start(config(WaitProfile::Park, trigger)).unwrap();
                assert_eq!(input.committed(), pushed);
                for n in pushed..MORE_THAN_FITS {
                    if input.push_timeout(n, Duration::from_millis(20)).is_err() {
                        break;
                    }
                }
                // Each run reads one result, so that the runs come to an end.
                results.push(output.recv().unwrap().1);
                query.stop().unwrap();
                assert!(input.committed() > pushed);
                pushed = input.committed();
                results.extend(std::iter::from_fn(|| output.try_recv()).map(|(_, count)| count));
            }
            assert!(results.into_iter().eq(1..=MORE_THAN_FITS));
            std::fs::remove_dir_all(&folder).unwrap();
        });
    }
}

#[test]
fn waiting_for_a_query_with_unread_output_is_an_error() {
    for config in all_configs() {
        let what = format!("{:?}, {:?}", config.wait, config.trigger);
        within(&what, move || {
            let flow = Flow::new("unread").unread_output_timeout(Duration::ZERO);
            let (sink, mut output) = flow.output();
            flow.items(0..MORE_THAN_FITS).sink(sink);
            let query = flow.start(config).unwrap();
            let condition =
                |result: Result<(), EngineError>| result.unwrap_err().condition().to_string();
            assert_eq!(condition(query.await_termination()), "OUTPUT_NOT_READ");
            assert_eq!(condition(query.process_all_available()), "OUTPUT_NOT_READ");
            assert!(!query.await_termination_timeout(Duration::ZERO).unwrap());
            assert!(query.exception().is_none(), "the query runs on");
            for n in 0..MORE_THAN_FITS {
                assert_eq!(output.recv().unwrap(), n);
            }
            query.await_termination().unwrap();
            assert!(query.await_termination_timeout(Duration::ZERO).unwrap());
            assert!(matches!(output.recv(), Err(RecvError::Ended)));
        });
    }
}

/// The query waits for a slow reader on another thread.
#[test]
fn a_slow_reader_does_not_end_the_query() {
    within("a slow reader", || {
        let flow = Flow::new("slow").unread_output_timeout(Duration::ZERO);
        let (sink, mut output) = flow.output();
        let (mut input, numbers) = flow.channel::<u64>();
        numbers.sink(sink);
        let query = flow.start(config(WaitProfile::Park, TRIGGERS[0])).unwrap();
        let (first, reads) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let (began, goes_on) = (first.clone(), reads.clone());
        let reader = std::thread::spawn(move || {
            // There are no results yet, so the reader waits.
            assert!(matches!(
                output.recv_timeout(Duration::from_millis(1)),
                Err(RecvTimeoutError::Timeout)
            ));
            began.wait();
            goes_on.wait();
            std::iter::from_fn(|| output.recv().ok()).count()
        });
        first.wait();
        (0..2 * CAPACITY).for_each(|n| input.push(n).unwrap());
        drop(input);
        let waits = std::thread::spawn(move || query.await_termination());
        reads.wait();
        waits.join().unwrap().unwrap();
        assert_eq!(reader.join().unwrap() as u64, 2 * CAPACITY);
    });
}

#[test]
fn a_full_input_waits_or_returns_the_record() {
    for config in all_configs() {
        let what = format!("{:?}, {:?}", config.wait, config.trigger);
        within(&what, move || {
            let (mut input, mut output, query) = query_in(State::Full, config, 1);
            let mut clone = input.clone();
            until(|| clone.try_push(7).is_err());
            assert!(matches!(input.try_push(7), Err(PushError::Full(7))));
            for input in [&mut input, &mut clone] {
                let gives_back = input.push_timeout(7, Duration::from_millis(1));
                assert_eq!(gives_back.unwrap_err().into_inner(), 7);
            }
            // Both producers wait on their threads until the output is read.
            let pushes = [input, clone].map(|mut input| {
                std::thread::spawn(move || {
                    input.push(1).unwrap();
                    input
                })
            });
            until(|| {
                output.try_recv();
                pushes.iter().all(|push| push.is_finished())
            });
            let inputs = pushes.map(|push| push.join().unwrap());
            drop(output);
            // Without a reader, results are dropped and all records are processed.
            drop(inputs);
            query.await_termination().unwrap();
        });
    }
}

#[test]
fn a_producer_that_waits_for_room_gets_an_error_when_the_query_ends() {
    for config in all_configs() {
        for (number, ends) in ["stop", "drop", "panic"].into_iter().enumerate() {
            let what = format!("{ends}, {:?}, {:?}", config.wait, config.trigger);
            let config = config.clone();
            within(&what, move || {
                let (mut input, mut output, query) = query_in(State::Full, config, 1);
                let mut clone = input.clone();
                until(|| clone.try_push(1).is_err());
                if number == 2 {
                    // Waits for room for the record that causes the panic.
                    until(|| {
                        output.try_recv();
                        input.try_push(POISON).is_ok()
                    });
                }
                let pushes = [input, clone]
                    .map(|mut input| std::thread::spawn(move || while input.push(1).is_ok() {}));
                match number {
                    0 => query.stop().unwrap(),
                    1 => drop(query),
                    _ => {
                        while output.recv().is_ok() {}
                        assert!(matches!(output.recv(), Err(RecvError::Failed(_))));
                    }
                }
                pushes.into_iter().for_each(|push| push.join().unwrap());
            });
        }
    }
}

/// A waiting thread sleeps: it runs for less than half of the time.
#[cfg(target_os = "linux")]
#[test]
fn a_thread_that_waits_for_room_does_not_spin() {
    let ran_ns = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok())
    };
    within("waits without spinning", move || {
        let full = query_in(State::Full, config(WaitProfile::Park, TRIGGERS[0]), 1);
        let (mut input, output, query) = full;
        let before = ran_ns();
        let began = Instant::now();
        let wait = Duration::from_millis(500);
        assert!(matches!(input.push_timeout(1, wait), Err(PushError::Full(1))));
        assert!(began.elapsed() >= wait);
        if let (Some(before), Some(after)) = (before, ran_ns()) {
            assert!(after - before < 250_000_000, "{} ns of 500 ms", after - before);
        }
        drop((input, output, query));
    });
}

#[test]
fn a_reader_can_tell_time_out_end_and_failure() {
    for config in all_configs() {
        let what = format!("{:?}, {:?}", config.wait, config.trigger);
        within(&what, move || {
            let (mut input, mut output, query) = query_in(State::Empty, config.clone(), 1);
            assert!(output.try_recv().is_none());
            let short = Duration::from_millis(1);
            assert!(matches!(output.recv_timeout(short), Err(RecvTimeoutError::Timeout)));
            assert!(output.outcome().is_none() && !output.is_ended());
            input.push(1).unwrap();
            assert_eq!(output.recv().unwrap(), 1);
            input.push(1).unwrap();
            assert_eq!(output.recv_timeout(Duration::MAX).unwrap(), 2);
            // A sleeping reader is woken when the query ends.
            let reader = std::thread::spawn(move || (output.recv(), output));
            drop(input);
            let (end, mut output) = reader.join().unwrap();
            assert!(matches!(end, Err(RecvError::Ended)));
            assert!(matches!(output.recv_timeout(Duration::MAX), Err(RecvTimeoutError::Ended)));
            assert!(output.is_ended() && output.outcome().unwrap().is_ok());
            query.await_termination().unwrap();

            let (mut input, mut output, query) = query_in(State::Empty, config, 1);
            input.push(1).unwrap();
            assert_eq!(output.recv().unwrap(), 1);
            let reader = std::thread::spawn(move || (output.recv(), output));
            input.push(POISON).unwrap();
            let (end, mut output) = reader.join().unwrap();
            let Err(RecvError::Failed(error)) = end else { panic!("{end:?}") };
            assert_eq!(error.condition(), "OPERATOR_PANICKED");
            let end = EngineError::from(output.recv_timeout(short).unwrap_err());
            assert_eq!(end.condition(), "OPERATOR_PANICKED");
            assert!(query.exception().is_some());
        });
    }
}

#[test]
fn a_flow_that_is_never_started_ends_its_handles() {
    within("never started", || {
        let flow = Flow::new("never");
        let (mut input, numbers) = flow.channel::<u64>();
        let (sink, mut output) = flow.output();
        numbers.sink(sink);
        let mut clone = input.clone();
        until(|| input.try_push(1).is_err());
        let waits = std::thread::spawn(move || (input.push(1), clone.push(1)));
        drop(flow);
        let reader = std::thread::spawn(move || output.recv());
        // The stream is part of the flow, so dropping the flow ends it.
        assert!(matches!(reader.join().unwrap(), Err(RecvError::Ended)));
        let (first, second) = waits.join().unwrap();
        assert!(matches!(first, Err(PushError::Closed(1))), "{first:?}");
        assert!(matches!(second, Err(PushError::Closed(1))), "{second:?}");
    });
}

#[test]
fn producers_that_never_pause_hold_up_no_drain_and_no_stop() {
    for config in all_configs() {
        let what = format!("{:?}, {:?}", config.wait, config.trigger);
        within(&what, move || {
            let flow = Flow::new("busy");
            let (input, numbers) = flow.channel::<u64>();
            let sum = Arc::new(AtomicU64::new(0));
            let seen = sum.clone();
            numbers.sink(move |n| {
                seen.fetch_add(n, Ordering::Relaxed);
            });
            let query = flow.start(config).unwrap();
            let clone = input.clone();
            let producers = [input, clone]
                .map(|mut input| std::thread::spawn(move || while input.push(1).is_ok() {}));
            until(|| sum.load(Ordering::Relaxed) > 10_000);
            query.process_all_available().unwrap();
            query.stop().unwrap();
            producers.into_iter().for_each(|producer| producer.join().unwrap());
        });
    }
}

/// A stop succeeds although another caller waits for all data of an endless source.
#[test]
fn an_endless_source_can_be_stopped_during_process_all_available() {
    for config in all_configs() {
        let what = format!("{:?}, {:?}", config.wait, config.trigger);
        within(&what, move || {
            let flow = Flow::new("endless");
            let seen = Arc::new(AtomicU64::new(0));
            let counts = seen.clone();
            flow.items(0u64..).sink(move |_| {
                counts.fetch_add(1, Ordering::Relaxed);
            });
            let query = Arc::new(flow.start(config).unwrap());
            let waits = query.clone();
            let (tells, told) = mpsc::channel();
            let all = std::thread::spawn(move || {
                tells.send(()).unwrap();
                waits.process_all_available()
            });
            told.recv().unwrap();
            // Meanwhile the other thread is likely to wait, and it cannot have returned.
            let before = seen.load(Ordering::Relaxed);
            until(|| seen.load(Ordering::Relaxed) > before + 100_000);
            assert!(!all.is_finished(), "an endless source always has data");
            query.stop().unwrap();
            all.join().unwrap().unwrap();
        });
    }
}

#[test]
fn each_of_many_producers_keeps_its_order_and_loses_nothing() {
    const PRODUCERS: u64 = 16;
    const EACH: u64 = 5_000;
    for config in all_configs() {
        let what = format!("{:?}, {:?}", config.wait, config.trigger);
        within(&what, move || {
            let flow = Flow::new("producers");
            let (first, numbers) = flow.channel::<(u64, u64)>();
            let (sink, mut output) = flow.output();
            numbers.sink(sink);
            let query = flow.start(config).unwrap();
            let inputs = (1..PRODUCERS).map(|_| first.clone()).collect::<Vec<_>>();
            let inputs = std::iter::once(first).chain(inputs);
            let producers = inputs.enumerate().map(|(producer, mut input)| {
                std::thread::spawn(move || {
                    (0..EACH).for_each(|n| input.push((producer as u64, n)).unwrap());
                })
            });
            let producers = producers.collect::<Vec<_>>();
            let mut next = [0; PRODUCERS as usize];
            while let Ok((producer, n)) = output.recv() {
                assert_eq!(n, next[producer as usize], "producer {producer}");
                next[producer as usize] += 1;
            }
            assert_eq!(next, [EACH; PRODUCERS as usize]);
            producers.into_iter().for_each(|producer| producer.join().unwrap());
            query.await_termination().unwrap();
        });
    }
}

/// 20,000 clones are created and dropped, each after one record.
#[test]
fn no_record_of_a_dropped_input_clone_is_lost() {
    within("clones", || {
        let flow = Flow::new("clones");
        let (input, numbers) = flow.channel::<u64>();
        let (sink, mut output) = flow.output();
        numbers.sink(sink);
        let query = flow.start(config(WaitProfile::Park, TRIGGERS[0])).unwrap();
        for n in 0..20_000 {
            input.clone().push(n).unwrap();
            assert_eq!(output.recv().unwrap(), n);
        }
        drop(input);
        assert!(matches!(output.recv(), Err(RecvError::Ended)));
        query.await_termination().unwrap();
    });
}

/// An operator that waits for its own query gets an error, and it may drop the query.
#[test]
fn waiting_for_a_query_in_its_own_operator_is_an_error() {
    within("a query in its own operator", || {
        let own = Arc::new(std::sync::Mutex::new(None::<Query>));
        let (told, tells) = mpsc::channel();
        let flow = Flow::new("own");
        let (mut input, numbers) = flow.channel::<u64>();
        let held = own.clone();
        numbers.sink(move |_| {
            let query = held.lock().unwrap().take();
            if let Some(query) = query {
                let waits =
                    [query.await_termination(), query.process_all_available(), query.stop()];
                told.send(waits.map(|result| result.unwrap_err().condition().to_string())).unwrap();
                drop(query);
            }
        });
        let query = flow.start(config(WaitProfile::Park, TRIGGERS[0])).unwrap();
        *own.lock().unwrap() = Some(query);
        input.push(1).unwrap();
        assert_eq!(tells.recv().unwrap(), ["WAIT_IN_OPERATOR"; 3]);
        until(|| input.is_closed());
    });
}
