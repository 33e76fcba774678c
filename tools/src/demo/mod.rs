//! `millstream demo`: a word count without any set-up.

pub(crate) mod recording;
use crate::demo::recording::Recording;
use crate::failure::Failure;
use crate::latency_format::{latency_json, latency_line};
use crate::stdout::say;
use clap::Args as ClapArgs;
use millstream::session::Session;
use millstream::table::value::{Display, Value};
use millstream_engine::env::{Env, RealEnv};
use std::collections::HashMap;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream demo\n  \
    millstream demo --json\n  \
    millstream demo --lines 2000 --record demo.capture")]
pub(crate) struct Args {
    /// Number of lines to play
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    lines: u64,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Record what the query reads, as a capture
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

const JOB: &str = "SELECT word, count(*) AS count \
    FROM (SELECT explode(split(value, ' ')) AS word FROM STREAM lines) GROUP BY word";
/// Number of rows of the final table to print.
const TOP: usize = 10;

/// Plays the recording through a loopback socket into the word count, and checks the result.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let recording = Arc::new(Recording::new(args.lines as usize));
    if !args.json {
        let last_s = recording.times_ns.last().map_or(0.0, |ns| *ns as f64 / 1e9);
        say!(
            "playing {} lines over {last_s:.1} s through a loopback socket into\n  {JOB}\n",
            args.lines
        );
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let env: Arc<RealEnv> = Arc::default();
    let start_ns = Arc::new(AtomicU64::new(u64::MAX));

    let session = Session::new();
    let lines = session.read_stream().format("socket").option("host", "127.0.0.1");
    let mut lines = lines.option("port", port).option("atEnd", "stop");
    if let Some(path) = &args.record {
        if path.exists() {
            let reason = format!("--record {} exists: take another name", path.display());
            return Err(Failure::Wrong(reason));
        }
        lines = lines.option("record", path.display());
    }
    let lines = lines.load();
    let wrong = |error: millstream::table::error::PlanError| Failure::Wrong(error.to_string());
    lines.map_err(wrong)?.create_temp_view("lines");
    let counts: Arc<Mutex<HashMap<String, i64>>> = Arc::default();
    let seen = counts.clone();
    let (times, base) = (recording.clone(), start_ns.clone());
    let intended = Arc::new(move |line: u64| {
        base.load(Ordering::Relaxed) + times.times_ns.get(line as usize).copied().unwrap_or(0)
    });
    let query = session.sql(JOB).map_err(wrong)?.write_stream().output_mode("update");
    let query = query.replay(env.clone(), intended).foreach(move |row: &[Value]| {
        if let [Value::String(word), Value::Long(count)] = row {
            let mut counts = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match counts.get_mut(word) {
                Some(known) => *known = *count,
                None => drop(counts.insert(word.clone(), *count)),
            }
        }
    });
    let query = query.start()?;
    let begun = env.now_ns();
    let player = std::thread::Builder::new().name("player".into()).spawn({
        let (recording, env) = (recording.clone(), env.clone());
        move || play(&listener, &recording, &env, &start_ns)
    })?;
    query.await_termination()?;
    let elapsed_s = (env.now_ns() - begun) as f64 / 1e9;
    match player.join() {
        Ok(played) => played?,
        Err(_) => return Err(Failure::Failed("the player of the recording panicked".into())),
    }
    let progress = query.totals();
    let counts = counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let correct = *counts == recording.count() && progress.records_in == args.lines;
    let rate = progress.rows_emitted as f64 / elapsed_s;
    if args.json {
        let report = serde_json::json!({
            "records_in": progress.records_in,
            "rows_out": progress.rows_emitted,
            "correct": correct,
            "throughput_rows_per_s": rate.round(),
            "latency_ns": latency_json(&progress.latency),
        });
        say!("{report}");
    } else {
        print_top(&counts)?;
        say!("records in  {}", progress.records_in);
        say!("rows out    {} ({rate:.0} a second)", progress.rows_emitted);
        say!("latency     {} (from intended send to sink)", latency_line(&progress.latency));
        say!("result      {}", if correct { "correct" } else { "WRONG" });
    }
    if correct {
        Ok(())
    } else {
        Err(Failure::Failed("the result differs from a direct count".into()))
    }
}

fn print_top(counts: &HashMap<String, i64>) -> Result<(), Failure> {
    use millstream::connect::console::table;
    use millstream::table::types::Schema;
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let rows: Vec<Vec<Value>> = rows
        .iter()
        .take(TOP)
        .map(|(w, n)| vec![Value::String((*w).clone()), Value::Long(**n)])
        .collect();
    let schema = Schema::parse_ddl("word STRING, count BIGINT");
    let schema = schema.map_err(|error| Failure::Failed(error.to_string()))?;
    say!(
        "{}the {TOP} commonest of {} words\n",
        table(&schema, &rows, true, Display::default()),
        counts.len()
    );
    Ok(())
}

/// Waits for one client, publishes the start time in `start_ns`, and sends each line once its
/// intended time has come. Lines that are due together are sent together.
fn play(
    listener: &TcpListener,
    recording: &Recording,
    env: &RealEnv,
    start_ns: &AtomicU64,
) -> Result<(), std::io::Error> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let base = env.now_ns() + 50_000_000;
    start_ns.store(base, Ordering::Relaxed);
    let (mut next, mut batch) = (0, Vec::new());
    while next < recording.lines.len() {
        let now_ns = env.now_ns();
        let due_ns = base + recording.times_ns[next];
        if due_ns > now_ns {
            // Sleeps to keep the recording's pace.
            std::thread::sleep(Duration::from_nanos(due_ns - now_ns));
            continue;
        }
        batch.clear();
        while next < recording.lines.len() && base + recording.times_ns[next] <= now_ns {
            batch.extend_from_slice(recording.lines[next].as_bytes());
            batch.push(b'\n');
            next += 1;
        }
        stream.write_all(&batch)?;
    }
    Ok(())
}
