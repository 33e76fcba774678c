//! `millstream bench compare`: compares two recorded runs.

use crate::bench::histogram_log::{QUANTILES, draw, print_plot, read_log};
use crate::failure::Failure;
use crate::latency_format::time;
use crate::stdout::say;
use clap::Args as ClapArgs;
use std::path::PathBuf;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream bench echo --log before.hlog\n  \
    millstream bench echo --log after.hlog\n  \
    millstream bench compare before.hlog after.hlog --plot both.svg\n\n\
    Any two HdrHistogram interval logs of nanoseconds can be compared. The machine may have changed\n\
    more than the program: compare `bare`, which does not depend on the program, first.")]
pub(super) struct Args {
    /// The log of the first run
    before: PathBuf,
    /// The log of the second run
    after: PathBuf,
    /// Write a plot of both runs to this file, as SVG
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (before, after) = (read_log(&args.before)?, read_log(&args.after)?);
    let mut pairs = Vec::new();
    for old in before {
        if let Some(new) = after.iter().find(|new| new.name == old.name) {
            pairs.push((old, new));
        }
    }
    if pairs.is_empty() {
        let reason = "the two logs have no tag in common, so nothing can be compared";
        return Err(Failure::Wrong(reason.to_string()));
    }
    let mut rows = Vec::new();
    for (old, new) in &pairs {
        let (a, b) = (old.sum(), new.sum());
        for (label, quantile) in QUANTILES {
            let (a, b) = (a.value_at_quantile(quantile), b.value_at_quantile(quantile));
            rows.push((&old.name, label, a, b, b as f64 / a.max(1) as f64));
        }
    }
    if args.json {
        let row = |&(name, label, before, after, ratio): &(&String, &str, u64, u64, f64)| {
            serde_json::json!({
                "name": name, "percentile": label, "before": before, "after": after, "ratio": ratio,
            })
        };
        say!("{}", serde_json::Value::Array(rows.iter().map(row).collect()));
    } else {
        say!("{:<10}{:>8}{:>12}{:>12}{:>8}", "", "", "before", "after", "ratio");
        for (name, label, before, after, ratio) in rows {
            say!("{name:<10}{label:>8}{:>12}{:>12}{ratio:>8.2}", time(before), time(after));
        }
    }
    let mut all = Vec::new();
    for (mut old, new) in pairs {
        let mut new = crate::bench::histogram_log::Recorded {
            name: new.name.clone(),
            rounds: new.rounds.clone(),
        };
        old.name.push_str("-before");
        new.name.push_str("-after");
        all.extend([old, new]);
    }
    let all: Vec<_> = all.iter().collect();
    if !args.json {
        print_plot(&all);
    }
    args.plot.as_ref().map_or(Ok(()), |path| draw(path, "latency by percentile", &all))
}
