//! The jobs from Kafka to Kafka: their queries, the records that are sent, and the check of each
//! result.

use clap::ValueEnum;
use std::collections::HashMap;
use std::str;

/// Number of distinct keys. Even, so that the records of a key are in one partition.
pub(super) const KEYS: u64 = 100;
/// Number of partitions of each topic.
pub(super) const PARTITIONS: u64 = 2;
/// Length of a window, in milliseconds.
const WINDOW_MS: u64 = 1_000;

/// A job from one topic to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Job {
    /// Each record in upper case
    Stateless,
    /// The running count of each key
    Count,
    /// The count of each key in windows of one second
    Window,
}

/// The records of a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub rate: u64,
    pub records: u64,
    /// The number of records at the start that are not measured.
    pub warm_up: u64,
    /// The event time of the first record, in milliseconds since 1970: a whole second.
    pub first_ms: i64,
}

impl Load {
    /// The intended send time of a record after the start of the round, in nanoseconds.
    pub(super) fn intended_ns(&self, seq: u64) -> u64 {
        (u128::from(seq) * 1_000_000_000 / u128::from(self.rate)) as u64
    }

    /// The event time of a record, in milliseconds since 1970.
    pub(super) fn event_ms_of(&self, seq: u64) -> i64 {
        self.first_ms + self.event_ms(seq) as i64
    }

    /// The event time of a record after the first one, in milliseconds.
    fn event_ms(&self, seq: u64) -> u64 {
        self.intended_ns(seq) / 1_000_000
    }

    /// The first record at or after an event time.
    fn first_at(&self, ms: u64) -> u64 {
        let seq = (u128::from(ms) * u128::from(self.rate)).div_ceil(1000) as u64;
        // The division in `event_ms` may round down by one.
        if self.event_ms(seq) < ms { seq + 1 } else { seq }
    }

    /// The key of a record. Records of a key go to partition `key % PARTITIONS`.
    pub(super) fn key(&self, seq: u64) -> u64 {
        seq % KEYS
    }

    /// The number of records with this key among the first `records`.
    fn of_key(&self, records: u64, key: u64) -> u64 {
        records / KEYS + u64::from(records % KEYS > key)
    }

    /// The number of windows that the records close, in every partition.
    fn windows(&self) -> u64 {
        // The last window that each partition has a record after.
        (0..).find(|window| self.closer((window + 1) * WINDOW_MS) >= self.records).unwrap_or(0)
    }

    /// The record that closes the window that ends at this time: the first at or after it in the
    /// last partition.
    fn closer(&self, end_ms: u64) -> u64 {
        self.first_at(end_ms) + PARTITIONS - 1
    }
}

impl Job {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stateless => "stateless",
            Self::Count => "count",
            Self::Window => "window",
        }
    }

    /// The query over the view `input`, and its output mode.
    pub(super) fn query(self) -> (&'static str, &'static str) {
        match self {
            Self::Stateless => {
                ("SELECT key, upper(CAST(value AS STRING)) AS value FROM input", "append")
            }
            Self::Count => {
                ("SELECT key, CAST(count(*) AS STRING) AS value FROM input GROUP BY key", "update")
            }
            Self::Window => (
                "SELECT key, concat(unix_millis(window.start), ',', count(*)) AS value FROM input \
                 GROUP BY window(timestamp, '1 second'), key",
                "append",
            ),
        }
    }

    /// The number of results of a load.
    pub(super) fn results(self, load: &Load) -> u64 {
        match self {
            Self::Stateless | Self::Count => load.records,
            Self::Window => load.windows() * KEYS,
        }
    }

    /// The implementation without an engine.
    pub(super) fn by_hand(self) -> ByHand {
        match self {
            Self::Stateless => ByHand::Stateless,
            Self::Count => ByHand::Count(HashMap::new()),
            Self::Window => ByHand::Window(Windows::default()),
        }
    }
}

/// What a loop by hand does with each record.
pub(super) enum ByHand {
    Stateless,
    Count(HashMap<Vec<u8>, u64>),
    Window(Windows),
}

/// Windows by hand: one that is open, and those after it.
#[derive(Default)]
pub(super) struct Windows {
    /// Counts by start in milliseconds and key.
    open: HashMap<i64, HashMap<Vec<u8>, u64>>,
    /// The largest event time of each partition.
    largest_ms: [Option<i64>; PARTITIONS as usize],
}

impl ByHand {
    /// Processes a record, and calls `emit` with the key and the value of each result.
    pub(super) fn record(
        &mut self,
        (key, value): (&[u8], &[u8]),
        (partition, ms): (i32, i64),
        text: &mut Vec<u8>,
        mut emit: impl FnMut(&[u8], &[u8]),
    ) {
        use std::io::Write;
        text.clear();
        // Writing into memory does not fail.
        match self {
            Self::Stateless => {
                text.extend(value.iter().map(u8::to_ascii_uppercase));
                emit(key, text);
            }
            Self::Count(counts) => {
                let count = match counts.get_mut(key) {
                    Some(count) => count,
                    None => counts.entry(key.to_vec()).or_insert(0),
                };
                *count += 1;
                let _ = write!(text, "{count}");
                emit(key, text);
            }
            Self::Window(windows) => {
                let size = WINDOW_MS as i64;
                let of_window = windows.open.entry(ms - ms % size).or_default();
                match of_window.get_mut(key) {
                    Some(count) => *count += 1,
                    None => drop(of_window.insert(key.to_vec(), 1)),
                }
                let largest = &mut windows.largest_ms[partition as usize % PARTITIONS as usize];
                *largest = (*largest).max(Some(ms));
                let Some(watermark) = windows.largest_ms.iter().copied().min().flatten() else {
                    return;
                };
                let is_closed = |start: &i64| start + size <= watermark;
                let closed: Vec<i64> =
                    windows.open.keys().copied().filter(|start| is_closed(start)).collect();
                for start in closed {
                    for (key, count) in windows.open.remove(&start).into_iter().flatten() {
                        text.clear();
                        let _ = write!(text, "{start},{count}");
                        emit(&key, text);
                    }
                }
            }
        }
    }
}

/// Checks that each result arrives once, is right, and that those of a key are in order.
pub(super) struct Checker {
    job: Job,
    load: Load,
    /// For each key, the number of its results so far.
    seen: Vec<u64>,
}

impl Checker {
    pub(super) fn new(job: Job, load: Load) -> Self {
        Self { job, load, seen: vec![0; KEYS as usize] }
    }

    /// The number of the record that caused a result.
    pub(super) fn record_of(&mut self, key: &[u8], value: &[u8]) -> Result<u64, String> {
        let text = |bytes| str::from_utf8(bytes).map_err(|error: str::Utf8Error| error.to_string());
        let (key, value) = (text(key)?, text(value)?);
        let number: u64 = key.parse().map_err(|_| format!("a result with the key '{key}'"))?;
        let seen = self.seen.get_mut(number as usize).ok_or("a result with an unknown key")?;
        let before = std::mem::replace(seen, *seen + 1);
        let (expected, cause) = match self.job {
            Job::Stateless => {
                let seq = before * KEYS + number;
                (line(seq).to_ascii_uppercase(), seq)
            }
            Job::Count => ((before + 1).to_string(), before * KEYS + number),
            Job::Window => {
                let (start_ms, end_ms) = (before * WINDOW_MS, (before + 1) * WINDOW_MS);
                let (from, to) = (self.load.first_at(start_ms), self.load.first_at(end_ms));
                let count = self.load.of_key(to, number) - self.load.of_key(from, number);
                let start_ms = self.load.first_ms + start_ms as i64;
                (format!("{start_ms},{count}"), self.load.closer(end_ms))
            }
        };
        if value == expected {
            return Ok(cause);
        }
        Err(format!("result {before} of key {key} is '{value}', not '{expected}'"))
    }

    /// Whether a result counts, given the number of the record that caused it.
    pub(super) fn is_measured(&self, cause: u64) -> bool {
        cause >= self.load.warm_up
    }
}

/// The value of a record.
pub(super) fn line(seq: u64) -> String {
    format!("{seq} a record of a stream that goes from one topic to another")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load { rate: 1_000, records: 5_000, warm_up: 0, first_ms: 7_000 };

    /// The results of a loop by hand.
    fn results(job: Job) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (mut by_hand, mut text, mut all) = (job.by_hand(), Vec::new(), Vec::new());
        for seq in 0..LOAD.records {
            let key = LOAD.key(seq);
            let at = ((key % PARTITIONS) as i32, LOAD.first_ms + LOAD.event_ms(seq) as i64);
            let record = (key.to_string(), line(seq));
            let record = (record.0.as_bytes(), record.1.as_bytes());
            by_hand.record(record, at, &mut text, |key, value| {
                all.push((key.to_vec(), value.to_vec()));
            });
        }
        all
    }

    #[test]
    fn the_loops_by_hand_give_the_expected_results() {
        for job in [Job::Stateless, Job::Count, Job::Window] {
            let (results, mut checker) = (results(job), Checker::new(job, LOAD));
            assert_eq!(results.len() as u64, job.results(&LOAD), "{job:?}");
            for (key, value) in results {
                checker.record_of(&key, &value).unwrap();
            }
        }
    }

    #[test]
    fn a_lost_doubled_or_wrong_result_is_found() {
        for job in [Job::Stateless, Job::Count, Job::Window] {
            let results = results(job);
            let of_key: Vec<_> = results.iter().filter(|(key, _)| key == b"7").collect();
            let mut checker = Checker::new(job, LOAD);
            assert!(checker.record_of(&of_key[1].0, &of_key[1].1).is_err(), "lost");
            let mut checker = Checker::new(job, LOAD);
            checker.record_of(&of_key[0].0, &of_key[0].1).unwrap();
            assert!(checker.record_of(&of_key[0].0, &of_key[0].1).is_err(), "doubled");
            assert!(checker.record_of(b"7", b"wrong").is_err());
        }
    }

    #[test]
    fn a_window_is_closed_by_the_record_after_it_in_each_partition() {
        assert_eq!((LOAD.first_at(1_000), LOAD.closer(1_000)), (1_000, 1_001));
        assert_eq!(LOAD.windows(), 4);
        let load = Load { rate: 3, ..LOAD };
        assert_eq!(load.event_ms(1), 333);
        assert_eq!((load.first_at(333), load.first_at(334)), (1, 2));
    }
}
