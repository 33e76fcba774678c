//! `split` and `sentences`. `split` searches for a literal separator directly. Any other separator
//! is a [regular expression](crate::table::text::regexp), with Java's rules for empty matches.

use super::array::bounded_array;
use super::regexp::{bad_pattern, checked, runaway, texts};
use super::registry::{Function, Typed, any_nullable, expect, function, nullable_cells};
use crate::table::error::PlanResult;
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, EvalError, bytes_fn, text_in};
use crate::table::row::RowWriter;
use crate::table::text::regexp::{Matcher, PatternCache, Regex};
use crate::table::types::DataType;
use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;

pub(super) static FUNCTIONS: &[Function] = &[
    function(
        "split",
        "split(s, regex[, limit]): an array of the parts",
        (2, 3),
        split,
        compile_split,
    )
    .usage("1.5.0", "split('one,two', ',')", "[one, two]"),
    nullable_cells(
        "sentences",
        "sentences(s[, language[, country]]): an array of words for each sentence",
        (1, 3),
        sentences,
        |a, _, arena| Ok(sentences_of(a[0], arena)),
    )
    .usage("2.0.0", "sentences('Hi there! Good morning.')", "[[Hi, there], [Good, morning]]"),
];

fn sentences(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = args[0].nullable;
    let words = DataType::Array(Box::new(DataType::String));
    Ok(Typed::new(
        expect(name, args, &[DataType::String])?,
        DataType::Array(Box::new(words)),
        nullable,
    ))
}

fn sentences_of<'a>(text: Cell<'a>, arena: &'a Bump) -> Cell<'a> {
    if text.is_null() {
        return Cell::Null;
    }
    let (mut word_list, mut sentence_list) = (Vec::new(), Vec::new());
    for sentence in crate::table::text::sentences::sentences(text.text()) {
        word_list.clear();
        word_list.extend(crate::table::text::sentences::words(sentence));
        sentence_list.push(texts(&word_list, arena));
    }
    let mut out = BumpVec::new_in(arena);
    let mut writer = RowWriter::array(&mut out, sentence_list.len());
    for (i, words) in sentence_list.iter().enumerate() {
        words.put(&mut writer, i);
    }
    Cell::Bytes(out.into_bump_slice())
}

fn split(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    checked(&args)?;
    let nullable = any_nullable(&args);
    let types = [DataType::String, DataType::String, DataType::Int];
    Ok(Typed::new(
        expect(name, args, &types)?,
        DataType::Array(Box::new(DataType::String)),
        nullable,
    ))
}

/// The text length in bytes above which the parts are counted before they are collected.
const COUNTED_BYTES: usize = 16 << 20;

/// The separator of `split`.
pub enum Splitter {
    /// A single byte.
    Byte(u8),
    /// A literal text, searched with memmem, which is many times faster than a regular expression.
    Plain(Box<memchr::memmem::Finder<'static>>),
    /// The empty pattern: splits between all characters.
    Chars,
    /// A regular expression.
    Regex(Box<Regex>),
}

/// Collects the parts of a text. `left` is the number of parts that may still be added.
struct Cutter<F> {
    left: usize,
    begin: usize,
    part: F,
}

impl<F> Cutter<F> {
    /// Whether another part may be split off. If so, the part is counted.
    fn takes(&mut self) -> bool {
        if self.left <= 1 {
            return false;
        }
        self.left -= 1;
        true
    }
}

impl Splitter {
    /// Parses a separator. The error tells why it is not a valid pattern.
    pub fn new(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() {
            return Ok(Self::Chars);
        }
        if regex_syntax::escape(pattern) == pattern {
            return Ok(match pattern.as_bytes() {
                [byte] => Self::Byte(*byte),
                bytes => Self::Plain(Box::new(memchr::memmem::Finder::new(bytes).into_owned())),
            });
        }
        Ok(Self::Regex(Box::new(Regex::new(pattern)?)))
    }

    /// Calls `part` for each part of a text. A positive `limit` is the maximum number of parts.
    pub fn parts<'s>(
        &self,
        s: &'s str,
        limit: i64,
        arena: &'s Bump,
        part: impl FnMut(&'s str),
    ) -> Result<(), Box<EvalError>> {
        let left = if limit > 0 { limit as usize } else { usize::MAX };
        let mut cutter = Cutter { left, begin: 0, part };
        let mut cut = |from: usize, to: usize| {
            let takes = cutter.takes();
            if takes {
                (cutter.part)(&s[cutter.begin..from]);
                cutter.begin = to;
            }
            takes
        };
        match self {
            Self::Byte(byte) => {
                memchr::memchr_iter(*byte, s.as_bytes()).all(|at| cut(at, at + 1));
            }
            Self::Plain(pattern) => {
                let length = pattern.needle().len();
                pattern.find_iter(s.as_bytes()).all(|at| cut(at, at + length));
            }
            Self::Chars => {
                s.char_indices().skip(1).all(|(at, _)| cut(at, at));
            }
            Self::Regex(regex) => return by_regex(regex, s, cutter, arena),
        }
        (cutter.part)(&s[cutter.begin..]);
        Ok(())
    }
}

fn by_regex<'s>(
    regex: &Regex,
    s: &'s str,
    mut cutter: Cutter<impl FnMut(&'s str)>,
    arena: &'s Bump,
) -> Result<(), Box<EvalError>> {
    let subject = regex.subject(s);
    let mut matcher = Matcher::new(regex, &subject, false);
    while cutter.left > 1 && matcher.find().map_err(runaway)? {
        let found = matcher.range();
        // As in Java, an empty match at the start does not produce an empty part.
        if cutter.begin == 0 && found.end == 0 {
            continue;
        }
        if cutter.takes() {
            (cutter.part)(subject.part(cutter.begin..found.start, arena));
            cutter.begin = found.end;
        }
    }
    (cutter.part)(subject.part(cutter.begin..subject.end(), arena));
    Ok(())
}

fn compile_split(args: Vec<Compiled>, exprs: &[Resolved], _: &DataType) -> Compiled {
    let mut args = args.into_iter();
    let (Some(s), Some(pattern)) =
        (args.next().map(Compiled::bytes), args.next().map(Compiled::bytes))
    else {
        unreachable!("resolution counted")
    };
    let limit = args.next().map(Compiled::long);
    let fixed = exprs[1].literal_text().and_then(|pattern| Splitter::new(pattern).ok());
    let cache = PatternCache::default();
    bytes_fn(move |cx| {
        let Some(s) = s(cx)? else { return Ok(None) };
        let s = text_in(s, cx.arena);
        let limit = match &limit {
            Some(limit) => match limit(cx)? {
                Some(limit) => limit,
                None => return Ok(None),
            },
            None => -1,
        };
        let mut parts = BumpVec::new_in(cx.arena);
        let mut collect = |splitter: &Splitter| {
            // The parts of a long text are counted first, so that the size limit is checked before
            // memory is allocated.
            if s.len() > COUNTED_BYTES {
                let mut count = 0;
                splitter.parts(s, limit, cx.arena, |_| count += 1)?;
                bounded_array(count, s.len())?;
                parts.reserve_exact(count);
            }
            splitter.parts(s, limit, cx.arena, |part| parts.push(part))
        };
        match &fixed {
            Some(splitter) => collect(splitter)?,
            None => {
                let Some(pattern) = pattern(cx)? else { return Ok(None) };
                let pattern = text_in(pattern, cx.arena);
                cache.with(pattern, Splitter::new, |splitter| match splitter {
                    Ok(splitter) => collect(splitter),
                    Err(reason) => bad_pattern(pattern, reason),
                })?;
            }
        }
        let mut out = BumpVec::with_capacity_in(16 + parts.len() * 8 + s.len(), cx.arena);
        let mut writer = RowWriter::array(&mut out, parts.len());
        for (i, part) in parts.iter().enumerate() {
            writer.bytes(i, part.as_bytes());
        }
        Ok(Some(out.into_bump_slice()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_java_does() {
        for (s, pattern, limit, expected) in [
            ("a b  c", " ", -1, &["a", "b", "", "c"][..]),
            ("", " ", -1, &[""]),
            ("a,b;c,", "[,;]", -1, &["a", "b", "c", ""]),
            ("a,b,c", ",", 2, &["a", "b,c"]),
            ("abc", "", -1, &["a", "b", "c"]),
            ("abc", "", 2, &["a", "bc"]),
            ("a😀b", "", -1, &["a", "😀", "b"]),
            ("abc", "x*", -1, &["a", "b", "c", ""]),
            ("abc", "$", -1, &["abc", ""]),
            ("abc", "^", -1, &["abc"]),
            ("abc", "(?=b)", -1, &["a", "bc"]),
            ("aab", "a*", -1, &["", "", "b", ""]),
            ("a|b", "|", -1, &["a", "|", "b", ""]),
            ("aXbX", "[X]", 1, &["aXbX"]),
            ("aXbX", "[X]", 2, &["a", "bX"]),
            ("a\r\nb", r"\R", -1, &["a", "b"]),
        ] {
            let arena = Bump::new();
            let mut parts = Vec::new();
            let splitter = Splitter::new(pattern).unwrap();
            splitter.parts(s, limit, &arena, |part| parts.push(part)).unwrap();
            assert_eq!(parts, expected, "{s:?} by {pattern:?}, {limit}");
        }
    }
}
