//! Tests of `millstream test`: the verdict on a job's rows and latency, and its output.

mod common;

use common::Scratch;
use millstream_engine::capture::{CaptureWriter, Direction, FileHeader, Head, Kind, WriterOptions};
use std::path::Path;
use std::process::Output;

const COUNTS: &str = "\
    CREATE TEMPORARY VIEW lines USING socket OPTIONS (host 'localhost', port '9', mode 'listen');\n\
    CREATE STREAMING TABLE counts USING console\n\
    OPTIONS (outputMode 'update', checkpointLocation '/nonexistent/state') AS\n\
    SELECT word, count(*) AS n FROM (SELECT explode(split(value, ' ')) AS word FROM STREAM lines)\n\
    GROUP BY word;\n";

/// A folder with a job and its input.
fn folder(name: &str) -> Scratch {
    let scratch = Scratch::new(&format!("test-{name}"));
    scratch.write("counts.sql", COUNTS);
    scratch.write("lines", "a b a\nc a\n");
    scratch
}

/// `millstream test` in a folder.
trait Tested {
    fn test(&self, args: &[&str]) -> Output;

    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.test(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output));
        text(&output)
    }

    fn passes(&self, args: &[&str]) -> String {
        self.fails(0, args)
    }
}

impl Tested for Scratch {
    fn test(&self, args: &[&str]) -> Output {
        self.millstream(&["test"]).args(args).output().unwrap()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A capture with lines from two connections in turn, one per millisecond.
fn capture(path: &Path, lines: &[&str]) {
    let file = std::fs::File::create(path).unwrap();
    let header = FileHeader { recording: 1, ..FileHeader::default() };
    let mut writer = CaptureWriter::new(file, &WriterOptions { header, compress: false }).unwrap();
    for (n, line) in lines.iter().enumerate() {
        let n = n as u64;
        let head = Head {
            position: 0,
            lines: 0,
            mono_ns: 1 + n * 1_000_000,
            wall_ns: n as i64 * 1_000_000,
            connection: (n % 2) as u32,
            direction: Direction::In,
            kind: Kind::Data,
            flags: 0,
        };
        writer.append(&head, format!("{line}\n").as_bytes()).unwrap();
    }
    writer.finish().unwrap();
}

const LINES: [&str; 3] = ["--source", "lines=lines", "--expect=rows.jsonl"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    ["counts.sql"].into_iter().chain(LINES).chain(more.iter().copied()).collect()
}

#[test]
fn the_help_tells_the_comparisons_apart() {
    let help = folder("help").passes(&["--help"]);
    for (mode, meaning) in [
        ("sequence", "The same rows in the same order"),
        ("multiset", "The same rows in any order"),
        ("per-key", "For each key the same rows in the same order"),
        ("last-per-key", "For each key the same last row"),
    ] {
        let line = help.lines().find(|line| line.trim().starts_with(&format!("- {mode}:")));
        assert!(line.is_some_and(|line| line.trim_end().ends_with(meaning)), "{mode}: {help}");
    }
}

#[test]
fn an_expected_file_is_written_and_then_matched() {
    let scratch = folder("update");
    assert!(scratch.fails(2, &with(&[])).contains("--update writes it"));
    assert!(scratch.passes(&with(&["--update"])).contains("5 rows, written"));
    let expected = "{\"word\":\"a\",\"n\":1}\n{\"word\":\"b\",\"n\":1}\n{\"word\":\"a\",\"n\":2}\n\
        {\"word\":\"c\",\"n\":1}\n{\"word\":\"a\",\"n\":3}\n";
    assert_eq!(scratch.read("rows.jsonl"), expected);
    assert!(scratch.passes(&with(&["--update"])).contains("unchanged"));
    for compare in ["sequence", "multiset"] {
        assert!(
            scratch.passes(&with(&["--compare", compare])).contains("pass counts answer: 5 rows")
        );
    }
    for compare in ["per-key", "last-per-key"] {
        scratch.passes(&with(&["--compare", compare, "--key", "word"]));
    }
}

#[test]
fn a_difference_is_shown_by_row_key_and_column() {
    let scratch = folder("difference");
    scratch.passes(&with(&["--update"]));
    scratch.write("lines", "a b a\nc b\n");
    let report = scratch.fails(1, &with(&["--junit", "report.xml"]));
    assert!(report.contains("FAIL counts answer: rows: 1 missing, 1 unexpected"), "{report}");
    assert!(
        report.contains("- {\"word\":\"a\",\"n\":3}\n  + {\"word\":\"b\",\"n\":2}"),
        "{report}"
    );
    assert!(report.contains("TEST_FAILED: 1 of 1 checks"), "{report}");
    let junit = scratch.read("report.xml");
    assert!(junit.contains("tests=\"1\" failures=\"1\" errors=\"0\""), "{junit}");
    assert!(junit.contains("- {&quot;word&quot;:&quot;a&quot;,&quot;n&quot;:3}"), "{junit}");
    let report = scratch.fails(1, &with(&["--compare", "last-per-key", "--key", "word"]));
    assert!(report.contains("word = \"a\", row 1:"), "{report}");
    assert!(report.contains("n: expected 3, found 2"), "{report}");
    let report = scratch.fails(1, &with(&["--compare", "sequence", "--differences", "0"]));
    assert!(report.contains("and 1 more"), "{report}");
    // Only the last row of each key is expected.
    scratch.passes(&with(&["--compare", "last-per-key", "--key", "word", "--update"]));
    assert_eq!(scratch.read("rows.jsonl").lines().count(), 3);
    scratch.passes(&with(&["--compare", "last-per-key", "--key", "word"]));
    // A key that is not a column is refused before the rows are written.
    let wrong = ["--compare", "last-per-key", "--key", "wrod", "--update"];
    assert!(scratch.fails(2, &with(&wrong)).contains("--key wrod"));
    assert_eq!(scratch.read("rows.jsonl").lines().count(), 3);
}

#[test]
fn numbers_and_times_may_differ_by_a_tolerance() {
    let scratch = folder("tolerance");
    scratch.write(
        "job.sql",
        "CREATE TEMPORARY VIEW lines USING socket OPTIONS (host 'localhost', port '9');\n\
         CREATE STREAMING TABLE t USING noop AS SELECT CAST(value AS DOUBLE) / 3 AS third, \
         timestamp_millis(CAST(value AS BIGINT)) AS at FROM STREAM lines;\n",
    );
    scratch.write("numbers", "1000\n2000\n");
    let args = ["job.sql", "--source=lines=numbers", "--expect=rows.jsonl"];
    let with = |more: &[&'static str]| [&args[..], more].concat();
    scratch.passes(&with(&["--update"]));
    let moved = scratch.read("rows.jsonl").replace("333.3333333333", "333.3333333334");
    scratch.write("rows.jsonl", &moved.replace("01.000Z", "01.002Z"));
    scratch.fails(1, &with(&[]));
    scratch.fails(1, &with(&["--tolerance", "1e-9"]));
    scratch.fails(1, &with(&["--tolerance", "5ms"]));
    scratch.passes(&with(&["--tolerance", "1e-9", "--tolerance", "5ms"]));
    scratch.passes(&with(&["--tolerance=1e-9", "--tolerance=5ms", "--compare=sequence"]));
    scratch.fails(1, &with(&["--tolerance=1e-9", "--tolerance=1ms"]));
}

/// As doubles, the expected and the actual decimal are equal.
#[test]
fn decimals_are_compared_by_all_their_digits() {
    let scratch = folder("decimals");
    scratch.write(
        "job.sql",
        "CREATE TEMPORARY VIEW lines USING socket OPTIONS (host 'localhost', port '9');\n\
         CREATE STREAMING TABLE t USING noop AS SELECT CAST(value AS DECIMAL(38, 18)) AS d \
         FROM STREAM lines;\n",
    );
    scratch.write("numbers", "12345678901234567.123456789012345678\n");
    let args = ["job.sql", "--source=lines=numbers", "--expect=rows.jsonl"];
    scratch.passes(&[&args[..], &["--update"]].concat());
    let rows = scratch.read("rows.jsonl");
    assert!(rows.contains("12345678901234567.123456789012345678"), "{rows}");
    scratch.write("rows.jsonl", &rows.replace("345678}", "345679}"));
    scratch.fails(1, &args);
    scratch.passes(&[&args[..], &["--tolerance", "1e-15"]].concat());
    // Zeros at the end do not count.
    scratch.write("rows.jsonl", &rows.replace("345678}", "34567800}"));
    scratch.passes(&args);
}

#[test]
fn a_capture_gives_the_same_rows_every_time() {
    let scratch = folder("capture");
    capture(&scratch.0.join("lines.capture"), &["a b a", "c a"]);
    scratch.passes(&with(&["--update"]));
    let args =
        ["counts.sql", "--replay=lines.capture", "--expect=rows.jsonl", "--compare=sequence"];
    for _ in 0..3 {
        scratch.passes(&args);
    }
    scratch.passes(&[&args[..], &["--speed", "2"]].concat());
    let one = ["--connection", "1", "--from", "1970-01-01T00:00:00.001Z"];
    let report = scratch.fails(1, &[&args[..], &one].concat());
    assert!(report.contains("missing"), "{report}");
    // Micro-batches emit only the last value of each key.
    let last = ["--trigger", "available-now", "--compare", "last-per-key", "--key", "word"];
    scratch.passes(&[&args[..3], &last].concat());
}

#[test]
fn latency_is_judged_relative_to_the_latency_floor_of_the_machine() {
    let scratch = folder("latency");
    let lines = vec!["a b"; 50];
    capture(&scratch.0.join("lines.capture"), &lines);
    let args = ["counts.sql", "--replay=lines.capture", "--expect=rows.jsonl"];
    scratch.passes(&[&args[..], &["--update"]].concat());
    let with = |more: &[&'static str]| [&args[..], more].concat();
    let report = scratch.passes(&with(&["--latency", "p99<1h,max<2h", "--max-lag", "1h"]));
    assert!(report.contains("pass counts latency p99<1h: "), "{report}");
    assert!(
        report.contains("send lag p50") && report.contains("floor of this machine"),
        "{report}"
    );
    let report = scratch.fails(1, &with(&["--latency", "p50<1ns", "--max-lag", "1h"]));
    assert!(report.contains("FAIL counts latency p50<1ns"), "{report}");
    // Every machine has a floor above zero.
    let junit = ["--latency", "p50<1h", "--max-lag", "0ns", "--junit", "report.xml"];
    let report = scratch.fails(3, &with(&junit));
    assert!(report.contains("TEST_INVALID"), "{report}");
    assert!(scratch.read("report.xml").contains("<error type=\"INVALID\""));
}

#[test]
fn queries_of_a_job_have_a_file_each() {
    let scratch = folder("several");
    scratch.write(
        "job.sql",
        "CREATE TEMPORARY VIEW lines USING socket OPTIONS (host 'localhost', port '9');\n\
         CREATE STREAMING TABLE long USING noop AS SELECT value FROM STREAM lines WHERE \
         length(value) > 3;\n\
         CREATE STREAMING TABLE total USING noop OPTIONS (outputMode 'complete') AS SELECT count(*) \
         AS n FROM STREAM lines;\n",
    );
    let args = ["job.sql", "--source=lines=lines", "--expect=rows"];
    scratch.passes(&[&args[..], &["--update"]].concat());
    assert_eq!(scratch.read("rows/long.jsonl"), "{\"value\":\"a b a\"}\n");
    assert_eq!(scratch.read("rows/total.jsonl"), "{\"n\":2}\n");
    scratch.passes(&args);
    scratch.write("rows/total.jsonl", "{\"n\":3}\n");
    let report = scratch.fails(1, &args);
    assert!(
        report.contains("pass long answer") && report.contains("FAIL total answer"),
        "{report}"
    );
    scratch.write("rows/total.jsonl", "n=3\n");
    assert!(scratch.fails(2, &args).contains("line 1 is not a JSON object"));
}

/// In mode complete the last result counts, also if it has no rows.
#[test]
fn an_empty_last_result_is_compared_as_empty() {
    let scratch = folder("empty");
    let job = "CREATE TEMPORARY VIEW words (word STRING) USING csv OPTIONS (path '/nonexistent', \
        maxFilesPerTrigger '1');\n\
        CREATE STREAMING TABLE rare USING noop OPTIONS (outputMode 'complete') AS SELECT word, \
        count(*) AS n FROM STREAM words GROUP BY word HAVING count(*) < 2;\n";
    scratch.write("job.sql", job);
    std::fs::create_dir(scratch.file("words")).unwrap();
    for file in ["words/1.csv", "words/2.csv"] {
        scratch.write(file, "a\n");
    }
    scratch.write("rows.jsonl", "");
    let args = ["job.sql", "--source=words=words", "--expect=rows.jsonl"];
    for trigger in ["asap", "available-now", "continuous=100ms"] {
        let report = scratch.passes(&[&args[..], &["--trigger", trigger]].concat());
        assert!(report.contains("0 rows"), "{trigger}: {report}");
    }
    scratch.write("rows.jsonl", "{\"word\":\"a\",\"n\":1}\n");
    let report = scratch.fails(1, &[&args[..], &["--trigger", "asap"]].concat());
    assert!(report.contains("rows: 1 missing\n"), "{report}");
}

/// A capture is read at its pace to its end, also if another source has no end.
#[test]
fn a_paced_capture_is_read_to_its_end_beside_a_folder() {
    let scratch = folder("beside");
    scratch.write(
        "job.sql",
        "CREATE TEMPORARY VIEW lines USING socket OPTIONS (host 'localhost', port '9');\n\
         CREATE TEMPORARY VIEW files USING text OPTIONS (path '/nonexistent');\n\
         CREATE STREAMING TABLE rows USING noop AS SELECT value FROM STREAM lines UNION ALL SELECT \
         value FROM STREAM files;\n",
    );
    // One line per millisecond.
    capture(&scratch.file("lines.capture"), &vec!["a"; 300]);
    std::fs::create_dir(scratch.file("files")).unwrap();
    scratch.write("files/1.txt", "b\n");
    let args = ["job.sql", "--replay=lines.capture", "--source=files=files", "--expect=rows.jsonl"];
    for trigger in ["continuous=1h", "asap"] {
        let args = [&args[..], &["--speed", "1", "--update", "--trigger", trigger]].concat();
        let report = scratch.passes(&args);
        assert!(report.contains("301 rows"), "{trigger}: {report}");
    }
}

#[test]
fn a_query_that_always_has_data_fails_after_the_timeout() {
    let scratch = folder("timeout");
    scratch.write(
        "job.sql",
        "CREATE TEMPORARY VIEW numbers USING rate OPTIONS (rowsPerSecond '1000000000');\n\
         CREATE STREAMING TABLE rows USING noop AS SELECT value FROM STREAM numbers WHERE value < 0;\n",
    );
    scratch.write("rows.jsonl", "");
    let args = ["job.sql", "--expect=rows.jsonl", "--trigger=continuous=1h", "--timeout=300ms"];
    let report = scratch.fails(1, &args);
    assert!(report.contains("query rows is not done after --timeout"), "{report}");
}

#[test]
fn sources_of_all_kinds_are_replaced_in_both_modes() {
    let scratch = folder("kinds");
    scratch.write(
        "job.sql",
        "CREATE TEMPORARY VIEW lines USING socket OPTIONS (host 'localhost', port '9', mode \
         'listen');\n\
         CREATE TEMPORARY VIEW prices (word STRING, price INT) USING csv OPTIONS (path \
         '/nonexistent/prices', header 'true');\n\
         CREATE TEMPORARY VIEW topic USING kafka OPTIONS (`kafka.bootstrap.servers` \
         '127.0.0.1:1', subscribe 'words', includeHeaders 'true');\n\
         CREATE STREAMING TABLE rows USING noop OPTIONS (outputMode 'append') AS\n\
         SELECT value AS word, CAST(NULL AS INT) AS price FROM STREAM lines UNION ALL\n\
         SELECT word, price FROM STREAM prices UNION ALL\n\
         SELECT CAST(value AS STRING), CAST(CAST(headers[0].value AS STRING) AS INT) + partition \
         FROM STREAM topic;\n",
    );
    scratch.write("lines.txt", "a\nb\n");
    scratch.write("prices.csv", "word,price\nc,3\n");
    scratch.write(
        "topic.jsonl",
        "{\"value\":\"d\",\"partition\":1,\"headers\":[{\"key\":\"price\",\"value\":\"4\"}]}\n\
         {\"value\":\"e\"}\n",
    );
    let args = [
        "job.sql",
        "--source=lines=lines.txt",
        "--source=prices=prices.csv",
        "--source=topic=topic.jsonl",
        "--expect=rows.jsonl",
    ];
    let rows = "{\"word\":\"a\",\"price\":null}\n{\"word\":\"b\",\"price\":null}\n\
        {\"word\":\"c\",\"price\":3}\n{\"word\":\"d\",\"price\":5}\n\
        {\"word\":\"e\",\"price\":null}\n";
    scratch.write("rows.jsonl", rows);
    for trigger in ["continuous=100ms", "asap", "processing-time=10ms", "available-now"] {
        scratch.passes(&[&args[..], &["--trigger", trigger]].concat());
    }
    // A capture replaces the socket; files replace the other sources.
    capture(&scratch.0.join("lines.capture"), &["a", "b"]);
    let with_capture = [&["job.sql", "--replay=lines.capture"], &args[2..]].concat();
    for trigger in ["continuous=100ms", "asap", "available-now"] {
        scratch.passes(&[&with_capture[..], &["--trigger", trigger]].concat());
    }
    scratch.passes(&[&with_capture[..], &["--speed", "10"]].concat());
    let wrong = [&with_capture[..3], &["--source=topic=lines.capture", args[4]]].concat();
    assert!(scratch.fails(2, &wrong).contains("JSON lines with the columns"));
    // Options that apply to a table only, or to a stream only, are those of a view.
    for option in ["endingOffsets 'latest'", "startingOffsets 'latest'"] {
        let job = scratch.read("job.sql");
        let with_option = format!("subscribe 'words', {option}");
        scratch.write("option.sql", &job.replace("subscribe 'words'", &with_option));
        scratch.passes(&[&["option.sql"], &args[1..]].concat());
    }
    // As in production, the job may declare the schema of the topic, but no other schema.
    let job = scratch.read("job.sql").replace(", includeHeaders 'true'", "");
    let job = job.replace("CAST(CAST(headers[0].value AS STRING) AS INT) + partition", "partition");
    let with_schema = |value_type: &str| {
        let schema = format!(
            "VIEW topic (key BINARY, value {value_type}, topic STRING, partition INT, offset \
             BIGINT, timestamp TIMESTAMP, timestampType INT)"
        );
        job.replace("VIEW topic", &schema)
    };
    scratch.write("schema.sql", &with_schema("BINARY"));
    scratch.write("rows.jsonl", &rows.replace("\"d\",\"price\":5", "\"d\",\"price\":1"));
    scratch.passes(&[&["schema.sql"], &args[1..]].concat());
    scratch.write("rows.jsonl", rows);
    scratch.write("schema.sql", &with_schema("STRING"));
    let report = scratch.fails(2, &[&["schema.sql"], &args[1..]].concat());
    assert!(report.contains("USER_SPECIFIED_AND_ACTUAL_SCHEMA_MISMATCH"), "{report}");
    // Options that production would reject are rejected here too.
    for (right, wrong) in [("mode 'listen'", "mode 'lisen'"), ("subscribe", "subscrib")] {
        let job = scratch.read("job.sql");
        scratch.write("wrong.sql", &job.replace(right, wrong));
        let report = scratch.fails(2, &[&["wrong.sql"], &args[1..]].concat());
        assert!(report.contains("OPTION"), "{report}");
    }
}

#[test]
fn several_captures_are_read_in_step() {
    let scratch = folder("step");
    scratch.write(
        "job.sql",
        "CREATE TEMPORARY VIEW a USING socket OPTIONS (host 'localhost', port '9');\n\
         CREATE TEMPORARY VIEW b USING socket OPTIONS (host 'localhost', port '9');\n\
         CREATE STREAMING TABLE rows USING noop AS SELECT value FROM STREAM a UNION ALL\n\
         SELECT value FROM STREAM b;\n",
    );
    capture(&scratch.0.join("a.capture"), &["1", "2", "3", "4"]);
    capture(&scratch.0.join("b.capture"), &["x", "5"]);
    let args = ["job.sql", "--source=a=a.capture", "--source=b=b.capture", "--expect=rows.jsonl"];
    scratch.passes(&[&args[..], &["--update"]].concat());
    assert_eq!(scratch.read("rows.jsonl").lines().count(), 6);
    scratch.passes(&[&args[..], &["--latency", "p50<1h", "--max-lag", "1h"]].concat());
    scratch.passes(&[&args[..], &["--trigger", "available-now", "--speed", "2"]].concat());
}

#[test]
fn wrong_arguments_are_errors_with_a_fix() {
    let scratch = folder("arguments");
    capture(&scratch.0.join("lines.capture"), &["a"]);
    scratch.passes(&with(&["--update"]));
    let expect = "--expect=rows.jsonl";
    scratch.write("nothing", "");
    let outside = ["--from=2020-01-01", "--replay=lines.capture"];
    let kafka = "CREATE TEMPORARY VIEW topic USING kafka OPTIONS (`kafka.bootstrap.servers` \
        '127.0.0.1:1', subscribe 'words');\n\
        CREATE STREAMING TABLE rows USING noop AS SELECT topic FROM STREAM topic;\n";
    scratch.write("kafka.sql", kafka);
    let cases: [(&[&str], &str); 18] = [
        (&["kafka.sql", expect], "a file of JSON lines with --source topic=FILE"),
        (&["counts.sql", expect], "--source lines=FILE"),
        (&["counts.sql", expect, "--source=line=lines"], "its sources are lines"),
        (&["counts.sql", expect, "--source=lines=none"], "none does not exist"),
        (&["counts.sql", expect, "--source=lines"], "NAME=FILE"),
        (&["counts.sql", expect, "--replay=lines"], "is not a capture"),
        (&["counts.sql", expect, "--source=lines=nothing"], "nothing is empty"),
        (&with(&["--source=Lines=lines"]), "given twice"),
        (&[&["counts.sql", expect], &outside[..]].concat(), "CAPTURE_SELECTS_NOTHING"),
        (&["counts.sql", expect, "--replay=lines.capture", "--direction=out"], "no data of this"),
        (&["none.sql", expect, "--source=lines=lines"], "JOB_FILE_UNREADABLE"),
        (&with(&["--compare", "per-key"]), "need --key"),
        (&with(&["--key", "word"]), "--compare per-key"),
        (&with(&["--compare", "per-key", "--key", "wort"]), "has the columns word, n"),
        (&with(&["--latency", "p99<200us"]), "need a capture"),
        (&with(&["--latency", "p99"]), "is not a limit"),
        (&with(&["--tolerance", "much"]), "not a tolerance"),
        (
            &["counts.sql", expect, "--replay=lines.capture", "--latency=p99<1s", "--speed=max"],
            "pace",
        ),
    ];
    for (args, part) in cases {
        let report = scratch.fails(2, args);
        assert!(report.contains(part), "{args:?}: {report}");
    }
}
