//! LIKE and ILIKE. A pattern is split at each `%` into pieces. The first and last piece are
//! anchored at the ends of the text. The pieces in between are searched greedily from the left.
//! Greedy search is sufficient because an earlier match leaves more text for the remaining pieces.
//!
//! `_` matches any single character. The escape character precedes `%`, `_` or itself. ILIKE
//! compares both sides in lower case.
//!
//! In a short text, a piece with `_` is tried at every position. In a long text, the literal parts
//! of the piece are searched.

use super::like_search::{CharIndex, Reads, Search, TooLong};
use super::registry::{Call, Function, Typed, any_nullable, called, expect};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::compile::{Compiled, EvalError, bool_fn, failed, text_in};
use crate::table::text::regexp::PatternCache;
use crate::table::types::DataType;
use memchr::memmem::Finder;

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "like",
        "s LIKE pattern: % is any text, _ any character",
        (2, 3),
        resolve,
        |args, call| compile(args, &call, false),
    )
    .usage("1.0.0", "'Spark' LIKE 'S%k'", "true"),
    called(
        "ilike",
        "s ILIKE pattern: LIKE without regard to case",
        (2, 3),
        resolve,
        |args, call| compile(args, &call, true),
    )
    .usage("3.3.0", "'Spark' ILIKE 's_ark'", "true"),
];

fn resolve(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    if let Some(escape) = args.get(2)
        && escape.literal_text().is_none_or(|text| text.encode_utf16().count() != 1)
    {
        return Err(PlanError::new(
            "INVALID_ESCAPE_CHAR",
            format!("the escape of `{name}` is {escape}, not one character"),
            "Write a literal of one character",
        ));
    }
    let nullable = any_nullable(&args);
    Ok(Typed::new(expect(name, args, &[DataType::String])?, DataType::Boolean, nullable))
}

/// One character of a piece: a literal character or `_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Any,
    Char(char),
}

/// The maximum number of character comparisons for trying every position. Above it, [`Search`] is
/// used.
const TRIALS_MAX: usize = 1 << 14;

/// A piece of a pattern: a part without `%`, between two of them or at an end of the pattern.
#[derive(Debug)]
enum Piece {
    /// A literal piece without `_`.
    Plain(Box<Finder<'static>>),
    /// A piece with `_`, and the search for it in long texts.
    Units(Vec<Unit>, Box<Search>),
}

impl Piece {
    fn new(units: Vec<Unit>) -> Self {
        let plain = |unit: &Unit| match unit {
            Unit::Char(c) => Some(*c),
            Unit::Any => None,
        };
        match units.iter().map(plain).collect::<Option<String>>() {
            Some(text) => Self::Plain(Box::new(Finder::new(text.as_bytes()).into_owned())),
            None => {
                let search = Search::new(units.iter().map(plain));
                Self::Units(units, Box::new(search))
            }
        }
    }

    /// The length of the match in bytes if this piece matches at the start of a text, else `None`.
    fn at_start(&self, s: &str) -> Option<usize> {
        match self {
            Self::Plain(plain) => {
                s.as_bytes().starts_with(plain.needle()).then(|| plain.needle().len())
            }
            Self::Units(units, _) => {
                let mut rest = s.chars();
                let fits = |unit: &Unit, c: char| *unit == Unit::Any || *unit == Unit::Char(c);
                let all = units.iter().all(|unit| rest.next().is_some_and(|c| fits(unit, c)));
                all.then(|| s.len() - rest.as_str().len())
            }
        }
    }

    /// Whether this piece matches at the end of a text.
    fn at_end(&self, s: &str) -> bool {
        match self {
            Self::Plain(plain) => s.as_bytes().ends_with(plain.needle()),
            Self::Units(units, _) => {
                let mut rest = s.chars().rev();
                let fits = |unit: &Unit, c: char| *unit == Unit::Any || *unit == Unit::Char(c);
                units.iter().rev().all(|unit| rest.next().is_some_and(|c| fits(unit, c)))
            }
        }
    }

    /// The end of the first match at or after a byte offset; `None` if there is none.
    fn find_end(&self, text: &mut Text<'_>, from: usize) -> Result<Option<usize>, TooLong> {
        let s = &text.text[from..];
        Ok(match self {
            Self::Plain(plain) => {
                plain.find(s.as_bytes()).map(|at| from + at + plain.needle().len())
            }
            Self::Units(units, _) if s.len().saturating_mul(units.len()) <= TRIALS_MAX => {
                let mut places = s.char_indices();
                places.find_map(|(at, _)| Some(from + at + self.at_start(&s[at..])?))
            }
            Self::Units(_, search) => search.find_end(from, &text.index, &mut text.reads)?,
        })
    }
}

/// A text that is searched for pieces, and the remaining budget of the search.
struct Text<'t> {
    text: &'t str,
    index: CharIndex<'t>,
    reads: Reads,
}

/// A compiled LIKE pattern.
#[derive(Debug)]
struct Like {
    first: Piece,
    /// The pieces after the first `%`, one for each `%`.
    rest: Vec<Piece>,
}

/// The reason why a pattern is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wrong {
    condition: &'static str,
    reason: String,
}

impl Like {
    fn new(pattern: &str, escape: char) -> Result<Self, Wrong> {
        let mut pieces = Vec::new();
        let mut units = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match c {
                c if c == escape => match chars.next() {
                    Some(next) if next == '%' || next == '_' || next == escape => {
                        units.push(Unit::Char(next));
                    }
                    Some(next) => {
                        return Err(Wrong {
                            condition: "INVALID_FORMAT.ESC_IN_THE_MIDDLE",
                            reason: format!(
                                "the escape '{escape}' of '{pattern}' is followed by '{next}'"
                            ),
                        });
                    }
                    None => {
                        return Err(Wrong {
                            condition: "INVALID_FORMAT.ESC_AT_THE_END",
                            reason: format!("'{pattern}' ends with the escape '{escape}'"),
                        });
                    }
                },
                '%' => pieces.push(Piece::new(std::mem::take(&mut units))),
                '_' => units.push(Unit::Any),
                other => units.push(Unit::Char(other)),
            }
        }
        pieces.push(Piece::new(units));
        let first = pieces.remove(0);
        Ok(Self { first, rest: pieces })
    }

    fn matches(&self, s: &str) -> Result<bool, TooLong> {
        let Some(mut at) = self.first.at_start(s) else { return Ok(false) };
        let Some((last, between)) = self.rest.split_last() else { return Ok(at == s.len()) };
        let mut text = Text { text: s, index: CharIndex::new(s), reads: Reads::of(s.len()) };
        for piece in between {
            match piece.find_end(&mut text, at)? {
                Some(end) => at = end,
                None => return Ok(false),
            }
        }
        Ok(last.at_end(&s[at..]))
    }
}

fn compile(args: Vec<Compiled>, call: &Call, ignore_case: bool) -> Compiled {
    let escape = call.text(2).and_then(|text| text.chars().next()).unwrap_or('\\');
    let prepare = move |pattern: &str| {
        if ignore_case {
            Like::new(&pattern.to_lowercase(), escape)
        } else {
            Like::new(pattern, escape)
        }
    };
    let fixed = call.text(1).map(prepare);
    let cache = PatternCache::default();
    let mut args = args.into_iter().map(Compiled::bytes);
    let (Some(s), Some(pattern)) = (args.next(), args.next()) else {
        unreachable!("resolution counted")
    };
    bool_fn(move |cx| {
        let Some(s) = s(cx)? else { return Ok(None) };
        let Some(pattern) = pattern(cx)? else { return Ok(None) };
        let s = text_in(s, cx.arena);
        let test = |like: &Result<Like, Wrong>| -> Result<Option<bool>, Box<EvalError>> {
            match like {
                Ok(like) if !ignore_case => like.matches(s).map(Some).map_err(too_long),
                Ok(like) => like.matches(&s.to_lowercase()).map(Some).map_err(too_long),
                Err(wrong) => failed(
                    wrong.condition,
                    wrong.reason.clone(),
                    "Only %, _ and the escape itself may follow it; ESCAPE chooses another escape",
                ),
            }
        };
        match &fixed {
            Some(like) => test(like),
            None => cache.with(text_in(pattern, cx.arena), prepare, test),
        }
    })
}

/// The error of a LIKE that exceeds its budget of reads.
#[cold]
fn too_long(_: TooLong) -> Box<EvalError> {
    let error = failed::<()>(
        "LIKE_STEPS_EXCEEDED",
        "a comparison by LIKE takes too many steps",
        "Write a pattern with fewer literals between `_`, or compare shorter texts",
    );
    let Err(error) = error else { unreachable!("it is an error") };
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_spark() {
        for (s, pattern, expected) in [
            ("100%", r"100\%", true),
            ("100x", r"100\%", false),
            (r"100\x", r"100\\%", true),
            ("a\nb", "a_b", true),
            ("a\u{2028}b", "a_b", true),
            ("a😀b", "a_b", true),
            ("", "%", true),
            ("", "", true),
            ("", "_", false),
            ("abc", "%%%", true),
            ("abcbc", "a%bc", true),
            ("abc", "abc%c", false),
            ("aab", "%a_", true),
            ("xaybzc", "%a_b%c", true),
            ("xaybzc", "%a_b%b%", false),
            ("éa", "_a", true),
            ("a.c", "a.c", true),
            ("abc", "a.c", false),
            ("aa", "a%a", true),
            ("a", "a%a", false),
        ] {
            let like = Like::new(pattern, '\\').unwrap();
            assert_eq!(like.matches(s), Ok(expected), "{s:?} LIKE {pattern:?}");
        }
        assert!(Like::new("a%%b", '%').unwrap().matches("a%b").unwrap());
    }

    #[test]
    fn long_runs_of_any_character_are_counted() {
        let long = |c: &str| format!("{}x{}", c.repeat(200_000), c.repeat(1000));
        let any = "_".repeat(100_000);
        let (texts, some) = ("a_".repeat(1000), "_".repeat(1000));
        for c in ["a", "é", "😀"] {
            for (pattern, expected) in [
                (format!("%{any}b%"), false),
                (format!("%{any}x%"), true),
                (format!("%{any}{any}x%"), true),
                (format!("%{any}{any}_x%"), false),
                (format!("%x{any}%"), false),
                (format!("%x{some}%"), true),
                (format!("%{c}{any}x%"), true),
                (format!("%{c}{any}x{c}{some}%"), false),
                (format!("%{c}{any}b%"), false),
                (format!("%{}b%", texts.replace('a', c)), false),
                (format!("%{}%x%", texts.replace('a', c)), true),
            ] {
                let like = Like::new(&pattern, '\\').unwrap();
                let short: String = pattern.chars().take(5).collect();
                assert_eq!(like.matches(&long(c)), Ok(expected), "{short} for {c}");
            }
        }
    }

    #[test]
    fn an_escape_before_anything_else_is_refused() {
        let condition = |pattern| Like::new(pattern, '$').unwrap_err().condition;
        assert_eq!(condition("a$bc"), "INVALID_FORMAT.ESC_IN_THE_MIDDLE");
        assert_eq!(condition("abc$"), "INVALID_FORMAT.ESC_AT_THE_END");
    }
}
