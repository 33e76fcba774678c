//! The demo's recording: lines with natural word frequencies and bursts. It is the same on every
//! machine.
//!
//! Words follow Zipf's law over a vocabulary made from syllables; lines have 3 to 12 words. Times
//! are Poisson arrivals whose rate jumps fivefold in bursts.

use millstream_engine::env::random::SplitMix;
use std::collections::HashMap;

/// Number of words in the vocabulary.
const VOCABULARY: usize = 5_000;
/// Mean gap between lines outside bursts, in nanoseconds.
const GAP_NS: f64 = 150_000.0;
/// Number of lines between the starts of two bursts.
const BURST_EVERY: usize = 5_000;
/// Number of lines in a burst.
const BURST_LINES: usize = 1_000;

/// Lines with their send times, relative to the start.
pub(crate) struct Recording {
    pub lines: Vec<String>,
    pub times_ns: Vec<u64>,
}

impl Recording {
    /// A recording with `lines` lines.
    pub fn new(lines: usize) -> Self {
        let mut dice = SplitMix(0x006D_696C_6C73_7472);
        let words = vocabulary(&mut dice);
        let cumulative = zipf();
        let mut recording =
            Self { lines: Vec::with_capacity(lines), times_ns: Vec::with_capacity(lines) };
        let mut now_ns = 0.0;
        for at in 0..lines {
            let count = 3 + dice.below(10) as usize;
            let picked = (0..count).map(|_| {
                let pick = unit(&mut dice);
                words[cumulative.partition_point(|sum| *sum < pick).min(VOCABULARY - 1)].as_str()
            });
            recording.lines.push(picked.collect::<Vec<_>>().join(" "));
            let gap_ns = if at % BURST_EVERY < BURST_LINES { GAP_NS / 5.0 } else { GAP_NS };
            now_ns -= gap_ns * (1.0 - unit(&mut dice)).ln();
            recording.times_ns.push(now_ns as u64);
        }
        recording
    }

    /// The expected word count, computed directly from the lines.
    pub fn count(&self) -> HashMap<String, i64> {
        let mut counts = HashMap::new();
        for word in self.lines.iter().flat_map(|line| line.split(' ')) {
            *counts.entry(word.to_string()).or_insert(0) += 1;
        }
        counts
    }
}

/// A random number in [0, 1).
fn unit(dice: &mut SplitMix) -> f64 {
    (dice.next() >> 11) as f64 / (1u64 << 53) as f64
}

fn zipf() -> Vec<f64> {
    let weights: Vec<f64> = (1..=VOCABULARY).map(|rank| 1.0 / rank as f64).collect();
    let total: f64 = weights.iter().sum();
    weights
        .iter()
        .scan(0.0, |sum, weight| {
            *sum += weight / total;
            Some(*sum)
        })
        .collect()
}

fn vocabulary(dice: &mut SplitMix) -> Vec<String> {
    const SYLLABLES: [&str; 24] = [
        "ba", "re", "mi", "to", "la", "si", "den", "kor", "val", "ne", "pu", "ra", "te", "lo",
        "sha", "mar", "in", "o", "ket", "ul", "fa", "wen", "gi", "ost",
    ];
    let mut seen = std::collections::HashSet::new();
    let mut words = Vec::with_capacity(VOCABULARY);
    while words.len() < VOCABULARY {
        // Frequent words tend to be short.
        let syllables = 1 + words.len().min(600) / 60 / 4 + dice.below(3) as usize;
        let word: String = (0..syllables).map(|_| SYLLABLES[dice.below(24) as usize]).collect();
        if seen.insert(word.clone()) {
            words.push(word);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recording_is_reproducible_and_has_a_long_tail() {
        let (a, b) = (Recording::new(2_000), Recording::new(2_000));
        assert_eq!((&a.lines, &a.times_ns), (&b.lines, &b.times_ns));
        assert!(a.times_ns.is_sorted());
        let mut counts: Vec<i64> = a.count().into_values().collect();
        counts.sort_unstable_by(|x, y| y.cmp(x));
        assert!(counts[0] > 20 * counts[counts.len() / 2], "the commonest word is far more common");
    }
}
