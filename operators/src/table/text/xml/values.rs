//! Converts texts of XML to values of a type.

use crate::table::error::PlanResult;
use crate::table::expr::cell::Cell;
use crate::table::text::csv;
use crate::table::text::notation::{Notation, integer};
use crate::table::types::DataType;
use crate::table::value::BinaryStyle;
use bumpalo::Bump;

/// The error of a text that is not of the wanted type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Misfit;

/// The rules by which texts are converted to values.
#[derive(Clone, Debug)]
pub(super) struct Values {
    /// Dates and times have the rules of CSV.
    pub times: csv::Values,
    /// The style of BINARY values.
    pub binary: BinaryStyle,
    trims: bool,
    null: Option<String>,
}

impl Values {
    pub fn new(
        notation: Notation,
        prefers_date: bool,
        trims: bool,
        null: Option<String>,
    ) -> PlanResult<Self> {
        // With preferDate a date has exactly its pattern; else the rules of CAST apply.
        let fallback = prefers_date.then_some(false);
        let times = csv::Values::new(notation, fallback, String::new(), String::new())?;
        Ok(Self { times, binary: BinaryStyle::default(), trims, null })
    }

    /// A text without the white space around it, if the options say so.
    pub fn trimmed<'t>(&self, text: &'t str) -> &'t str {
        match self.trims {
            true => text.trim_matches(|c: char| c <= ' '),
            false => text,
        }
    }

    pub fn is_null(&self, text: &str) -> bool {
        self.null.as_deref() == Some(text)
    }

    /// Converts a text to a scalar value.
    pub fn convert<'a>(
        &self,
        text: &'a str,
        data_type: &DataType,
        arena: &'a Bump,
    ) -> Result<Cell<'a>, Misfit> {
        use DataType as T;
        let text = self.trimmed(text);
        if self.is_null(text) {
            return Ok(Cell::Null);
        }
        let value = match data_type {
            T::String | T::Null => Some(Cell::Bytes(text.as_bytes())),
            T::Binary => {
                let bytes = self.binary.parse(text);
                bytes.map(|bytes| Cell::Bytes(arena.alloc_slice_copy(&bytes)))
            }
            T::Boolean => boolean(text).map(Cell::Bool),
            T::Float | T::Double => self.double(text, data_type).map(Cell::Double),
            T::Decimal(..) => csv::decimal(text, data_type).map(Cell::Decimal),
            T::Int | T::Long => self.signed(text, data_type).map(Cell::Long),
            T::Byte | T::Short => {
                csv::long(text).and_then(|v| integer(v, data_type)).map(Cell::Long)
            }
            T::Date | T::Timestamp | T::TimestampNtz | T::Time(_) => {
                self.times.long(text, data_type).map(Cell::Long)
            }
            _ => None,
        };
        value.ok_or(Misfit)
    }

    /// An INT or BIGINT. As in Spark the sign is taken off first, so the smallest number does not
    /// fit, and `--1` is a number.
    fn signed(&self, text: &str, data_type: &DataType) -> Option<i64> {
        let (is_negative, digits) = sign(text);
        let value = match self.is_null(digits) {
            true => 0,
            false => integer(csv::long(digits)?, data_type)?,
        };
        Some(if is_negative { value.wrapping_neg() } else { value })
    }

    /// A FLOAT or DOUBLE. As in Spark the sign is taken off first, and what is not a number of Java
    /// may start with a number that has commas.
    fn double(&self, text: &str, data_type: &DataType) -> Option<f64> {
        let (is_negative, digits) = sign(text);
        let value = match self.is_null(digits) {
            true => 0.0,
            false => {
                csv::java_double(digits, data_type).or_else(|| leading_number(digits, data_type))?
            }
        };
        Some(if is_negative { -value } else { value })
    }
}

/// Whether a text starts with a minus, and the text behind its sign.
fn sign(text: &str) -> (bool, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// The number at the start of a text, as Java's `NumberFormat` of the US finds it: commas are
/// skipped, and what follows the number is ignored.
fn leading_number(text: &str, data_type: &DataType) -> Option<f64> {
    let mut number = String::new();
    let (mut has_point, mut has_digit) = (false, false);
    let mut rest = text.as_bytes();
    if let [b'-', behind @ ..] = rest {
        number.push('-');
        rest = behind;
    }
    while let [byte, behind @ ..] = rest {
        match byte {
            b'0'..=b'9' => {
                has_digit = true;
                number.push(char::from(*byte));
            }
            b'.' if !has_point => {
                has_point = true;
                number.push('.');
            }
            b',' if has_digit && !has_point => {}
            b'E' if has_digit => {
                let digits = behind.strip_prefix(b"-").unwrap_or(behind);
                let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
                if count > 0 {
                    number.push('E');
                    let exponent = &behind[..behind.len() - digits.len() + count];
                    number.extend(exponent.iter().map(|b| char::from(*b)));
                }
                break;
            }
            _ => break,
        }
        rest = behind;
    }
    has_digit.then(|| csv::java_double(&number, data_type)).flatten()
}
