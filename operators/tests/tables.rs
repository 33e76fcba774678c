//! Tables and SQL with the memory source: results, errors and reports.
#![cfg(feature = "sql")]

mod waiting;

use millstream::connect::memory::MemoryStream;
use millstream::session::{Session, StreamingQuery, Trigger};
use millstream::table::error::PlanError;
use millstream::table::expr::{call, col, lit};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use std::collections::BTreeMap;

const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 5_000_000 };

fn quiet() -> Config {
    Config { pin: false, wait: WaitProfile::Park, ..Config::default() }
}

fn start(session: &Session, sql: &str, mode: &str, trigger: Trigger) -> StreamingQuery {
    let writer = session.sql(sql).unwrap().write_stream().output_mode(mode).format("memory");
    writer.query_name("out").trigger(trigger).config(quiet()).start().unwrap()
}

fn text(value: &str) -> Value {
    Value::String(value.to_string())
}

fn lines(session: &Session) -> MemoryStream {
    session.memory_stream("lines", "line STRING, n INT").unwrap()
}

const COUNT: &str = "SELECT word, count(*) AS c, sum(n) AS s, max(word) AS m, avg(n) AS a \
    FROM (SELECT explode(split(line, ' ')) AS word, n FROM STREAM lines WHERE n <> 3) GROUP BY word";

fn push_lines(stream: &MemoryStream) {
    let lines = ["a b a", "c", "", "b b", "a"];
    for (n, line) in lines.into_iter().enumerate() {
        stream.add([vec![text(line), Value::Long(n as i64)]]);
    }
}

fn final_rows(session: &Session) -> BTreeMap<String, Vec<Value>> {
    let rows = session.table("out").unwrap().rows();
    rows.into_iter().map(|row| (format!("{:?}", row[0]), row)).collect()
}

/// The last row per key is the same in both modes and at any parallelism.
#[test]
fn both_drivers_and_any_parallelism_give_the_same_final_answer() {
    let mut answers = Vec::new();
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible, Trigger::Once, Trigger::AvailableNow] {
        for (parallelism, mode) in
            [("1", "update"), ("1", "complete"), ("3", "update"), ("3", "complete")]
        {
            let session = Session::new();
            session.set("millstream.parallelism", parallelism).unwrap();
            let stream = lines(&session);
            push_lines(&stream);
            let query = start(&session, COUNT, mode, trigger);
            query.process_all_available().unwrap();
            query.stop().unwrap();
            answers.push(final_rows(&session));
        }
    }
    let expected_a =
        vec![text("a"), Value::Long(3), Value::Long(4), text("a"), Value::Double(4.0 / 3.0)];
    assert_eq!(answers[0]["String(\"a\")"], expected_a);
    assert_eq!(answers[0].len(), 4, "a, b, c and the empty word");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

#[test]
fn a_query_ends_by_itself_when_its_stream_is_closed() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let session = Session::new();
        let stream = lines(&session);
        push_lines(&stream);
        stream.close();
        let query = start(&session, "SELECT line FROM lines", "append", trigger);
        query.await_termination().unwrap();
        assert_eq!(session.table("out").unwrap().rows().len(), 5);
    }
}

#[test]
fn dataframe_and_sql_build_the_same_plan() {
    let session = Session::new();
    lines(&session);
    let frame = session.view("lines").unwrap();
    let words = frame
        .select([call("explode", [call("split", [col("line"), lit(" ")])]).alias("word")])
        .unwrap();
    let built = words.group_by([col("word")]).count().unwrap();
    let written = session
        .sql("SELECT word, count(*) AS count FROM (SELECT explode(split(line, ' ')) AS word FROM lines) GROUP BY word")
        .unwrap();
    assert_eq!(built.schema(), written.schema());
    assert_eq!(
        built.schema().tree(),
        "root\n |-- word: string (nullable = true)\n |-- count: long (nullable = false)\n"
    );
    let text = written.explain();
    for part in [
        "Aggregate keys [word]",
        "Generate explode(split(line, ' ')) AS word",
        "Scan lines USING memory [line, n]",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let query =
        built.write_stream().output_mode("update").format("noop").config(quiet()).start().unwrap();
    query.stop().unwrap();
}

fn refused(sql: &str, mode: &str) -> PlanError {
    let session = Session::new();
    lines(&session);
    let checked = session
        .sql(sql)
        .and_then(|frame| frame.write_stream().output_mode(mode).format("noop").check());
    checked.expect_err(sql)
}

#[test]
fn wrong_queries_are_refused_with_condition_and_place() {
    for (sql, mode, condition, place) in [
        ("SELECT wrod FROM lines", "append", "UNRESOLVED_COLUMN.WITH_SUGGESTION", (1, 8)),
        ("SELECT uper(line) FROM lines", "append", "UNRESOLVED_ROUTINE", (1, 8)),
        ("SELECT n\nFROM line", "append", "TABLE_OR_VIEW_NOT_FOUND", (2, 6)),
        ("SELECT n + true FROM lines", "append", "DATATYPE_MISMATCH.BINARY_OP_DIFF_TYPES", (1, 8)),
        (
            "SELECT line FROM lines WHERE n",
            "append",
            "DATATYPE_MISMATCH.FILTER_NOT_BOOLEAN",
            (1, 30),
        ),
        ("SELECT FROM lines WHERE", "append", "PARSE_SYNTAX_ERROR", (1, 13)),
        ("SELECT upper(line, n) FROM lines", "append", "WRONG_NUM_ARGS.WITHOUT_SUGGESTION", (1, 8)),
        ("SELECT line, count(*) FROM lines GROUP BY n", "update", "MISSING_AGGREGATION", (1, 8)),
        (
            "SELECT count(*) FROM lines",
            "append",
            "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION",
            (0, 0),
        ),
        ("SELECT n FROM lines", "complete", "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION", (0, 0)),
        ("SELECT n FROM lines", "often", "STREAMING_OUTPUT_MODE.INVALID", (0, 0)),
        ("SELECT n FROM lines ORDER BY n", "append", "STREAMING_SORT_UNSUPPORTED", (0, 0)),
        ("SELECT n FROM lines LIMIT 2", "update", "STREAMING_LIMIT_UNSUPPORTED", (0, 0)),
        (
            "SELECT count(DISTINCT n) FROM lines",
            "update",
            "STREAMING_DISTINCT_AGGREGATION_UNSUPPORTED",
            (1, 8),
        ),
        (
            "SELECT a.n FROM lines a JOIN lines b ON a.n < b.n",
            "append",
            "STREAM_STREAM_JOIN_WITHOUT_EQUALITY",
            (1, 30),
        ),
    ] {
        let error = refused(sql, mode);
        assert_eq!(error.condition, condition, "{sql}: {error}");
        assert_eq!((error.place.line, error.place.column), place, "{sql}: {error}");
        assert!(!error.reason.is_empty());
    }
}

#[test]
fn an_error_in_a_record_ends_the_query_with_sparks_condition() {
    for (sql, condition) in [
        ("SELECT 1 / n AS x FROM lines", "DIVIDE_BY_ZERO"),
        ("SELECT cast(line AS INT) AS x FROM lines", "CAST_INVALID_INPUT"),
        ("SELECT 2147483647 + n + 1 AS x FROM lines", "ARITHMETIC_OVERFLOW"),
        ("SELECT split(line, ' ')[9] AS x FROM lines", "INVALID_ARRAY_INDEX"),
    ] {
        for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
            let session = Session::new();
            let stream = lines(&session);
            stream.add([vec![text("word"), Value::Long(0)]]);
            let query = start(&session, sql, "append", trigger);
            let error = query.await_termination().expect_err(sql);
            assert_eq!(error.condition(), condition);
            assert_eq!(query.exception().unwrap().condition(), condition);
        }
    }
}

#[test]
fn a_memory_stream_feeds_one_query_and_a_name_one_active_query() {
    let session = Session::new();
    lines(&session);
    let first = start(&session, "SELECT n FROM lines", "append", CONTINUOUS);
    let writer = session
        .sql("SELECT n FROM lines")
        .unwrap()
        .write_stream()
        .format("memory")
        .query_name("out");
    let Err(error) = writer.start() else { panic!("the name is in use") };
    assert_eq!(error.condition(), "QUERY_NAME_IN_USE");
    let writer = session.sql("SELECT n FROM lines").unwrap().write_stream().format("noop");
    let Err(error) = writer.config(quiet()).start() else { panic!("the stream is in use") };
    assert_eq!(error.condition(), "MEMORY_STREAM_IN_USE");
    first.stop().unwrap();
}

#[test]
fn the_name_of_an_ended_query_is_free() {
    let session = Session::new();
    lines(&session);
    let first = start(&session, "SELECT n FROM lines", "append", CONTINUOUS);
    first.stop().unwrap();
    let second = start(&session, "SELECT n FROM lines", "append", CONTINUOUS);
    // The drop of the first query does not release the name of the second one.
    drop(first);
    let writer = session.sql("SELECT n FROM lines").unwrap().write_stream().format("memory");
    let Err(error) = writer.query_name(second.name()).start() else { panic!("the name is in use") };
    assert_eq!(error.condition(), "QUERY_NAME_IN_USE");
    second.stop().unwrap();
}

/// A sink that takes a row only after the handle has been dropped.
#[test]
fn a_dropped_query_is_asked_to_stop_and_is_not_waited_for() {
    use millstream::connect::foreach::ForeachWriter;
    use std::sync::mpsc::{Receiver, Sender, channel};
    struct Blocked(Sender<()>, Receiver<()>);
    impl ForeachWriter for Blocked {
        fn open(&mut self, _partition: u64, _epoch: u64) -> bool {
            true
        }
        fn process(&mut self, _row: &[Value]) -> Result<(), String> {
            self.0.send(()).map_err(|error| error.to_string())?;
            self.1.recv().map_err(|error| error.to_string())
        }
        fn close(&mut self, _error: Option<&str>) {}
    }
    let session = Session::new();
    let stream = lines(&session);
    let (told, blocks) = channel();
    let (release, released) = channel();
    let writer = session.sql("SELECT n FROM lines").unwrap().write_stream();
    let writer = writer.foreach(Blocked(told, released)).query_name("slow").config(quiet());
    let query = writer.trigger(Trigger::AsSoonAsPossible).start().unwrap();
    stream.add([vec![text(""), Value::Long(1)]]);
    blocks.recv().unwrap();
    let (dropped, is_dropped) = channel();
    let dropping = std::thread::spawn(move || {
        drop(query);
        dropped.send(()).unwrap();
    });
    let minute = std::time::Duration::from_secs(60);
    assert!(is_dropped.recv_timeout(minute).is_ok(), "the drop waits for the sink");
    dropping.join().unwrap();
    lines(&session);
    let again = || {
        let writer = session.sql("SELECT n FROM lines").unwrap().write_stream().format("noop");
        writer.query_name("slow").config(quiet()).start()
    };
    let in_use = again().err().map(|error| error.condition().to_string());
    assert_eq!(in_use.as_deref(), Some("QUERY_NAME_IN_USE"), "the job has not ended");
    release.send(()).unwrap();
    waiting::until("the end of the job", || again().is_ok(), |is_free| *is_free);
}

#[test]
fn union_merges_streams_and_widens_types() {
    let session = Session::new();
    let a = session.memory_stream("a", "w STRING, n INT").unwrap();
    let b = session.memory_stream("b", "w STRING, n BIGINT").unwrap();
    let query = start(
        &session,
        "SELECT w, n FROM a UNION ALL SELECT upper(w), n FROM b",
        "append",
        CONTINUOUS,
    );
    a.add([vec![text("x"), Value::Long(1)]]);
    b.add([vec![text("y"), Value::Long(1 << 40)]]);
    query.process_all_available().unwrap();
    let mut rows = session.table("out").unwrap().rows();
    rows.sort_by_key(|row| format!("{row:?}"));
    assert_eq!(rows, [[text("Y"), Value::Long(1 << 40)], [text("x"), Value::Long(1)]]);
    query.stop().unwrap();
}

#[test]
fn foreach_opens_and_closes_each_epoch() {
    use millstream::connect::foreach::ForeachWriter;
    use std::sync::{Arc, Mutex};
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);
    impl ForeachWriter for Log {
        fn open(&mut self, partition: u64, epoch: u64) -> bool {
            self.0.lock().unwrap().push(format!("open {partition} {epoch}"));
            true
        }
        fn process(&mut self, row: &[Value]) -> Result<(), String> {
            self.0.lock().unwrap().push(format!("{row:?}"));
            if row[0] == Value::Long(13) { Err("thirteen".to_string()) } else { Ok(()) }
        }
        fn close(&mut self, error: Option<&str>) {
            self.0.lock().unwrap().push(format!("close {error:?}"));
        }
    }
    let (session, log) = (Session::new(), Log::default());
    let stream = lines(&session);
    let writer = session.sql("SELECT n FROM lines").unwrap().write_stream().foreach(log.clone());
    let query = writer.trigger(Trigger::AsSoonAsPossible).config(quiet()).start().unwrap();
    for n in [1, 13] {
        stream.add([vec![text(""), Value::Long(n)]]);
        let processed = query.process_all_available();
        assert_eq!(processed.is_ok(), n == 1);
    }
    let expected = [
        "open 0 0",
        "[Long(1)]",
        "close None",
        "open 0 1",
        "[Long(13)]",
        "close Some(\"thirteen\")",
    ];
    assert_eq!(*log.0.lock().unwrap(), expected);
}

#[test]
fn the_rate_source_counts_from_zero_with_evenly_spread_times() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let session = Session::new();
        let reader = session.read_stream().format("rate").option("rowsPerSecond", 1_000);
        let writer = reader.load().unwrap().write_stream().format("memory").query_name("out");
        let query = writer.trigger(trigger).config(quiet()).start().unwrap();
        let table = session.table("out").unwrap();
        let rows = || {
            query.process_all_available().unwrap();
            table.rows().len()
        };
        waiting::until("five rows", rows, |rows| *rows >= 5);
        query.stop().unwrap();
        let rows = table.rows();
        let Value::Long(first_us) = rows[0][0] else { panic!("{rows:?}") };
        for (n, row) in (0i64..).zip(&rows) {
            assert_eq!(*row, [Value::Long(first_us + n * 1_000), Value::Long(n)], "{trigger:?}");
        }
    }
}

/// In mode complete an empty result empties the table. A result that has not changed, which
/// continuous mode does not emit again, leaves it.
#[test]
fn an_empty_result_replaces_the_table_and_an_unchanged_one_does_not() {
    let by_window = "SELECT k, count(*) FROM (SELECT word AS k, TIMESTAMP '2020-01-01' AS t FROM \
        lines) GROUP BY k, session_window(t, '5 seconds') HAVING count(*) < 2";
    for sql in ["SELECT word, count(*) FROM lines GROUP BY word HAVING count(*) < 2", by_window] {
        for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
            for parallelism in ["1", "3"] {
                let session = Session::new();
                session.set("millstream.parallelism", parallelism).unwrap();
                let lines = session.memory_stream("lines", "word STRING").unwrap();
                let query = start(&session, sql, "complete", trigger);
                let add = |words: &[&str]| {
                    lines.add(words.iter().map(|word| vec![Value::String(word.to_string())]));
                    query.process_all_available().unwrap();
                    session.table("out").unwrap().rows()
                };
                let one = |word: &str| vec![vec![Value::String(word.to_string()), Value::Long(1)]];
                let what = format!("{sql}, {trigger:?}, parallelism {parallelism}");
                assert_eq!(add(&["a"]), one("a"), "{what}");
                assert_eq!(add(&[]), one("a"), "{what}");
                assert_eq!(add(&["a"]), Vec::<Vec<Value>>::new(), "{what}");
                assert_eq!(add(&[]), Vec::<Vec<Value>>::new(), "{what}");
                assert_eq!(add(&["b"]), one("b"), "{what}");
                query.stop().unwrap();
            }
        }
    }
}

/// If a row changes one instance's part of the table, the parts of the other instances are emitted
/// too.
#[test]
fn a_whole_table_in_continuous_mode_is_whole_at_any_parallelism() {
    let session = Session::new();
    session.set("millstream.parallelism", "3").unwrap();
    let stream = lines(&session);
    let query = start(&session, COUNT, "complete", CONTINUOUS);
    stream.add([vec![text("a b c d e f g h"), Value::Long(1)]]);
    query.process_all_available().unwrap();
    stream.add([vec![text("a"), Value::Long(1)]]);
    query.process_all_available().unwrap();
    assert_eq!(final_rows(&session).len(), 8);
    query.stop().unwrap();
}

#[test]
fn without_ansi_an_error_is_null() {
    let session = Session::new();
    session.set("spark.sql.ansi.enabled", "false").unwrap();
    let sql =
        "SELECT 1 / col1, CAST(col2 AS INT), array(1)[5], try_divide(1, col1) FROM VALUES (0, 'x')";
    assert_eq!(session.sql(sql).unwrap().collect().unwrap(), [vec![Value::Null; 4]]);
    session.set("spark.sql.ansi.enabled", "true").unwrap();
    assert!(session.sql(sql).unwrap().collect().is_err());
}

/// Lambdas, collected sets and approximate counts over a stream, in both modes.
#[test]
fn the_language_over_a_stream() {
    let sql = "SELECT upper(word) AS k, sort_array(collect_set(length(word))) AS lengths, \
               max_by(word, length(word)) AS longest, approx_count_distinct(word) AS d \
               FROM (SELECT DISTINCT explode(transform(split(line, ' '), w -> lower(w))) AS word \
               FROM lines) GROUP BY upper(word)";
    // An aggregation over another one is refused in output mode update.
    assert_eq!(refused(sql, "update").condition, "STREAMING_STATEFUL_CHAIN_UNSUPPORTED");
    let sql = sql.replace("SELECT DISTINCT explode", "SELECT explode");
    for parallelism in [1, 3] {
        for trigger in [Trigger::AsSoonAsPossible, Trigger::Continuous { interval_ns: 1_000_000 }] {
            let session = Session::new();
            session.set("millstream.parallelism", &parallelism.to_string()).unwrap();
            let stream = lines(&session);
            let query = start(&session, &sql, "complete", trigger);
            push_lines(&stream);
            query.process_all_available().unwrap();
            query.stop().unwrap();
            let rows = final_rows(&session);
            assert!(rows.len() > 1);
            for row in rows.into_values() {
                let Value::String(key) = &row[0] else { panic!("{row:?}") };
                let length = key.chars().count() as i64;
                assert_eq!(row[1], Value::Array(vec![Value::Long(length)]), "{key}");
                assert_eq!(row[2], text(&key.to_lowercase()), "{key}");
                assert_eq!(row[3], Value::Long(1), "{key}");
            }
        }
    }
}

/// The largest and smallest values give a result or an error with a condition, never a panic.
#[test]
fn extreme_values_do_not_panic() {
    let session = Session::new();
    session.set("spark.sql.session.timeZone", "Asia/Tokyo").unwrap();
    let min = "timestamp_micros(-9223372036854775808)";
    let max = "timestamp_micros(9223372036854775807)";
    let mut panics = Vec::new();
    for at in [min, max] {
        for sql in [
            format!("CAST({at} AS STRING)"),
            format!("CAST({at} AS DATE)"),
            format!("date_trunc('MILLISECOND', {at})"),
            format!("date_trunc('DAY', {at})"),
            format!("date_trunc('YEAR', {at})"),
            format!("hour({at}) + second({at})"),
            format!("timestampdiff(DAY, {min}, {at})"),
            format!("timestampdiff(MONTH, {at}, {min})"),
            format!("timestampadd(DAY, 2147483647, {at})"),
            format!("timestampadd(MONTH, -2147483648, {at})"),
            format!("{at} + INTERVAL 1 DAY"),
            format!("{at} - INTERVAL 1 MONTH"),
            format!("{at} - TIMESTAMP'2024-01-01 00:00:00'"),
            format!("months_between({at}, {min})"),
            format!("date_format({at}, 'yyyy-MM-dd HH:mm:ss.SSS XXX')"),
            format!("from_utc_timestamp({at}, 'Asia/Seoul')"),
            format!("to_utc_timestamp({at}, 'Asia/Seoul')"),
            format!("sequence({at}, {max}, INTERVAL 100000 DAYS)"),
            "next_day(date_from_unix_date(2147483647), 'Mon')".to_string(),
            "trunc(date_from_unix_date(-2147483648), 'WEEK')".to_string(),
            "last_day(date_from_unix_date(2147483647))".to_string(),
            "make_dt_interval(2147483647, 2147483647, 2147483647, 1)".to_string(),
            "make_ym_interval(2147483647, 2147483647)".to_string(),
            "-9223372036854775808L DIV -1".to_string(),
            "abs(-9223372036854775808L)".to_string(),
            "pmod(-9223372036854775808L, -1)".to_string(),
            "substring('abc', -2147483648, 2147483647)".to_string(),
            "slice(array(1), -2147483648, 2147483647)".to_string(),
            "conv('9223372036854775808', 10, -36)".to_string(),
            "round(9223372036854775807L, -18)".to_string(),
        ] {
            let frame = session.sql(&format!("SELECT {sql}")).unwrap();
            if let Err(error) = frame.collect()
                && error.condition() == "OPERATOR_PANICKED"
            {
                panics.push(format!("{sql}: {error}"));
            }
            // Planning above includes constant folding, which must not panic either.
        }
    }
    assert!(panics.is_empty(), "{}", panics.join("\n"));
    // Beyond the last day of a DATE the values wrap around, as in Spark.
    for (sql, days) in [
        ("date_add(DATE'2024-01-01', 2147483647)", -2_147_463_926),
        ("date_sub(DATE'2024-01-01', -2147483647)", -2_147_463_926),
    ] {
        let rows = session.sql(&format!("SELECT {sql}")).unwrap().collect().unwrap();
        assert_eq!(rows, [[Value::Long(days)]], "{sql}");
    }
}

/// `explain` shows as many workers as `start` creates.
#[test]
fn an_explanation_shows_the_workers_of_the_configuration() {
    let session = Session::new();
    session.memory_stream("lines", "word STRING").unwrap();
    session.set("millstream.parallelism", "2").unwrap();
    let usable = millstream_engine::cores::usable();
    let first = millstream_engine::cores::allowed()[0].id;
    let workers = |config: Option<Config>, cores: Option<usize>| {
        let frame = session.sql("SELECT word, count(*) FROM lines GROUP BY word").unwrap();
        let mut writer = frame.write_stream().output_mode("update").format("noop");
        if let Some(config) = config {
            writer = writer.config(config);
        }
        if let Some(core) = cores {
            writer = writer.cores([core]);
        }
        writer.explain().unwrap().matches("\nworker ").count()
    };
    assert_eq!(workers(None, None), usable.min(2));
    assert_eq!(workers(Some(Config { workers: 1, ..quiet() }), None), 1);
    assert_eq!(workers(Some(Config { workers: 2, ..quiet() }), None), usable.min(2));
    assert_eq!(workers(None, Some(first)), 1, "one listed core has one worker");
}
