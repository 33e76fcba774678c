//! `millstream bench`: open-loop measurements, each beside a floor that the same run measures.

mod channel;
mod checkpoint;
mod compare;
mod hiccups;
mod hop;
mod load;
mod nexmark;
mod recorded;
mod sockets;
mod throughput;
mod window;

use crate::Failure;
use clap::{Args as ClapArgs, Subcommand};
use load::Job;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream bench echo --rate 10000 --seconds 10\n  \
    millstream bench wordcount --wait spin --rounds 5 --log run.hlog --plot run.svg\n  \
    millstream bench wordcount --sweep\n  \
    millstream bench compare before.hlog after.hlog\n  \
    millstream bench channel --wait spin\n  \
    millstream bench checkpoint --keys 5000000 --rounds 1\n  \
    millstream bench window sliding\n  \
    millstream bench nexmark --query q5 --seconds 20\n\n\
    `millstream doctor` says whether this machine is fit for it.")]
pub(crate) struct Args {
    /// Run on these cores only, as `taskset` writes them: `0-3,6`
    #[arg(long, value_name = "LIST", global = true)]
    cores: Option<String>,
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Lines over sockets: those without the word "drop" come back, in capitals
    Echo(sockets::Args),
    /// Words over sockets: each word's running count comes back
    Wordcount(sockets::Args),
    /// In process: from the push of a record to its key's running count
    Channel(channel::Args),
    /// From thread to thread through a ring, and nothing else
    Hop(hop::Args),
    /// Records a second on one core, in process, beside the same loop by hand
    Throughput(throughput::Args),
    /// Latency with checkpoints on and off, over a large running count, and the restart
    Checkpoint(checkpoint::Args),
    /// Windows of event time: closing, sliding, many keys, and over a long time
    Window(window::Args),
    /// Queries of the NEXMark benchmark over sockets
    Nexmark(nexmark::Args),
    /// Two recorded runs beside each other
    Compare(compare::Args),
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if let Some(cores) = &args.cores {
        crate::run::confine(cores)?;
    }
    match &args.part {
        Part::Echo(args) => sockets::run(&Job::Echo, args),
        Part::Wordcount(args) => sockets::run(&Job::Wordcount, args),
        Part::Channel(args) => channel::run(args),
        Part::Hop(args) => hop::run(args),
        Part::Throughput(args) => throughput::run(args),
        Part::Checkpoint(args) => checkpoint::run(args),
        Part::Window(args) => window::run(args),
        Part::Nexmark(args) => nexmark::run(args),
        Part::Compare(args) => compare::run(args),
    }
}
