//! Searches a long text for a piece of a LIKE pattern that contains `_`.
//!
//! The literal segments between runs of `_` are searched with [`Finder`]. Each segment has a fixed
//! offset, in characters, from the start of the piece. A segment that is found later than expected
//! moves the start of the piece forward. So each segment scans the text only once, from left to
//! right. The time is about proportional to the text's length times the number of segments. A
//! search that exceeds its budget of reads is an error.

use memchr::memmem::Finder;
use std::cell::OnceCell;

/// The read budget of a search, in bytes. [`READS_A_BYTE`] is added for each byte of the text.
const READS: usize = 300_000_000;
const READS_A_BYTE: usize = 30;
/// The cost of each search of a segment in addition to the bytes read, in bytes.
const READS_A_SEARCH: usize = 32;

/// The error of a search that exceeds its budget of reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// A literal segment between two runs of `_`.
#[derive(Debug)]
struct Segment {
    /// The offset of this segment from the start of the piece, in characters.
    offset: usize,
    finder: Finder<'static>,
}

/// A piece of a pattern, prepared for searches.
#[derive(Debug)]
pub(super) struct Search {
    segments: Vec<Segment>,
    chars: usize,
}

impl Search {
    /// Prepares a piece, given as its characters with `None` for `_`.
    pub fn new(units: impl Iterator<Item = Option<char>>) -> Self {
        let (mut segments, mut run, mut chars) = (Vec::new(), String::new(), 0);
        let segment = |run: &mut String, end: usize| {
            let finder = Finder::new(run.as_bytes()).into_owned();
            let offset = end - run.chars().count();
            run.clear();
            Segment { offset, finder }
        };
        for unit in units {
            match unit {
                Some(c) => run.push(c),
                None if !run.is_empty() => segments.push(segment(&mut run, chars)),
                None => {}
            }
            chars += 1;
        }
        if !run.is_empty() {
            segments.push(segment(&mut run, chars));
        }
        // The last segment is searched first, because it is the first to fail near the end of the
        // text.
        segments.reverse();
        Self { segments, chars }
    }

    /// The byte offset of the end of the first match at or after the byte `from`; `None` if there
    /// is not a match. Fails if the budget of reads is used up.
    pub fn find_end(
        &self,
        from: usize,
        text: &CharIndex<'_>,
        reads: &mut Reads,
    ) -> Result<Option<usize>, TooLong> {
        let bytes = text.text.as_bytes();
        let mut begin = text.char_at(from);
        // For each segment, the character position of its last match.
        let mut found = vec![0; self.segments.len()];
        'moved: loop {
            if begin + self.chars > text.len() {
                return Ok(None);
            }
            for (segment, at) in self.segments.iter().zip(&mut found) {
                let wanted = begin + segment.offset;
                if *at < wanted || *at == 0 {
                    let first = text.byte_at(wanted);
                    let next = segment.finder.find(&bytes[first..]);
                    let length = segment.finder.needle().len();
                    reads.count(next.map_or(bytes.len() - first, |next| next + length))?;
                    let Some(next) = next else { return Ok(None) };
                    *at = text.char_at(first + next);
                }
                if *at > wanted {
                    begin = *at - segment.offset;
                    continue 'moved;
                }
            }
            return Ok(Some(text.byte_at(begin + self.chars)));
        }
    }
}

/// The remaining budget of bytes that the searches in a text may read.
#[derive(Debug)]
pub(super) struct Reads(usize);

impl Reads {
    /// The budget for a text of `length` bytes.
    pub fn of(length: usize) -> Self {
        Self(length.saturating_mul(READS_A_BYTE).saturating_add(READS))
    }

    fn count(&mut self, bytes: usize) -> Result<(), TooLong> {
        self.0 = self.0.checked_sub(bytes + READS_A_SEARCH).ok_or(TooLong)?;
        Ok(())
    }
}

/// An index between byte offsets and character positions of a text.
#[derive(Debug)]
pub(super) struct CharIndex<'t> {
    text: &'t str,
    /// The byte offset of each character, and the character position of each byte; `None` if the
    /// text is ASCII.
    places: OnceCell<Option<(Vec<u32>, Vec<u32>)>>,
}

impl<'t> CharIndex<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { text, places: OnceCell::new() }
    }

    fn places(&self) -> &Option<(Vec<u32>, Vec<u32>)> {
        self.places.get_or_init(|| {
            if self.text.is_ascii() {
                return None;
            }
            let (mut bytes, mut chars) = (Vec::new(), Vec::with_capacity(self.text.len() + 1));
            for (at, c) in self.text.char_indices() {
                chars.extend(std::iter::repeat_n(bytes.len() as u32, c.len_utf8()));
                bytes.push(at as u32);
            }
            chars.push(bytes.len() as u32);
            bytes.push(self.text.len() as u32);
            Some((bytes, chars))
        })
    }

    fn len(&self) -> usize {
        self.char_at(self.text.len())
    }

    fn char_at(&self, byte: usize) -> usize {
        self.places().as_ref().map_or(byte, |(_, chars)| chars[byte] as usize)
    }

    fn byte_at(&self, char: usize) -> usize {
        self.places().as_ref().map_or(char, |(bytes, _)| bytes[char] as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reference implementation that tries every position.
    fn by_trial(units: &[Option<char>], text: &str, from: usize) -> Option<usize> {
        text[from..].char_indices().map(|(at, _)| from + at).chain([text.len()]).find_map(|at| {
            let mut rest = text[at..].chars();
            let fits = |unit: &Option<char>, c: char| unit.is_none_or(|own| own == c);
            let all = units.iter().all(|unit| rest.next().is_some_and(|c| fits(unit, c)));
            all.then(|| text.len() - rest.as_str().len())
        })
    }

    #[test]
    fn the_search_agrees_with_trying_every_offset() {
        let mut seed = 7u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % below
        };
        for _ in 0..20_000 {
            let letters = ['a', 'b', 'é', '😀'];
            let (length, kinds) = (random(12), 2 + random(3));
            let text: String = (0..length).map(|_| letters[random(kinds) as usize]).collect();
            let units = random(6) + 1;
            let units: Vec<Option<char>> =
                (0..units).map(|_| (random(2) == 0).then(|| letters[random(3) as usize])).collect();
            let index = CharIndex::new(&text);
            let found =
                Search::new(units.iter().copied()).find_end(0, &index, &mut Reads::of(text.len()));
            assert_eq!(found, Ok(by_trial(&units, &text, 0)), "{units:?} in {text:?}");
        }
    }
}
