//! Crashes queries and checks the results: `torture simulate` in a simulated environment where a
//! seed determines every step, `torture kill` with real processes and `kill -9`, `torture damage`
//! by damaging the files of stopped queries, `torture soak` by pausing processes.

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
    /// What `kill-kafka` starts: a query until it is killed
    #[cfg(feature = "kafka")]
    #[command(hide = true)]
    KafkaChild(kill_kafka::ChildArgs),
    /// Files with flipped bytes, truncated and removed, a full disk, a read-only folder: what the
    /// next start reports
    Damage(damage::Args),
    /// Every stateful operator at a constant rate, paused for a while: what grows, what is lost
    Soak(soak::Args),
    /// What `soak` starts: a query until standard input ends
    #[command(hide = true)]
    SoakChild(soak::ChildArgs),
    /// What `kill` starts: a query until it is killed
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
