//! Sets of code points, and Java's case folding.

use std::sync::OnceLock;

/// The last code point.
pub const LAST: u32 = 0x10_ffff;

/// A set of code points. It may contain surrogates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CharSet {
    /// Inclusive ranges in ascending order, which neither overlap nor are adjacent.
    ranges: Vec<(u32, u32)>,
    /// The members below 128, as a bit set.
    ascii: u128,
}

impl CharSet {
    /// Creates a set from ranges in any order.
    pub fn new(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (from, to) in ranges {
            match merged.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        let mut ascii = 0;
        for &(from, to) in merged.iter().take_while(|range| range.0 < 128) {
            for c in from..=to.min(127) {
                ascii |= 1 << c;
            }
        }
        Self { ranges: merged, ascii }
    }

    /// A set of one code point.
    pub fn one(c: u32) -> Self {
        Self::new(vec![(c, c)])
    }

    /// A set of some code points.
    pub fn of(members: impl IntoIterator<Item = u32>) -> Self {
        Self::new(members.into_iter().map(|c| (c, c)).collect())
    }

    /// The set of the characters in a text.
    pub fn chars(members: &str) -> Self {
        Self::of(members.chars().map(u32::from))
    }

    /// The set of all code points.
    pub fn all() -> Self {
        Self::new(vec![(0, LAST)])
    }

    /// The code points that are not in the set.
    pub fn negate(&self) -> Self {
        let mut next = 0;
        let mut out = Vec::with_capacity(self.ranges.len() + 1);
        for &(from, to) in &self.ranges {
            if from > next {
                out.push((next, from - 1));
            }
            next = to + 1;
        }
        if next <= LAST {
            out.push((next, LAST));
        }
        Self::new(out)
    }

    /// The code points that are in either set.
    pub fn union(&self, other: &Self) -> Self {
        Self::new(self.ranges.iter().chain(&other.ranges).copied().collect())
    }

    /// The code points that are in both sets.
    pub fn and(&self, other: &Self) -> Self {
        self.negate().union(&other.negate()).negate()
    }

    /// The difference: the members that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        self.and(&other.negate())
    }

    /// Whether a code point is in the set.
    #[inline]
    pub fn contains(&self, c: u32) -> bool {
        if c < 128 {
            return self.ascii >> c & 1 == 1;
        }
        self.ranges
            .binary_search_by(|range| {
                if range.1 < c {
                    std::cmp::Ordering::Less
                } else if range.0 > c {
                    std::cmp::Ordering::Greater
                } else {
                    std::cmp::Ordering::Equal
                }
            })
            .is_ok()
    }

    /// The ranges, inclusive and in ascending order.
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    /// Whether the set contains either all unpaired surrogates and all supplementary characters, or
    /// no surrogate. In this case Java's matching of surrogates gives the same result as that of
    /// characters.
    pub fn treats_surrogates_alike(&self) -> bool {
        let halves = Self::new(vec![(0xd800, 0xdfff)]);
        let inside = self.and(&halves);
        let beyond = Self::new(vec![(0x1_0000, LAST)]);
        inside.ranges.is_empty() || (inside == halves && self.and(&beyond) == beyond)
    }
}

/// How differences in case are ignored in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// Case is significant.
    None,
    /// The case of ASCII letters is ignored.
    Ascii,
    /// The case of all letters is ignored.
    Unicode,
}

fn single(mut mapped: impl Iterator<Item = char>, c: u32) -> u32 {
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => u32::from(one),
        _ => c,
    }
}

/// The upper-case character, as Java's `Character.toUpperCase` maps it: always to a single
/// character.
pub fn upper(c: u32) -> u32 {
    match c {
        // Letters with iota subscript. Unicode's full mapping has two letters for each of them.
        0x1f80..=0x1faf => c | 8,
        0x1fb3 | 0x1fc3 | 0x1ff3 => c + 9,
        0x1c5 | 0x1c8 | 0x1cb | 0x1f2 => c - 1,
        _ => char::from_u32(c).map_or(c, |char| single(char.to_uppercase(), c)),
    }
}

/// The lower-case character, as Java's `Character.toLowerCase` maps it: always to a single
/// character.
pub fn lower(c: u32) -> u32 {
    match c {
        0x130 => 0x69,
        _ => char::from_u32(c).map_or(c, |char| single(char.to_lowercase(), c)),
    }
}

/// The common form of all characters that differ only in case.
pub fn fold(c: u32) -> u32 {
    lower(upper(c))
}

/// The code points that folding changes or produces, each with its folded form.
fn cased() -> &'static [(u32, u32)] {
    static CASED: OnceLock<Vec<(u32, u32)>> = OnceLock::new();
    CASED.get_or_init(|| {
        let all = (0..0x1_e944).filter(|c| !(0x3400..0xa640).contains(c));
        all.filter(|&c| upper(c) != c || lower(c) != c).map(|c| (c, fold(c))).collect()
    })
}

/// The set of characters that a literal character of a pattern matches.
pub fn folded(c: u32, how: Fold) -> CharSet {
    match how {
        Fold::Ascii if c < 128 => {
            let c = c as u8;
            CharSet::of([c.to_ascii_lowercase().into(), c.to_ascii_uppercase().into()])
        }
        Fold::Unicode => {
            let wanted = fold(c);
            if upper(c) == wanted {
                return CharSet::one(c);
            }
            let others = cased().iter().filter(|(_, folded)| *folded == wanted).map(|pair| pair.0);
            CharSet::of(others.chain([wanted]))
        }
        _ => CharSet::one(c),
    }
}

/// The set of characters that a range of a pattern matches.
pub fn folded_range(from: u32, to: u32, how: Fold) -> CharSet {
    let inside = |c: u32| (from..=to).contains(&c);
    let mut ranges = vec![(from, to)];
    match how {
        Fold::None => {}
        Fold::Ascii => ranges.extend((0..128u8).filter_map(|c| {
            let fits =
                inside(c.to_ascii_uppercase().into()) || inside(c.to_ascii_lowercase().into());
            fits.then_some((c.into(), c.into()))
        })),
        Fold::Unicode => ranges.extend(
            cased()
                .iter()
                .filter_map(|&(c, folded)| (inside(upper(c)) || inside(folded)).then_some((c, c))),
        ),
    }
    CharSet::new(ranges)
}
