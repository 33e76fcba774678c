//! Runs conformance cases: `conformance [--kafka HOST:PORT] DIR...`, where each DIR is a case file
//! or a folder of them.
//!
//! Prints a line for each case that failed, was skipped or differs between the modes, and ends with
//! `N passed, M failed, K skipped`. The exit code is 0 if cases passed, none failed and none
//! differs, 1 otherwise, and 2 if the arguments are wrong. A case is skipped only if it needs a
//! feature or a setting that is not built yet, which the line names. With `--kafka` the cases are
//! those of Kafka, and run against a broker (module and feature `kafka`).
//!
//! Every case runs in micro-batch mode with 1, 2 and 3 instances, and with as many partitions per
//! source. If the result depends on the order of a source's rows (for example because of `first`),
//! sources have one partition. If it depends on an undefined order, there is one instance. Then
//! continuous mode is compared with the same rows ([`continuous`]): `N agree in both modes, M
//! differ, L had late rows`, where the numbers count runs. L may change from run to run: rows whose
//! order is not that of their times are late or not, depending on which partition is read first.
//!
//! In micro-batch mode, runs with one instance have a checkpoint. Other runs have one only if the
//! case has a restart, so that operators also run without a checkpoint.

mod batches;
mod case;
mod compare;
mod continuous;
#[cfg(feature = "kafka")]
mod kafka;

use case::{Case, LateRows, Outcome};
use continuous::Comparison;
use millstream::table::plan::order_dependence::OrderDependence;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
#[cfg(feature = "kafka")]
use std::sync::atomic::{AtomicUsize, Ordering};

/// The numbers of instances of each operator.
const PARALLELISM: [usize; 3] = [1, 2, 3];

fn collect(path: &Path, out: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if path.is_dir() {
        let mut entries =
            std::fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
        entries.sort();
        return entries.iter().try_for_each(|entry| collect(entry, out));
    }
    if path.extension().is_some_and(|extension| extension == "json") {
        out.push(path.to_path_buf());
    }
    Ok(())
}

/// The parameters of a run.
struct Way {
    /// Number of instances of each operator.
    parallelism: usize,
    /// Number of partitions of each source.
    parts: usize,
    /// Number of late rows.
    late: u64,
}

#[derive(Default)]
struct Totals {
    passed: usize,
    failed: usize,
    skipped: usize,
    agree: usize,
    differ: usize,
    late: usize,
}

impl Totals {
    /// Runs a case with all parameters.
    fn run(&mut self, name: &str, case: &Case) {
        match self.batches(case) {
            (_, Outcome::Failed(why)) => {
                self.failed += 1;
                println!("FAILED {name}: {why}");
            }
            (_, Outcome::Skipped(why)) => {
                self.skipped += 1;
                println!("skipped {name}: {why}");
            }
            (ways, Outcome::Passed) => {
                self.passed += 1;
                self.continuous(name, case, &ways);
            }
        }
    }

    /// Runs the case in micro-batch mode. Returns the parameters with which it passed, and the
    /// first other outcome, at which it stops. `Passed` if there is none.
    fn batches(&self, case: &Case) -> (Vec<Way>, Outcome) {
        let mut ways = Vec::new();
        for parallelism in PARALLELISM {
            let ordered = match case.prepare(parallelism, 1) {
                Ok(prepared) => prepared.frame.order_dependence(),
                Err(outcome) => return (ways, outcome),
            };
            let parts = match ordered {
                OrderDependence::None => parallelism,
                OrderDependence::Sources => 1,
                OrderDependence::Operators if parallelism == 1 => 1,
                OrderDependence::Operators => continue,
            };
            let (outcome, late) = (case.prepare(parallelism, parts), LateRows::default());
            let outcome = outcome
                .map_or_else(|other| other, |p| batches::run(case, &p, parallelism == 1, &late));
            match outcome {
                Outcome::Passed => ways.push(Way { parallelism, parts, late: late.rows() }),
                Outcome::Failed(why) => {
                    let why = format!("at parallelism {parallelism}, {parts} parts: {why}");
                    return (ways, Outcome::Failed(why));
                }
                skipped => return (ways, skipped),
            }
        }
        (ways, Outcome::Passed)
    }

    fn continuous(&mut self, name: &str, case: &Case, ways: &[Way]) {
        for &Way { parallelism, parts, late } in ways {
            let Ok(prepared) = case.prepare(parallelism, parts) else { continue };
            match continuous::compare(case, &prepared, parts, late) {
                Comparison::None => {}
                Comparison::Same => self.agree += 1,
                Comparison::Late => self.late += 1,
                Comparison::Differs(why) => {
                    self.differ += 1;
                    println!("DIFFERS {name} at parallelism {parallelism}, {parts} parts: {why}");
                }
            }
        }
    }
}

fn main() -> ExitCode {
    let mut dirs: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let servers = (dirs.len() > 2 && dirs[0].as_os_str() == "--kafka").then(|| {
        let servers = dirs.drain(..2).nth(1).unwrap_or_default();
        servers.to_string_lossy().into_owned()
    });
    if dirs.is_empty() || dirs.iter().any(|dir| dir.as_os_str() == "--help") {
        eprintln!(
            "usage: conformance [--kafka HOST:PORT] DIR...\n\nExample: cargo run --release -p conformance -- cases/stateless"
        );
        return ExitCode::from(2);
    }
    let mut files = Vec::new();
    for dir in &dirs {
        if let Err(error) = std::fs::metadata(dir).and_then(|_| collect(dir, &mut files)) {
            eprintln!("error: {}: {error}", dir.display());
            return ExitCode::from(2);
        }
    }
    let mut totals = Totals::default();
    if let Some(servers) = servers {
        return kafka_cases(&files, &servers);
    }
    for file in &files {
        let name = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        match Case::read(file) {
            Ok(case) => totals.run(&name, &case),
            Err(why) => {
                totals.failed += 1;
                println!("FAILED {name}: {why}");
            }
        }
    }
    let Totals { passed, failed, skipped, agree, differ, late } = totals;
    println!("{agree} agree in both modes, {differ} differ, {late} had late rows");
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 && differ == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

#[cfg(feature = "kafka")]
fn kafka_cases(files: &[PathBuf], servers: &str) -> ExitCode {
    /// Cases that run at once. Most of the time a case waits for the broker, or for a time-out.
    const THREADS: usize = 8;
    let next = AtomicUsize::new(0);
    let run = || {
        let mut outcomes = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(number) else { return outcomes };
            outcomes.push((number, kafka::run_file(file, servers, number)));
        }
    };
    let mut outcomes: Vec<(usize, Outcome)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
        // A thread that panics has printed why; its cases are missing below.
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    outcomes.sort_by_key(|(number, _)| *number);
    let (mut passed, mut skipped) = (0, 0);
    let mut failed = files.len() - outcomes.len();
    for (number, outcome) in outcomes {
        let name = files[number].file_stem().unwrap_or_default().to_string_lossy();
        match outcome {
            Outcome::Passed => passed += 1,
            Outcome::Failed(why) => {
                failed += 1;
                println!("FAILED {name}: {why}");
            }
            Outcome::Skipped(why) => {
                skipped += 1;
                println!("skipped {name}: {why}");
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

#[cfg(not(feature = "kafka"))]
fn kafka_cases(_: &[PathBuf], _: &str) -> ExitCode {
    eprintln!("error: this build has no Kafka: build with --features kafka");
    ExitCode::from(2)
}
