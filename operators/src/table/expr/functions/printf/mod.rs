//! `format_string`: an implementation of Java's `Formatter` as Spark calls it.
//!
//! The whole pattern is parsed before any argument is formatted. So a malformed specifier is
//! reported even if the argument of an earlier specifier is missing. Widths count UTF-16 code
//! units, as in Java. Dates and timestamps are passed in Spark's internal form, as days and
//! microseconds.
//!
//! Limits: `%t` uses UTC and the proleptic Gregorian calendar. Java uses the host's time zone, and
//! the Julian calendar before 1582.

mod number;
mod time;

use super::java_hash;
use crate::table::datetime::Tz;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{EvalError, failed};
use crate::table::expr::functions::string_rare::bounded;
use crate::table::types::DataType;
use crate::table::value::write_scientific;

use DataType as T;

/// The maximum width and precision.
const WIDTH_MAX: usize = 1 << 16;

/// An argument with its Java type, on which the formatter's behaviour depends.
#[derive(Clone, Debug)]
enum Arg {
    Null,
    Bool(bool),
    /// An integer and its width in bits.
    Int(i64, u32),
    Double(f64, bool),
    Decimal(i128, u8),
    Text(String),
    /// A BINARY, array, map or struct, in SQL's text form. Java's own text is not reproducible.
    Opaque(String),
}

impl Arg {
    fn of(cell: Cell<'_>, data_type: &DataType, zone: Tz) -> Self {
        match (cell, data_type) {
            (Cell::Null, _) => Self::Null,
            (Cell::Bool(v), _) => Self::Bool(v),
            (Cell::Long(v), T::Byte) => Self::Int(v, 8),
            (Cell::Long(v), T::Short) => Self::Int(v, 16),
            (Cell::Long(v), T::Int | T::Date | T::YearMonthInterval(..)) => Self::Int(v, 32),
            (Cell::Long(v), _) => Self::Int(v, 64),
            (Cell::Double(v), t) => Self::Double(v, *t == T::Float),
            (Cell::Decimal(v), t) => Self::Decimal(v, t.as_decimal().map_or(0, |(_, s)| s)),
            (Cell::Bytes(_), T::String) => Self::Text(cell.text().to_string()),
            (cell, t) => Self::Opaque(cell.value(t).display(t, zone).unwrap_or_default()),
        }
    }

    /// The result of Java's `String.valueOf`.
    fn text(&self) -> String {
        match self {
            Self::Null => "null".to_string(),
            Self::Bool(v) => v.to_string(),
            Self::Int(v, _) => v.to_string(),
            Self::Double(v, single) => {
                let t = if *single { T::Float } else { T::Double };
                Cell::Double(*v).value(&t).display(&t, Tz::UTC).unwrap_or_default()
            }
            Self::Decimal(v, scale) => {
                let mut out = String::new();
                // Writing to a string does not fail.
                let _ = write_scientific(*v, *scale, &mut out);
                out
            }
            Self::Text(text) | Self::Opaque(text) => text.clone(),
        }
    }

    /// The result of Java's `hashCode`; `None` if it differs between processes or is not
    /// implemented.
    fn hash(&self) -> Option<u32> {
        Some(match self {
            Self::Bool(v) => java_hash::boolean(*v),
            Self::Int(v, 64) => java_hash::long(*v),
            Self::Int(v, _) => *v as u32,
            Self::Double(v, true) => java_hash::float(*v as f32),
            Self::Double(v, false) => java_hash::double(*v),
            Self::Text(text) => java_hash::bytes(text.as_bytes()),
            Self::Decimal(v, scale) => java_hash::decimal(*v, *scale),
            Self::Null | Self::Opaque(_) => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flags {
    left: bool,
    alternate: bool,
    plus: bool,
    space: bool,
    zero: bool,
    group: bool,
    parentheses: bool,
    upper: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Index {
    /// The argument after the one that the previous specifier with an implicit index used.
    Next,
    /// The argument of the previous specifier: `%<s`.
    Same,
    /// An explicit index, counted from 1.
    At(usize),
}

/// A format specifier: `%[index$][flags][width][.precision][t]conversion`.
#[derive(Clone, Debug)]
struct Specifier {
    index: Index,
    flags: Flags,
    width: Option<usize>,
    precision: Option<usize>,
    conversion: char,
    time: bool,
}

enum Part<'p> {
    Text(&'p str),
    Specifier(Specifier),
}

type Outcome<T> = Result<T, String>;

/// Splits off the leading digits of a text.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn number(digits: &str, what: &str) -> Outcome<usize> {
    digits
        .parse::<usize>()
        .ok()
        .filter(|n| *n <= i32::MAX as usize)
        .ok_or_else(|| format!("the {what} {digits} is too large"))
}

impl Specifier {
    /// Parses the specifier after a `%`. Returns the specifier and the rest of the text.
    fn read(text: &str) -> Outcome<(Self, &str)> {
        let unknown = || format!("%{} is not a conversion", text.chars().next().unwrap_or(' '));
        let mut index = Index::Next;
        let mut rest = text;
        if let (of_index @ [_, ..], after) = (digits(rest).0.as_bytes(), digits(rest).1)
            && let Some(after) = after.strip_prefix('$')
        {
            index = Index::At(number(&text[..of_index.len()], "index")?);
            rest = after;
        }
        let mut flags = Flags::default();
        while let Some(c) = rest.chars().next() {
            let flag = match c {
                '-' => &mut flags.left,
                '#' => &mut flags.alternate,
                '+' => &mut flags.plus,
                ' ' => &mut flags.space,
                '0' => &mut flags.zero,
                ',' => &mut flags.group,
                '(' => &mut flags.parentheses,
                '<' if index == Index::Same => return Err("the flag < occurs twice".to_string()),
                '<' => {
                    index = Index::Same;
                    rest = &rest[1..];
                    continue;
                }
                _ => break,
            };
            if std::mem::replace(flag, true) {
                return Err(format!("the flag '{c}' occurs twice"));
            }
            rest = &rest[1..];
        }
        let (of_width, after) = digits(rest);
        let mut width = None;
        if !of_width.is_empty() {
            width = Some(number(of_width, "width")?);
        }
        rest = after;
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let (of_precision, after) = digits(after);
            if of_precision.is_empty() {
                return Err(unknown());
            }
            precision = Some(number(of_precision, "precision")?);
            rest = after;
        }
        let mut time = false;
        if let Some(after) = rest.strip_prefix(['t', 'T'])
            && after.starts_with(|c: char| c.is_ascii_alphabetic() || c == '%')
        {
            flags.upper = rest.starts_with('T');
            time = true;
            rest = after;
        }
        let conversion = rest.chars().next().ok_or_else(unknown)?;
        if !conversion.is_ascii_alphabetic() && conversion != '%' {
            return Err(unknown());
        }
        rest = &rest[1..];
        let mut read = Self { index, flags, width, precision, conversion, time };
        if !time && "BSHXEGAC".contains(conversion) {
            read.flags.upper = true;
            read.conversion = conversion.to_ascii_lowercase();
        }
        read.check()?;
        Ok((read, rest))
    }

    fn refuse(&self, bad: bool, flag: char) -> Outcome<()> {
        if bad {
            return Err(format!("the flag '{flag}' is not allowed with %{}", self.conversion));
        }
        Ok(())
    }

    /// Rejects flags, a width or a precision that the conversion does not allow.
    fn check(&self) -> Outcome<()> {
        let (f, c) = (self.flags, self.conversion);
        if matches!(self.index, Index::At(0)) {
            return Err("the first argument is 1$, not 0$".to_string());
        }
        if self.width.is_some_and(|w| w > WIDTH_MAX)
            || self.precision.is_some_and(|p| p > WIDTH_MAX)
        {
            return Err("a width or precision is too large".to_string());
        }
        if self.time {
            self.check_no_precision()?;
            if !time::is_conversion(c) {
                return Err(format!("%t{c} is not a conversion"));
            }
            return self.check_text(f.alternate);
        }
        match c {
            'b' | 'h' | 's' => {
                self.refuse(f.alternate && c != 's', '#')?;
                self.check_width(f.left)?;
                self.check_no_number_flags()
            }
            'c' | '%' => {
                self.check_no_precision()?;
                self.check_text(f.alternate)
            }
            'd' | 'o' | 'x' => {
                self.check_number()?;
                self.check_no_precision()?;
                match c {
                    'd' => self.refuse(f.alternate, '#'),
                    _ => self.refuse(f.group, ','),
                }
            }
            'e' | 'f' | 'g' | 'a' => {
                self.check_number()?;
                match c {
                    'e' => self.refuse(f.group, ','),
                    'g' => self.refuse(f.alternate, '#'),
                    'a' => self.refuse(f.parentheses || f.group, '('),
                    _ => Ok(()),
                }
            }
            'n' => {
                self.check_no_precision()?;
                self.refuse(f.alternate, '#')?;
                self.check_no_number_flags()?;
                self.refuse(f.left, '-')?;
                match self.width {
                    Some(_) => Err("%n has no width".to_string()),
                    None => Ok(()),
                }
            }
            _ => Err(format!("%{c} is not a conversion")),
        }
    }

    fn check_no_precision(&self) -> Outcome<()> {
        match self.precision {
            Some(precision) => {
                Err(format!("%{} has no precision, but is given .{precision}", self.conversion))
            }
            None => Ok(()),
        }
    }

    /// Checks that a width is given if `needed`: a flag that aligns or pads the text needs a width.
    fn check_width(&self, needed: bool) -> Outcome<()> {
        match (needed, self.width) {
            (true, None) => Err(format!("a flag of %{} needs a width", self.conversion)),
            _ => Ok(()),
        }
    }

    /// Checks the flags of a conversion to text.
    fn check_text(&self, alternate: bool) -> Outcome<()> {
        self.refuse(alternate, '#')?;
        self.check_no_number_flags()?;
        self.check_width(self.flags.left)
    }

    fn check_no_number_flags(&self) -> Outcome<()> {
        let f = self.flags;
        self.refuse(f.plus, '+')?;
        self.refuse(f.space, ' ')?;
        self.refuse(f.zero, '0')?;
        self.refuse(f.group, ',')?;
        self.refuse(f.parentheses, '(')
    }

    /// Checks the flags of a conversion to a number.
    fn check_number(&self) -> Outcome<()> {
        let f = self.flags;
        self.check_width(f.left || f.zero)?;
        self.refuse(f.plus && f.space, ' ')?;
        self.refuse(f.left && f.zero, '0')
    }

    /// Formats an argument and appends it.
    fn write(&self, arg: &Arg, out: &mut String) -> Outcome<()> {
        let cannot = || Err(format!("%{} cannot take {}", self.conversion, arg.text()));
        if self.time {
            return match arg {
                Arg::Null => self.text("null", out),
                Arg::Int(millis, 64) => match time::text(*millis, self.conversion) {
                    Some(text) => self.text(&text, out),
                    None => cannot(),
                },
                _ => cannot(),
            };
        }
        match (self.conversion, arg) {
            ('n', _) => out.push('\n'),
            ('%', _) => self.text("%", out)?,
            ('b', Arg::Null) => self.text("false", out)?,
            ('b', Arg::Bool(v)) => self.text(if *v { "true" } else { "false" }, out)?,
            ('b', _) => self.text("true", out)?,
            ('s', arg) => {
                self.refuse(self.flags.alternate, '#')?;
                self.text(&arg.text(), out)?;
            }
            (_, Arg::Null) => self.text("null", out)?,
            ('h', arg) => match arg.hash() {
                Some(hash) => self.text(&format!("{hash:x}"), out)?,
                None => return cannot(),
            },
            ('c', Arg::Int(code, 8 | 16 | 32)) => {
                let Some(code) = u32::try_from(*code).ok().filter(|code| *code < 0x11_0000) else {
                    return Err(format!("there is no character {code}"));
                };
                // An unpaired surrogate is not a character; Java writes a question mark.
                let c = char::from_u32(code).unwrap_or('?');
                self.text(c.encode_utf8(&mut [0; 4]), out)?;
            }
            ('d' | 'o' | 'x', Arg::Int(value, bits)) => number::integer(self, *value, *bits, out)?,
            ('e' | 'f' | 'g' | 'a', Arg::Double(value, _)) => number::real(self, *value, out),
            _ => return cannot(),
        }
        Ok(())
    }

    /// Appends a text, truncated to the precision and padded to the width.
    fn text(&self, text: &str, out: &mut String) -> Outcome<()> {
        let cut;
        let mut text = text;
        if let Some(most) = self.precision
            && text.len() > most
        {
            // An unpaired surrogate becomes a question mark, as in Java's encoder.
            let units: Vec<u16> = text.encode_utf16().take(most).collect();
            cut = char::decode_utf16(units).map(|c| c.unwrap_or('?')).collect::<String>();
            text = &cut;
        }
        if self.flags.upper {
            self.fill(&text.to_uppercase(), out)
        } else {
            self.fill(text, out)
        }
        Ok(())
    }

    /// Appends a text, padded with spaces to the width.
    fn fill(&self, text: &str, out: &mut String) {
        let have = if text.is_ascii() { text.len() } else { text.encode_utf16().count() };
        let spaces = std::iter::repeat_n(' ', self.width.unwrap_or(0).saturating_sub(have));
        if self.flags.left {
            out.push_str(text);
            out.extend(spaces);
        } else {
            out.extend(spaces);
            out.push_str(text);
        }
    }
}

fn parts(pattern: &str) -> Outcome<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        parts.push(Part::Text(&rest[..at]));
        let (specifier, after) = Specifier::read(&rest[at + 1..])?;
        parts.push(Part::Specifier(specifier));
        rest = after;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

/// Formats arguments by a pattern. Fails if the pattern is malformed or does not fit the arguments.
pub fn format_string(
    pattern: &str,
    args: &[Cell<'_>],
    types: &[&DataType],
    zone: Tz,
) -> Result<String, Box<EvalError>> {
    let wrong = |what: String| {
        failed("INVALID_PARAMETER_VALUE.PATTERN", what, "Write %s, %d, %.2f, %x, %%")
    };
    let parts = match parts(pattern) {
        Ok(parts) => parts,
        Err(reason) => return wrong(reason),
    };
    let mut out = String::new();
    let (mut next, mut last) = (0, None);
    for part in &parts {
        let specifier = match part {
            Part::Text(text) => {
                out.push_str(text);
                continue;
            }
            Part::Specifier(specifier) => specifier,
        };
        let mut arg = Arg::Null;
        if specifier.time || !matches!(specifier.conversion, '%' | 'n') {
            let at = match specifier.index {
                Index::Next => {
                    next += 1;
                    Some(next - 1)
                }
                Index::Same => last,
                Index::At(index) => Some(index - 1),
            };
            let Some(at) = at.filter(|at| *at < args.len()) else {
                return wrong(format!("%{} has no argument", specifier.conversion));
            };
            last = Some(at);
            arg = Arg::of(args[at], types[at], zone);
        }
        if let Err(reason) = specifier.write(&arg, &mut out) {
            return wrong(reason);
        }
        bounded(out.len())?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(pattern: &str, arg: Cell<'_>, data_type: &DataType) -> Result<String, String> {
        let args = [arg, Cell::Bytes(b"b")];
        format_string(pattern, &args, &[data_type, &T::String], Tz::UTC).map_err(|e| e.reason)
    }

    #[test]
    fn whole_numbers_are_formatted_as_java_does() {
        let long = |pattern: &str, v| formatted(pattern, Cell::Long(v), &T::Long).unwrap();
        assert_eq!(long("%(,8d|%<-8d|%<08d", -1234), " (1,234)|-1234   |-0001234");
        assert_eq!(long("%+d|%<- 4d|%<,d", 5), "+5| 5  |5");
        assert_eq!(long("%#x %<X %<#o %<08x", 255), "0xff FF 0377 000000ff");
        assert_eq!(long("%x", -1), "ffffffffffffffff");
        let byte = formatted("%x %<h %<c", Cell::Long(65), &T::Byte).unwrap();
        assert_eq!(byte, "41 41 A");
    }

    #[test]
    fn real_numbers_are_formatted_as_java_does() {
        let double = |pattern: &str, v| formatted(pattern, Cell::Double(v), &T::Double).unwrap();
        assert_eq!(double("%.2f %<.0f %<10.1f|", 2.125), "2.13 2        2.1|");
        assert_eq!(double("%,.2f %<(.1f %<e", -12345.675), "-12,345.68 (12345.7) -1.234568e+04");
        assert_eq!(double("%.1f %<.0e", 9.96), "10.0 1e+01");
        assert_eq!(double("%g %<.2g %<.4g", 0.00012345), "0.000123450 0.00012 0.0001235");
        assert_eq!(double("%g", 1234567.891), "1.23457e+06");
        assert_eq!(double("%a %<.1a", 1234567.891), "0x1.2d687e4189375p20 0x1.3p20");
        assert_eq!(double("%5.1f|%<S", f64::NAN), "  NaN|NAN");
        assert_eq!(double("%(f|%<G", f64::NEG_INFINITY), "(Infinity)|-INFINITY");
        assert_eq!(double("%.3f %<.3e", 0.0005), "0.001 5.000e-04");
        assert_eq!(double("%.3f", 0.00049), "0.000");
    }

    #[test]
    fn texts_and_nulls() {
        let text = |pattern: &str| formatted(pattern, Cell::Bytes(b"abc"), &T::String).unwrap();
        assert_eq!(text("%5.2s|%<-5s|%<S %s%n"), "   ab|abc  |ABC b\n");
        assert_eq!(text("%2$s %1$s %<s %%"), "b abc abc %");
        assert_eq!(text("%h %<b"), "4ed2cbb4 true");
        let null = |pattern: &str| formatted(pattern, Cell::Null, &T::Int).unwrap();
        assert_eq!(null("%d %<.1f %<5s|%<b %<tY"), "null n  null|false null");
        let millis = Cell::Long(1_709_168_523_456);
        let time = formatted("%tF %<tT.%<tL %<tr %<tA", millis, &T::Long);
        assert_eq!(time.unwrap(), "2024-02-29 01:02:03.456 01:02:03 AM Thursday");
    }

    #[test]
    fn formats_that_java_refuses_are_errors() {
        for pattern in [
            "%", "%y", "%5", "%1$", "%0$d", "%++d", "%-d", "%05%", "%#d", "%,x", "%+ 5d", "%.2d",
            "%.1c", "%5n", "%-05d", "%+x", "%f", "%<d", "%3$d", "%tK", "%#s", "%t", "%d %",
        ] {
            assert!(formatted(pattern, Cell::Long(1), &T::Int).is_err(), "{pattern}");
        }
    }
}
