//! The [regular expression](crate::table::text::regexp) functions of SQL. A literal pattern is
//! compiled once. Compiled patterns from a column are cached.

use super::array::collected;
use super::registry::{Call, Function, called, typed, typed_or_null};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{
    BytesFn, Compiled, EvalError, failed, from_cells, text, text_in,
};
use crate::table::expr::functions::string_rare::bounded;
use crate::table::expr::type_rules::Rules;
use crate::table::expr::{Node, Resolved};
use crate::table::row::RowWriter;
use crate::table::text::regexp::{
    Matcher, Part, PatternCache, Regex, Replacement, StepLimitExceeded, Subject,
};
use crate::table::types::DataType;
use crate::table::value::Value;
use bumpalo::Bump;
use bumpalo::collections::{String as BumpString, Vec as BumpVec};

use DataType as T;

type Outcome<T> = Result<T, Box<EvalError>>;
/// Evaluates a function with a compiled pattern. The cells are all arguments of the call, with NULL
/// in place of the pattern.
type Eval = for<'a> fn(&Regex, &[Cell<'a>], &'a Bump) -> Outcome<Cell<'a>>;

fn text_array() -> DataType {
    T::Array(Box::new(T::String))
}

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "regexp_like",
        "regexp_like(s, regex) or s RLIKE regex: whether it is found anywhere",
        (2, 2),
        |n, a| checked(&a).and_then(|()| typed(n, a, &[T::String], T::Boolean)),
        |a, c| {
            over(a, &c, |regex, a, _| Ok(Cell::Bool(regex.is_match(a[0].text()).map_err(runaway)?)))
        },
    )
    .usage("3.2.0", "regexp_like('Millstream', 'l+')", "true"),
    called(
        "regexp_extract",
        "regexp_extract(s, regex[, group]): of the first match; '' without one",
        (2, 3),
        |n, a| checked(&a).and_then(|()| typed(n, a, &[T::String, T::String, T::Int], T::String)),
        |a, c| {
            over(a, &c, |regex, a, arena| {
                let subject = regex.subject(a[0].text());
                let wanted = a.get(2).map_or(1, |index| index.long());
                let mut matcher = Matcher::new(regex, &subject, wanted != 0);
                if !matcher.find().map_err(runaway)? {
                    return Ok(Cell::Bytes(&[]));
                }
                let found = matcher.group(group(regex, wanted)?);
                Ok(part(&subject, found, arena))
            })
        },
    )
    .usage("1.5.0", "regexp_extract('100-200', '(\\\\d+)-(\\\\d+)', 2)", "200"),
    called(
        "regexp_extract_all",
        "regexp_extract_all(s, regex[, group]): of every match",
        (2, 3),
        |n, a| {
            checked(&a).and_then(|()| typed(n, a, &[T::String, T::String, T::Int], text_array()))
        },
        |a, c| {
            over(a, &c, |regex, a, arena| {
                let subject = regex.subject(a[0].text());
                let wanted = a.get(2).map_or(1, |index| index.long());
                let mut matcher = Matcher::new(regex, &subject, wanted != 0);
                let mut parts = BumpVec::new_in(arena);
                while matcher.find().map_err(runaway)? {
                    let found = matcher.group(group(regex, wanted)?);
                    parts.push(text(part(&subject, found, arena).bytes()));
                }
                Ok(texts(&parts, arena))
            })
        },
    )
    .usage("3.1.0", "regexp_extract_all('1a 2b', '(\\\\d)([a-z])', 2)", "[a, b]"),
    called(
        "regexp_replace",
        "regexp_replace(s, regex, by[, from]): every match",
        (3, 4),
        |n, a| {
            let types = [T::String, T::String, T::String, T::Int];
            checked(&a).and_then(|()| position(&a)).and_then(|()| typed(n, a, &types, T::String))
        },
        |a, c| over(a, &c, replace),
    )
    .usage("1.5.0", "regexp_replace('100-200', '\\\\d+', 'n')", "n-n"),
    called(
        "regexp_count",
        "regexp_count(s, regex): matches",
        (2, 2),
        |n, a| checked(&a).and_then(|()| typed(n, a, &[T::String], T::Int)),
        |a, c| {
            over(a, &c, |regex, a, _| {
                let subject = regex.subject(a[0].text());
                let mut matcher = Matcher::new(regex, &subject, false);
                let mut count = 0;
                while matcher.find().map_err(runaway)? {
                    count += 1;
                }
                Ok(Cell::Long(count))
            })
        },
    )
    .usage("3.4.0", "regexp_count('a1b22', '\\\\d+')", "2"),
    called(
        "regexp_substr",
        "regexp_substr(s, regex): the first match; NULL without one, or if it is empty",
        (2, 2),
        |n, a| checked(&a).and_then(|()| typed_or_null(n, a, &[T::String], T::String)),
        |a, c| {
            over(a, &c, |regex, a, arena| {
                let subject = regex.subject(a[0].text());
                let mut matcher = Matcher::new(regex, &subject, false);
                if !matcher.find().map_err(runaway)? || matcher.range().is_empty() {
                    return Ok(Cell::Null);
                }
                Ok(part(&subject, Some(matcher.range()), arena))
            })
        },
    )
    .usage("3.4.0", "regexp_substr('a1b22', '\\\\d+')", "1"),
    called(
        "regexp_instr",
        "regexp_instr(s, regex): the position of the first match, from 1; 0 without one",
        (2, 3),
        |n, a| checked(&a).and_then(|()| typed(n, a, &[T::String, T::String, T::Int], T::Int)),
        |a, c| {
            over(a, &c, |regex, a, _| {
                let subject = regex.subject(a[0].text());
                let mut matcher = Matcher::new(regex, &subject, false);
                if !matcher.find().map_err(runaway)? {
                    return Ok(Cell::Long(0));
                }
                Ok(Cell::Long(subject.chars_before(matcher.range().start) as i64 + 1))
            })
        },
    )
    .usage("3.4.0", "regexp_instr('a1b22', '\\\\d+')", "2"),
    called(
        "str_to_map",
        "str_to_map(s[, entries, pairs]): split by two patterns, ',' and ':'",
        (1, 3),
        |n, a| {
            if !a[0].is_null_constant() {
                a.iter().skip(1).try_for_each(checked_pattern)?;
            }
            let to = T::Map(Box::new(T::String), Box::new(T::String));
            typed(n, a, &[T::String], to)
        },
        str_to_map,
    )
    .usage("2.0.1", "str_to_map('a:1,b:2')", "{a -> 1, b -> 2}"),
];

fn replace<'a>(regex: &Regex, a: &[Cell<'a>], arena: &'a Bump) -> Outcome<Cell<'a>> {
    let whole = a[0].text();
    let from = a.get(3).map_or(1, |from| from.long());
    if from < 1 {
        return failed(
            "DATATYPE_MISMATCH.VALUE_OUT_OF_RANGE",
            format!("the position {from} of `regexp_replace` is not positive"),
            "The first character has position 1",
        );
    }
    let begin = match whole.char_indices().nth(from as usize - 1) {
        Some((at, _)) => at,
        None if from == 1 => 0,
        None => return Ok(a[0]),
    };
    let subject = regex.subject(&whole[begin..]);
    // Capturing groups is slower and only needed if the replacement refers to a group.
    let mut matcher = Matcher::new(regex, &subject, a[2].text().contains('$'));
    if !matcher.find().map_err(runaway)? {
        return Ok(a[0]);
    }
    let by = match Replacement::new(a[2].text(), regex) {
        Ok(by) => by,
        Err(reason) => {
            return failed(
                "INVALID_REGEXP_REPLACE",
                format!("'{}' is not a valid replacement: {reason}", a[2].text()),
                "$1 and ${name} are groups of the pattern, \\$ is a dollar sign",
            );
        }
    };
    let mut out = BumpString::from_str_in(&whole[..begin], arena);
    let mut done = 0;
    loop {
        let found = matcher.range();
        out.push_str(subject.part(done..found.start, arena));
        for piece in &by.0 {
            match piece {
                Part::Text(text) => out.push_str(text),
                Part::Group(group) => {
                    out.push_str(text(part(&subject, matcher.group(*group), arena).bytes()));
                }
            }
        }
        done = found.end;
        bounded(out.len())?;
        if !matcher.find().map_err(runaway)? {
            break;
        }
    }
    out.push_str(subject.part(done..subject.end(), arena));
    Ok(Cell::Bytes(out.into_bump_str().as_bytes()))
}

fn str_to_map(args: Vec<Compiled>, call: Call) -> Compiled {
    let to = call.to.physical();
    let mut args = args.into_iter().map(Compiled::bytes);
    let Some(value) = args.next() else { unreachable!("counted") };
    let patterns: Vec<BytesFn> = args.collect();
    let cache = PatternCache::default();
    from_cells(to, move |cx| {
        let Some(bytes) = value(cx)? else { return Ok(Cell::Null) };
        let mut by = [",", ":"];
        for (pattern, by) in patterns.iter().zip(&mut by) {
            let Some(pattern) = pattern(cx)? else { return Ok(Cell::Null) };
            *by = text_in(pattern, cx.arena);
        }
        let split = |s, pattern, limit| {
            let mut parts = BumpVec::new_in(cx.arena);
            cache.with(pattern, super::Splitter::new, |splitter| match splitter {
                Ok(splitter) => splitter.parts(s, limit, cx.arena, |part| parts.push(part)),
                Err(reason) => bad_pattern(pattern, reason),
            })?;
            Ok::<_, Box<EvalError>>(parts)
        };
        let mut keys = super::value_index::ValueIndex::new(&DataType::String);
        let mut values: Vec<Option<&str>> = Vec::new();
        for entry in split(text_in(bytes, cx.arena), by[0], -1)? {
            let pair = split(entry, by[1], 2)?;
            let key = pair.first().copied().unwrap_or("");
            if keys.insert(Cell::Bytes(key.as_bytes())).is_err() {
                return super::map::duplicate_key(key);
            }
            values.push(pair.get(1).copied());
        }
        let keys = collected(keys.into_values().into_iter(), cx.arena);
        let mut out = BumpVec::new_in(cx.arena);
        let mut writer = RowWriter::array(&mut out, values.len());
        for (i, value) in values.iter().enumerate() {
            if let Some(value) = value {
                writer.bytes(i, value.as_bytes());
            }
        }
        Ok(super::map::assembled(keys.bytes(), &out, cx.arena))
    })
}

fn part<'a>(
    subject: &Subject<'a>,
    found: Option<std::ops::Range<usize>>,
    arena: &'a Bump,
) -> Cell<'a> {
    Cell::Bytes(found.map_or("", |found| subject.part(found, arena)).as_bytes())
}

/// Builds an array of texts.
pub(super) fn texts<'a>(parts: &[&str], arena: &'a Bump) -> Cell<'a> {
    let mut out = BumpVec::new_in(arena);
    let mut writer = RowWriter::array(&mut out, parts.len());
    for (i, part) in parts.iter().enumerate() {
        writer.bytes(i, part.as_bytes());
    }
    Cell::Bytes(out.into_bump_slice())
}

/// Rejects a literal that is not a valid pattern, unless the text is a constant NULL or the call is
/// evaluated only for some rows.
pub(super) fn checked(args: &[Resolved]) -> PlanResult<()> {
    if args[0].is_null_constant() {
        return Ok(());
    }
    checked_pattern(&args[1])
}

fn checked_pattern(pattern: &Resolved) -> PlanResult<()> {
    if Rules::current().is_conditional {
        return Ok(());
    }
    match pattern.literal_text().map(Regex::new) {
        Some(Err(reason)) => Err(PlanError::new(
            "INVALID_PARAMETER_VALUE.PATTERN",
            format!("{pattern} is not a regular expression: {reason}"),
            ESCAPE,
        )),
        _ => Ok(()),
    }
}

const ESCAPE: &str = "Escape what is meant as a character: '\\\\.' for a dot";

/// The error for an invalid pattern that is found when a row is evaluated.
#[cold]
pub(super) fn bad_pattern<T>(pattern: &str, reason: &str) -> Outcome<T> {
    failed(
        "INVALID_PARAMETER_VALUE.PATTERN",
        format!("'{pattern}' is not a regular expression: {reason}"),
        ESCAPE,
    )
}

/// The error for a search that exceeds its limit of steps.
#[cold]
pub(super) fn runaway(_: StepLimitExceeded) -> Box<EvalError> {
    let error = failed::<()>(
        "REGEX_STEPS_EXCEEDED",
        "a search by a regular expression takes too many steps",
        "Write it without nested repetitions of the same text, such as (a+)+, and without parts \
        such as .*x that scan the whole text again for each match",
    );
    let Err(error) = error else { unreachable!("it is an error") };
    error
}

/// Rejects a position that is not constant, and a literal below 1.
fn position(args: &[Resolved]) -> PlanResult<()> {
    if let Some(from) = args.get(3).filter(|from| !from.is_foldable()) {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
            format!("the position `{from}` of `regexp_replace` is not a constant"),
            "Write a number",
        ));
    }
    match args.get(3).map(|from| &from.node) {
        Some(Node::Literal(Value::Long(from))) if *from < 1 => Err(PlanError::new(
            "DATATYPE_MISMATCH.VALUE_OUT_OF_RANGE",
            format!("the position {from} of `regexp_replace` is not positive"),
            "The first character has position 1",
        )),
        _ => Ok(()),
    }
}

fn group(regex: &Regex, index: i64) -> Outcome<usize> {
    match usize::try_from(index).ok().filter(|index| *index <= regex.groups()) {
        Some(index) => Ok(index),
        None => failed(
            "INVALID_PARAMETER_VALUE.REGEX_GROUP_INDEX",
            format!("there is no group {index}, the pattern has {}", regex.groups()),
            "Group 0 is the whole match",
        ),
    }
}

/// Compiles a function with a pattern argument. A literal pattern is compiled once; other patterns
/// are cached by their text.
fn over(args: Vec<Compiled>, call: &Call, eval: Eval) -> Compiled {
    let fixed = call.text(1).and_then(|pattern| Regex::new(pattern).ok());
    let mut rest = args;
    let pattern: BytesFn = rest.remove(1).bytes();
    let cache = PatternCache::default();
    from_cells(call.to.physical(), move |cx| {
        let mut cells: smallvec::SmallVec<[Cell<'_>; 4]> = smallvec::SmallVec::new();
        for (i, arg) in rest.iter().enumerate() {
            let cell = arg.cell(cx)?;
            if cell.is_null() {
                return Ok(Cell::Null);
            }
            cells.push(match cell {
                Cell::Bytes(bytes) => Cell::Bytes(text_in(bytes, cx.arena).as_bytes()),
                other => other,
            });
            if i == 0 {
                // A placeholder: the function gets the pattern in compiled form.
                cells.push(Cell::Null);
            }
        }
        if let Some(regex) = &fixed {
            return eval(regex, &cells, cx.arena);
        }
        let Some(pattern) = pattern(cx)? else { return Ok(Cell::Null) };
        let pattern = text_in(pattern, cx.arena);
        cache.with(pattern, Regex::new, |regex| match regex {
            Ok(regex) => eval(regex, &cells, cx.arena),
            Err(reason) => bad_pattern(pattern, reason),
        })
    })
}
