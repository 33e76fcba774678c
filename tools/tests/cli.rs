//! Tests of the command line: output, exit codes, errors.

mod common;

use common::{Scratch, millstream};
use millstream_engine::capture::{CaptureLog, Direction, Head, Kind, segments};
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::checkpoint::{Checkpoint, EpochMode, QueryDescription};
use millstream_engine::env::RealEnv;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

/// Runs a job from standard input.
fn job(command: &str, text: &str, args: &[&str]) -> Output {
    let mut child = millstream()
        .args([command, "-"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn view(port: u16, more: &str) -> String {
    format!(
        "CREATE TEMPORARY VIEW lines USING socket OPTIONS (host '127.0.0.1', port '{port}'{more});\n"
    )
}

/// The reader has closed the pipe from the start, so nothing can be written to it.
#[test]
fn a_closed_output_pipe_is_not_a_failure() {
    for args in [&["functions"][..], &["bench", "hop", "--rounds", "1", "--pings", "1000"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = millstream().args(args).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn output_to_a_full_disk_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = millstream().arg("functions").stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("cannot be written"), "{error}");
}

#[test]
fn wrong_jobs_exit_with_2_and_print_position_reason_and_fix() {
    let table = "CREATE STREAMING TABLE t USING console AS SELECT";
    for (text, parts) in [
        (
            format!("{}{table} wrod FROM lines", view(1, "")),
            ["UNRESOLVED_COLUMN", "line 2, column 50", "`value`"],
        ),
        (
            format!("{}{table} uper(value) FROM lines", view(1, "")),
            ["UNRESOLVED_ROUTINE", "line 2", "`upper`"],
        ),
        (
            format!("{}{table} value FROM lines", view(1, ", prot '2'")),
            ["UNKNOWN_OPTION", "line 1", "'port'"],
        ),
        (view(1, ""), ["NO_QUERY_IN_JOB", "starts no query", "CREATE STREAMING TABLE"]),
        (
            "SELEC 1".to_string(),
            ["PARSE_SYNTAX_ERROR", "line 1, column 1", "CREATE TEMPORARY VIEW"],
        ),
        ("SET milstream.wait = spin".to_string(), ["UNKNOWN_SETTING", "line 1", "millstream.wait"]),
    ] {
        let output = job("run", &text, &[]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}\n{error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{text}\n{error}");
    }
}

#[test]
fn a_job_whose_sources_cannot_be_opened_exits_with_1() {
    let (_reserved, port) = common::reserved_port();
    let text = format!(
        "{}CREATE STREAMING TABLE t USING console AS SELECT value FROM lines",
        view(port, "")
    );
    let output = job("run", &text, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("SOCKET_SOURCE_FAILED"));
}

#[test]
fn a_job_prints_sparks_tables_and_a_summary() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "{}CREATE STREAMING TABLE counts USING console OPTIONS (outputMode 'complete') AS \
         SELECT word, count(*) AS n FROM (SELECT explode(split(value, ' ')) AS word FROM STREAM lines) \
         GROUP BY word ORDER BY n DESC, word",
        view(listener.local_addr().unwrap().port(), ", atEnd 'stop'")
    );
    let sender = std::thread::spawn(move || {
        listener.accept().unwrap().0.write_all(b"b a b\nc b\n").unwrap();
    });
    let output = job("run", &text, &["--trigger", "asap"]);
    sender.join().unwrap();
    let (out, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{error}");
    let table =
        "+----+---+\n|word|  n|\n+----+---+\n|   b|  3|\n|   a|  1|\n|   c|  1|\n+----+---+\n";
    assert!(out.ends_with(&format!("{table}\n")), "{out}");
    assert!(error.contains("counts: 2 records in"), "{error}");
}

#[test]
fn a_stop_signal_ends_a_job_cleanly() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "{}CREATE STREAMING TABLE t USING console AS SELECT upper(value) AS v FROM lines",
        view(listener.local_addr().unwrap().port(), "")
    );
    let mut child = millstream()
        .args(["run", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let (mut sender, _) = listener.accept().unwrap();
    sender.write_all(b"shown at once\n").unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line.contains("SHOWN AT ONCE")));
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    assert!(error.contains("1 records in, 1 rows out"), "{error}");
}

#[test]
fn explain_shows_schema_plan_and_layout_without_opening_anything() {
    let text = format!(
        "{}CREATE STREAMING TABLE t USING console AS SELECT length(value) AS n FROM lines",
        view(1, "")
    );
    let output = job("explain", &text, &[]);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    for part in [
        " |-- n: integer (nullable = true)",
        "Project [length(value) AS n]",
        "worker 0: source lines",
    ] {
        assert!(out.contains(part), "{out}");
    }
}

#[test]
fn the_demo_checks_itself_and_speaks_json() {
    let output = millstream().args(["demo", "--json", "--lines", "3000"]).output().unwrap();
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["correct"], true);
    assert_eq!(report["records_in"], 3000);
    for field in ["p50", "p90", "p99", "p999", "max"] {
        assert!(report["latency_ns"][field].as_u64().unwrap() > 0, "{report}");
    }
}

#[test]
fn sql_prints_results_and_refuses_streams() {
    let output = job("sql", "SELECT 1 + 1 AS two; SELECT upper(col1) AS u FROM VALUES ('a')", &[]);
    let table = "+---+\n|two|\n+---+\n|2  |\n+---+\n+---+\n|u  |\n+---+\n|A  |\n+---+\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), table);
    let stream = format!("{}SELECT value FROM lines", view(1, ""));
    let output = job("sql", &stream, &[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("STREAMING_QUERY_WITHOUT_START"), "{error}");
    let output = job("sql", "SELECT 1 / 0", &[]);
    assert_eq!(output.status.code(), Some(1));
}

fn json(args: &[&str]) -> serde_json::Value {
    let output = millstream().args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {error}"))
}

/// Checks that benches run and verify their results. The measured values are not checked.
#[test]
fn benches_run_and_check_their_results() {
    let report = json(&[
        "bench",
        "channel",
        "--rate",
        "2000",
        "--records",
        "200",
        "--rounds",
        "1",
        "--keys",
        "7",
        "--json",
    ]);
    assert!(report["p50"].as_u64().unwrap() > 0, "{report}");
    assert!(report["raw_wake_p50"].as_u64().unwrap() > 0, "{report}");
    let report = json(&[
        "bench",
        "throughput",
        "--records",
        "100000",
        "--rounds",
        "1",
        "--keys",
        "100",
        "--json",
    ]);
    assert!(report["engine"].as_u64().unwrap() > 0, "{report}");
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
        let args = ["bench", "throughput", "--records", "100000", "--rounds", "1", "--keys", "100"];
        let more = ["--workers", "2", "--instances", "5", "--json"];
        let report = json(&[&args[..], &more].concat());
        assert!(report["all_workers"].as_u64().unwrap() > 0, "{report}");
    }
    let report = json(&["bench", "hop", "--pings", "50", "--rounds", "1", "--json"]);
    assert!(report["millstream"]["p50"].as_u64().unwrap() > 0, "{report}");
}

/// Each NEXMark query gives the results of its hand-written implementation.
#[test]
fn nexmark_queries_give_the_results_of_the_hand_written_loops() {
    // In ten seconds of event time windows close, in a minute auctions and sessions end. q2 has few
    // results, because it looks for few auctions.
    let ten_seconds: &[(&str, u64)] = &[("q0", 3), ("q1", 3), ("q5", 3)];
    let minute: &[(&str, u64)] = &[
        ("q2", 1),
        ("q3", 3),
        ("q4", 3),
        ("q7", 3),
        ("q8", 3),
        ("q9", 3),
        ("q11", 3),
        ("q13", 3),
        ("q14", 3),
        ("q17", 3),
        ("q18", 3),
        ("q20", 3),
        ("q21", 3),
        ("q22", 3),
    ];
    let run = |query: &str, speed: &str, least: u64| {
        let args = ["bench", "nexmark", "--query", query, "--rate", "2000", "--seconds", "1"];
        let report = json(&[&args[..], &["--speed", speed, "--rounds", "1", "--json"]].concat());
        assert!(report["results_checked"].as_u64().unwrap() >= least, "{query}: {report}");
    };
    let queries = ten_seconds.iter().map(|(query, least)| (query, "10", least));
    let queries = queries.chain(minute.iter().map(|(query, least)| (query, "60", least)));
    let queries: Vec<_> = queries.collect();
    // Six queries run at a time, because each mostly waits for the time of its next event.
    std::thread::scope(|scope| {
        for part in 0..6 {
            let queries = queries.iter().skip(part).step_by(6);
            scope.spawn(move || {
                queries.for_each(|(query, speed, least)| run(query, speed, **least))
            });
        }
    });
}

/// Checks that each part runs and prints its figures, and that unsuitable sizes and rounds are
/// refused. The measured values are not checked.
#[test]
fn bench_replay_measures_all_parts() {
    let report = json(&["bench", "replay", "--quick", "--json"]);
    let figures = report["figures"].as_array().unwrap();
    assert!(figures.iter().all(|figure| figure["value"].is_f64()), "{report}");
    for (part, count) in [
        ("import-pcap on one core", 2),
        ("replay at 1x", 4),
        ("query that records", 9),
        ("query beside a bare writer", 2),
        ("capture as a source", 4),
        ("seek to a time", 4),
    ] {
        let is_of_part =
            |figure: &&serde_json::Value| figure["name"].as_str().unwrap().starts_with(part);
        assert_eq!(figures.iter().filter(is_of_part).count(), count, "{part}: {report}");
    }
    for (args, part) in [(["--quick", "--rounds=2"], "--quick"), (["--seek-bytes", "1k"], "small")]
    {
        let output = millstream().args(["bench", "replay"]).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(texts(&output).1.contains(part), "{args:?}: {}", texts(&output).1);
    }
}

#[test]
fn runs_are_recorded_plotted_and_compared() {
    let folder = std::env::temp_dir().join(format!("millstream-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (log, plot) = (file("run.hlog"), file("run.svg"));
    // If the generator is late, the run is invalid (exit code 1), and the report says so.
    let report = json(&[
        "bench",
        "wordcount",
        "--rate",
        "1000",
        "--seconds",
        "1",
        "--rounds",
        "1",
        "--log",
        &log,
        "--plot",
        &plot,
        "--json",
    ]);
    assert_eq!(report["results_checked"], 1000, "{report}");
    assert!(report["valid"].is_boolean(), "{report}");
    let both = file("both.svg");
    let rows = json(&["bench", "compare", &log, &log, "--plot", &both, "--json"]);
    assert_eq!(rows.as_array().unwrap().len(), 12, "six percentiles of bare and of engine");
    assert!(rows.as_array().unwrap().iter().all(|row| row["ratio"] == 1.0), "{rows}");
    for plot in [plot, both] {
        assert!(std::fs::read_to_string(plot).unwrap().contains("<svg"));
    }
    let output = millstream().args(["bench", "compare", &log, "nope.hlog"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("nope.hlog"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_doctor_prints_its_findings() {
    let report = json(&["doctor", "--json"]);
    let findings = report["findings"].as_array().unwrap();
    for what in ["cores", "clock", "wake-up after 1 ms", "interruptions", "fsync"] {
        assert!(findings.iter().any(|finding| finding["what"] == what), "{what}: {report}");
    }
    let output = millstream().args(["doctor", "--dir", "/nowhere/at/all"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("/nowhere/at/all") && error.contains("--dir"), "{error}");
}

/// The content of a checkpoint: epochs, offsets, sizes, keys and values. Damage gives exit code 1.
#[test]
fn inspect_shows_epochs_and_state() {
    let folder = std::env::temp_dir().join(format!("millstream-inspect-{}", std::process::id()));
    let (input, checkpoint) = (folder.join("in"), folder.join("checkpoint"));
    std::fs::create_dir_all(&input).unwrap();
    std::fs::write(input.join("1.csv"), "a\nb\na\n").unwrap();
    let text = format!(
        "CREATE TEMPORARY VIEW words (word STRING) USING csv OPTIONS (path '{}');\n\
         CREATE STREAMING TABLE counts USING console OPTIONS (outputMode 'update') AS \
         SELECT word, count(*) AS n FROM STREAM words GROUP BY word",
        input.display()
    );
    let checkpoint = checkpoint.to_str().unwrap();
    let output = job("run", &text, &["--trigger", "availableNow", "--checkpoint", checkpoint]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let inspect = |args: &[&str]| {
        let output = millstream().args(["inspect", checkpoint]).args(args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, out) = inspect(&[]);
    assert_eq!(code, Some(0), "{out}");
    for part in ["micro-batch  yes", "0          2            1 ", "aggregate"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert_eq!(inspect(&["--state", "0"]), (Some(0), "a\t=>\t2\nb\t=>\t1\n".to_string()));
    assert_eq!(inspect(&["--state", "1"]).0, Some(2), "there is no such operator");
    std::fs::write(folder.join("checkpoint/commits/0"), "no commit").unwrap();
    assert_eq!(inspect(&[]).0, Some(1), "it is damaged");
    std::fs::remove_dir_all(folder).unwrap();
}

/// A torn block is damage unless it is at the end of the log, where a restart accepts it, or before
/// the offset from which a restart reads.
#[test]
fn inspect_reports_a_torn_block_as_a_restart_does() {
    let scratch = Scratch::new("inspect-log");
    let (env, folder) = (Arc::new(RealEnv::default()), scratch.file("checkpoint"));
    let sources = vec!["socket".to_string()];
    let shape = QueryDescription { sources, ..QueryDescription::default() };
    let (checkpoint, _) =
        Checkpoint::open(env.clone(), &folder, &shape, &mut |_| Ok(true)).unwrap();
    let log = folder.join("sources/0");
    let open = |from| CaptureLog::open(&*env, &log, from, |_| 1);
    let payload = vec![b'x'; 100_000];
    let (mut writer, ..) = open(0).unwrap();
    for n in 0..50 {
        let head = Head {
            position: n * 100_000,
            lines: n,
            mono_ns: 1,
            wall_ns: 1,
            connection: 0,
            direction: Direction::In,
            kind: Kind::Data,
            flags: 0,
        };
        writer.append(&head, &payload).unwrap();
    }
    drop((writer, checkpoint));
    let code = || scratch.millstream(&["inspect", "checkpoint"]).output().unwrap().status.code();
    // Tears the last block of a segment, or mends it.
    let flip = |segment: &Path| {
        let mut bytes = std::fs::read(segment).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[last] ^= 1;
        std::fs::write(segment, bytes).unwrap();
    };
    let files = segments(&log).unwrap();
    let is_written = |path: &&Path| std::fs::read(path).unwrap().iter().any(|byte| *byte != 0);
    let written: Vec<_> = files.iter().map(|(_, path)| path.as_path()).filter(is_written).collect();
    let [first, last] = written[..] else { panic!("{written:?}") };
    assert_eq!(code(), Some(0));
    flip(last);
    assert_eq!(code(), Some(0), "the end of the log is torn");
    flip(last);
    flip(first);
    assert_eq!(code(), Some(1), "an earlier segment is torn");
    assert_eq!(open(0).err().unwrap().condition(), "CHECKPOINT_DAMAGED");
    // A restart that reads only the last segment does not mind.
    let (checkpoint, _) =
        Checkpoint::open(env.clone(), &folder, &shape, &mut |_| Ok(true)).unwrap();
    let offset = Offset(4_900_000.to_string());
    checkpoint.write_offsets(0, &[offset], EpochMode::Continuous, (0, 0), Vec::new()).unwrap();
    drop(checkpoint);
    assert_eq!(code(), Some(0));
    assert!(open(4_900_000).is_ok());
}

/// Runs a query over the CSV files `l.csv` and `r.csv` of a folder, and returns what `inspect` prints
/// about its only stateful operator. The views `l` and `r` have the columns `k`, `t` and `v`.
fn inspected_join(scratch: &Scratch, query: &str, (left, right): (&str, &str)) -> String {
    let mut text = "SET spark.sql.session.timeZone = UTC;\n\
                    SET spark.sql.join.asofJoin.enabled = true;\n"
        .to_string();
    for (name, rows) in [("l", left), ("r", right)] {
        let folder = scratch.path(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(format!("{folder}/1.csv"), rows).unwrap();
        text += &format!(
            "CREATE TEMPORARY VIEW {name}0 (k BIGINT, t TIMESTAMP, v STRING) USING csv \
             OPTIONS (path '{folder}');\n\
             CREATE TEMPORARY VIEW {name} AS SELECT * FROM STREAM {name}0 \
             WATERMARK t DELAY OF INTERVAL 0 SECONDS;\n"
        );
    }
    text += &format!("CREATE STREAMING TABLE joined USING console AS {query}");
    let checkpoint = scratch.path("checkpoint");
    let output = job("run", &text, &["--trigger", "availableNow", "--checkpoint", &checkpoint]);
    assert!(output.status.success(), "{}", texts(&output).1);
    let output = millstream().args(["inspect", &checkpoint, "--state", "0"]).output().unwrap();
    assert!(output.status.success(), "{}", texts(&output).1);
    texts(&output).0
}

/// The lines of `inspect --state` without the sizes in bytes, and without the numbers of rows, which
/// depend on the order in which the sides arrive.
fn without_sizes(state: &str) -> Vec<String> {
    let without = |line: &str, name: &str| match line.split_once(name) {
        Some((before, after)) => {
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            assert!(after[..end].parse::<u64>().is_ok(), "{line}");
            format!("{before}{}", &after[end..])
        }
        None => line.to_string(),
    };
    state.lines().map(|line| without(&without(line, ", bytes "), " row ")).collect()
}

/// For each side the totals and the oldest time; for each row its key, side, number and columns,
/// and whether it has had a match.
#[test]
fn inspect_shows_the_sides_of_a_join() {
    let scratch = Scratch::new("inspect-join");
    let query = "SELECT l.v, r.v FROM l LEFT JOIN r ON l.k = r.k AND r.t >= l.t \
                 AND r.t <= l.t + INTERVAL 1 MINUTE";
    let left = "1,2024-01-01 00:00:10,a\n2,2024-01-01 00:00:20,b\n";
    let state = inspected_join(&scratch, query, (left, "1,2024-01-01 00:00:15,c\n"));
    let expected = [
        "left: rows 2, matched 1, oldest 2024-01-01 00:00:10",
        "right: rows 1, matched 0, oldest 2024-01-01 00:00:15",
        "1\t=>\tleft, matched: 1, 2024-01-01 00:00:10, a",
        "1\t=>\tright: 1, 2024-01-01 00:00:15, c",
        "2\t=>\tleft: 2, 2024-01-01 00:00:20, b",
    ];
    assert_eq!(without_sizes(&state), expected, "{state}");
}

/// Names of columns are those of the query, and the summary says which rows wait for the watermark.
#[test]
fn a_join_is_named_in_the_words_of_the_query() {
    let scratch = Scratch::new("named-join");
    let name = "LEFT OUTER join of streams l and r on l.k = r.k, by the times l.t and r.t";
    let query = "SELECT l.v, r.v AS w FROM l LEFT JOIN r ON l.k = r.k AND r.t >= l.t \
                 AND r.t <= l.t + INTERVAL 1 MINUTE";
    let left = "1,2024-01-01 00:00:10,a\n2,2024-01-01 00:00:20,b\n";
    inspected_join(&scratch, query, (left, "1,2024-01-01 00:00:15,c\n"));
    let checkpoint = scratch.path("checkpoint");
    let output = millstream().args(["inspect", &checkpoint]).output().unwrap();
    assert!(texts(&output).0.contains(name), "{}", texts(&output).0);
    let output = millstream().args(["inspect", &checkpoint, "--state", "1"]).output().unwrap();
    assert!(texts(&output).1.contains("has 1 stateful operator, number 0"), "{}", texts(&output).1);
    let views = ["l", "r"].map(|view| {
        let folder = scratch.path(view);
        format!(
            "CREATE TEMPORARY VIEW {view}0 (k BIGINT, t TIMESTAMP, v STRING) USING csv OPTIONS (path \
             '{folder}');\nCREATE TEMPORARY VIEW {view} AS SELECT * FROM STREAM {view}0 WATERMARK t \
             DELAY OF INTERVAL 0 SECONDS;\n"
        )
    });
    let text = format!("SET spark.sql.session.timeZone = UTC;\n{}", views.concat());
    let of = |query: &str| format!("{text}CREATE STREAMING TABLE joined USING console AS {query}");
    let output = job("run", &of(query), &["--trigger", "availableNow"]);
    let held = "rows of a join are buffered, and their matches are known only when the watermark has \
                passed them (it is at 2024-01-01 00:00:15 UTC): LEFT OUTER join";
    assert!(texts(&output).1.contains(held), "{}", texts(&output).1);
    let windows = "SELECT window.start, count(*) AS n FROM l GROUP BY window(t, '1 minute')";
    let output = job("run", &of(windows), &["--trigger", "availableNow"]);
    let held = "1 group is not final, and is emitted only when the watermark has passed it";
    assert!(texts(&output).1.contains(held), "{}", texts(&output).1);
    // How long rows are kept is explained, and a join that keeps them for ever is announced.
    let explained = texts(&job("explain", &of(query), &[])).0;
    for line in [
        name,
        "left rows are kept until the watermark reaches l.t + 1 minute 0.001 seconds",
        "right rows are kept until the watermark reaches r.t + 0.001 seconds",
    ] {
        assert!(explained.contains(line), "{explained}");
    }
    let inner = "SELECT l.v, r.v AS w FROM l JOIN r ON l.k = r.k";
    let output = texts(&job("run", &of(inner), &["--trigger", "availableNow"])).1;
    let notice =
        "the INNER join of streams l and r on l.k = r.k keeps its left and right rows for ever";
    assert!(output.contains(notice), "{output}");
    assert!(!output.contains("are buffered, and"), "an inner join emits at the match: {output}");
    // The keyword STREAM is missing before the second table.
    let table = "SELECT l.v, r.v AS w FROM l JOIN (SELECT * FROM r0 WATERMARK t DELAY OF INTERVAL 1 \
                 SECOND) r ON l.k = r.k";
    let output = texts(&job("run", &of(table), &["--trigger", "availableNow"])).1;
    assert!(output.contains("the WATERMARK of `r0` has no effect"), "{output}");
    assert!(output.contains("STREAM r0"), "{output}");
}

#[test]
fn inspect_shows_the_sides_of_an_asof_join() {
    let scratch = Scratch::new("inspect-asof-join");
    let query = "SELECT l.v, r.v FROM l LEFT ASOF JOIN r MATCH_CONDITION (l.t >= r.t) ON l.k = r.k";
    let right = "1,2024-01-01 00:00:05,c\n1,2024-01-01 00:00:15,d\n";
    let state = inspected_join(&scratch, query, ("1,2024-01-01 00:00:20,a\n", right));
    let expected = [
        "left: rows 1, matched 0, oldest 2024-01-01 00:00:20",
        "right: rows 1, matched 0, oldest 2024-01-01 00:00:15",
        "1\t=>\tleft: 1, 2024-01-01 00:00:20, a",
        "1\t=>\tright: 1, 2024-01-01 00:00:15, d",
    ];
    assert_eq!(without_sizes(&state), expected, "{state}");
}

/// The records of a typed stream are bytes; their sides are summarised.
#[test]
fn inspect_shows_the_sides_of_an_interval_join() {
    use millstream::stream::{Flow, TimeOffset};

    let scratch = Scratch::new("inspect-interval-join");
    let flow = Flow::new("join").checkpoint(scratch.path("checkpoint"));
    let delay = std::time::Duration::from_secs(60);
    let left = flow.items([(1u64, 100i64), (2, 200)]).with_watermark(|r| r.1 * 1_000_000, delay);
    let right = flow.items([(1u64, 100i64)]).with_watermark(|r| r.1 * 1_000_000, delay);
    left.key_by(|r| r.0)
        .interval_join(right.key_by(|r| r.0))
        .between(TimeOffset::ZERO, delay)
        .full_outer(|l, r| (l.copied(), r.copied()))
        .sink(|_| {});
    flow.start(millstream::Config::default()).unwrap().await_termination().unwrap();
    let inspect = |args: &[&str]| {
        let checkpoint = scratch.path("checkpoint");
        let output = millstream().arg("inspect").arg(checkpoint).args(args).output().unwrap();
        assert!(output.status.success(), "{}", texts(&output).1);
        texts(&output).0
    };
    assert!(inspect(&[]).contains("interval join by u64: full outer"), "{}", inspect(&[]));
    let state = inspect(&["--state", "0"]);
    let lines = without_sizes(&state);
    assert_eq!(lines[..2], ["left: rows 2, matched 1", "right: rows 1, matched 1"], "{state}");
    assert_eq!(lines.len(), 2 + 3, "{state}");
}

/// The tool does not know the state types of a program's processor, so it shows bytes.
#[test]
fn inspect_shows_the_state_of_a_processor_as_bytes() {
    use millstream::EngineError;
    use millstream::stream::{Context, Flow, Processor, Ttl, ValueState};

    #[derive(Clone)]
    struct Last(ValueState<u64>);
    impl Processor<u64, u64> for Last {
        type Output = ();
        fn record(
            &mut self,
            _: &u64,
            number: u64,
            cx: &mut Context<'_, ()>,
        ) -> Result<(), EngineError> {
            cx.set_value(self.0, number)
        }
    }
    let folder = std::env::temp_dir().join(format!("millstream-opaque-{}", std::process::id()));
    let flow = Flow::new("last").checkpoint(&folder);
    let last = flow
        .items([5u64, 8, 3])
        .key_by(|n| n % 2)
        .process("last", |states| Last(states.value("last", Ttl::NONE)));
    last.sink(|()| {});
    flow.start(millstream::Config::default()).unwrap().await_termination().unwrap();
    let output = |args: &[&str]| {
        let output = millstream().arg("inspect").arg(&folder).args(args).output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(output(&[]).contains("process last"), "{}", output(&[]));
    let state = output(&["--state", "0"]);
    assert_eq!(state.lines().count(), 2, "{state}");
    assert!(state.contains("\\x03"), "{state}");
    std::fs::remove_dir_all(folder).unwrap();
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn inspect_lists_the_queries_of_a_job() {
    let scratch = Scratch::new("cli-several");
    std::fs::create_dir(scratch.0.join("in")).unwrap();
    std::fs::write(scratch.0.join("in/1.csv"), "a\nb\n").unwrap();
    let text = format!(
        "CREATE TEMPORARY VIEW words (word STRING) USING csv OPTIONS (path '{}');\n\
         CREATE STREAMING TABLE counts USING noop OPTIONS (outputMode 'update') AS \
         SELECT word, count(*) AS n FROM STREAM words GROUP BY word;\n\
         CREATE STREAMING TABLE copy USING noop AS SELECT word FROM STREAM words;",
        scratch.path("in")
    );
    let checkpoint = scratch.path("checkpoint");
    let output = job("run", &text, &["--trigger", "availableNow", "--checkpoint", &checkpoint]);
    assert!(output.status.success(), "{}", texts(&output).1);
    let inspect = |args: &[&str]| millstream().arg("inspect").args(args).output().unwrap();
    let output = inspect(&[&checkpoint]);
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    for part in ["2 queries", "counts ", "copy ", &format!("inspect {checkpoint}/copy")] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let output = inspect(&[&checkpoint, "--state", "0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(texts(&output).1.contains("SEVERAL_QUERIES"), "{}", texts(&output).1);
    assert!(inspect(&[&format!("{checkpoint}/counts"), "--state", "0"]).status.success());
    // The folder is neither a checkpoint nor a folder of checkpoints.
    assert_eq!(inspect(&[&scratch.path("in")]).status.code(), Some(1));
}

#[test]
fn a_query_is_explained_without_a_checkpoint_and_not_run_without() {
    let scratch = Scratch::new("cli-explained");
    let text = format!(
        "CREATE TEMPORARY VIEW ticks USING rate;\n\
         CREATE STREAMING TABLE copy USING csv OPTIONS (path '{}') AS SELECT value FROM ticks;",
        scratch.path("out")
    );
    let output = job("explain", &text, &[]);
    let (out, err) = texts(&output);
    assert!(output.status.success() && out.contains("== Tasklets =="), "{out}{err}");
    let output = job("run", &text, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(texts(&output).1.contains("CHECKPOINT_LOCATION_MISSING"), "{}", texts(&output).1);
    assert!(!scratch.0.join("out").exists());
}

#[test]
fn notices_of_bad_records_name_the_file_and_the_outcome() {
    let scratch = Scratch::new("cli-notices");
    std::fs::write(scratch.0.join("a.csv"), "a,1\nb,x\n").unwrap();
    let query = |mode: &str| {
        let folder = scratch.0.display();
        let sql = format!(
            "CREATE TEMPORARY VIEW t (k STRING, n INT) USING csv \
             OPTIONS (path '{folder}', mode '{mode}'); SELECT * FROM t"
        );
        texts(&millstream().args(["sql", &sql]).output().unwrap())
    };
    let (out, err) = query("PERMISSIVE");
    assert!(out.contains("|b  |NULL|"), "{out}");
    assert!(err.contains("1 record was kept with NULL"), "{err}");
    assert!(err.contains("a.csv at byte 4: ") && !err.contains("rejected"), "{err}");
    let (out, err) = query("DROPMALFORMED");
    assert!(!out.contains("|b"), "{out}");
    assert!(err.contains("1 record was rejected"), "{err}");
    assert!(err.contains("rejected in ") && err.contains("a.csv at byte 4: "), "{err}");
}

#[test]
fn paths_of_other_stores_are_refused() {
    let scratch = Scratch::new("cli-stores");
    let (input, out) = (scratch.path(""), scratch.path("out"));
    let text = |input: &str, out: &str, checkpoint: &str| {
        format!(
            "CREATE TEMPORARY VIEW t (k STRING) USING csv OPTIONS (path '{input}');\n\
             CREATE STREAMING TABLE o USING csv OPTIONS (path '{out}', \
             checkpointLocation '{checkpoint}') AS SELECT * FROM STREAM t;"
        )
    };
    for text in [
        text("s3://bucket/in", &out, "c"),
        text(&input, "hdfs://host:8020/out", "c"),
        text(&input, &out, "gs://bucket/checkpoint"),
    ] {
        let output = job("run", &text, &["--trigger", "availableNow"]);
        let err = texts(&output).1;
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains("UNSUPPORTED_FILE_SYSTEM") && err.contains("local"), "{err}");
    }
    // The scheme `file:` denotes a local path.
    let file = |name: &str| format!("file://{}", scratch.path(name));
    std::fs::create_dir(scratch.0.join("in")).unwrap();
    std::fs::write(scratch.0.join("in/a.csv"), "a\n").unwrap();
    let text = text(&file("in"), &file("out"), &file("checkpoint"));
    let output = job("run", &text, &["--trigger", "availableNow"]);
    assert!(output.status.success(), "{}", texts(&output).1);
    assert!(scratch.0.join("out").is_dir() && scratch.0.join("checkpoint/metadata").is_file());
}

/// The job in the documentation page about jobs, with its folders.
#[test]
fn the_csv_job_of_the_docs_runs() {
    let scratch = Scratch::new("cli-docs");
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/jobs.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("## From CSV files to CSV files").unwrap();
    let block = |name: &str| {
        let (_, rest) = rest.split_once(&format!("```{name}\n")).unwrap();
        rest.split_once("```").unwrap().0.replace("/data/", &scratch.path(""))
    };
    std::fs::create_dir(scratch.0.join("orders")).unwrap();
    std::fs::write(scratch.0.join("orders/1.csv"), block("csv")).unwrap();
    let output = job("run", &block("sql"), &[]);
    let err = texts(&output).1;
    assert!(output.status.success(), "{err}");
    let files = std::fs::read_dir(scratch.0.join("large")).unwrap().flatten();
    let files = files.map(|entry| entry.path());
    let mut lines: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "csv"))
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().map(str::to_string).collect::<Vec<_>>()
        })
        .collect();
    lines.sort();
    let (_, expected) = rest.split_once("```text\n").unwrap();
    let expected = expected.split_once("```").unwrap().0;
    assert_eq!(lines.join("\n"), expected.trim_end(), "{err}");
}

/// Two queries, of which one fails at its fourth row.
fn failing_job(folder: &std::path::Path, on_failure: &str) -> String {
    std::fs::write(folder.join("lines.txt"), "a\nb\n").unwrap();
    format!(
        "SET millstream.onQueryFailure = {on_failure};
         CREATE TEMPORARY VIEW ticks USING rate OPTIONS (rowsPerSecond '1000');
         CREATE TEMPORARY VIEW lines USING text OPTIONS (path '{}');
         CREATE STREAMING TABLE good USING noop OPTIONS ({}) AS SELECT * FROM STREAM {};
         CREATE STREAMING TABLE bad USING noop AS SELECT 1 / (value - 3) FROM ticks;",
        folder.display(),
        if on_failure == "continue" { "trigger 'available-now'" } else { "trigger 'asap'" },
        if on_failure == "continue" { "lines" } else { "ticks" },
    )
}

#[test]
fn the_failure_of_one_query_names_it_and_stops_the_others_or_not() {
    let folder = Scratch::new("cli-failing");
    for on_failure in ["stop", "continue"] {
        let output = job("run", &failing_job(&folder.0, on_failure), &[]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("error: query bad: DIVIDE_BY_ZERO"), "{error}");
        let good = if on_failure == "continue" { "good: 2 records in" } else { "good: " };
        assert!(error.contains(good), "{error}");
    }
    let output = job("run", &failing_job(&folder.0, "wait"), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("stop or continue"));
}

/// Queries over two lines of a file, each with a console sink.
fn printing_job(folder: &std::path::Path, names: &[&str]) -> String {
    std::fs::write(folder.join("lines.txt"), "a\nb\n").unwrap();
    let view =
        format!("CREATE TEMPORARY VIEW lines USING text OPTIONS (path '{}');", folder.display());
    names.iter().fold(view, |text, name| {
        text + &format!(
            "CREATE STREAMING TABLE {name} USING console OPTIONS (trigger 'available-now') AS \
             SELECT * FROM STREAM lines;"
        )
    })
}

#[test]
fn tables_of_several_consoles_name_their_query() {
    let folder = Scratch::new("cli-consoles");
    let output = job("run", &printing_job(&folder.0, &["first", "second"]), &[]);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(out.contains("Batch: 0 of first\n") && out.contains("Batch: 0 of second\n"), "{out}");
    let output = job("run", &printing_job(&folder.0, &["only"]), &[]);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(out.contains("Batch: 0\n"), "{out}");
}

#[cfg(target_os = "linux")]
#[test]
fn unwritable_reports_are_reported_once_and_counted() {
    let folder = Scratch::new("cli-full-progress");
    let args = ["--progress", "/dev/full"];
    let output = job("run", &printing_job(&folder.0, &["first", "second"]), &args);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    assert_eq!(error.matches("a report cannot be written").count(), 1, "{error}");
    assert!(error.contains("progress: 2 reports could not be written"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_query_that_fails_before_its_first_commit_counts_nothing() {
    let folder = Scratch::new("cli-no-commit");
    let mut child = millstream()
        .args(["run", "-"])
        .stdin(Stdio::piped())
        .stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let text = printing_job(&folder.0, &["only"]);
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("before an epoch was committed"), "{error}");
    assert!(!error.contains("0 records in"), "{error}");
}

#[test]
fn an_error_in_one_of_several_queries_names_the_query() {
    let folder = Scratch::new("cli-misspelt");
    let text = failing_job(&folder.0, "stop").replace("value - 3", "valeu - 3");
    let output = job("run", &text, &[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("query bad: "), "{error}");
}
