//! Regular expressions. They are those of the crate `regex`, which has no look-around and no
//! back-references: a pattern with one is refused.

use super::{Call, Function, called, typed, typed_or_null};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{BytesFn, Compiled, EvalError, failed, from_cells, text};
use crate::table::row::RowWriter;
use crate::table::types::DataType;
use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;
use regex::Regex;

use DataType as T;

/// What a match of a pattern in a text gives: the pattern, all arguments, the arena.
type Eval = for<'a> fn(&Regex, &[Cell<'a>], &'a Bump) -> Result<Cell<'a>, Box<EvalError>>;

fn text_array() -> DataType {
    T::Array(Box::new(T::String))
}

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "regexp_like",
        "s RLIKE regex: whether it is found anywhere",
        (2, 2),
        |n, a| checked(&a).and_then(|()| typed(n, a, &[T::String], T::Boolean)),
        |a, c| over(a, &c, |regex, a, _| Ok(Cell::Bool(regex.is_match(a[0].text())))),
    ),
    called(
        "regexp_extract",
        "regexp_extract(s, regex[, group]): of the first match; '' without one",
        (2, 3),
        |n, a| checked(&a).and_then(|()| typed(n, a, &[T::String, T::String, T::Int], T::String)),
        |a, c| {
            over(a, &c, |regex, a, _| {
                let group = group(regex, a.get(2))?;
                let found = regex.captures(a[0].text()).and_then(|found| found.get(group));
                Ok(Cell::Bytes(found.map_or(&[], |found| &a[0].bytes()[found.range()])))
            })
        },
    ),
    called(
        "regexp_extract_all",
        "regexp_extract_all(s, regex[, group]): of every match",
        (2, 3),
        |n, a| {
            checked(&a).and_then(|()| typed(n, a, &[T::String, T::String, T::Int], text_array()))
        },
        |a, c| {
            over(a, &c, |regex, a, arena| {
                let group = group(regex, a.get(2))?;
                let found = regex.captures_iter(a[0].text());
                let parts: Vec<&str> =
                    found.map(|found| found.get(group).map_or("", |m| m.as_str())).collect();
                Ok(texts(&parts, arena))
            })
        },
    ),
    called(
        "regexp_replace",
        "regexp_replace(s, regex, by[, from]): every match",
        (3, 4),
        |n, a| {
            let types = [T::String, T::String, T::String, T::Int];
            checked(&a).and_then(|()| typed(n, a, &types, T::String))
        },
        |a, c| {
            over(a, &c, |regex, a, arena| {
                let text = a[0].text();
                let skip = a.get(3).map_or(0, |from| from.long().max(1) as usize - 1);
                let begin = text.char_indices().nth(skip).map_or(text.len(), |(at, _)| at);
                let begin = if skip == 0 { 0 } else { begin };
                let by = java_replacement(a[2].text());
                let replaced = regex.replace_all(&text[begin..], by.as_str());
                Ok(super::made(arena, &format!("{}{replaced}", &text[..begin])))
            })
        },
    ),
    called(
        "regexp_count",
        "regexp_count(s, regex): matches",
        (2, 2),
        |n, a| checked(&a).and_then(|()| typed(n, a, &[T::String], T::Int)),
        |a, c| {
            over(a, &c, |regex, a, _| Ok(Cell::Long(regex.find_iter(a[0].text()).count() as i64)))
        },
    ),
    called(
        "regexp_substr",
        "regexp_substr(s, regex): the first match, or NULL",
        (2, 2),
        |n, a| checked(&a).and_then(|()| typed_or_null(n, a, &[T::String], T::String)),
        |a, c| {
            over(a, &c, |regex, a, _| {
                let found = regex.find(a[0].text());
                Ok(found.map_or(Cell::Null, |found| Cell::Bytes(&a[0].bytes()[found.range()])))
            })
        },
    ),
    called(
        "regexp_instr",
        "regexp_instr(s, regex): the place of the first match, from 1; 0 without one",
        (2, 3),
        |n, a| checked(&a).and_then(|()| typed(n, a, &[T::String, T::String, T::Int], T::Int)),
        |a, c| {
            over(a, &c, |regex, a, _| {
                let text = a[0].text();
                let found = regex.find(text);
                Ok(Cell::Long(found.map_or(0, |m| text[..m.start()].chars().count() as i64 + 1)))
            })
        },
    ),
    called(
        "str_to_map",
        "str_to_map(s[, entries, pairs]): split by two patterns, ',' and ':'",
        (1, 3),
        |n, a| {
            let to = T::Map(Box::new(T::String), Box::new(T::String));
            typed(n, a, &[T::String], to)
        },
        |args, call| {
            let regex =
                |at: usize, default: &str| Regex::new(call.text(at).unwrap_or(default)).ok();
            let (entries, pairs) = (regex(1, ","), regex(2, ":"));
            let Some(value) = args.into_iter().next() else { unreachable!("counted") };
            let value = value.bytes();
            from_cells(call.to.physical(), move |cx| {
                let (Some(bytes), Some(entries), Some(pairs)) = (value(cx)?, &entries, &pairs)
                else {
                    return Ok(Cell::Null);
                };
                let mut keys: Vec<&str> = Vec::new();
                let mut values: Vec<Option<&str>> = Vec::new();
                for entry in entries.split(text(bytes)) {
                    let mut parts = pairs.splitn(entry, 2);
                    let (key, value) = (parts.next().unwrap_or(""), parts.next());
                    if keys.contains(&key) {
                        return super::map::duplicate_key(key);
                    }
                    keys.push(key);
                    values.push(value);
                }
                let keys = texts(&keys, cx.arena);
                let mut out = BumpVec::new_in(cx.arena);
                let mut writer = RowWriter::array(&mut out, values.len());
                for (i, value) in values.iter().enumerate() {
                    if let Some(value) = value {
                        writer.bytes(i, value.as_bytes());
                    }
                }
                Ok(super::map::assembled(keys.bytes(), &out, cx.arena))
            })
        },
    ),
];

fn texts<'a>(parts: &[&str], arena: &'a Bump) -> Cell<'a> {
    let mut out = BumpVec::new_in(arena);
    let mut writer = RowWriter::array(&mut out, parts.len());
    for (i, part) in parts.iter().enumerate() {
        writer.bytes(i, part.as_bytes());
    }
    Cell::Bytes(out.into_bump_slice())
}

fn checked(args: &[Resolved]) -> PlanResult<()> {
    match args[1].literal_text().map(Regex::new) {
        Some(Err(error)) => {
            let last = error.to_string();
            Err(PlanError::new(
                "INVALID_PARAMETER_VALUE.PATTERN",
                format!("{}: {}", args[1], last.lines().last().unwrap_or("")),
                "Escape what is meant as a character; look-around and back-references are not supported",
            ))
        }
        _ => Ok(()),
    }
}

fn group(regex: &Regex, index: Option<&Cell<'_>>) -> Result<usize, Box<EvalError>> {
    let index = index.map_or(1, |index| index.long());
    match usize::try_from(index).ok().filter(|index| *index < regex.captures_len()) {
        Some(index) => Ok(index),
        None => failed(
            "INVALID_PARAMETER_VALUE.REGEX_GROUP_INDEX",
            format!("there is no group {index}, the pattern has {}", regex.captures_len() - 1),
            "Group 0 is the whole match",
        ),
    }
}

/// `$1` of Java as the crate has it, and `\$` as a plain dollar sign.
fn java_replacement(by: &str) -> String {
    let mut out = String::new();
    let mut chars = by.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('$') => out.push_str("$$"),
                Some(other) => out.push(other),
                None => {}
            },
            '$' => {
                let mut digits = String::new();
                while let Some(digit) = chars.peek().filter(|c| c.is_ascii_digit()) {
                    digits.push(*digit);
                    chars.next();
                }
                out.push_str(&if digits.is_empty() {
                    "$$".to_string()
                } else {
                    format!("${{{digits}}}")
                });
            }
            c => out.push(c),
        }
    }
    out
}

/// Evaluates with the pattern, which is prepared once where it is constant.
fn over(args: Vec<Compiled>, call: &Call, eval: Eval) -> Compiled {
    let fixed = call.text(1).and_then(|pattern| Regex::new(pattern).ok());
    let mut rest = args;
    let pattern: BytesFn = rest.remove(1).bytes();
    from_cells(call.to.physical(), move |cx| {
        let mut cells: smallvec::SmallVec<[Cell<'_>; 4]> = smallvec::SmallVec::new();
        for (i, arg) in rest.iter().enumerate() {
            let cell = arg.cell(cx)?;
            if cell.is_null() {
                return Ok(Cell::Null);
            }
            cells.push(cell);
            if i == 0 {
                // Where the pattern stands.
                cells.push(Cell::Null);
            }
        }
        if let Some(regex) = &fixed {
            return eval(regex, &cells, cx.arena);
        }
        let Some(pattern) = pattern(cx)? else { return Ok(Cell::Null) };
        match Regex::new(text(pattern)) {
            Ok(regex) => eval(&regex, &cells, cx.arena),
            Err(error) => failed("INVALID_PARAMETER_VALUE.PATTERN", error.to_string(), ""),
        }
    })
}
