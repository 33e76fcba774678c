//! The `millstream` command line.
#![deny(clippy::print_stdout, reason = "`say!` knows what to do where nobody reads")]

mod bench;
mod capture;
mod demo;
mod doctor;
mod failure;
mod functions;
mod inspect;
mod latency_format;
mod progress;
mod run;
mod sparkline;
mod sql;
mod stdout;
mod test;

use crate::failure::Failure;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Stream processing one record at a time.
#[derive(Parser)]
#[command(
    name = "millstream",
    version,
    about,
    after_help = "Examples:\n  \
        millstream demo\n  \
        millstream run wordcount.sql\n  \
        millstream test wordcount.sql --source lines=lines.txt --expect words.jsonl\n  \
        millstream sql \"SELECT 1 + 1\"\n  \
        millstream explain wordcount.sql\n  \
        millstream inspect /var/lib/wordcount\n  \
        millstream capture --listen 9999 --to 127.0.0.1:8888 -o both.capture\n  \
        millstream import-pcap tuesday.pcap -o tuesday.capture\n  \
        millstream replay tuesday.capture --to 127.0.0.1:9999\n  \
        millstream bench wordcount --rate 10000 --seconds 10\n\n\
        Exit codes: 0 done, 1 failed at run time, 2 invalid job or command line,\n\
        3 invalid test: this machine was too slow to decide it."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play a recording through a loopback socket into a word count, and check the result
    Demo(demo::Args),
    /// Run a job file until it ends, or until Ctrl-C
    Run(run::RunArgs),
    /// Run a job over files or a capture, and compare its rows and its latency with expected ones
    Test(test::Args),
    /// Run queries over files and tables and print their results; without a query, a shell
    Sql(sql::Args),
    /// Show a job's schema, logical plan, tasklets and workers, without opening anything
    Explain(run::ExplainArgs),
    /// Show the content of a checkpoint or a capture, and whether it is damaged
    Inspect(inspect::Args),
    /// Record traffic as a client, a server, a proxy, or from datagrams
    Capture(capture::record::Args),
    /// Replay a capture to a server or to clients, at the recorded pace or another
    Replay(capture::replay::Args),
    /// Convert packet captures (pcap, pcapng) to a capture
    ImportPcap(capture::import::Args),
    /// Write a capture as JSON lines, as text, or as pcapng
    Export(capture::export::Args),
    /// List the SQL functions, or describe one
    Functions(functions::Args),
    /// Measure latency and throughput, each with a floor from the same run
    Bench(bench::Args),
    /// Check whether this machine is suitable for low latency and for measuring it
    Doctor(doctor::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Sql(args) => sql::run(&args),
        Command::Explain(args) => run::explain(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Capture(args) => capture::record::run(&args),
        Command::Replay(args) => capture::replay::run(&args),
        Command::ImportPcap(args) => capture::import::run(&args),
        Command::Export(args) => capture::export::run(&args),
        Command::Functions(args) => functions::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(reason)) => {
            eprintln!("error: {reason}");
            ExitCode::from(1)
        }
        Err(Failure::Wrong(reason)) => {
            eprintln!("error: {reason}");
            ExitCode::from(2)
        }
        Err(Failure::Invalid(reason)) => {
            eprintln!("error: {reason}");
            ExitCode::from(3)
        }
    }
}
