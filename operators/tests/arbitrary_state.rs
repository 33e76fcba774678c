//! Arbitrary state over rows: the rules of `transform_with_state` and `flat_map_groups_with_state`,
//! in both modes and with restarts.
#![cfg(feature = "sql")]

use millstream::session::{DataFrame, GroupedData, QueryError, Session, Trigger};
use millstream::stream::{ListState, MapState, SimEnv, Ttl, ValueState};
use millstream::table::arbitrary_state::{
    GroupState, GroupStateTimeout, InputRows, StateError, StateOutput, StatefulProcessor,
    StatefulProcessorHandle, TimeMode,
};
use millstream::table::error::PlanResult;
use millstream::table::expr::{call, col};
use millstream::table::types::{DataType, Schema};
use millstream::table::value::Value;
use std::sync::Arc;
use std::time::Duration;

const SECOND: i64 = 1_000_000;
const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 2_000_000 };
const BATCHES: Trigger = Trigger::AsSoonAsPossible;

/// Key, time in seconds, number.
type Input = (i64, i64, i64);

fn schema(ddl: &str) -> Schema {
    Schema::parse_ddl(ddl).unwrap()
}

/// Several runs of one query in one environment. Each run reads its own rows.
struct Runs {
    world: Arc<SimEnv>,
    mode: &'static str,
}

impl Runs {
    fn new() -> Self {
        let world = Arc::new(SimEnv::new(5));
        world.advance(1000 * 1_000_000_000);
        Self { world, mode: "append" }
    }

    /// Continues with more rows. Returns the output, sorted.
    fn run(
        &mut self,
        rows: &[Input],
        (trigger, parallelism): (Trigger, usize),
        make: impl FnOnce(DataFrame) -> PlanResult<DataFrame>,
    ) -> Result<Vec<String>, QueryError> {
        let session = Session::new();
        session.set("millstream.parallelism", &parallelism.to_string())?;
        let stream = session.memory_stream("in", "k BIGINT, ts TIMESTAMP, n BIGINT")?;
        let long = Value::Long;
        stream.add(rows.iter().map(|(k, t, n)| vec![long(*k), long(t * SECOND), long(*n)]));
        stream.close();
        let frame = make(session.view("in").unwrap())?;
        let writer = frame.write_stream().format("memory").query_name("out");
        let writer = writer.output_mode(self.mode).option("checkpointLocation", "/c");
        writer.trigger(trigger).simulate(&self.world, 7)?;
        let table = session.table("out");
        let mut rows: Vec<_> =
            table.map_or(Vec::new(), |table| table.rows()).iter().map(|row| text(row)).collect();
        rows.sort();
        Ok(rows)
    }
}

fn text(row: &[Value]) -> String {
    let one = |value: &Value| match value {
        Value::Null => "-".to_string(),
        Value::Long(v) => v.to_string(),
        Value::String(v) => v.clone(),
        other => format!("{other:?}"),
    };
    row.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn long(value: &Value) -> i64 {
    match value {
        Value::Long(v) => *v,
        other => panic!("{other:?} is no number"),
    }
}

fn with_watermark(frame: DataFrame) -> PlanResult<DataFrame> {
    frame.with_watermark("ts", "0 seconds")
}

fn condition(error: &QueryError) -> String {
    error.condition().to_string()
}

/// Emits the arguments of each call: the numbers of the rows, or a timer. A row with the number 7
/// cancels all timers. Any other row sets one timer at its time plus three seconds.
#[derive(Clone)]
struct Calls {
    count: ValueState<i64>,
}

impl StatefulProcessor for Calls {
    fn handle_input_rows(
        &mut self,
        key: &[Value],
        rows: InputRows<'_>,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        let mut numbers = String::new();
        for row in rows {
            let (ts, n) = (long(&row[1]) / SECOND, long(&row[2]));
            numbers += &format!(" {n}");
            if n == 7 {
                for timer in handle.list_timers()? {
                    handle.delete_timer(timer)?;
                }
            } else {
                // A key has at most one timer per time, however often it is set.
                handle.register_timer((ts + 3) * 1000)?;
                handle.register_timer((ts + 3) * 1000)?;
            }
        }
        let calls = handle.value(self.count).copied().unwrap_or(0) + 1;
        handle.update_value(self.count, calls)?;
        let timers = handle.list_timers()?;
        let what = format!("call {calls}:{numbers}, timers {timers:?}");
        handle.emit(vec![key[0].clone(), Value::String(what)])?;
        Ok(())
    }

    fn handle_expired_timer(
        &mut self,
        key: &[Value],
        timer_ms: i64,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        let watermark = handle.current_watermark_ms().unwrap();
        assert!(timer_ms <= watermark, "{timer_ms} is reached at {watermark}");
        handle.emit(vec![key[0].clone(), Value::String(format!("timer {timer_ms}"))])?;
        Ok(())
    }
}

fn calls(frame: DataFrame) -> PlanResult<DataFrame> {
    let grouped = with_watermark(frame)?.group_by([col("k")]);
    grouped.transform_with_state(schema("k BIGINT, what STRING"), TimeMode::EventTime, |states| {
        Ok(Calls { count: states.value("count", Ttl::NONE)? })
    })
}

/// The rows of a key in a batch are passed together, timers fire after all rows when the watermark
/// has reached their time, and late rows are dropped. State and timers survive restarts.
#[test]
fn a_batch_calls_once_for_each_key() {
    for parallelism in [[1, 1, 1], [3, 1, 2]] {
        let mut runs = Runs::new();
        let mut run =
            |rows: &[Input], at: usize| runs.run(rows, (BATCHES, parallelism[at]), calls).unwrap();
        let out = run(&[(1, 10, 1), (2, 11, 2), (1, 12, 3), (1, 9, 4)], 0);
        let first = "1 call 1: 1 3 4, timers [12000, 13000, 15000]";
        assert_eq!(out, [first, "1 timer 12000", "2 call 1: 2, timers [14000]"]);
        // The watermark is 12, so the timer at 13 is not due yet.
        let out = run(&[(3, 12, 5), (1, 13, 6)], 1);
        assert_eq!(out, ["1 call 2: 6, timers [13000, 15000, 16000]", "1 timer 13000"]);
        let out = run(&[(1, 14, 7), (4, 20, 8)], 2);
        assert_eq!(out, ["1 call 3: 7, timers []", "2 timer 14000", "4 call 1: 8, timers [23000]"]);
    }
}

#[test]
fn continuous_mode_calls_with_each_row() {
    let mut runs = Runs::new();
    let mut run =
        |rows: &[Input], parallelism| runs.run(rows, (CONTINUOUS, parallelism), calls).unwrap();
    let out = run(&[(1, 10, 1), (2, 11, 2), (1, 12, 3), (1, 9, 4)], 1);
    assert_eq!(
        out,
        [
            "1 call 1: 1, timers [13000]",
            "1 call 2: 3, timers [13000, 15000]",
            "2 call 1: 2, timers [14000]"
        ]
    );
    let out = run(&[(1, 13, 6)], 2);
    assert_eq!(out, ["1 call 3: 6, timers [13000, 15000, 16000]", "1 timer 13000"]);
}

/// Emits its state, then writes a number to each state.
#[derive(Clone)]
struct Recent {
    value: ValueState<i64>,
    list: ListState<Value>,
    map: MapState<i64, String>,
}

impl StatefulProcessor for Recent {
    fn handle_input_rows(
        &mut self,
        _: &[Value],
        rows: InputRows<'_>,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        for row in rows {
            let n = long(&row[2]);
            let list: Vec<_> = handle.list(self.list).map(long).collect();
            let mut map: Vec<_> = handle.map(self.map).map(|(k, v)| format!("{k}{v}")).collect();
            map.sort();
            let what = format!("{:?} {list:?} {map:?}", handle.value(self.value));
            handle.emit(vec![Value::String(what)])?;
            handle.update_value(self.value, n)?;
            handle.append(self.list, Value::Long(n))?;
            handle.update_map(self.map, n, "x".to_string())?;
        }
        Ok(())
    }
}

/// Each write restarts the time to live of a value. Each list element and each map entry has its
/// own time to live.
#[test]
fn a_value_is_not_visible_after_its_time_to_live() {
    for trigger in [CONTINUOUS, BATCHES] {
        let mut runs = Runs::new();
        let mut step = |after_s: u64, rows: &[Input]| {
            runs.world.advance(after_s * 1_000_000_000);
            let out = runs.run(rows, (trigger, 1), |frame| {
                let grouped = frame.group_by([col("k")]);
                let mode = TimeMode::ProcessingTime;
                grouped.transform_with_state(schema("what STRING"), mode, |states| {
                    let ttl = Ttl::after(Duration::from_secs(10));
                    Ok(Recent {
                        value: states.value("value", ttl)?,
                        list: states.list("list", ttl)?,
                        map: states.map("map", ttl)?,
                    })
                })
            });
            out.unwrap()
        };
        assert_eq!(step(0, &[(1, 0, 5)]), ["None [] []"]);
        assert_eq!(step(6, &[(1, 0, 6)]), ["Some(5) [5] [\"5x\"]"]);
        assert_eq!(step(6, &[(1, 0, 7)]), ["Some(6) [6] [\"6x\"]"]);
        assert_eq!(step(60, &[(1, 0, 8)]), ["None [] []"]);
    }
}

/// Each key sets a timer at one second. A timer that fires sets another one a millisecond later.
#[derive(Clone)]
struct Again {
    count: ValueState<i64>,
}

impl StatefulProcessor for Again {
    fn handle_input_rows(
        &mut self,
        _: &[Value],
        _: InputRows<'_>,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        Ok(handle.register_timer(1000)?)
    }

    fn handle_expired_timer(
        &mut self,
        _: &[Value],
        timer_ms: i64,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        let fired = handle.value(self.count).copied().unwrap_or(0) + 1;
        handle.update_value(self.count, fired)?;
        handle.register_timer(timer_ms + 1)?;
        Ok(handle.emit(vec![Value::Long(timer_ms)])?)
    }
}

/// A timer that a timer sets and that is already due waits for the next batch, so that every batch
/// ends.
#[test]
fn a_timer_that_is_due_when_it_is_set_waits_for_the_next_batch() {
    let mut runs = Runs::new();
    let mut run = |rows: &[Input]| {
        let out = runs.run(rows, (BATCHES, 1), |frame| {
            let grouped = with_watermark(frame)?.group_by([col("k")]);
            grouped.transform_with_state(schema("ms BIGINT"), TimeMode::EventTime, |states| {
                Ok(Again { count: states.value("count", Ttl::NONE)? })
            })
        });
        out.unwrap()
    };
    // The batch without rows that the watermark causes fires the first timer.
    assert_eq!(run(&[(1, 100, 1)]), ["1000"]);
    // A batch with a row runs, and then a batch without rows. Each batch fires one timer of each
    // key.
    assert_eq!(run(&[(2, 101, 1)]), ["1000", "1001", "1001", "1002"]);
}

/// Counts rows by key. A row with a positive number `n` sets the time-out to `n` seconds later; a
/// row with a negative number removes the state.
fn counted(timeout: GroupStateTimeout) -> impl FnOnce(DataFrame) -> PlanResult<DataFrame> {
    move |frame| {
        let function =
            move |key: &[Value], rows: InputRows<'_>, state: &mut GroupState<'_, i64>| {
                let k = key[0].clone();
                if state.has_timed_out() {
                    let n = state.get().copied();
                    state.remove();
                    let n = n.map_or(Value::Null, Value::Long);
                    return Ok(vec![vec![k, n, Value::String("out".to_string())]]);
                }
                for row in rows {
                    let (ts, n) = (long(&row[1]) / SECOND, long(&row[2]));
                    let count = state.get().copied().unwrap_or(0) + 1;
                    state.update(count)?;
                    match timeout {
                        GroupStateTimeout::EventTimeTimeout if n > 0 => {
                            state.set_timeout_timestamp((ts + n) * 1000)?;
                        }
                        GroupStateTimeout::ProcessingTimeTimeout if n > 0 => {
                            state.set_timeout_duration(Duration::from_secs(n as u64))?;
                        }
                        _ => {}
                    }
                    if n < 0 {
                        state.remove();
                    }
                }
                let n = state.get().copied().map_or(Value::Null, Value::Long);
                Ok(vec![vec![k, n, Value::String("rows".to_string())]])
            };
        let output = StateOutput::new(schema("k BIGINT, n BIGINT, what STRING"));
        let frame = match timeout {
            GroupStateTimeout::EventTimeTimeout => with_watermark(frame)?,
            _ => frame,
        };
        frame.group_by([col("k")]).flat_map_groups_with_state(output, timeout, function)
    }
}

/// A key times out when the watermark has passed the time, not when it has reached it.
#[test]
fn a_key_times_out_when_the_watermark_passes_its_timestamp() {
    for trigger in [CONTINUOUS, BATCHES] {
        let mut runs = Runs::new();
        let mut run = |rows: &[Input]| {
            let way = (trigger, 1);
            runs.run(rows, way, counted(GroupStateTimeout::EventTimeTimeout)).unwrap()
        };
        assert_eq!(run(&[(1, 10, 5)]), ["1 1 rows"]);
        assert_eq!(run(&[(2, 15, 0)]), ["2 1 rows"], "the watermark is 15");
        assert_eq!(run(&[(2, 16, 0)]), ["1 1 out", "2 2 rows"]);
        assert_eq!(run(&[(1, 17, 4), (2, 18, 0)]), ["1 1 rows", "2 3 rows"]);
        // A call that sets no time-out clears it.
        assert_eq!(run(&[(1, 19, 0)]), ["1 2 rows"]);
        assert_eq!(run(&[(2, 40, 0)]), ["2 4 rows"]);
        // A key without state keeps its time-out. In continuous mode the second row causes a second
        // call, which clears the time-out.
        let (at_once, later) = match trigger {
            BATCHES => (vec!["3 - rows"], vec!["2 5 rows", "3 - out"]),
            _ => (vec!["3 - rows", "3 1 rows"], vec!["2 5 rows"]),
        };
        assert_eq!(run(&[(3, 41, 2), (3, 42, -1)]), at_once);
        assert_eq!(run(&[(4, 39, 0), (2, 60, 0)]), later, "39 is late");
    }
    let mut runs = Runs::new();
    let kind = GroupStateTimeout::EventTimeTimeout;
    // In a batch, a call sees all rows; the last time-out that it sets counts, and its final state
    // is kept.
    let out = runs.run(&[(3, 42, -1), (3, 41, 2)], (BATCHES, 1), counted(kind)).unwrap();
    assert_eq!(out, ["3 1 rows"]);
    let out = runs.run(&[(1, 50, 0)], (BATCHES, 1), counted(kind)).unwrap();
    assert_eq!(out, ["1 1 rows", "3 1 out"]);
}

#[test]
fn a_key_times_out_by_processing_time() {
    for trigger in [CONTINUOUS, BATCHES] {
        let mut runs = Runs::new();
        let mut run = |after_s: u64, rows: &[Input]| {
            runs.world.advance(after_s * 1_000_000_000);
            let way = (trigger, 1);
            runs.run(rows, way, counted(GroupStateTimeout::ProcessingTimeTimeout)).unwrap()
        };
        assert_eq!(run(0, &[(1, 10, 5)]), ["1 1 rows"]);
        assert_eq!(run(3, &[(1, 1, 5)]), ["1 2 rows"], "no row is late");
        assert_eq!(run(3, &[(2, 1, 0)]), ["2 1 rows"]);
        assert_eq!(run(3, &[(2, 1, 0)]), ["1 2 out", "2 2 rows"]);
    }
}

/// The rows of an operator that names its event time can be aggregated by windows.
#[test]
fn a_window_after_a_stateful_operator() {
    #[derive(Clone)]
    struct Shift(i64);
    impl StatefulProcessor for Shift {
        fn handle_input_rows(
            &mut self,
            key: &[Value],
            rows: InputRows<'_>,
            handle: &mut StatefulProcessorHandle<'_, '_>,
        ) -> Result<(), StateError> {
            for row in rows {
                let time = Value::Long(long(&row[1]) + self.0 * SECOND);
                handle.emit(vec![key[0].clone(), time])?;
            }
            Ok(())
        }
    }
    let shifted = |by: i64| {
        move |frame: DataFrame| {
            let output = StateOutput::new(schema("k BIGINT, at TIMESTAMP")).event_time("at");
            let grouped = with_watermark(frame)?.group_by([col("k")]);
            let shifted = grouped
                .transform_with_state(output, TimeMode::EventTime, move |_| Ok(Shift(by)))?;
            let window = call("window", [col("at"), millstream::table::expr::lit("10 seconds")]);
            shifted.group_by([window.alias("w")]).agg([call("count", [col("k")]).alias("n")])
        }
    };
    for trigger in [CONTINUOUS, BATCHES] {
        let mut runs = Runs::new();
        let rows = [(1, 101, 1), (2, 102, 1), (1, 108, 1), (1, 130, 1)];
        let out = runs.run(&rows, (trigger, 1), shifted(0)).unwrap();
        assert_eq!(out.len(), 1, "{trigger:?}: {out:?}");
        assert!(out[0].ends_with(" 3"), "{trigger:?}: {out:?}");
        let mut runs = Runs::new();
        runs.run(&rows, (trigger, 1), shifted(0)).unwrap();
        let error = runs.run(&[(1, 131, 1)], (trigger, 1), shifted(-5)).unwrap_err();
        assert_eq!(condition(&error), "EMITTING_ROWS_OLDER_THAN_WATERMARK_NOT_ALLOWED");
    }
}

/// Collects the numbers of the initial state and of the rows. Emits them after each call.
#[derive(Clone)]
struct Given {
    numbers: ListState<i64>,
}

impl StatefulProcessor for Given {
    fn handle_initial_state(
        &mut self,
        _: &[Value],
        row: Vec<Value>,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        handle.register_timer(105_000)?;
        Ok(handle.append(self.numbers, long(&row[1]))?)
    }

    fn handle_input_rows(
        &mut self,
        key: &[Value],
        rows: InputRows<'_>,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        for row in rows {
            handle.append(self.numbers, long(&row[2]))?;
        }
        self.emit(key, "rows", handle)
    }

    fn handle_expired_timer(
        &mut self,
        key: &[Value],
        _: i64,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        self.emit(key, "timer", handle)
    }
}

impl Given {
    fn emit(
        &self,
        key: &[Value],
        what: &str,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        let numbers: Vec<_> = handle.list(self.numbers).copied().collect();
        let what = format!("{what} {numbers:?}");
        Ok(handle.emit(vec![key[0].clone(), Value::String(what)])?)
    }
}

/// A table `(key, number)` grouped by its key.
fn initial(rows: &str) -> PlanResult<GroupedData> {
    let session = Session::new();
    let table = session.sql(&format!("SELECT * FROM VALUES {rows} AS t(key, number)"))?;
    let table =
        table.select([col("key").cast(DataType::Long), col("number").cast(DataType::Long)])?;
    Ok(table.group_by([col("key")]))
}

/// A processor gets its initial state before the first rows of a key. Timers that it sets at that
/// time fire. After a restart it gets no initial state, even if the table has changed.
#[test]
fn an_initial_state_comes_before_the_first_rows_and_once() {
    let make = |rows: &'static str| {
        move |frame: DataFrame| {
            let initial = initial(rows)?;
            let grouped = with_watermark(frame)?.group_by([col("k")]);
            let output = schema("k BIGINT, what STRING");
            grouped.with_initial_state(&initial)?.transform_with_state(
                output,
                TimeMode::EventTime,
                |states| Ok(Given { numbers: states.list("numbers", Ttl::NONE)? }),
            )
        }
    };
    for (trigger, parallelism) in
        [(CONTINUOUS, [1, 2, 1]), (BATCHES, [1, 3, 1]), (CONTINUOUS, [3, 1, 2])]
    {
        let mut runs = Runs::new();
        let mut run = |rows: &[Input], at: usize, table| {
            runs.run(rows, (trigger, parallelism[at]), make(table)).unwrap()
        };
        let table = "(1, 10), (2, 20), (1, 11), (3, 30)";
        let out = run(&[(1, 100, 1), (4, 101, 4)], 0, table);
        assert_eq!(out, ["1 rows [10, 11, 1]", "4 rows [4]"], "{trigger:?}");
        let other = "(1, 77), (5, 50)";
        let out = run(&[(2, 102, 2), (5, 103, 5)], 1, other);
        assert_eq!(out, ["2 rows [20, 2]", "5 rows [5]"], "{trigger:?}");
        let out = run(&[(9, 110, 9)], 2, other);
        let timers = ["1 timer [10, 11, 1]", "2 timer [20, 2]", "3 timer [30]", "9 rows [9]"];
        assert_eq!(out, timers, "{trigger:?}: also of a key without rows");
    }
}

/// An explanation reads no rows of the initial state, and a start does.
#[test]
fn an_explanation_does_not_read_the_initial_state() {
    let session = Session::new();
    let table = session.sql("SELECT 1L AS key, raise_error('it is read') AS number").unwrap();
    let initial = table
        .select([col("key"), col("number").cast(DataType::Long)])
        .unwrap()
        .group_by([col("key")]);
    let rows = session.read_stream().format("rate").load().unwrap();
    let rows = rows.select([col("value").alias("k"), col("timestamp").alias("t")]).unwrap();
    let grouped = rows.group_by([col("k")]).with_initial_state(&initial).unwrap();
    let frame = grouped
        .transform_with_state(schema("k BIGINT, what STRING"), TimeMode::None, |states| {
            Ok(Given { numbers: states.list("numbers", Ttl::NONE)? })
        })
        .unwrap();
    let writer = || frame.write_stream().format("noop").output_mode("append");
    writer().explain().unwrap();
    let error = writer().start().err().unwrap();
    assert!(error.to_string().contains("it is read"), "{error}");
}

/// A function is called for each key of the initial state, with the key's rows or with none.
#[test]
fn a_function_is_called_for_each_key_of_the_initial_state() {
    let sums = |rows: &'static str| {
        move |frame: DataFrame| {
            let initial = initial(rows)?;
            let grouped = frame.group_by([col("k")]).with_initial_state(&initial)?;
            grouped.flat_map_groups_with_state(
                schema("k BIGINT, sum BIGINT"),
                GroupStateTimeout::NoTimeout,
                |row: Vec<Value>| Ok(long(&row[1])),
                |key: &[Value], rows: InputRows<'_>, state: &mut GroupState<'_, i64>| {
                    let sum = state.get().copied().unwrap_or(0);
                    let sum = sum + rows.map(|row| long(&row[2])).sum::<i64>();
                    state.update(sum)?;
                    Ok(vec![vec![key[0].clone(), Value::Long(sum)]])
                },
            )
        }
    };
    for parallelism in [1, 3] {
        for trigger in [CONTINUOUS, BATCHES] {
            let mut runs = Runs::new();
            let mut run =
                |rows: &[Input], table| runs.run(rows, (trigger, parallelism), sums(table));
            let out = run(&[(1, 0, 1), (3, 0, 3)], "(1, 10), (2, 20)").unwrap();
            let at_first = match trigger {
                BATCHES => vec!["1 11", "2 20", "3 3"],
                _ => vec!["1 10", "1 11", "2 20", "3 3"],
            };
            assert_eq!(out, at_first);
            let out = run(&[(2, 0, 2), (4, 0, 4)], "(4, 40)").unwrap();
            assert_eq!(out, ["2 22", "4 4"]);
        }
    }
    let error = Runs::new().run(&[(5, 0, 1)], (BATCHES, 1), sums("(1, 10), (1, 20)")).unwrap_err();
    assert_eq!(condition(&error), "INITIAL_STATE_DUPLICATE_KEY");
}

#[test]
fn an_invalid_initial_state_is_refused() {
    let session = Session::new();
    session.memory_stream("in", "k BIGINT, ts TIMESTAMP, n BIGINT").unwrap();
    let stream = || session.view("in").unwrap().group_by([col("k")]);
    let condition = |initial: &GroupedData| {
        stream().with_initial_state(initial).err().map(|error| error.condition.to_string())
    };
    assert_eq!(condition(&stream()).unwrap(), "STREAMING_INITIAL_STATE_UNSUPPORTED");
    let texts = session.sql("SELECT 'a' AS key, 1 AS number").unwrap();
    let mismatch = "INITIAL_STATE_KEY_MISMATCH";
    assert_eq!(condition(&texts.group_by([col("key")])).unwrap(), mismatch);
    assert_eq!(condition(&texts.group_by([])).unwrap(), mismatch);
    // A processor that does not handle an initial state is rejected.
    let error = Runs::new().run(&[(1, 0, 1)], (BATCHES, 1), |frame| {
        let initial = initial("(1, 10)")?;
        let grouped = frame.group_by([col("k")]).with_initial_state(&initial)?;
        let nothing = |_: &mut StatefulProcessorHandle<'_, '_>| Ok(());
        grouped.transform_with_state(schema("k BIGINT"), TimeMode::None, |_| Ok(Does(nothing)))
    });
    let error = error.unwrap_err();
    assert_eq!(error.condition(), "INITIAL_STATE_WITHOUT_HANDLER");
}

/// A function that returns one row at each call, in output mode update.
#[test]
fn a_function_maps_each_key_to_one_row() {
    let counts = |frame: DataFrame| {
        let initial = initial("(2, 20)")?;
        let grouped = with_watermark(frame)?.group_by([col("k")]).with_initial_state(&initial)?;
        grouped.map_groups_with_state(
            schema("k BIGINT, n BIGINT, what STRING"),
            GroupStateTimeout::EventTimeTimeout,
            |row: Vec<Value>| Ok(long(&row[1])),
            |key: &[Value], rows: InputRows<'_>, state: &mut GroupState<'_, i64>| {
                let n = state.get().copied().unwrap_or(0) + rows.len() as i64;
                let what = if state.has_timed_out() { "out" } else { "rows" };
                match state.has_timed_out() {
                    true => state.remove(),
                    false => {
                        state.update(n)?;
                        state.set_timeout_timestamp(105_000)?;
                    }
                }
                Ok(vec![key[0].clone(), Value::Long(n), Value::String(what.to_string())])
            },
        )
    };
    for (trigger, parallelism) in [(CONTINUOUS, [1, 2, 1]), (BATCHES, [1, 2, 3])] {
        let mut runs = Runs::new();
        runs.mode = "update";
        let mut run =
            |rows: &[Input], at: usize| runs.run(rows, (trigger, parallelism[at]), counts).unwrap();
        let out = run(&[(1, 100, 0), (1, 101, 0)], 0);
        let (in_batches, each) =
            (vec!["1 2 rows", "2 20 rows"], vec!["1 1 rows", "1 2 rows", "2 20 rows"]);
        assert_eq!(out, if trigger == BATCHES { in_batches } else { each });
        assert_eq!(run(&[(1, 102, 0)], 1), ["1 3 rows"]);
        assert_eq!(run(&[(3, 104, 0)], 2), ["3 1 rows"]);
        let mut out = run(&[(4, 106, 0)], 0);
        out.retain(|row| row.ends_with("out"));
        assert_eq!(out, ["1 3 out", "2 20 out", "3 1 out", "4 1 out"]);
    }
    // The operator's output mode must be that of the query.
    let error = Runs::new().run(&[(1, 0, 1)], (BATCHES, 1), counts).unwrap_err();
    assert_eq!(condition(&error), "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION");
}

/// Adapts a function to a processor without state.
#[derive(Clone)]
struct Does<F>(F);

impl<F> StatefulProcessor for Does<F>
where
    F: FnMut(&mut StatefulProcessorHandle<'_, '_>) -> Result<(), StateError>
        + Clone
        + Send
        + 'static,
{
    fn handle_input_rows(
        &mut self,
        _: &[Value],
        _: InputRows<'_>,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        (self.0)(handle)
    }
}

fn failure<F>(mode: TimeMode, does: F) -> String
where
    F: FnMut(&mut StatefulProcessorHandle<'_, '_>) -> Result<(), StateError>
        + Clone
        + Send
        + 'static,
{
    let out = Runs::new().run(&[(1, 10, 1)], (BATCHES, 1), |frame| {
        let grouped = with_watermark(frame)?.group_by([col("k")]);
        grouped.transform_with_state(schema("k BIGINT NOT NULL"), mode, |_| Ok(Does(does)))
    });
    out.map_or_else(|error| condition(&error), |rows| format!("{rows:?}"))
}

#[test]
fn an_error_of_a_processor_ends_the_query() {
    let none = TimeMode::None;
    let wrong_mode = "STATEFUL_PROCESSOR_CANNOT_PERFORM_OPERATION_WITH_INVALID_TIME_MODE";
    assert_eq!(failure(none, |handle| Ok(handle.register_timer(5)?)), wrong_mode);
    assert_eq!(failure(none, |handle| Ok(handle.delete_timer(5)?)), wrong_mode);
    assert_eq!(
        failure(none, |handle| handle.list_timers().map(drop).map_err(Into::into)),
        wrong_mode
    );
    let mismatch = "STATEFUL_OUTPUT_SCHEMA_MISMATCH";
    assert_eq!(failure(none, |handle| Ok(handle.emit(vec![])?)), mismatch);
    let string = || vec![Value::String("a".to_string())];
    assert_eq!(failure(none, move |handle| Ok(handle.emit(string())?)), mismatch);
    let null = failure(none, |handle| Ok(handle.emit(vec![Value::Null])?));
    assert_eq!(null, "NOT_NULL_ASSERT_VIOLATION");
    assert_eq!(failure(none, |handle| Ok(handle.emit(vec![Value::Long(4)])?)), "[\"4\"]");
    let own = failure(none, |_| Err("it is Monday".into()));
    assert_eq!(own, "TRANSFORM_WITH_STATE_USER_FUNCTION_ERROR");
}

#[derive(Clone)]
struct Writes(ValueState<Value>, ListState<i64>, u8);

impl StatefulProcessor for Writes {
    fn handle_input_rows(
        &mut self,
        _: &[Value],
        _: InputRows<'_>,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        match self.2 {
            0 => handle.update_value(self.0, Value::Null)?,
            1 => handle.put_list(self.1, [])?,
            _ => {
                handle.put_list(self.1, [1, 2])?;
                handle.put_list(self.1, [3, 4])?;
                handle.append(self.1, 5)?;
                let list: Vec<_> = handle.list(self.1).copied().collect();
                handle.emit(vec![Value::String(format!("{list:?}"))])?;
            }
        }
        Ok(())
    }
}

#[test]
fn null_and_an_empty_list_are_not_written() {
    let write = |what: u8| {
        let out = Runs::new().run(&[(1, 10, 1)], (BATCHES, 1), |frame| {
            let grouped = frame.group_by([col("k")]);
            grouped.transform_with_state(schema("what STRING"), TimeMode::None, |states| {
                let value = states.value("value", Ttl::NONE)?;
                Ok(Writes(value, states.list("list", Ttl::NONE)?, what))
            })
        });
        out.map_or_else(|error| condition(&error), |rows| rows.join(","))
    };
    assert_eq!(write(0), "ILLEGAL_STATE_STORE_VALUE.NULL_VALUE");
    assert_eq!(write(1), "ILLEGAL_STATE_STORE_VALUE.EMPTY_LIST_VALUE");
    assert_eq!(write(2), "[3, 4, 5]");
}

#[test]
fn an_error_of_a_function_ends_the_query() {
    let fails = |timeout: GroupStateTimeout, what: u8| {
        let function = move |_: &[Value], _: InputRows<'_>, state: &mut GroupState<'_, i64>| {
            match what {
                0 => state.set_timeout_duration(Duration::from_secs(1))?,
                1 => state.set_timeout_timestamp(5_000)?,
                2 => state.set_timeout_duration(Duration::ZERO)?,
                _ => return Err("no".into()),
            }
            Ok(vec![])
        };
        let mut runs = Runs::new();
        let mut run = |rows: &[Input]| {
            runs.run(rows, (BATCHES, 1), |frame| {
                let grouped = with_watermark(frame)?.group_by([col("k")]);
                grouped.flat_map_groups_with_state(schema("k BIGINT"), timeout, function)
            })
        };
        let first =
            run(&[(1, 3, 1)]).and_then(|_| run(&[(1, 10, 1)])).and_then(|_| run(&[(1, 20, 1)]));
        first.map_or_else(|error| condition(&error), |rows| format!("{rows:?}"))
    };
    use GroupStateTimeout::{EventTimeTimeout, NoTimeout, ProcessingTimeTimeout};
    assert_eq!(fails(NoTimeout, 0), "_LEGACY_ERROR_TEMP_2203");
    assert_eq!(fails(EventTimeTimeout, 0), "_LEGACY_ERROR_TEMP_2203");
    assert_eq!(fails(ProcessingTimeTimeout, 1), "_LEGACY_ERROR_TEMP_2205");
    assert_eq!(fails(EventTimeTimeout, 1), "INVALID_TIMEOUT_TIMESTAMP");
    assert_eq!(fails(ProcessingTimeTimeout, 2), "INVALID_TIMEOUT_DURATION");
    assert_eq!(fails(NoTimeout, 3), "FLATMAPGROUPSWITHSTATE_USER_FUNCTION_ERROR");
}

/// Invalid queries are rejected before they start.
#[test]
fn unsupported_queries_are_refused() {
    let session = Session::new();
    session.memory_stream("in", "k BIGINT, ts TIMESTAMP, n BIGINT").unwrap();
    let frame = || session.view("in").unwrap();
    let declared = |mode: TimeMode, names: [&str; 2], ttl: Ttl| {
        let grouped = frame().group_by([col("k")]);
        let made = grouped.transform_with_state(schema("k BIGINT"), mode, |states| {
            states.value::<i64>(names[0], Ttl::NONE)?;
            states.map::<i64, i64>(names[1], ttl)?;
            Ok(Does(|_: &mut StatefulProcessorHandle<'_, '_>| Ok(())))
        });
        made.err().map(|error| error.condition.to_string())
    };
    let refused = |condition: &str| Some(condition.to_string());
    let (ttl, time) = (Ttl::after(Duration::from_secs(1)), TimeMode::ProcessingTime);
    assert_eq!(
        declared(time, ["a", "a"], ttl),
        refused("STATEFUL_PROCESSOR_DUPLICATE_STATE_VARIABLE_DEFINED")
    );
    for mode in [TimeMode::None, TimeMode::EventTime] {
        assert_eq!(
            declared(mode, ["a", "b"], ttl),
            refused("STATEFUL_PROCESSOR_INCORRECT_TIME_MODE_TO_ASSIGN_TTL")
        );
    }
    assert_eq!(
        declared(time, ["a", "b"], Ttl::after(Duration::ZERO)),
        refused("STATEFUL_PROCESSOR_TTL_DURATION_MUST_BE_POSITIVE")
    );
    assert_eq!(declared(time, ["a", "b"], ttl), None);

    let checked = |frame: PlanResult<DataFrame>, mode: &str| {
        let writer = frame.unwrap().write_stream().output_mode(mode).format("memory");
        writer.query_name("q").check().err().map(|error| error.condition.to_string())
    };
    use GroupStateTimeout::{EventTimeTimeout, NoTimeout};
    let counts = |frame: DataFrame, timeout, mode: &str| {
        let output = StateOutput::new(schema("k BIGINT")).output_mode(mode)?;
        let nothing = |_: &[Value], _: InputRows<'_>, _: &mut GroupState<'_, i64>| Ok(vec![]);
        frame.group_by([col("k")]).flat_map_groups_with_state(output, timeout, nothing)
    };
    let mode = refused("STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION");
    let chain = refused("STREAMING_STATEFUL_CHAIN_UNSUPPORTED");
    assert_eq!(checked(counts(frame(), NoTimeout, "append"), "append"), None);
    assert_eq!(checked(counts(frame(), NoTimeout, "update"), "update"), None);
    assert_eq!(checked(counts(frame(), NoTimeout, "append"), "update"), mode);
    assert_eq!(checked(counts(frame(), NoTimeout, "update"), "append"), mode);
    assert_eq!(checked(counts(frame(), NoTimeout, "append"), "complete"), mode);
    assert_eq!(
        checked(counts(frame(), EventTimeTimeout, "append"), "append"),
        refused("STREAMING_STATE_WITHOUT_WATERMARK")
    );
    let twice = |first: &str| counts(counts(frame(), NoTimeout, first)?, NoTimeout, "append");
    assert_eq!(checked(twice("append"), "append"), None);
    let timed = with_watermark(frame()).unwrap();
    let behind = counts(timed, EventTimeTimeout, "append").and_then(|frame| frame.distinct());
    assert_eq!(checked(behind, "append"), chain);
    let aggregated = frame().group_by([col("k")]).count().unwrap();
    assert_eq!(checked(counts(aggregated, NoTimeout, "update"), "update"), chain);
    assert!(StateOutput::new(schema("k BIGINT")).output_mode("complete").is_err());
}
