//! Iterates over the matches of a pattern like Java's `Matcher.find`. After an empty match, the
//! search continues one position later.

use crate::table::text::regexp::Regex;
use crate::table::text::regexp::input::Input;
use crate::table::text::regexp::linear::Linear;
use crate::table::text::regexp::machine::{Machine, NONE, StepLimitExceeded};
use crate::table::text::regexp::meter::Meter;
use bumpalo::Bump;
use std::ops::Range;

/// A text in the encoding in which it is searched.
#[derive(Debug)]
pub enum Subject<'t> {
    /// UTF-8, if the matches do not depend on surrogates.
    Utf8(&'t str),
    /// UTF-16 as in Java, if the pattern may match between the surrogates of a pair in the text.
    Utf16(Vec<u16>),
}

impl<'t> Subject<'t> {
    /// The position after the last code unit.
    pub fn end(&self) -> usize {
        match self {
            Self::Utf8(text) => text.len(),
            Self::Utf16(units) => units.len(),
        }
    }

    /// The text of a range. `?` replaces an unpaired surrogate.
    pub fn part<'a>(&self, range: Range<usize>, arena: &'a Bump) -> &'a str
    where
        't: 'a,
    {
        match self {
            Self::Utf8(text) => {
                let text: &'t str = text;
                text.get(range).unwrap_or_default()
            }
            Self::Utf16(units) => {
                let units = units.get(range).unwrap_or_default().iter().copied();
                let text: String = char::decode_utf16(units).map(|c| c.unwrap_or('?')).collect();
                arena.alloc_str(&text)
            }
        }
    }

    /// The number of characters before a position. A surrogate that the position cuts from its pair
    /// counts as a character.
    pub fn chars_before(&self, at: usize) -> usize {
        match self {
            Self::Utf8(text) => text.get(..at).unwrap_or_default().chars().count(),
            Self::Utf16(units) => {
                char::decode_utf16(units.get(..at).unwrap_or_default().iter().copied()).count()
            }
        }
    }
}

enum Engine<'r, 's> {
    Linear(&'r Linear, &'s str, Option<regex::CaptureLocations>, Range<usize>, Meter),
    Utf8(Machine<'r, 's, str>),
    Utf16(Machine<'r, 's, [u16]>),
}

/// An iterator over the matches of a pattern in a text.
pub struct Matcher<'r, 's> {
    engine: Engine<'r, 's>,
    /// The latest match; `None` before the first match.
    latest: Option<Range<usize>>,
    end: usize,
}

impl<'r, 's> Matcher<'r, 's> {
    /// Starts a search. Without `wants_groups` the captured groups may be missing: capturing takes
    /// time.
    pub fn new(regex: &'r Regex, subject: &'s Subject<'_>, wants_groups: bool) -> Self {
        let wants_groups = wants_groups && regex.groups() > 0;
        let engine = match (subject, &regex.linear) {
            (Subject::Utf8(text), Some(linear))
                if linear.fits(text) && (linear.groups || !wants_groups) =>
            {
                let locations = wants_groups.then(|| linear.regex.capture_locations());
                Engine::Linear(linear, text, locations, 0..0, Meter::new(text.len()))
            }
            (Subject::Utf8(text), _) => {
                Engine::Utf8(Machine::new(&regex.program, *text, regex.whole))
            }
            (Subject::Utf16(units), _) => {
                Engine::Utf16(Machine::new(&regex.program, units.as_slice(), regex.whole))
            }
        };
        Self { engine, latest: None, end: subject.end() }
    }

    /// Advances to the next match. Returns false if there is none. Fails if the search exceeds its
    /// limit of steps.
    pub fn find(&mut self) -> Result<bool, StepLimitExceeded> {
        let previous = self.latest.as_ref().map_or(0, |latest| latest.end);
        let from = match &self.latest {
            Some(latest) if latest.is_empty() => self.behind(latest.end),
            _ => previous,
        };
        if from > self.end {
            return Ok(false);
        }
        let found = match &mut self.engine {
            Engine::Linear(linear, text, locations, found, meter) => {
                meter.count(linear, text, from)?;
                match locations {
                    Some(locations) => {
                        linear.regex.captures_read_at(locations, text, from).is_some()
                    }
                    None => match linear.regex.find_at(text, from) {
                        Some(next) => {
                            *found = next.range();
                            true
                        }
                        None => false,
                    },
                }
            }
            Engine::Utf8(machine) => machine.find(from, previous)?,
            Engine::Utf16(machine) => machine.find(from, previous)?,
        };
        if found {
            self.latest = self.group(0);
        }
        Ok(found)
    }

    fn behind(&self, at: usize) -> usize {
        match &self.engine {
            Engine::Linear(_, text, ..) => Input::forward(*text, at, false),
            Engine::Utf8(machine) => machine.behind(at),
            Engine::Utf16(machine) => machine.behind(at),
        }
    }

    /// The range of the latest match; 0..0 before the first match.
    pub fn range(&self) -> Range<usize> {
        self.latest.clone().unwrap_or(0..0)
    }

    /// The range of a group in the latest match; `None` if the group did not participate. Group 0
    /// is the whole match.
    pub fn group(&self, index: usize) -> Option<Range<usize>> {
        let of = |groups: &[usize]| {
            let (begin, end) = (*groups.get(2 * index)?, *groups.get(2 * index + 1)?);
            (begin != NONE).then_some(begin..end)
        };
        match &self.engine {
            Engine::Linear(_, _, Some(locations), ..) => {
                locations.get(index).map(|(begin, end)| begin..end)
            }
            Engine::Linear(_, _, None, found, _) => (index == 0).then(|| found.clone()),
            Engine::Utf8(machine) => of(&machine.groups),
            Engine::Utf16(machine) => of(&machine.groups),
        }
    }
}
