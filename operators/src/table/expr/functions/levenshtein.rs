//! The Levenshtein distance between two texts.
//!
//! There are two algorithms, of which the cheaper one is chosen. The first is Myers' bit-parallel
//! algorithm (1999, in Hyyrö's form for long patterns), which handles 64 characters at a time. The
//! second computes only a band along the diagonal of the distance matrix, which is fast for a small
//! limit. Texts for which both would take seconds are an error.

use crate::table::expr::compile::{EvalError, failed};
use std::collections::HashMap;

/// The maximum number of steps, which take a few seconds.
const STEPS_MAX: u64 = 1 << 31;
/// The number of characters per machine word.
const WORD: usize = u64::BITS as usize;

/// The minimum number of insertions, deletions and replacements that turn one text into the other.
/// `None` if this number is greater than `most`. Fails for texts that would take too long.
pub(super) fn levenshtein(a: &str, b: &str, most: i64) -> Result<Option<i64>, Box<EvalError>> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (short, long) = if a.len() <= b.len() { (&a, &b) } else { (&b, &a) };
    let least = (long.len() - short.len()) as i64;
    if least > most {
        return Ok(None);
    }
    let is_in_band = most.saturating_mul(2).saturating_add(1) as u64;
    let in_words = short.len().div_ceil(WORD) as u64;
    let steps = is_in_band.min(in_words).saturating_mul(long.len() as u64);
    if steps > STEPS_MAX {
        return failed(
            "COLLECTION_SIZE_LIMIT_EXCEEDED",
            format!("`levenshtein` of texts of {} and {} characters", a.len(), b.len()),
            "Compare shorter texts, or give a small limit as the third argument",
        );
    }
    let found = match is_in_band < in_words {
        true => by_band(short, long, most as usize),
        false => by_words(short, long),
    };
    Ok(Some(found).filter(|found| *found <= most))
}

/// Computes the distance by the bit-parallel algorithm.
fn by_words(pattern: &[char], text: &[char]) -> i64 {
    let Some(last) = pattern.len().checked_sub(1) else { return text.len() as i64 };
    let words = pattern.len().div_ceil(WORD);
    // For each character of the pattern, a bit set of the positions where it occurs.
    let mut places: HashMap<char, Vec<u64>> = HashMap::new();
    for (i, c) in pattern.iter().enumerate() {
        places.entry(*c).or_insert_with(|| vec![0; words])[i / WORD] |= 1 << (i % WORD);
    }
    let nowhere = vec![0; words];
    // Bit sets of the rows at which the current column of the matrix rises or falls by one.
    let (mut rises, mut falls) = (vec![u64::MAX; words], vec![0u64; words]);
    let mut distance = pattern.len() as i64;
    for c in text {
        let places = places.get(c).unwrap_or(&nowhere);
        let (mut rise_in, mut fall_in) = (1, 0);
        for word in 0..words {
            let (rise, fall, place) = (rises[word], falls[word], places[word]);
            let carried = place | fall_in;
            let diagonal = ((carried & rise).wrapping_add(rise) ^ rise) | carried | fall;
            let (mut right_rise, mut right_fall) = (fall | !(diagonal | rise), diagonal & rise);
            if word == words - 1 {
                let bit = 1 << (last % WORD);
                distance += i64::from(right_rise & bit != 0) - i64::from(right_fall & bit != 0);
            }
            let out = (right_rise >> (WORD - 1), right_fall >> (WORD - 1));
            right_rise = right_rise << 1 | rise_in;
            right_fall = right_fall << 1 | fall_in;
            (rise_in, fall_in) = out;
            rises[word] = right_fall | !(diagonal | right_rise);
            falls[word] = right_rise & diagonal;
        }
    }
    distance
}

/// Computes the distance by the banded algorithm. The result is exact up to `most`.
fn by_band(a: &[char], b: &[char], most: usize) -> i64 {
    let width = 2 * most + 1;
    let far = i64::MAX / 2;
    // Entry `d` of row `i` is the distance matrix at row `i`, column `i + d - most`.
    let mut row: Vec<i64> =
        (0..width).map(|d| if d < most { far } else { (d - most) as i64 }).collect();
    for i in 1..=a.len() {
        for d in 0..width {
            let Some(j) = (i + d).checked_sub(most).filter(|j| *j <= b.len()) else {
                row[d] = far;
                continue;
            };
            let replaced = match j {
                0 => far,
                _ => row[d] + i64::from(a[i - 1] != b[j - 1]),
            };
            let deleted = row.get(d + 1).map_or(far, |cell| cell + 1);
            let inserted = if d > 0 && j > 0 { row[d - 1] + 1 } else { far };
            row[d] = replaced.min(deleted).min(inserted);
        }
    }
    row.get((b.len() + most) - a.len()).copied().unwrap_or(far)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_table(a: &[char], b: &[char]) -> i64 {
        let mut row: Vec<i64> = (0..=b.len() as i64).collect();
        for (i, x) in a.iter().enumerate() {
            let mut corner = std::mem::replace(&mut row[0], i as i64 + 1);
            for (j, y) in b.iter().enumerate() {
                let changed = corner + i64::from(x != y);
                corner = row[j + 1];
                row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
            }
        }
        row[b.len()]
    }

    #[test]
    fn limits_and_lengths() {
        let found = |a: &str, b: &str, most| levenshtein(a, b, most).unwrap();
        assert_eq!(found("kitten", "sitting", i64::MAX), Some(3));
        assert_eq!(found("kitten", "sitting", 2), None);
        assert_eq!(found("kitten", "sitting", -1), None);
        assert_eq!(found("", "", 0), Some(0));
        assert_eq!(found("", "ab", i64::MAX), Some(2));
        let (long, other) = ("a".repeat(100_000), "b".repeat(100_000));
        assert_eq!(found(&long, &long, 3), Some(0));
        assert_eq!(found(&long, &other, 3), None);
        let error = levenshtein(&"a".repeat(1 << 20), &"b".repeat(1 << 20), i64::MAX);
        assert_eq!(error.unwrap_err().condition, "COLLECTION_SIZE_LIMIT_EXCEEDED");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn both_algorithms_count_as_the_table_does(
            a in proptest::collection::vec(proptest::sample::select(vec!['a', 'b', 'é']), 0..200),
            b in proptest::collection::vec(proptest::sample::select(vec!['a', 'b', 'é']), 0..200),
            most in 0usize..200,
        ) {
            let (short, long) = if a.len() <= b.len() { (&a, &b) } else { (&b, &a) };
            let wanted = by_table(short, long);
            prop_assert_eq!(by_words(short, long), wanted);
            if most >= long.len() - short.len() {
                let banded = by_band(short, long, most);
                prop_assert_eq!(banded.min(most as i64 + 1), wanted.min(most as i64 + 1));
            }
        }
    }
}
