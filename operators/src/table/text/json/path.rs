//! JSON paths such as `$.a['b c'][0][*].d`, evaluated as in Spark's `get_json_object` (and Hive's).
//!
//! If an object repeats a field name, the path selects the first field that matches. A field whose
//! value is NULL never matches. `[*]` returns an array of its matches; at some places, as in
//! `$.a[*]`, a single match is returned by itself. `.*` never matches, as in Spark.

use crate::table::datetime::Tz;
use crate::table::text::json::token::{Features, InvalidJson, Token, Tokens};
use crate::table::text::json::write_text;
use crate::table::text::utf8;
use crate::table::types::DataType;
use crate::table::value::Value;

/// A step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Name(String),
    Index(usize),
    /// Every element of an array: `[*]`.
    Each,
    /// A step that never matches: `.*` or `['*']`.
    Nothing,
}

/// A parsed JSON path, which can be evaluated on any number of texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Vec<Step>);

/// How a matched value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Strings without quotes, other values as JSON.
    Raw,
    /// Every value as JSON.
    Quoted,
    /// Every value as JSON, but arrays without their brackets.
    Flat,
}

impl Path {
    /// Parses a path; `None` if it is malformed.
    pub fn parse(written: &str) -> Option<Self> {
        let mut rest = written.strip_prefix('$')?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let after = rest.strip_prefix(".*").or_else(|| rest.strip_prefix("['*']"));
            if let Some(after) = after {
                steps.push(Step::Nothing);
                rest = after;
            } else if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let (name, after) = after.split_at(end);
                if name.is_empty() {
                    return None;
                }
                steps.push(Step::Name(name.to_string()));
                rest = after;
            } else if let Some(quoted) = rest.strip_prefix("['") {
                let end = quoted.find('\'').filter(|end| *end > 0)?;
                steps.push(Step::Name(quoted[..end].to_string()));
                rest = quoted[end + 1..].strip_prefix(']')?;
            } else {
                let (inside, after) = rest.strip_prefix('[')?.split_once(']')?;
                steps.push(match inside {
                    "*" => Step::Each,
                    digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                        Step::Index(digits.parse().ok()?)
                    }
                    _ => return None,
                });
                rest = after;
            }
        }
        Some(Self(steps))
    }

    /// Returns the text at this path; `None` if nothing matches or the JSON is malformed.
    pub fn find(&self, json: &str) -> Option<String> {
        let mut tokens = Tokens::of_text(json, Features::PATHS);
        let first = tokens.next().ok()??;
        let mut out = Writer::bytes();
        let found = walk(&mut tokens, first, &mut out, Style::Raw, &self.0).ok()?;
        found.then_some(out.text)
    }
}

/// Writes JSON text, one value at a time.
#[derive(Debug, Default)]
struct Writer {
    text: String,
    /// Whether a comma must be written before the next value.
    follows: bool,
    /// Whether a character above U+FFFF is written as two `\u` escapes. Jackson does so for byte
    /// output but not for text output.
    pairs: bool,
}

impl Writer {
    /// Creates a writer with the escapes that Jackson uses for byte output.
    fn bytes() -> Self {
        Self { pairs: true, ..Self::default() }
    }

    fn raw(&mut self, text: &str) {
        if std::mem::replace(&mut self.follows, true) {
            self.text.push(',');
        }
        self.text.push_str(text);
    }

    fn open(&mut self, bracket: &str) {
        self.raw(bracket);
        self.follows = false;
    }

    fn close(&mut self, bracket: char) {
        self.text.push(bracket);
        self.follows = true;
    }

    /// Copies the value that starts with `token`.
    fn copy(&mut self, tokens: &mut Tokens<'_>, token: Token) -> Result<(), InvalidJson> {
        match token {
            Token::Object => {
                self.open("{");
                loop {
                    match tokens.next()?.ok_or(InvalidJson)? {
                        Token::ObjectEnd => break,
                        Token::Name => {
                            self.raw(&self.quoted(&name_of(tokens)));
                            self.text.push(':');
                            self.follows = false;
                        }
                        value => self.copy(tokens, value)?,
                    }
                }
                self.close('}');
            }
            Token::Array => {
                self.open("[");
                loop {
                    match tokens.next()?.ok_or(InvalidJson)? {
                        Token::ArrayEnd => break,
                        value => self.copy(tokens, value)?,
                    }
                }
                self.close(']');
            }
            other => self.raw(&self.scalar(tokens, other)?),
        }
        Ok(())
    }
}

impl Writer {
    fn quoted(&self, text: &str) -> String {
        let mut out = Vec::new();
        write_text(text, &mut out);
        let text = String::from_utf8(out).unwrap_or_default();
        if !self.pairs || text.chars().all(|c| c.len_utf16() == 1) {
            return text;
        }
        let mut out = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            match c.encode_utf16(&mut [0; 2]) {
                [_] => out.push(c),
                pair => out.extend(pair.iter().map(|unit| format!("\\u{unit:04X}"))),
            }
        }
        out
    }

    /// Writes a scalar as JSON. A number with a fraction or an exponent is normalised to the text
    /// of a DOUBLE.
    fn scalar(&self, tokens: &mut Tokens<'_>, token: Token) -> Result<String, InvalidJson> {
        let double =
            |v: f64| Value::Double(v).display(&DataType::Double, Tz::UTC).unwrap_or_default();
        Ok(match token {
            Token::Text => self.quoted(&tokens.text_str()?),
            Token::Whole => match tokens.digits() {
                "-0" => "0".to_string(),
                digits => match digits.strip_prefix('-') {
                    Some(digits) => format!("-{}", without_zeros(digits)),
                    None => without_zeros(digits).to_string(),
                },
            },
            Token::Real => match tokens.digits().parse::<f64>() {
                Ok(v) if v.is_finite() => double(v),
                Ok(v) => format!("\"{}\"", double(v)),
                Err(_) => tokens.digits().to_string(),
            },
            Token::NonNumber => format!("\"{}\"", double(tokens.non_number())),
            Token::True => "true".to_string(),
            Token::False => "false".to_string(),
            Token::Null => "null".to_string(),
            // A name or the end of an array or object cannot start a value.
            _ => return Err(InvalidJson),
        })
    }
}

/// The last field name that was read.
fn name_of(tokens: &Tokens<'_>) -> String {
    let name = tokens.name_here().map(|name| tokens.name_text(name)).unwrap_or_default();
    utf8::decode(&name).into_owned()
}

fn is_named(tokens: &Tokens<'_>, name: &str) -> bool {
    tokens.name_here().is_some_and(|here| *tokens.name_text(here) == *name.as_bytes())
}

fn without_zeros(digits: &str) -> &str {
    let kept = digits.trim_start_matches('0');
    if kept.is_empty() { "0" } else { kept }
}

/// Copies a value as JSON text. For SQL functions, this is the value of a STRING column for JSON
/// that is not a string.
pub fn copied(tokens: &mut Tokens<'_>, token: Token) -> Result<String, InvalidJson> {
    let mut out = Writer::bytes();
    out.copy(tokens, token)?;
    Ok(out.text)
}

/// Evaluates a path on the value that starts with `token`, and consumes the value. Returns whether
/// the path matched.
fn walk(
    tokens: &mut Tokens<'_>,
    token: Token,
    out: &mut Writer,
    style: Style,
    path: &[Step],
) -> Result<bool, InvalidJson> {
    match (token, path) {
        (Token::Text, []) if style == Style::Raw => out.raw(&tokens.text_str()?),
        (Token::Array, []) if style == Style::Flat => {
            return each(tokens, |tokens, element| walk(tokens, element, out, style, &[]));
        }
        (_, []) => out.copy(tokens, token)?,
        (Token::Object, [Step::Name(name), rest @ ..]) => {
            return field(tokens, name, |tokens, value| walk(tokens, value, out, style, rest));
        }
        // Two consecutive `[*]` flatten the array, as in Hive.
        (Token::Array, [Step::Each, Step::Each, rest @ ..]) => {
            out.open("[");
            let found =
                each(tokens, |tokens, element| walk(tokens, element, out, Style::Flat, rest))?;
            out.close(']');
            return Ok(found);
        }
        (Token::Array, [Step::Each, rest @ ..]) if style == Style::Quoted => {
            out.open("[");
            let found =
                each(tokens, |tokens, element| walk(tokens, element, out, Style::Quoted, rest))?;
            out.close(']');
            return Ok(found);
        }
        (Token::Array, [Step::Each, rest @ ..]) => {
            let style = if style == Style::Raw { Style::Quoted } else { style };
            let (mut all, mut count) = (Writer::default(), 0);
            each(tokens, |tokens, element| {
                let found = walk(tokens, element, &mut all, style, rest)?;
                count += usize::from(found);
                Ok(found)
            })?;
            match count {
                0 => return Ok(false),
                1 => out.raw(&all.text),
                _ => out.raw(&format!("[{}]", all.text)),
            }
        }
        (Token::Array, [Step::Index(index), rest @ ..]) => {
            let style = if rest.first() == Some(&Step::Each) { Style::Quoted } else { style };
            let mut at = 0;
            return each(tokens, |tokens, element| {
                at += 1;
                if at - 1 != *index {
                    return tokens.skip_children().map(|()| false);
                }
                walk(tokens, element, out, style, rest)
            });
        }
        _ => {
            tokens.skip_children()?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// Calls `visit` for each element of the current array. Returns whether any element matched.
fn each<'j>(
    tokens: &mut Tokens<'j>,
    mut visit: impl FnMut(&mut Tokens<'j>, Token) -> Result<bool, InvalidJson>,
) -> Result<bool, InvalidJson> {
    let mut found = false;
    loop {
        match tokens.next()?.ok_or(InvalidJson)? {
            Token::ArrayEnd => return Ok(found),
            element => found |= visit(tokens, element)?,
        }
    }
}

/// Calls `visit` for each field of this name in the current object, until `visit` returns true.
/// Fields whose value is NULL are skipped.
fn field<'j>(
    tokens: &mut Tokens<'j>,
    name: &str,
    mut visit: impl FnMut(&mut Tokens<'j>, Token) -> Result<bool, InvalidJson>,
) -> Result<bool, InvalidJson> {
    let mut found = false;
    loop {
        let is_it = match tokens.next()?.ok_or(InvalidJson)? {
            Token::Name => is_named(tokens, name),
            _ => return Ok(found),
        };
        let value = tokens.next()?.ok_or(InvalidJson)?;
        if found || !is_it || value == Token::Null {
            tokens.skip_children()?;
        } else {
            found = visit(tokens, value)?;
        }
    }
}

/// The value of a field as `json_tuple` returns it: strings without quotes, other values as JSON.
/// If the name is repeated, the last value that is not NULL counts. `None` if there is no such
/// value, or if the text is not a well-formed object.
pub fn last_field(json: &str, name: &str) -> Option<String> {
    let mut tokens = Tokens::of_text(json, Features::PATHS);
    if tokens.next().ok()?? != Token::Object {
        return None;
    }
    let mut found = None;
    while let Some(Token::Name) = tokens.next().ok()? {
        let is_it = is_named(&tokens, name);
        let value = tokens.next().ok()??;
        match value {
            _ if !is_it => tokens.skip_children().ok()?,
            Token::Null => {}
            Token::Text => found = Some(tokens.text_str().ok()?.into_owned()),
            value => found = Some(copied(&mut tokens, value).ok()?),
        }
    }
    found
}

/// The number of elements of a JSON array; `None` if the text does not start with a well-formed
/// array.
pub fn array_length(json: &str) -> Option<usize> {
    let mut tokens = Tokens::of_text(json, Features::PATHS);
    if tokens.next().ok()?? != Token::Array {
        return None;
    }
    let mut count = 0;
    let visit = |tokens: &mut Tokens<'_>, _: Token| {
        count += 1;
        tokens.skip_children().map(|()| true)
    };
    each(&mut tokens, visit).ok()?;
    Some(count)
}

/// The field names of a JSON object, in order, with repetitions; `None` if the text does not start
/// with a well-formed object.
pub fn object_keys(json: &str) -> Option<Vec<String>> {
    let mut tokens = Tokens::of_text(json, Features::PATHS);
    if tokens.next().ok()?? != Token::Object {
        return None;
    }
    let mut names = Vec::new();
    while let Some(Token::Name) = tokens.next().ok()? {
        names.push(name_of(&tokens));
        tokens.next().ok()??;
        tokens.skip_children().ok()?;
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_followed_as_spark_follows_them() {
        let find = |json: &str, path: &str| Path::parse(path).and_then(|path| path.find(json));
        let nested = r#"{"a":[1,2,{"b":[3,{"c":null}]}],"n":null,"e f":"g","d.x":1}"#;
        for (json, path, expected) in [
            (r#"{"a":1,"a":2}"#, "$.a", Some("1")),
            (r#"{"a":1} x"#, "$.a", Some("1")),
            (r#"{"a":1"#, "$.a", None),
            ("{'a':'b\"c'}", "$.a", Some("b\"c")),
            ("{'a':'b\"c'}", "$", Some(r#"{"a":"b\"c"}"#)),
            (r#"{"a":12345678901234567890123}"#, "$.a", Some("12345678901234567890123")),
            (r#"{"a":1.10,"b":-0}"#, "$", Some(r#"{"a":1.1,"b":0}"#)),
            (nested, "$.a[*]", Some(r#"[1,2,{"b":[3,{"c":null}]}]"#)),
            (nested, "$.a[*].b", Some(r#"[3,{"c":null}]"#)),
            (nested, "$.a[2].b[1]", Some(r#"{"c":null}"#)),
            (nested, "$.a[9]", None),
            (nested, "$.n", None),
            (nested, "$['e f']", Some("g")),
            (nested, "$['d.x']", Some("1")),
            (nested, "$.*", None),
            (nested, " $.a", None),
            (nested, "$.a.", None),
            (nested, "$.a[-1]", None),
            ("[[1,2],[3,[4]]]", "$[*][*]", Some("[1,2,3,4]")),
            ("null", "$", Some("null")),
            ("", "$", None),
        ] {
            assert_eq!(find(json, path).as_deref(), expected, "{path} of {json}");
        }
    }
}
