//! Outer joins under `torture kill`: rows with even numbers are joined with rows with odd numbers,
//! in both modes, and the results are written to files. After all kills, the files must contain
//! each pair and each row without a match once, and no row both with and without a match.

use millstream::connect::file::committed_files;
use millstream::session::{Session, StreamingQuery, Trigger};
use millstream_engine::env::storage::FileStorage;
use std::collections::BTreeMap;
use std::path::Path;

/// The name of the query in each mode.
const NAMES: [&str; 2] = ["joined-batches", "joined-continuous"];
/// How much later the odd row may be, in seconds.
const RANGE_S: u64 = 2;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn sql() -> String {
    let side = |rest: u64| {
        format!(
            "(SELECT timestamp_seconds(100 + n - (n * 7) % 4) AS ts, k % 3 AS k, n FROM rows \
             WHERE n % 2 = {rest}) WATERMARK ts DELAY OF INTERVAL 5 SECONDS"
        )
    };
    format!(
        "SELECT l.n AS a, r.n AS b FROM {} AS l FULL JOIN {} AS r ON l.k = r.k \
         AND r.ts >= l.ts AND r.ts <= l.ts + INTERVAL {RANGE_S} SECONDS",
        side(0),
        side(1)
    )
}

/// Starts the joins over the view `rows`.
pub fn start(
    session: &Session,
    dir: &Path,
    batches: Trigger,
) -> Result<[StreamingQuery; 2], String> {
    let continuous = Trigger::Continuous { interval_ns: 30_000_000 };
    let one = |(name, trigger): (&str, Trigger)| {
        let frame = session.sql(&sql()).map_err(text)?;
        let writer = frame.write_stream().format("csv").trigger(trigger);
        let writer = writer.option("path", dir.join(name).display());
        let checkpoint = dir.join(format!("c-{name}"));
        writer.option("checkpointLocation", checkpoint.display()).start().map_err(text)
    };
    Ok([one((NAMES[0], batches))?, one((NAMES[1], continuous))?])
}

/// The pairs and the rows without a match of the numbers below `rows`. The functions give the key
/// and the time of a number.
fn expected_lines(rows: u64, key: impl Fn(u64) -> u64, time: impl Fn(u64) -> u64) -> Vec<String> {
    let mut odd: BTreeMap<(u64, u64), Vec<u64>> = BTreeMap::new();
    for n in (1..rows).step_by(2) {
        odd.entry((key(n) % 3, time(n))).or_default().push(n);
    }
    let (mut lines, mut matched) = (Vec::new(), vec![false; rows as usize]);
    for a in (0..rows).step_by(2) {
        for at in time(a)..=time(a) + RANGE_S {
            for b in odd.get(&(key(a) % 3, at)).into_iter().flatten() {
                lines.push(format!("{a},{b}"));
                (matched[a as usize], matched[*b as usize]) = (true, true);
            }
        }
    }
    let alone = (0..rows).filter(|n| !matched[*n as usize]);
    lines.extend(alone.map(|n| if n % 2 == 0 { format!("{n},") } else { format!(",{n}") }));
    lines.sort();
    lines
}

/// Checks the files of both modes. Numbers from `end` on are the final rows, which make all others
/// expire.
pub fn check(
    dir: &Path,
    (rows, end): (u64, u64),
    key: impl Fn(u64) -> u64,
    time: impl Fn(u64) -> u64,
) -> Result<(), String> {
    let expected = expected_lines(rows, key, time);
    for name in NAMES {
        let mut got = Vec::new();
        let committed = committed_files(&FileStorage, &dir.join(name)).map_err(text)?;
        for path in committed.ok_or("the sink has no log")? {
            let lines = std::fs::read_to_string(&path).map_err(text)?;
            got.extend(lines.lines().map(|line| line.replace('"', "")));
        }
        let is_last = |part: &str| part.parse::<u64>().is_ok_and(|n| n >= end);
        got.retain(|line: &String| !line.split(',').any(is_last));
        got.sort();
        if got != expected {
            let differs = got.iter().zip(&expected).find(|(got, expected)| got != expected);
            return Err(format!(
                "{name}: {} lines, expected {}; the first that differ {differs:?}",
                got.len(),
                expected.len()
            ));
        }
        println!("{name}: {} pairs and rows without a match, each once", got.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::expected_lines;

    #[test]
    fn each_row_is_emitted_with_its_matches_or_with_nulls() {
        let lines = expected_lines(6, |n| n / 2, |n| n);
        assert_eq!(lines, ["0,1", "2,3", "4,5"]);
        assert_eq!(expected_lines(4, |n| n, |n| n), [",1", ",3", "0,", "2,"].map(String::from));
    }
}
