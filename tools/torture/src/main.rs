//! Crashes queries and checks the results. `torture simulate` uses a simulated environment where a
//! seed determines every step. `torture kill` and `torture kill-kafka` use real processes and
//! `kill -9`. `torture damage` damages the files of stopped queries. `torture soak` pauses
//! processes.

mod damage;
mod kill;
mod kill_joins;
#[cfg(feature = "kafka")]
mod kill_kafka;
mod simulate;
mod soak;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Crash queries, simulated and real, and check that nothing is lost.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  torture simulate --seeds 10000\n  torture simulate --first 4711 --seeds 1\n  torture kill --rounds 200\n  torture damage\n  torture soak"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulated crashes, torn writes, lost writes, failed fsyncs, full disks
    Simulate(simulate::Args),
    /// Real processes, killed at random moments
    Kill(kill::Args),
    /// A query from Kafka to Kafka, killed at random moments; with `--broker` the broker too
    #[cfg(feature = "kafka")]
    KillKafka(kill_kafka::Args),
    /// The query that `kill-kafka` starts and kills
    #[cfg(feature = "kafka")]
    #[command(hide = true)]
    KafkaChild(kill_kafka::ChildArgs),
    /// Damaged files (flipped bytes, truncated, removed), a full disk, a read-only folder: checks
    /// that the next start reports them
    Damage(damage::Args),
    /// Every stateful operator at a constant rate, paused for a while: checks that memory recovers
    /// and no row is lost
    Soak(soak::Args),
    /// The query that `soak` starts: it runs until standard input ends
    #[command(hide = true)]
    SoakChild(soak::ChildArgs),
    /// The query that `kill` starts and kills
    #[command(hide = true)]
    Child(kill::ChildArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Simulate(args) => simulate::run(&args),
        Command::Kill(args) => kill::run(&args),
        #[cfg(feature = "kafka")]
        Command::KillKafka(args) => kill_kafka::run(&args),
        #[cfg(feature = "kafka")]
        Command::KafkaChild(args) => kill_kafka::child(&args),
        Command::Damage(args) => damage::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::SoakChild(args) => soak::child(&args),
        Command::Child(args) => kill::child(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::from(1)
        }
    }
}
