//! The CSV options shared by the file reader, the file writer and the CSV functions of SQL.

use crate::table::datetime::Tz;
use crate::table::datetime::pattern::Direction;
use crate::table::error::{PlanError, PlanResult};
use crate::table::text::csv::dialect::{Dialect, LineEnd, UnescapedQuote};
use crate::table::text::csv::values::Values;
use crate::table::text::notation::Notation;

/// A function that returns the value of a named option; `None` if the option is not set.
pub type Get<'g> = dyn FnMut(&'static str) -> Option<String> + 'g;

/// The options of a CSV reader.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// The characters of the CSV format: separator, quote, escape and others.
    pub dialect: Dialect,
    /// The rules by which fields are converted to values.
    pub values: Values,
    /// Whether the first record contains the column names.
    pub header: bool,
    /// Whether the column names of a header may differ from those of the schema.
    pub enforce_schema: bool,
    /// Whether records may span lines.
    pub multi_line: bool,
    /// The option `lineSep`; `None` if it is not set.
    pub line_end: Option<String>,
    /// Whether only the columns that the query needs are parsed (column pruning).
    pub prunes: bool,
    /// Whether column types are inferred from the data.
    pub infers: bool,
    /// Whether inference considers DATE.
    pub prefers_date: bool,
}

fn wrong(name: &str, value: &str, wanted: &str) -> PlanError {
    PlanError::new(
        "INVALID_OPTION_VALUE",
        format!("option '{name}' is '{value}', but must be {wanted}"),
        "",
    )
}

/// Reads an option that is `true` or `false`, in any case; `default` if it is not given. Any other
/// value is an error.
pub fn flag(get: &mut Get<'_>, name: &'static str, default: bool) -> PlanResult<bool> {
    match get(name) {
        None => Ok(default),
        Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
        Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
        Some(value) => Err(wrong(name, &value, "'true' or 'false'")),
    }
}

fn number(get: &mut Get<'_>, name: &'static str) -> PlanResult<Option<i64>> {
    let Some(value) = get(name) else { return Ok(None) };
    match value.parse::<i32>() {
        Ok(number) => Ok(Some(i64::from(number))),
        Err(_) => Err(wrong(name, &value, "a whole number")),
    }
}

/// Reads an option that is a single character; `default` if it is not given. The empty string gives
/// NUL, which disables the character. A longer value is an error.
pub fn character(get: &mut Get<'_>, name: &'static str, default: char) -> PlanResult<u32> {
    let Some(value) = get(name) else { return Ok(u32::from(default)) };
    let mut characters = value.chars();
    match (characters.next(), characters.next()) {
        (None, _) => Ok(0),
        (Some(one), None) => Ok(u32::from(one)),
        _ => Err(PlanError::new(
            "OPTION_VALUE_EXCEEDS_ONE_CHARACTER",
            format!("option '{name}' is '{value}', but must be one character"),
            "",
        )),
    }
}

/// Reads the option for the field separator. A backslash starts an escape such as `\t`.
pub fn separator(get: &mut Get<'_>) -> PlanResult<Vec<u32>> {
    let delimiter = get("delimiter");
    let text = get("sep").or(delimiter).unwrap_or_else(|| ",".to_string());
    let invalid = || {
        PlanError::new(
            "INVALID_DELIMITER_VALUE",
            format!("option 'sep' is '{text}', which is not a field separator"),
            "One or more characters; write a backslash as \\\\ and a tab as \\t",
        )
    };
    let (mut out, mut characters) = (Vec::new(), text.chars());
    if text == "\\u0000" {
        return Ok(vec![0]);
    }
    while let Some(c) = characters.next() {
        let c = match c {
            '\\' => match characters.next().ok_or_else(invalid)? {
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                'f' => '\u{c}',
                c @ ('"' | '\'' | '\\') => c,
                _ => return Err(invalid()),
            },
            c => c,
        };
        out.push(u32::from(c));
    }
    if out.is_empty() { Err(invalid()) } else { Ok(out) }
}

/// Reads the option `lineSep`: one or two characters.
pub fn line_end(get: &mut Get<'_>) -> PlanResult<Option<String>> {
    let Some(value) = get("lineSep") else { return Ok(None) };
    let text = value.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t");
    match text.chars().count() {
        1 | 2 => Ok(Some(text)),
        _ => Err(wrong("lineSep", &value, "one or two characters")),
    }
}

/// Reads the character that escapes the escape. The default is the escape itself, or no character
/// if quote and escape are the same character.
pub fn escape_of_escape(get: &mut Get<'_>, quote: u32, escape: u32) -> PlanResult<u32> {
    const NAME: &str = "charToEscapeQuoteEscaping";
    let own = if quote == escape { 0 } else { escape };
    let given = get(NAME).filter(|value| !value.is_empty());
    if given.is_some() { character(get, NAME, '\\') } else { Ok(own) }
}

/// Rejects every locale except `en-US`, because names and number formats of other locales are not
/// supported.
pub fn locale(get: &mut Get<'_>) -> PlanResult<()> {
    match get("locale") {
        Some(value) if !value.eq_ignore_ascii_case("en-US") => Err(PlanError::new(
            "UNSUPPORTED_FEATURE",
            format!("option 'locale' is '{value}', but numbers and dates are read as in en-US"),
            "Leave it out, read the column as STRING and convert it",
        )),
        _ => Ok(()),
    }
}

fn unescaped_quote(get: &mut Get<'_>) -> PlanResult<UnescapedQuote> {
    const NAME: &str = "unescapedQuoteHandling";
    let Some(value) = get(NAME) else { return Ok(UnescapedQuote::StopAtDelimiter) };
    Ok(match value.to_ascii_uppercase().as_str() {
        "STOP_AT_DELIMITER" => UnescapedQuote::StopAtDelimiter,
        "STOP_AT_CLOSING_QUOTE" => UnescapedQuote::StopAtClosingQuote,
        "BACK_TO_DELIMITER" => UnescapedQuote::BackToDelimiter,
        "SKIP_VALUE" => UnescapedQuote::SkipValue,
        "RAISE_ERROR" => UnescapedQuote::RaiseError,
        _ => {
            let all = "STOP_AT_DELIMITER, STOP_AT_CLOSING_QUOTE, BACK_TO_DELIMITER, SKIP_VALUE \
                       or RAISE_ERROR";
            return Err(wrong(NAME, &value, all));
        }
    })
}

fn notation(get: &mut Get<'_>, session_zone: Tz) -> PlanResult<Notation> {
    let mut notation = Notation::with_options(get, Direction::Read, session_zone)?;
    let words = [
        ("nanValue", &mut notation.nan),
        ("positiveInf", &mut notation.positive_infinity),
        ("negativeInf", &mut notation.negative_infinity),
    ];
    for (name, word) in words {
        if let Some(value) = get(name) {
            *word = value;
        }
    }
    Ok(notation)
}

impl ReadOptions {
    /// Whether a line is not a record, because it contains only white space or is a comment. Always
    /// false with `multiLine`.
    #[inline]
    pub fn is_skipped(&self, line: &[u8]) -> bool {
        if self.multi_line {
            // With `multiLine`, such lines are skipped before this check.
            return false;
        }
        let starts_with = |comment: u32| {
            let mut bytes = [0; 4];
            char::from_u32(comment)
                .is_some_and(|c| line.starts_with(c.encode_utf8(&mut bytes).as_bytes()))
        };
        line.iter().all(|b| *b <= b' ') || self.dialect.comment.is_some_and(starts_with)
    }

    /// Reads all options. If `timeZone` is not given, timestamps without a zone are in
    /// `session_zone`.
    pub fn read(get: &mut Get<'_>, session_zone: Tz) -> PlanResult<Self> {
        locale(get)?;
        let quote = character(get, "quote", '"')?;
        let escape = character(get, "escape", '\\')?;
        let comment = character(get, "comment", '\0')?;
        let multi_line = flag(get, "multiLine", false)?;
        let line_text = line_end(get)?;
        let ends = line_text.as_ref().map(|text| {
            let mut characters = text.chars().map(u32::from);
            LineEnd { first: characters.next().unwrap_or(0), second: characters.next() }
        });
        let columns_max = number(get, "maxColumns")?.unwrap_or(20480);
        let chars_max = number(get, "maxCharsPerColumn")?.unwrap_or(-1);
        if columns_max < 1 {
            return Err(wrong("maxColumns", &columns_max.to_string(), "at least 1"));
        }
        let dialect = Dialect {
            separator: separator(get)?,
            quote,
            escape,
            escape_of_escape: escape_of_escape(get, quote, escape)?,
            comment: (comment != 0).then_some(comment),
            trim_start: flag(get, "ignoreLeadingWhiteSpace", false)?,
            trim_end: flag(get, "ignoreTrailingWhiteSpace", false)?,
            unescaped_quote: unescaped_quote(get)?,
            line_end: if multi_line { ends } else { Some(ends.unwrap_or(LineEnd::LF)) },
            new_line: match ends {
                Some(LineEnd { first, second: None }) => first,
                _ => u32::from(b'\n'),
            },
            normalize_in_quotes: ends.is_none() || !multi_line,
            columns_max: columns_max as usize,
            chars_max: usize::try_from(chars_max).ok(),
        };
        // In Spark, this option sizes a buffer. It does not affect results, so it is only
        // validated.
        number(get, "inputBufferSize")?;
        let fallback = match get("enableDateTimeParsingFallback") {
            None => None,
            Some(_) => Some(flag(get, "enableDateTimeParsingFallback", true)?),
        };
        let values = Values::new(
            notation(get, session_zone)?,
            fallback,
            get("nullValue").unwrap_or_default(),
            get("emptyValue").unwrap_or_default(),
        )?;
        let ratio = get("samplingRatio").unwrap_or_else(|| "1".to_string());
        if !ratio.parse::<f64>().is_ok_and(|ratio| ratio > 0.0) {
            return Err(wrong("samplingRatio", &ratio, "a number above 0"));
        }
        Ok(Self {
            dialect,
            values,
            header: flag(get, "header", false)?,
            enforce_schema: flag(get, "enforceSchema", true)?,
            multi_line,
            line_end: line_text,
            prunes: flag(get, "columnPruning", true)? && !multi_line,
            infers: flag(get, "inferSchema", false)?,
            prefers_date: flag(get, "preferDate", true)?,
        })
    }
}
