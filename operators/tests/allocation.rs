//! A query that has warmed up makes no allocation for each record, and frees what it no longer
//! needs: a global allocator counts the allocations of worker threads, and the bytes in use.
#![cfg(feature = "sql")]
#![allow(unsafe_code, reason = "an allocator is unsafe; this one passes everything on")]

#[cfg(all(feature = "protobuf", feature = "schema-registry"))]
mod registry;
mod two_streams;

use millstream::session::{Session, Trigger};
use millstream::stream::{
    Checkpointed, Count, Flow, Input, StateBackend, TimeOffset, WindowResult, WindowResults,
};
use millstream::{Config, WaitProfile};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

struct Counting;

static ARMED: AtomicBool = AtomicBool::new(false);
static COUNTED: AtomicU64 = AtomicU64::new(0);
/// Bytes that are allocated and not freed, of all threads.
static IN_USE: AtomicI64 = AtomicI64::new(0);

#[derive(Clone, Copy, PartialEq)]
enum Thread {
    Unknown,
    Worker,
    Other,
}

thread_local! {
    static THREAD: Cell<Thread> = const { Cell::new(Thread::Unknown) };
}

fn count() {
    // ORDERING: relaxed: read when the worker has nothing to do.
    if !ARMED.load(Ordering::Relaxed) {
        return;
    }
    // The thread-local value of a thread that is ending is already destroyed.
    let is_worker = THREAD.try_with(|thread| {
        if thread.get() == Thread::Unknown {
            // Reading the thread's name may allocate.
            thread.set(Thread::Other);
            // Workers are named after their query.
            let current = std::thread::current();
            if current.name().is_some_and(|name| name.ends_with("-w0") || name.ends_with("-w1")) {
                thread.set(Thread::Worker);
            }
        }
        thread.get() == Thread::Worker
    });
    if is_worker == Ok(true) {
        let first = COUNTED.fetch_add(1, Ordering::Relaxed) == 0;
        if first {
            // With `WHERE=1` the first allocation is printed, which allocates too.
            ARMED.store(false, Ordering::Relaxed);
            if std::env::var_os("WHERE").is_some() {
                eprintln!("{}", std::backtrace::Backtrace::force_capture());
            }
            ARMED.store(true, Ordering::Relaxed);
        }
    }
}

// SAFETY: every call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        IN_USE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        IN_USE.fetch_add(size as i64 - layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A lock, so that only one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// How often workers allocated while `body` ran.
fn allocations(body: impl FnOnce()) -> u64 {
    COUNTED.store(0, Ordering::Relaxed);
    ARMED.store(true, Ordering::Relaxed);
    body();
    ARMED.store(false, Ordering::Relaxed);
    COUNTED.load(Ordering::Relaxed)
}

/// How often workers allocated in the best of three runs of `body`. What a record costs is counted
/// in each of them; a buffer grows in a run in which more waits than ever before, which depends on
/// how the threads are scheduled.
fn fewest_allocations(mut body: impl FnMut()) -> u64 {
    let mut runs = (0..3).map(|_| allocations(&mut body));
    let first = runs.next().unwrap_or(0);
    if first == 0 { 0 } else { runs.fold(first, u64::min) }
}

fn config(parallelism: usize) -> Config {
    // No epoch ends in between, because allocations of epochs are not measured here.
    let trigger = Trigger::Continuous { interval_ns: 3_600_000_000_000 };
    Config {
        workers: parallelism,
        pin: false,
        wait: WaitProfile::Park,
        trigger,
        ..Config::default()
    }
}

#[test]
fn allocations_are_counted() {
    let _alone = alone();
    let counted = allocations(|| {
        let body = || drop(std::hint::black_box(vec![1, 2, 3]));
        let worker = std::thread::Builder::new().name("counted-w0".into()).spawn(body).unwrap();
        worker.join().unwrap();
        let other = std::thread::Builder::new().name("other".into()).spawn(body).unwrap();
        other.join().unwrap();
    });
    assert!((1..20).contains(&counted), "{counted}");
}

#[test]
fn typed_records_cost_no_allocation() {
    let _alone = alone();
    for parallelism in [1, 2] {
        typed_records(Flow::new("typed").parallelism(parallelism), parallelism);
        let name = format!("millstream-allocation-{}-{parallelism}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let flow = Flow::new("kept").parallelism(parallelism).checkpoint(&folder);
        typed_records(flow, parallelism);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

/// Passes records through a flow without or with a checkpoint.
fn typed_records<C: StateBackend<u32, u64>>(flow: Flow<C>, parallelism: usize) {
    let (mut records, stream) = flow.channel::<(u32, u64)>();
    let out = Arc::new(AtomicU64::new(0));
    let counter = out.clone();
    let counts = stream.filter(|(_, n)| n % 10 != 0).map(|(key, n)| (key % 100, n));
    counts.key_by(|(key, _)| *key).aggregate(Count).sink(move |_: (u32, u64)| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let query = flow.start(config(parallelism)).unwrap();
    let mut run = |number: u64, expected: u64| {
        for n in 0..number {
            records.push((n as u32, n)).unwrap();
        }
        let start = Instant::now();
        while out.load(Ordering::Relaxed) < expected {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", query.exception());
            std::thread::yield_now();
        }
    };
    run(10_000, 9_000);
    let counted = allocations(|| run(100_000, 99_000));
    assert_eq!(counted, 0, "parallelism {parallelism}");
    query.stop().unwrap();
}

/// Builds an operator over two streams of `(key, time, number)`, which counts its results.
type TwoStreams =
    fn(Flow<Checkpointed>, Counter) -> (Input<Timed>, Input<Timed>, Flow<Checkpointed>);

type Timed = (u32, i64, u64);
type Counter = Arc<AtomicU64>;

/// Two keyed streams with watermarks, each from a channel.
macro_rules! two_streams {
    ($flow:ident, |$left:ident, $right:ident| $body:expr) => {{
        let (left_input, $left) = $flow.channel::<Timed>();
        let (right_input, $right) = $flow.channel::<Timed>();
        let delay = Duration::from_millis(10);
        let $left = $left.with_watermark(|record| record.1, delay).key_by(|record| record.0);
        let $right = $right.with_watermark(|record| record.1, delay).key_by(|record| record.0);
        $body;
        (left_input, right_input, $flow)
    }};
}

fn join(
    flow: Flow<Checkpointed>,
    counter: Counter,
) -> (Input<Timed>, Input<Timed>, Flow<Checkpointed>) {
    two_streams!(flow, |left, right| {
        let join = left.interval_join(right).between(TimeOffset::ZERO, TimeOffset::ZERO);
        join.full_outer(|l, r| l.is_some() && r.is_some()).sink(move |matched: bool| {
            counter.fetch_add(u64::from(matched), Ordering::Relaxed);
        });
    })
}

fn windows(
    results: WindowResults,
    flow: Flow<Checkpointed>,
    counter: Counter,
) -> (Input<Timed>, Input<Timed>, Flow<Checkpointed>) {
    two_streams!(flow, |left, right| {
        right
            .tumbling_window(Duration::from_secs(3600))
            .aggregate(Count)
            .sink(|_: WindowResult<u32, u64>| {});
        let windows = left.sliding_window(Duration::from_millis(2), Duration::from_millis(1));
        windows.results(results).aggregate(Count).sink(move |result: WindowResult<u32, u64>| {
            counter.fetch_add(result.value, Ordering::Relaxed);
        });
    })
}

/// Records of windows and of an interval join are buffered, matched and removed without an
/// allocation per record. Buffers that have grown to their final size are reused.
#[test]
fn records_of_windows_and_joins_cost_no_allocation() {
    let _alone = alone();
    let cases: [(&str, u64, TwoStreams); 3] = [
        ("join", 1, join),
        ("windows", 2, |flow, counter| windows(WindowResults::AtWatermark, flow, counter)),
        ("changes", 2, |flow, counter| windows(WindowResults::EachChange, flow, counter)),
    ];
    for (name, of_record, make) in cases {
        let folder = format!("millstream-allocation-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        let counter = Counter::default();
        let flow = Flow::new(name).checkpoint(&folder);
        let (mut left, mut right, flow) = make(flow, counter.clone());
        let query = flow.start(config(1)).unwrap();
        let mut sent = 0;
        let mut round = |number: u64| {
            for n in sent..sent + number {
                // Records have 20 keys, and event times that are 50 us apart.
                let record = ((n % 20) as u32, 1_000_000 + n as i64 * 50, n);
                left.push(record).unwrap();
                right.push(record).unwrap();
            }
            sent += number;
            // The results of the last 500 records may be missing, because their windows are open.
            let wanted = (sent - 500) * of_record;
            let start = Instant::now();
            while counter.load(Ordering::Relaxed) < wanted {
                assert!(start.elapsed() < Duration::from_secs(60), "{:?}", query.exception());
                std::thread::yield_now();
            }
        };
        (0..4).for_each(|_| round(10_000));
        let counted = allocations(|| round(10_000));
        // The change log of an epoch grows with its records, chunk by chunk.
        assert!(counted <= 60, "{counted} for 10000 records: {name}");
        query.stop().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

/// Sends lines and receives the same number of lines.
fn exchange(lines: &str, to: &mut TcpStream, from: &mut TcpStream, buffer: &mut [u8]) {
    let left = lines.lines().count();
    exchange_for(left, lines, (to, from), buffer);
}

/// Sends lines, and receives `left` lines.
fn exchange_for(
    mut left: usize,
    lines: &str,
    (to, from): (&mut TcpStream, &mut TcpStream),
    buffer: &mut [u8],
) {
    for part in lines.as_bytes().chunks(1 << 14) {
        to.write_all(part).unwrap();
    }
    while left > 0 {
        let count = from.read(buffer).unwrap();
        assert!(count > 0, "the results ended");
        left = left.saturating_sub(buffer[..count].iter().filter(|b| **b == b'\n').count());
    }
}

#[test]
fn rows_over_sockets_cost_no_allocation() {
    let _alone = alone();
    for (sql, mode) in [
        ("SELECT upper(value) AS value FROM lines WHERE NOT contains(value, 'drop')", "append"),
        // Two branches of a query read one source.
        (
            "SELECT value FROM lines WHERE value LIKE '%1' UNION ALL \
             SELECT reverse(value) FROM lines WHERE value NOT LIKE '%1'",
            "append",
        ),
        (
            "SELECT word, count(*) AS n, sum(length(word)) AS s FROM \
             (SELECT explode(split(value, ' ')) AS word FROM lines) GROUP BY word",
            "update",
        ),
        (
            "SELECT e.b.k AS k, count(*), max(e.b.x), CAST(sum(e.b.x) AS STRING) AS s, \
             max(timestamp_micros(CAST(e.b.x * 100 AS BIGINT))) AS t, max(CAST(e.b.x AS DECIMAL(9, 2))) AS d FROM \
             (SELECT from_json(value, 'b STRUCT<k: STRING, x: DOUBLE>') AS e FROM lines) GROUP BY e.b.k",
            "update",
        ),
    ] {
        let session = Session::new();
        let (input, output) = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap()).into();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let reader = session.read_stream().format("socket").option("host", "127.0.0.1");
        reader.option("port", port(&input)).load().unwrap().create_temp_view("lines");
        let writer = session.sql(sql).unwrap().write_stream().output_mode(mode).format("socket");
        let writer = writer.option("host", "127.0.0.1").option("port", port(&output));
        let config = config(1);
        let writer = writer.option("format", "json").trigger(config.trigger).config(config);
        let query = writer.start().unwrap();
        let (mut to, mut from) = (input.accept().unwrap().0, output.accept().unwrap().0);
        let (mut lines, mut buffer) = (String::new(), vec![0; 1 << 16]);
        for n in 0..5_000 {
            if sql.contains("from_json") {
                writeln!(lines, "{{\"b\": {{\"k\": \"key {}\", \"x\": {n}.25}}}}", n % 50).unwrap();
            } else {
                writeln!(lines, "word-{}", n % 50).unwrap();
            }
        }
        for _ in 0..3 {
            exchange(&lines, &mut to, &mut from, &mut buffer);
        }
        let counted = fewest_allocations(|| exchange(&lines, &mut to, &mut from, &mut buffer));
        assert_eq!(counted, 0, "{sql}");
        query.stop().unwrap();
    }
}

/// Decodes records with a schema of a registry, and messages of Protobuf. They are sent as lines:
/// they contain no line feed, and only bytes that are text.
#[cfg(all(feature = "protobuf", feature = "schema-registry"))]
#[test]
fn records_that_are_decoded_cost_no_allocation() {
    let _alone = alone();
    let registry = registry::FakeRegistry::start();
    let schema = r#"{"type": "record", "name": "R", "fields": [{"name": "id", "type": "int"},
        {"name": "tags", "type": {"type": "array", "items": "string"}}]}"#;
    registry.register("s", 1, schema);
    registry.register("s", 2, &schema.replace("\"int\"", "\"long\""));
    let descriptors = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/protobuf/all.desc");
    let avro = format!("from_avro(CAST(value AS BINARY), 's', '{}').tags[0]", registry.address);
    let protobuf = format!("from_protobuf(CAST(value AS BINARY), 'test.Nested', '{descriptors}')");
    let protobuf = format!("CAST({protobuf}.packed[1] AS STRING)");
    for (decoded, records) in [
        // Records of two schemas in turn.
        (avro, ["\0\0\0\0\x01\x04\x02\x02a\0", "\0\0\0\0\x02\x06\x02\x02b\0"]),
        (protobuf, ["\x12\x02\x08\x01\x1A\x02\x10\x05B\x01aR\x02\x01\x02", "R\x02\x01\x05"]),
    ] {
        let sql = format!("SELECT {decoded} AS value FROM lines");
        let session = Session::new();
        let (input, output) = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap()).into();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let reader = session.read_stream().format("socket").option("host", "127.0.0.1");
        reader.option("port", port(&input)).load().unwrap().create_temp_view("lines");
        let writer = session.sql(&sql).unwrap().write_stream().format("socket");
        let writer = writer.option("host", "127.0.0.1").option("port", port(&output));
        let config = config(1);
        let writer = writer.option("format", "json").trigger(config.trigger).config(config);
        let query = writer.start().unwrap();
        let (mut to, mut from) = (input.accept().unwrap().0, output.accept().unwrap().0);
        let (lines, mut buffer) =
            (format!("{}\n", records.join("\n")).repeat(2_500), vec![0; 1 << 16]);
        for _ in 0..3 {
            exchange(&lines, &mut to, &mut from, &mut buffer);
        }
        let counted = fewest_allocations(|| exchange(&lines, &mut to, &mut from, &mut buffer));
        assert_eq!(counted, 0, "{sql}");
        query.stop().unwrap();
    }
}

/// A stream is joined with itself. Rows are buffered, matched and removed without an allocation per
/// row.
#[test]
fn rows_of_a_join_cost_no_allocation() {
    let _alone = alone();
    let timed = "(SELECT e.k AS k, timestamp_millis(e.t) AS t FROM (SELECT \
                 from_json(value, 'k BIGINT, t BIGINT') AS e FROM lines)) WATERMARK t DELAY OF INTERVAL 1 SECOND";
    for (kind, ahead) in [("JOIN", "0"), ("FULL JOIN", "0"), ("LEFT JOIN", "0.010")] {
        let at = format!("a.t + INTERVAL '{ahead}' SECOND");
        let sql = format!(
            "SELECT a.k AS value FROM {timed} a {kind} {timed} b ON a.k = b.k AND b.t >= {at} AND \
             b.t <= {at}"
        );
        let session = Session::new();
        let (input, output) = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap()).into();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let reader = session.read_stream().format("socket").option("host", "127.0.0.1");
        reader.option("port", port(&input)).load().unwrap().create_temp_view("lines");
        let writer = session.sql(&sql).unwrap().write_stream().format("socket");
        let writer = writer.option("host", "127.0.0.1").option("port", port(&output));
        let config = config(1);
        let writer = writer.option("format", "json").trigger(config.trigger).config(config);
        let query = writer.start().unwrap();
        let (mut to, mut from) = (input.accept().unwrap().0, output.accept().unwrap().0);
        let mut buffer = vec![0; 1 << 16];
        // Each row matches itself immediately, or is emitted with NULLs a second later.
        let mut round = |number: u64, answers: usize| {
            let mut lines = String::new();
            for n in number * 5_000..(number + 1) * 5_000 {
                writeln!(lines, "{{\"k\": {}, \"t\": {n}}}", n % 50).unwrap();
            }
            exchange_for(answers, &lines, (&mut to, &mut from), &mut buffer);
        };
        round(1, 3_500);
        (2..6).for_each(|number| round(number, 5_000));
        let counted = allocations(|| round(6, 5_000));
        // A run that buffers more rows than ever before needs a few more chunks: how many rows wait
        // for their eviction depends on how the threads are scheduled.
        assert!(counted <= 50, "{counted} for 5000 rows: {sql}");
        query.stop().unwrap();
    }
}

/// The bytes of a join in progress, by which `maxStateBytes` limits it, are those that its rows take:
/// with their keys, links and entries of the expiry queue.
#[test]
fn the_reported_bytes_of_a_join_are_those_of_the_allocator() {
    let _alone = alone();
    let range = "l.k = r.k AND r.t >= l.t AND r.t <= l.t + INTERVAL 1 HOUR";
    let long = "(SELECT concat(repeat('k', 40), k) AS k, t, v FROM l) l JOIN (SELECT string(k) AS k, t, v FROM r) r";
    for (sql, of_a_key) in [
        (format!("SELECT l.v, r.v FROM l LEFT JOIN r ON {range}"), 1),
        (format!("SELECT l.v, r.v FROM l LEFT JOIN r ON {range}"), 100),
        ("SELECT l.v, r.v FROM l JOIN r ON l.k = r.k".to_string(), 1),
        (format!("SELECT l.v, r.v FROM {long} ON {range}"), 1),
    ] {
        let run = two_streams::Setup::new(&sql, 0, two_streams::CONTINUOUS).start().unwrap();
        // Rows are added in small parts, so that the queues of the source do not grow.
        let part = 2_000;
        let grow_to = |end: i64, from: i64| {
            for begin in (from..end).step_by(part as usize) {
                let row = |v: i64| two_streams::event(v / of_a_key, 100 + v / 1000, v);
                run.add(&(begin..begin + part).map(row).collect::<Vec<_>>(), &[]);
                run.query().process_all_available().unwrap();
            }
            let in_use = IN_USE.load(Ordering::Relaxed);
            let state = run.query().last_progress().unwrap().committed.state[0];
            (in_use, state.join.unwrap().inputs[0].bytes as i64)
        };
        let before = grow_to(40_000, 0);
        let after = grow_to(120_000, 40_000);
        let (taken, reported) = (after.0 - before.0, after.1 - before.1);
        assert!((reported - taken).abs() * 5 < taken, "{reported} of {taken}: {sql}, {of_a_key}");
    }
}

/// Clones of an input are created and dropped, each after one record.
#[test]
fn the_memory_of_dropped_input_clones_is_freed() {
    let _alone = alone();
    let flow = Flow::new("clones");
    let (input, numbers) = flow.channel::<u64>();
    let (sink, mut output) = flow.output();
    numbers.sink(sink);
    let query = flow.start(config(1)).unwrap();
    let mut clones = |count: u64| {
        for n in 0..count {
            input.clone().push(n).unwrap();
            assert_eq!(output.recv().unwrap(), n);
        }
        IN_USE.load(Ordering::Relaxed)
    };
    let before = clones(1_000);
    let grown = clones(20_000) - before;
    assert!(grown < 100_000, "20,000 clones left {grown} bytes");
    query.stop().unwrap();
}

/// An epoch may allocate for its report, but independently of the number of records.
#[test]
fn epochs_cost_a_few_allocations_whatever_the_records() {
    let _alone = alone();
    let session = Session::new();
    let numbers = session.read_stream().format("rate").option("rowsPerSecond", 100_000);
    numbers.load().unwrap().create_temp_view("numbers");
    let sql = "SELECT value % 100 AS k, count(*) AS n FROM numbers GROUP BY value % 100";
    let writer = session.sql(sql).unwrap().write_stream().output_mode("update").format("noop");
    let trigger = Trigger::Continuous { interval_ns: 5_000_000 };
    let query = writer.trigger(trigger).config(Config { trigger, ..config(1) }).start().unwrap();
    let epochs_pass = |epochs: u64| {
        let (start, first) = (Instant::now(), query.totals().epochs);
        while query.totals().epochs < first + epochs {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", query.exception());
            std::thread::yield_now();
        }
    };
    epochs_pass(50);
    let before = query.totals().epochs;
    let counted = allocations(|| epochs_pass(200));
    let epochs = query.totals().epochs - before;
    assert!(counted <= 4 * epochs, "{counted} in {epochs} epochs");
    query.stop().unwrap();
}
