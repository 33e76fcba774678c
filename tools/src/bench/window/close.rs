//! How soon a result follows the record that closes its window, compared with a bare loop.

use super::{Contender, Load, windows};
use crate::failure::Failure;
use crate::latency_format::{latency_json, latency_line, median, time};
use crate::stdout::say;
use millstream_engine::cores;
use millstream_engine::measure::latency::Percentiles;

/// Runs the measurement and prints the results.
pub(super) fn run(load: &Load, rounds: u64, spin: bool, json: bool) -> Result<(), Failure> {
    if !json {
        say!(
            "windows of 1 s over {} keys, {} rows a second for {} s, {}, {} usable cores; from the \
             intended time of the record that closes a window to each result",
            load.keys,
            load.rate,
            load.seconds,
            if spin { "spinning" } else { "blocking" },
            cores::usable()
        );
    }
    let (mut bare, mut engine, mut results) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        for contender in [Contender::Bare, Contender::Engine] {
            let measured = windows(load, contender, spin, |_, _| {})?;
            let p = Percentiles::of(&measured.latency);
            if !json {
                let lag = time(Percentiles::of(&measured.lag).p99_ns);
                let name = contender.name();
                say!("{name:<8}{}  lag p99 {lag}", latency_line(&p));
            }
            match contender {
                Contender::Bare => bare.push(p),
                Contender::Engine => {
                    results += measured.results;
                    engine.push(p);
                }
            }
        }
    }
    let middle = |rounds: &[Percentiles], of: fn(&Percentiles) -> u64| {
        median(rounds.iter().map(of).collect())
    };
    let (b50, e50) = (middle(&bare, |p| p.p50_ns), middle(&engine, |p| p.p50_ns));
    let (b99, e99) = (middle(&bare, |p| p.p99_ns), middle(&engine, |p| p.p99_ns));
    let (r50, r99) = (e50 as f64 / b50 as f64, e99 as f64 / b99 as f64);
    if json {
        let all = |rounds: &[Percentiles]| rounds.iter().map(latency_json).collect::<Vec<_>>();
        say!(
            "{}",
            serde_json::json!({
                "keys": load.keys, "rate": load.rate, "seconds": load.seconds, "spin": spin,
                "results_checked": results, "bare": all(&bare), "engine": all(&engine),
                "p50_ratio": r50, "p99_ratio": r99,
            })
        );
        return Ok(());
    }
    say!("{results} results of the engine checked: each key of each window once, and correct");
    say!(
        "medians of {rounds} rounds: p50 bare {}, engine {} (x{r50:.2}); p99 bare {}, engine {} (x{r99:.2})",
        time(b50),
        time(e50),
        time(b99),
        time(e99)
    );
    Ok(())
}
