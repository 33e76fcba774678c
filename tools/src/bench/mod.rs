//! `millstream bench`: measurements of latency and throughput, most with a floor measured in the
//! same run.

mod channel;
mod checkpoint;
mod compare;
mod figure;
mod hiccups;
mod histogram_log;
mod hop;
mod join;
#[cfg(feature = "kafka")]
mod kafka;
mod nexmark;
mod open_loop;
mod replay;
mod scratch;
mod socket_job;
mod throughput;
mod window;

use crate::bench::open_loop::Job;
use crate::failure::Failure;
use clap::{Args as ClapArgs, Subcommand};

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream bench echo --rate 10000 --seconds 10\n  \
    millstream bench wordcount --wait spin --rounds 5 --log run.hlog --plot run.svg\n  \
    millstream bench wordcount --sweep\n  \
    millstream bench compare before.hlog after.hlog\n  \
    millstream bench channel --wait spin\n  \
    millstream bench checkpoint --keys 5000000 --rounds 1\n  \
    millstream bench window sliding\n  \
    millstream bench join --part stage\n  \
    millstream bench kafka --servers 127.0.0.1:9092\n  \
    millstream bench nexmark --query q5 --seconds 20\n  \
    millstream bench replay --only pace\n\n\
    `millstream doctor` says whether this machine is fit for it.")]
pub(crate) struct Args {
    /// Run on these cores only, in the syntax of `taskset`: `0-3,6`
    #[arg(long, value_name = "LIST", global = true)]
    cores: Option<String>,
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Lines over sockets: lines without the word "drop" are returned in upper case
    Echo(socket_job::Args),
    /// Words over sockets: each word's running count is returned
    Wordcount(socket_job::Args),
    /// In process: from the push of a record to its key's running count
    Channel(channel::Args),
    /// From thread to thread through a ring
    Hop(hop::Args),
    /// Records per second on one core, in process, compared with a hand-written loop
    Throughput(throughput::Args),
    /// Latency with and without checkpoints, over a large running count, and the restart time
    Checkpoint(checkpoint::Args),
    /// Event-time windows: closing, sliding, many keys, and a long run
    Window(window::Args),
    /// Joins of two streams: the stage alone, latency, throughput, over sockets
    Join(join::Args),
    /// From Kafka to Kafka: latency of a stateless query, a running count and windows; throughput
    #[cfg(feature = "kafka")]
    Kafka(kafka::Args),
    /// Queries of the NEXMark benchmark over sockets
    Nexmark(nexmark::Args),
    /// Captures: pace of a replay, cost of recording, import, as a source, search for a time
    Replay(replay::Args),
    /// Compare two recorded runs
    Compare(compare::Args),
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if let Some(cores) = &args.cores {
        crate::run::restrict_to(cores)?;
    }
    match &args.part {
        Part::Echo(args) => socket_job::run(&Job::Echo, args),
        Part::Wordcount(args) => socket_job::run(&Job::Wordcount, args),
        Part::Channel(args) => channel::run(args),
        Part::Hop(args) => hop::run(args),
        Part::Throughput(args) => throughput::run(args),
        Part::Checkpoint(args) => checkpoint::run(args),
        Part::Window(args) => window::run(args),
        Part::Join(args) => join::run(args),
        #[cfg(feature = "kafka")]
        Part::Kafka(args) => kafka::run(args),
        Part::Nexmark(args) => nexmark::run(args),
        Part::Replay(args) => replay::run(args),
        Part::Compare(args) => compare::run(args),
    }
}
