//! The cost of expressions, decoders and a word count, compared with hand-written code: `cargo
//! bench -p millstream-benches --bench language [-- --lines N]`.
//!
//! *Expressions*: a thousand rows, evaluated a thousand times per round, median of 21 rounds.
//! *Decoders*: JSON and CSV lines decoded into rows, compared with `serde_json`, `sonic-rs` and
//! `csv` into a typed struct, in alternating rounds. The ratio is Millstream's bytes per second
//! over theirs. *Word count*: a query on one core counts the words of a file of N lines
//! (10,000,000). In alternating rounds a hand-written loop reads, splits and counts the same file
//! with a standard hash map.

use bumpalo::Bump;
use millstream::connect::file::Decoder;
use millstream::connect::options::OptionReader;
use millstream::session::{Session, Trigger};
use millstream::table::expr::compile::{Compiled, Cx, Semantics, compile, fold};
use millstream::table::expr::resolve::{Scope, ScopeColumn, resolve};
use millstream::table::expr::{Expr, call, col};
use millstream::table::row::{Row, encode};
use millstream::table::types::Schema;
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::time::Instant;

const ROUNDS: usize = 21;

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn expressions() {
    let schema = Schema::parse_ddl("n BIGINT, word STRING").expect("a schema");
    let columns = schema.fields.iter().map(|field| ScopeColumn {
        qualifier: None,
        name: field.name.clone(),
        data_type: field.data_type.clone(),
        nullable: true,
        tag: Default::default(),
        hidden: false,
    });
    let scope = Scope::new(columns.collect());
    let words = ["a", "b", "hello", "streaming", "word"];
    let rows: Vec<Vec<u8>> = (0..1000)
        .map(|i| encode(&[Value::Long(i % 10), Value::String(words[i as usize % 5].to_string())]))
        .collect();
    let cases: [(&str, Expr, f64); 2] = [
        ("n > 3 AND word = 'a'", col("n").gt(3).and(col("word").eq("a")), 15.0),
        ("upper(word)", call("upper", [col("word")]), 40.0),
    ];
    for (name, expr, limit) in cases {
        let resolved = resolve(&expr, &scope).expect("a right expression");
        let semantics = Semantics::default();
        let compiled = compile(&fold(resolved, semantics), 2, semantics);
        let mut arena = Bump::new();
        let mut round = || {
            let start = Instant::now();
            for _ in 0..1000 {
                for row in &rows {
                    let cx = Cx::new(Row(row), &arena);
                    match &compiled {
                        Compiled::Bool(f) => drop(black_box(f(cx).ok())),
                        Compiled::Bytes(f) => drop(black_box(f(cx).ok())),
                        _ => unreachable!("a boolean or a text"),
                    }
                    arena.reset();
                }
            }
            start.elapsed().as_nanos() as f64 / 1e6
        };
        round();
        let ns = median((0..ROUNDS).map(|_| round()).collect());
        println!("{name:24} {ns:6.1} ns a row (limit {limit})");
    }
}

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only parsed")]
struct Event {
    id: i64,
    word: String,
    x: f64,
    ok: bool,
}

/// Measures `ours` and `theirs` in alternating rounds and prints their bytes per second. The ratio
/// is that of `ours` to `theirs`.
fn compare(name: &str, bytes: usize, mut ours: impl FnMut(), mut theirs: impl FnMut()) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        ours();
        a.push(bytes as f64 / start.elapsed().as_secs_f64() / 1e6);
        let start = Instant::now();
        theirs();
        b.push(bytes as f64 / start.elapsed().as_secs_f64() / 1e6);
    }
    let (a, b) = (median(a), median(b));
    println!("{name:24} {a:6.0} MB/s, typed {b:6.0} MB/s, ratio {:.2} (limit 0.50)", a / b);
}

fn decoders() {
    let ddl = "id BIGINT, word STRING, x DOUBLE, ok BOOLEAN";
    let decoder = |format: &str| {
        let schema = Some(Schema::parse_ddl(ddl).expect("a schema"));
        let mut reader = OptionReader::new("bench", &[]);
        Decoder::read(format, schema, &[], &mut reader).expect("no options")
    };
    let (mut json, mut csv) = (String::new(), String::new());
    for i in 0..100_000 {
        let (x, ok) = (i as f64 / 7.0, i % 3 == 0);
        let _ =
            writeln!(json, "{{\"id\":{i},\"word\":\"word{}\",\"x\":{x},\"ok\":{ok}}}", i % 1000);
        let _ = writeln!(csv, "{i},word{},{x},{ok}", i % 1000);
    }
    let (mut of_json, mut row) = (decoder("json"), Vec::new());
    compare(
        "JSON into rows",
        json.len(),
        || {
            for line in json.lines() {
                of_json.decode(line.as_bytes(), &mut row).expect("good lines");
                black_box(&row);
            }
        },
        || {
            for line in json.lines() {
                black_box(serde_json::from_str::<Event>(line).expect("good lines"));
            }
        },
    );
    compare(
        "JSON, beside sonic-rs",
        json.len(),
        || {
            for line in json.lines() {
                of_json.decode(line.as_bytes(), &mut row).expect("good lines");
                black_box(&row);
            }
        },
        || {
            for line in json.lines() {
                black_box(sonic_rs::from_str::<Event>(line).expect("good lines"));
            }
        },
    );
    let (mut of_csv, mut row) = (decoder("csv"), Vec::new());
    compare(
        "CSV into rows",
        csv.len(),
        || {
            for line in csv.lines() {
                of_csv.decode(line.as_bytes(), &mut row).expect("good lines");
                black_box(&row);
            }
        },
        || {
            let mut reader =
                csv::ReaderBuilder::new().has_headers(false).from_reader(csv.as_bytes());
            for event in reader.deserialize::<Event>() {
                black_box(event.expect("good lines"));
            }
        },
    );
}

fn word_count(lines: u64) {
    let folder = std::env::temp_dir().join(format!("millstream-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("lines.txt");
    {
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path).expect("a file"));
        for i in 0..lines {
            let (a, b) = (i % 997, i * 7919 % 4999);
            writeln!(file, "word{a} the quick word{b} brown fox{} end", i % 13).expect("room");
        }
    }
    let by_hand = || {
        let start = Instant::now();
        let mut counts: HashMap<String, i64> = HashMap::new();
        let file = std::fs::File::open(&path).expect("the file");
        for line in BufReader::with_capacity(256 << 10, file).lines() {
            for word in line.expect("UTF-8").split(' ') {
                match counts.get_mut(word) {
                    Some(count) => *count += 1,
                    None => drop(counts.insert(word.to_string(), 1)),
                }
            }
        }
        (start.elapsed().as_secs_f64(), counts)
    };
    let by_query = || {
        let session = Session::new();
        let reader = session.read_stream().format("text").option("path", folder.display());
        reader.load().expect("a folder").create_temp_view("lines");
        let sql = "SELECT word, count(*) AS n FROM \
                   (SELECT explode(split(value, ' ')) AS word FROM lines) GROUP BY word";
        let writer = session.sql(sql).expect("a query").write_stream().output_mode("complete");
        let config = Config { pin: true, wait: WaitProfile::Park, ..Config::default() };
        let writer = writer.format("memory").query_name("counts").trigger(Trigger::Once);
        let start = Instant::now();
        let query = writer.config(config).start().expect("it starts");
        query.await_termination().expect("it ends");
        let seconds = start.elapsed().as_secs_f64();
        let rows = session.table("counts").expect("the result").rows();
        let counts = rows.into_iter().filter_map(|row| match row.as_slice() {
            [Value::String(word), Value::Long(count)] => Some((word.clone(), *count)),
            _ => None,
        });
        (seconds, counts.collect::<HashMap<_, _>>())
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (hand, expected) = by_hand();
        let (query, got) = by_query();
        assert_eq!(got, expected, "the same counts");
        theirs.push(hand);
        ours.push(query);
    }
    std::fs::remove_dir_all(folder).expect("its own folder");
    let (a, b) = (median(ours), median(theirs));
    println!(
        "word count, {lines} lines: query {a:.2} s, by hand {b:.2} s, ratio {:.2} (limit 2.00)",
        a / b
    );
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let given = args.iter().position(|arg| arg == "--lines").and_then(|at| args.get(at + 1));
    let lines = given.and_then(|lines| lines.parse().ok()).unwrap_or(10_000_000);
    // `cargo test` also runs benches, without `--bench`. The word count then has a short input.
    let lines = if args.iter().any(|arg| arg == "--bench") { lines } else { 1000 };
    expressions();
    decoders();
    word_count(lines);
}
