//! The functions `to_char` and `to_number`: format and parse numbers by a template such as
//! `S$9,999.99`.
//!
//! A template is `[MI or S] [$] digits [. digits] [MI, S or PR]`, where digits are runs of `0` and
//! `9` with commas between them. `D` may stand for the point and `G` for a comma. A run that starts
//! with `0` prints leading zeros. A run that starts with `9` prints spaces instead, except for a
//! zero directly before the point.

use super::registry::{Call, Function, Typed, called, constant_text, unexpected};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, EvalError, failed, from_cells, text_in};
use crate::table::text::number;
use crate::table::text::regexp::{CharSet, char_set};
use crate::table::types::DataType;
use crate::table::value::{Value, decimal_text};
use std::sync::LazyLock;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "to_char",
        "to_char(number, 'S$9,999.99'), (time, pattern) or (binary, 'hex', 'base64' or \
         'utf-8'): as text",
        (2, 2),
        resolve_to_char,
        to_char,
    )
    .usage("3.4.0", "to_char(1234.5, '$9,999.99')", "$1,234.50"),
    called(
        "to_number",
        "to_number(s, 'S$9,999.99'): the DECIMAL that is written so",
        (2, 2),
        resolve_to_number,
        to_number,
    )
    .usage("3.3.0", "to_number('$1,234.50', '$9,999.99')", "1234.50"),
];

/// Resolves `to_char` of a date, timestamp or BINARY; `None` for numbers, which need a template.
pub(super) fn of_other_types(args: &[Resolved]) -> Option<PlanResult<Resolved>> {
    let [value, format] = args else { return None };
    let (value, format) = (value.clone(), format.clone());
    match value.data_type {
        T::Date | T::Timestamp | T::TimestampNtz | T::Time(_) => {
            Some(super::resolve("date_format", vec![value, format]))
        }
        T::Binary => Some(of_binary(value, &format)),
        _ => None,
    }
}

fn of_binary(value: Resolved, format: &Resolved) -> PlanResult<Resolved> {
    let known = constant_text("to_char", format)?;
    match known.as_deref().map(str::to_ascii_lowercase).as_deref() {
        Some("hex") => super::resolve("hex", vec![value]),
        Some("base64") => super::resolve("base64", vec![value]),
        Some("utf-8") => {
            let charset = Resolved::literal(Value::String("UTF-8".to_string()), T::String);
            super::resolve("decode", vec![value, charset])
        }
        Some(other) => Err(PlanError::new(
            "INVALID_PARAMETER_VALUE.BINARY_FORMAT",
            format!("`to_char` has no format '{other}' of BINARY"),
            "'hex', 'base64' or 'utf-8'",
        )),
        None => Err(PlanError::new(
            "NON_FOLDABLE_ARGUMENT",
            "the format of `to_char` of a BINARY is NULL",
            "'hex', 'base64' or 'utf-8'",
        )),
    }
}

fn resolve_to_char(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let template = constant_text(name, &args[1])?;
    let number = args[0].clone();
    if !(number.data_type.is_numeric() || matches!(number.data_type, T::String | T::Null)) {
        return Err(unexpected(name, "a number", &number));
    }
    if let Some(template) = &template {
        Template::parse(template)?;
    }
    let decimal = match &number.data_type {
        T::Decimal(..) => number.data_type.clone(),
        T::Byte => T::Decimal(3, 0),
        T::Short => T::Decimal(5, 0),
        T::Int => T::Decimal(10, 0),
        T::Long => T::Decimal(20, 0),
        T::Float => T::Decimal(14, 7),
        T::Double => T::Decimal(30, 15),
        _ => T::Decimal(38, 18),
    };
    let number = number.coerce(&decimal);
    Ok(Typed::new(vec![number, literal(template)], T::String, true))
}

fn literal(template: Option<String>) -> Resolved {
    Resolved::literal(template.map_or(Value::Null, Value::String), T::String)
}

fn resolve_to_number(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let template = constant_text(name, &args[1])?;
    let mut args = super::registry::expect(name, args, &[T::String])?;
    let to = match &template {
        None => T::Decimal(10, 0),
        Some(template) => {
            let template = Template::parse(template)?;
            let (whole, fraction) = (template.places(), template.fraction);
            if whole + fraction > 38 {
                return Err(PlanError::new(
                    "DECIMAL_PRECISION_EXCEEDS_MAX_PRECISION",
                    format!("a template of {} digits, but a DECIMAL has 38", whole + fraction),
                    "",
                ));
            }
            T::Decimal((whole + fraction) as u8, fraction as u8)
        }
    };
    args[1] = literal(template);
    Ok(Typed::new(args, to, true))
}

fn template_of(call: &Call) -> Option<Template> {
    call.text(1).and_then(|template| Template::parse(template).ok())
}

fn to_char(args: Vec<Compiled>, call: Call) -> Compiled {
    let template = template_of(&call);
    let scale = call.data_type(0).as_decimal().map_or(0, |(_, scale)| scale);
    let [number, _] = super::registry::take(args);
    from_cells(call.to.physical(), move |cx| {
        let number = number.cell(cx)?;
        let Some(template) = template.as_ref().filter(|_| !number.is_null()) else {
            return Ok(Cell::Null);
        };
        let text = template.write(number.decimal(), scale);
        Ok(Cell::Bytes(cx.arena.alloc_slice_copy(text.as_bytes())))
    })
}

fn to_number(args: Vec<Compiled>, call: Call) -> Compiled {
    let template = template_of(&call);
    let [text, _] = super::registry::take(args);
    from_cells(call.to.physical(), move |cx| {
        let text = text.cell(cx)?;
        let Some(template) = template.as_ref().filter(|_| !text.is_null()) else {
            return Ok(Cell::Null);
        };
        let text = text_in(text.bytes(), cx.arena);
        match template.read(text) {
            Some(number) => {
                let number = number::decimal(&number, &call.to)?;
                Ok(number.map_or(Cell::Null, Cell::Decimal))
            }
            None => mismatch(text, call.text(1).unwrap_or_default()),
        }
    })
}

#[cold]
fn mismatch<'a>(text: &str, template: &str) -> Result<Cell<'a>, Box<EvalError>> {
    failed(
        "INVALID_FORMAT.MISMATCH_INPUT",
        format!("'{text}' does not match the template '{template}'"),
        "Use try_to_number to get NULL instead",
    )
}

/// The sign symbol of a template.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sign {
    /// `S`: plus or minus.
    Always,
    /// `MI`: minus or a space.
    Minus,
}

/// A run of digit placeholders between two commas.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Group {
    places: usize,
    /// Whether the run starts with `0`, so that leading zeros are printed.
    is_full: bool,
}

/// A parsed template of `to_char` or `to_number`.
#[derive(Clone, Debug, Default, PartialEq)]
struct Template {
    opening: Option<Sign>,
    dollar: bool,
    groups: Vec<Group>,
    point: bool,
    /// The number of digits after the decimal point.
    fraction: usize,
    closing: Option<Sign>,
    /// `PR`: negative numbers in angle brackets.
    brackets: bool,
}

/// A token of a template.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    Digits(Group),
    Comma,
    Point,
    Dollar,
    Sign(Sign),
    Brackets,
    Unknown,
}

fn tokens(template: &str) -> Vec<Token> {
    let upper = template.to_uppercase();
    let mut rest = upper.as_str();
    let mut tokens = Vec::new();
    while let Some(c) = rest.chars().next() {
        let digits = rest.bytes().take_while(|b| matches!(b, b'0' | b'9')).count();
        let (token, length) = match c {
            '0' | '9' => (Token::Digits(Group { places: digits, is_full: c == '0' }), digits),
            ',' | 'G' => (Token::Comma, 1),
            '.' | 'D' => (Token::Point, 1),
            '$' => (Token::Dollar, 1),
            'S' => (Token::Sign(Sign::Always), 1),
            'M' if rest.starts_with("MI") => (Token::Sign(Sign::Minus), 2),
            'P' if rest.starts_with("PR") => (Token::Brackets, 2),
            other => (Token::Unknown, other.len_utf8()),
        };
        tokens.push(token);
        rest = &rest[length..];
    }
    tokens
}

impl Template {
    fn parse(text: &str) -> PlanResult<Self> {
        let tokens = tokens(text);
        let wrong = |kind: &str, reason: &str| {
            Err(PlanError::new(
                format!("INVALID_FORMAT.{kind}"),
                format!("the template '{text}' {reason}"),
                "Write it like S$9,999.99 or 000PR",
            ))
        };
        let is_digits = |token: &Token| matches!(token, Token::Digits(_));
        let at = |wanted: Token| tokens.iter().position(|token| *token == wanted);
        let count = |wanted: Token| tokens.iter().filter(|token| **token == wanted).count();
        if tokens.is_empty() {
            return wrong("EMPTY", "is empty");
        }
        let Some(first_digit) = tokens.iter().position(is_digits) else {
            return wrong("WRONG_NUM_DIGIT", "has no digit");
        };
        if at(Token::Dollar).is_some_and(|dollar| dollar > first_digit) {
            return wrong("CUR_MUST_BEFORE_DIGIT", "has a $ after a digit");
        }
        let point = at(Token::Point);
        if at(Token::Dollar).zip(point).is_some_and(|(dollar, point)| dollar > point) {
            return wrong("CUR_MUST_BEFORE_DEC", "has a $ after the point");
        }
        let last_comma = tokens.iter().rposition(|token| *token == Token::Comma);
        if last_comma.zip(point).is_some_and(|(comma, point)| comma > point) {
            return wrong("THOUSANDS_SEPS_MUST_BEFORE_DEC", "has a comma after the point");
        }
        for (index, token) in tokens.iter().enumerate() {
            let before = index.checked_sub(1).and_then(|before| tokens.get(before));
            let beside = [before, tokens.get(index + 1)];
            if *token == Token::Comma && !beside.iter().all(|t| t.is_some_and(is_digits)) {
                return wrong("CONT_THOUSANDS_SEPS", "has a comma that is not between digits");
            }
        }
        let signs = [Token::Sign(Sign::Always), Token::Sign(Sign::Minus)];
        let twice = [Token::Point, Token::Dollar, Token::Brackets].into_iter().chain(signs);
        if twice.into_iter().any(|token| count(token) > 1) {
            return wrong("WRONG_NUM_TOKEN", "has a sign or a point twice");
        }
        let Some(template) = Self::in_order(&tokens) else {
            return wrong(
                "UNEXPECTED_TOKEN",
                "has a character at a position where it is not allowed",
            );
        };
        Ok(template)
    }

    fn in_order(tokens: &[Token]) -> Option<Self> {
        let mut template = Self::default();
        let mut rest = tokens.iter().copied().peekable();
        let sign = |rest: &mut std::iter::Peekable<_>| {
            rest.next_if(|token| matches!(token, Token::Sign(_))).map(|token| match token {
                Token::Sign(sign) => sign,
                _ => Sign::Always,
            })
        };
        template.opening = sign(&mut rest);
        template.dollar = rest.next_if_eq(&Token::Dollar).is_some();
        while let Some(token) = rest.next_if(|t| matches!(t, Token::Digits(_) | Token::Comma)) {
            if let Token::Digits(group) = token {
                template.groups.push(group);
            }
        }
        template.point = rest.next_if_eq(&Token::Point).is_some();
        if template.point
            && let Some(Token::Digits(group)) = rest.next_if(|t| matches!(t, Token::Digits(_)))
        {
            template.fraction = group.places;
        }
        template.closing = sign(&mut rest);
        if template.closing.is_none() {
            template.brackets = rest.next_if_eq(&Token::Brackets).is_some();
        }
        rest.next().is_none().then_some(template)
    }

    /// The number of digits before the decimal point.
    fn places(&self) -> usize {
        self.groups.iter().map(|group| group.places).sum()
    }

    /// Formats a number. If it has more digits than the template, each digit is printed as `#`.
    fn write(&self, unscaled: i128, scale: u8) -> String {
        let negative = unscaled < 0;
        let text = decimal_text(unscaled, scale);
        let text = text.trim_start_matches('-');
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        let overflows = whole.len() > self.places() || fraction.len() > self.fraction;
        let mut out = String::new();
        if self.brackets && negative {
            out.push('<');
        }
        match (self.opening, negative) {
            (Some(_), true) => out.push('-'),
            (Some(Sign::Always), false) => out.push('+'),
            (Some(Sign::Minus), false) => out.push(' '),
            (None, _) => {}
        }
        if self.dollar {
            out.push('$');
        }
        let mut leading = self.places().saturating_sub(whole.len());
        let mut digits = whole.chars();
        for (index, group) in self.groups.iter().enumerate() {
            if index > 0 {
                match out.ends_with(|c: char| c.is_ascii_digit()) {
                    true => out.push(','),
                    false => push_space(&mut out),
                }
            }
            for _ in 0..group.places {
                match () {
                    () if overflows => out.push('#'),
                    () if leading == 0 => out.extend(digits.next()),
                    () if group.is_full => out.push('0'),
                    () => push_space(&mut out),
                }
                leading = leading.saturating_sub(1);
            }
        }
        if self.point {
            if out.ends_with(' ') {
                out.pop();
                out.push('0');
            }
            out.push(if self.fraction > 0 { '.' } else { ' ' });
            match overflows {
                true => out.extend(std::iter::repeat_n('#', self.fraction)),
                false => {
                    let zeros = std::iter::repeat('0');
                    out.extend(fraction.chars().chain(zeros).take(self.fraction));
                }
            }
        }
        match (self.closing, negative) {
            (Some(_), true) => push_before_spaces(&mut out, '-'),
            (Some(Sign::Always), false) => push_before_spaces(&mut out, '+'),
            (Some(Sign::Minus), false) => out.push(' '),
            (None, _) => {}
        }
        match (self.brackets, negative) {
            (true, true) => push_before_spaces(&mut out, '>'),
            (true, false) => out.push_str("  "),
            (false, _) => {}
        }
        out
    }

    /// Parses a number and returns it as plain decimal text. `None` if the text does not match the
    /// template.
    fn read(&self, text: &str) -> Option<String> {
        let mut rest = text;
        let mut negative = false;
        let in_brackets = self.brackets && skip(&mut rest, '<');
        negative |= in_brackets;
        negative |= read_sign(self.opening, &mut rest);
        if self.dollar && !skip(&mut rest, '$') {
            return None;
        }
        let whole =
            if self.groups.is_empty() { String::new() } else { self.read_whole(&mut rest)? };
        let mut fraction = String::new();
        if self.point && skip(&mut rest, '.') {
            fraction = digits(&mut rest, false).concat();
            if fraction.len() > self.fraction {
                return None;
            }
        }
        negative |= read_sign(self.closing, &mut rest);
        if in_brackets && !skip(&mut rest, '>') {
            return None;
        }
        if !rest.is_empty() || whole.is_empty() && fraction.is_empty() {
            return None;
        }
        Some(format!("{}{whole}.{fraction}", if negative { "-" } else { "" }))
    }

    /// Parses the digits before the decimal point. Counted from the right, their groups must match
    /// those of the template.
    fn read_whole(&self, rest: &mut &str) -> Option<String> {
        let groups = digits(rest, true);
        if groups.len() > self.groups.len() {
            return None;
        }
        let lacking = self.groups.len() - groups.len();
        let fits = |(index, group): (usize, &Group)| {
            let found = index.checked_sub(lacking).map_or(0, |index| groups[index].len());
            if group.is_full { found == group.places } else { found <= group.places }
        };
        self.groups.iter().enumerate().all(fits).then(|| groups.concat())
    }
}

/// Inserts a space before the number and its sign.
fn push_space(out: &mut String) {
    let at = out.trim_end_matches(['+', '-', '<']).len();
    out.insert(at, ' ');
}

/// Inserts a sign after the last digit, before trailing spaces.
fn push_before_spaces(out: &mut String, sign: char) {
    let at = out.trim_end_matches(' ').len();
    out.insert(at, sign);
}

fn skip(rest: &mut &str, c: char) -> bool {
    match rest.strip_prefix(c) {
        Some(behind) => {
            *rest = behind;
            true
        }
        None => false,
    }
}

/// Consumes an optional sign and returns whether it is a minus.
fn read_sign(sign: Option<Sign>, rest: &mut &str) -> bool {
    match sign {
        None => false,
        Some(Sign::Minus) => skip(rest, '-'),
        Some(Sign::Always) => {
            let negative = skip(rest, '-');
            let _ = !negative && skip(rest, '+');
            negative
        }
    }
}

/// Converts a decimal digit of any script to ASCII.
fn digit(c: char) -> Option<char> {
    static DIGITS: LazyLock<CharSet> = LazyLock::new(|| char_set(&["Nd"]));
    if c.is_ascii() {
        return c.is_ascii_digit().then_some(c);
    }
    let code = u32::from(c);
    // Each Unicode range of digits starts with a zero; some consist of several sets of ten digits.
    let range = DIGITS.ranges().iter().find(|(first, last)| (*first..=*last).contains(&code))?;
    char::from_digit((code - range.0) % 10, 10)
}

/// Consumes digits, white space before, between and after them and, if allowed, grouping commas.
/// Returns the digits of each group; one empty group if there are none.
fn digits(rest: &mut &str, commas: bool) -> Vec<String> {
    let mut groups = vec![String::new()];
    while let Some(c) = rest.chars().next() {
        match (c, groups.last_mut()) {
            (',', _) if commas => groups.push(String::new()),
            (c, _) if c.is_whitespace() => {}
            (c, Some(group)) => match digit(c) {
                Some(digit) => group.push(digit),
                None => break,
            },
            _ => break,
        }
        *rest = &rest[c.len_utf8()..];
    }
    groups
}
