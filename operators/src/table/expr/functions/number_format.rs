//! `format_number`: formats numbers by a pattern such as `#,##0.00`, like Java's `DecimalFormat`
//! for US English.
//!
//! A pattern consists of a prefix, digits and a suffix. After a `;` it may have another prefix and
//! suffix for negative numbers. Numbers are rounded half to even by their exact value. With an
//! exponent, an exact half of a whole double is rounded up.

use crate::table::expr::cell::Cell;
use crate::table::value::decimal_text;

/// The maximum number of digits that Java prints for a double or an integer.
const MAX_DIGITS: usize = 340;

/// A parsed pattern of `format_number`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pattern {
    positive: (String, String),
    negative: (String, String),
    /// The number of digits between grouping commas; 0 for no grouping.
    grouping: usize,
    multiplier: u16,
    least_whole: usize,
    most_whole: usize,
    least_fraction: usize,
    most_fraction: usize,
    /// The minimum number of exponent digits; `None` if there is no exponent.
    exponent: Option<usize>,
    point_always: bool,
}

/// A section of a pattern under construction.
#[derive(Default)]
struct Section {
    prefix: String,
    suffix: String,
    left: usize,
    zeros: usize,
    right: usize,
    grouping: Option<usize>,
    point: Option<usize>,
    multiplier: u16,
    exponent: Option<usize>,
}

impl Pattern {
    /// The pattern `#,##0.00…`, with `digits` digits after the decimal point.
    pub fn of_digits(digits: usize) -> Self {
        let digits = digits.min(1 << 16);
        Self {
            negative: ("-".to_string(), String::new()),
            grouping: 3,
            multiplier: 1,
            least_whole: 1,
            most_whole: usize::MAX,
            least_fraction: digits,
            most_fraction: digits,
            ..Self::default()
        }
    }

    /// Parses a pattern. The error describes what is malformed.
    pub fn new(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() {
            return Ok(Self::of_digits(0));
        }
        let chars: Vec<char> = pattern.chars().collect();
        let mut rest = chars.as_slice();
        let positive = Section::read(&mut rest, false)?;
        let mut read = positive.finish()?;
        if !rest.is_empty() || pattern.ends_with(';') {
            let negative = Section::read(&mut rest, true)?;
            read.negative = (negative.prefix, negative.suffix);
        }
        if read.negative == read.positive {
            read.negative = (format!("-{}", read.positive.0), read.positive.1.clone());
        }
        Ok(read)
    }
}

impl Section {
    /// Parses a section, up to a `;` or the end. In the section for negative numbers, only prefix
    /// and suffix count.
    fn read(rest: &mut &[char], negative: bool) -> Result<Self, String> {
        let mut section = Self { multiplier: 1, ..Self::default() };
        let (mut quoted, mut digits_seen, mut at) = (false, false, 0);
        let chars = *rest;
        while let Some(&c) = chars.get(at) {
            at += 1;
            let doubled = c == '\'' && chars.get(at) == Some(&'\'');
            let affix = if digits_seen { &mut section.suffix } else { &mut section.prefix };
            match c {
                '\'' if doubled => {
                    at += 1;
                    affix.push('\'');
                }
                '\'' => quoted = !quoted,
                _ if quoted => affix.push(c),
                '#' | '0' | ',' | '.' => {
                    if digits_seen {
                        return Err(format!("an unquoted '{c}' follows the digits"));
                    }
                    digits_seen = true;
                    at = section.digits(chars, at - 1, negative)?;
                }
                ';' if digits_seen && !negative => {
                    *rest = &chars[at..];
                    return section.checked(quoted);
                }
                ';' => return Err("a ';' precedes the first digit".to_string()),
                '%' | '\u{2030}' => {
                    if section.multiplier != 1 {
                        return Err("there is more than one percent or per mille sign".to_string());
                    }
                    section.multiplier = if c == '%' { 100 } else { 1000 };
                    affix.push(c);
                }
                '\u{A4}' => affix.push('$'),
                c => affix.push(c),
            }
        }
        *rest = &[];
        section.checked(quoted)
    }

    fn checked(self, quoted: bool) -> Result<Self, String> {
        if quoted { Err("a quote is not closed".to_string()) } else { Ok(self) }
    }

    /// Parses the digit placeholders that start at `from` and returns the index after them. If
    /// `skip`, they are parsed but not stored.
    fn digits(&mut self, chars: &[char], from: usize, skip: bool) -> Result<usize, String> {
        let mut at = from;
        while let Some(&c) = chars.get(at) {
            match c {
                '#' | '0' | ',' | '.' | 'E' if skip => {}
                '#' | '0' => {
                    match c {
                        '0' if self.right > 0 => return Err("a 0 stands behind a #".to_string()),
                        '0' => self.zeros += 1,
                        _ if self.zeros > 0 => self.right += 1,
                        _ => self.left += 1,
                    }
                    if self.point.is_none() {
                        self.grouping = self.grouping.map(|digits| digits + 1);
                    }
                }
                ',' => self.grouping = Some(0),
                '.' if self.point.is_some() => {
                    return Err("there is more than one point".to_string());
                }
                '.' => self.point = Some(self.left + self.zeros + self.right),
                'E' => {
                    let zeros = chars[at + 1..].iter().take_while(|c| **c == '0').count();
                    if self.left + self.zeros < 1 || zeros < 1 {
                        return Err("an exponent has digits before it and zeros behind".to_string());
                    }
                    self.exponent = Some(zeros);
                    return Ok(at + 1 + zeros);
                }
                _ => break,
            }
            at += 1;
        }
        Ok(at)
    }

    fn finish(mut self) -> Result<Pattern, String> {
        if let (0, 1.., Some(point)) = (self.zeros, self.left, self.point) {
            // As in Java, `##.###` is treated as `#0.###`, and `.###` as `.0##`.
            let before = point.max(1);
            self.right = self.left - before;
            self.left = before - 1;
            self.zeros = 1;
        }
        let total = self.left + self.zeros + self.right;
        let misplaced = match self.point {
            Some(point) => point < self.left || point > self.left + self.zeros,
            None => self.right > 0,
        };
        if misplaced || self.grouping == Some(0) {
            return Err("its digits are malformed".to_string());
        }
        let point = self.point.unwrap_or(total);
        let least_whole = point - self.left;
        let affixes = (self.prefix, self.suffix);
        Ok(Pattern {
            negative: affixes.clone(),
            positive: affixes,
            grouping: self.grouping.unwrap_or(0),
            multiplier: self.multiplier,
            least_whole,
            most_whole: match self.exponent {
                Some(_) => self.left + least_whole,
                None => usize::MAX,
            },
            least_fraction: self.point.map_or(0, |point| self.left + self.zeros - point),
            most_fraction: self.point.map_or(0, |point| total - point),
            exponent: self.exponent,
            point_always: self.point.is_some_and(|point| point == 0 || point == total),
        })
    }
}

/// The significant digits of a number, without leading or trailing zeros. The number is `0.d1d2d3…`
/// times `10^point`.
#[derive(Debug, PartialEq)]
struct Digits {
    digits: Vec<u8>,
    point: i64,
}

impl Digits {
    /// Parses plain decimal text such as `0012.340`.
    fn of(text: &str) -> Self {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        let mut made = Self { digits, point: whole.len() as i64 - zeros as i64 };
        made.trim();
        made
    }

    fn trim(&mut self) {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        if self.digits.is_empty() {
            self.point = 0;
        }
    }

    /// Rounds to `keep` digits, half up if `half_up`, otherwise half to even. With `keep` 0 or
    /// less, no digits or a single 1 remain.
    fn rounded(mut self, keep: i64, half_up: bool) -> Self {
        if keep >= self.digits.len() as i64 {
            return self;
        }
        if keep < 0 {
            return Self { digits: Vec::new(), point: 0 };
        }
        let keep = keep as usize;
        let (first, more) = (self.digits[keep], self.digits[keep + 1..].iter().any(|d| *d != 0));
        let odd = keep > 0 && self.digits[keep - 1] % 2 == 1;
        self.digits.truncate(keep);
        if first > 5 || first == 5 && (more || odd || half_up) {
            let mut carried = true;
            for digit in self.digits.iter_mut().rev() {
                if *digit < 9 {
                    *digit += 1;
                    carried = false;
                    break;
                }
                *digit = 0;
            }
            if carried {
                self.digits.insert(0, 1);
                self.point += 1;
            }
        }
        self.trim();
        self
    }
}

impl Pattern {
    /// Formats a number; `None` if the cell is not a number. `scale` applies to decimals.
    pub fn format(&self, number: Cell<'_>, scale: u8) -> Option<String> {
        let multiplier = i128::from(self.multiplier);
        let (negative, text, most) = match number {
            Cell::Long(v) => {
                (v < 0, (i128::from(v) * multiplier).unsigned_abs().to_string(), MAX_DIGITS)
            }
            Cell::Decimal(v) => {
                // The multiplier is applied to the text, because the product may not fit in 128
                // bits.
                let text = decimal_text(v, scale).replace('-', "");
                let text = match self.multiplier {
                    1 => text,
                    100 => shifted(&text, 2),
                    _ => shifted(&text, 3),
                };
                (v < 0, text, usize::MAX)
            }
            Cell::Double(v) if v.is_nan() => return Some("NaN".to_string()),
            Cell::Double(v) => {
                let v = v * f64::from(self.multiplier);
                if v.is_infinite() {
                    return Some(self.with_affixes(v < 0.0, "∞"));
                }
                // Rust prints the double with all the digits that the pattern shows, or exactly if
                // the pattern has an exponent, so that it is rounded only once.
                let digits = match self.exponent {
                    Some(_) => 1074,
                    None => self.most_fraction.min(MAX_DIGITS),
                };
                (v.is_sign_negative(), format!("{:.digits$}", v.abs()), MAX_DIGITS)
            }
            _ => return None,
        };
        let digits = Digits::of(&text);
        // With an exponent, Java rounds an exact half of a whole double up.
        let half_up = matches!(number, Cell::Double(v) if v.fract() == 0.0);
        let body = match self.exponent {
            Some(least) => self.scientific(digits, least, half_up),
            None => self.plain(digits, most),
        };
        Some(self.with_affixes(negative, &body))
    }

    fn with_affixes(&self, negative: bool, body: &str) -> String {
        let (prefix, suffix) = if negative { &self.negative } else { &self.positive };
        format!("{prefix}{body}{suffix}")
    }

    fn plain(&self, digits: Digits, most: usize) -> String {
        let (least_fraction, most_fraction) =
            (self.least_fraction.min(most), self.most_fraction.min(most));
        let keep = digits.point.saturating_add(most_fraction as i64);
        let digits = digits.rounded(keep, false);
        let digit = |at: i64| {
            let digit = usize::try_from(at).ok().and_then(|at| digits.digits.get(at));
            char::from(b'0' + digit.copied().unwrap_or(0))
        };
        let whole = digits.point.max(self.least_whole.min(MAX_DIGITS) as i64);
        let mut out = String::new();
        for left in (0..whole).rev() {
            out.push(digit(digits.point - 1 - left));
            if self.grouping > 0 && left > 0 && left % self.grouping as i64 == 0 {
                out.push(',');
            }
        }
        let behind = (digits.digits.len() as i64 - digits.point).max(least_fraction as i64);
        // A number without any digits is printed as 0.
        if out.is_empty() && behind <= 0 {
            out.push('0');
        }
        if behind > 0 || self.point_always {
            out.push('.');
        }
        out.extend((0..behind).map(|at| digit(digits.point + at)));
        out
    }

    fn scientific(&self, digits: Digits, least_exponent: usize, half_up: bool) -> String {
        let most = self.most_whole.saturating_add(self.most_fraction);
        let digits = digits.rounded(i64::try_from(most).unwrap_or(i64::MAX), half_up);
        let repeat = self.most_whole as i64;
        let (exponent, least_whole) = if repeat > 1 && self.most_whole > self.least_whole {
            let from = if digits.point >= 1 { digits.point - 1 } else { digits.point - repeat };
            (from / repeat * repeat, 1)
        } else {
            (digits.point - self.least_whole as i64, self.least_whole as i64)
        };
        let zero = digits.digits.is_empty();
        let exponent = if zero { 0 } else { exponent };
        let whole = if zero { least_whole } else { digits.point - exponent };
        let total = (self.least_whole + self.least_fraction).max(digits.digits.len());
        let total = (total as i64).max(whole);
        let mut out = String::new();
        for at in 0..total {
            if at == whole {
                out.push('.');
            }
            let digit = digits.digits.get(at as usize).copied().unwrap_or(0);
            out.push(char::from(b'0' + digit));
        }
        if self.point_always && total == whole {
            out.push('.');
        }
        let sign = if exponent < 0 { "-" } else { "" };
        format!("{out}E{sign}{:0least_exponent$}", exponent.abs())
    }
}

/// Moves the decimal point of a plain decimal `places` digits to the right.
fn shifted(text: &str, places: usize) -> String {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = format!("{fraction:0<places$}");
    let (more, rest) = fraction.split_at(places);
    format!("{whole}{more}.{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected results are those of Java's `DecimalFormat`.
    #[test]
    fn patterns_format_as_in_java() {
        let double = |v: f64, pattern: &str| {
            Pattern::new(pattern).unwrap().format(Cell::Double(v), 0).unwrap()
        };
        for (value, pattern, text) in [
            (0.0, "#,###.00", ".00"),
            (0.0, "#", "0"),
            (0.0, "#.##%", "0%"),
            (-0.4, "0000", "-0000"),
            (2.5, "0000", "0002"),
            (123_456.789, "#,###.00", "123,456.79"),
            (-1234.5, "#,##0.00;(#,##0.00)", "(1,234.50)"),
            (1234.567, "#,#.##", "1,2,3,4.57"),
            (0.1234, "00.0%", "12.3%"),
            (0.1234, "#.#\u{2030}", "123.4\u{2030}"),
            (1234.5, "0.##E0", "1.23E3"),
            (12_345.0, "##0.#E0", "12.35E3"),
            (0.00012, "0.0E00", "1.2E-04"),
            (5.0, "0 EUR", "5 EUR"),
            (-5.0, "-0", "--5"),
            (1234.0, "'#'#", "#1234"),
            (12.0, "x", "x12"),
            (f64::INFINITY, "$#", "$∞"),
            (f64::NAN, "$#", "NaN"),
            (1.015, "0.00", "1.01"),
        ] {
            assert_eq!(double(value, pattern), text, "{value} by {pattern}");
        }
        for bad in ["0.0.0", "0#", "#0#", "'0", "#,", "0E", ";0"] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_numbers_by_digits() {
        let long = |v, digits| Pattern::of_digits(digits).format(Cell::Long(v), 0).unwrap();
        assert_eq!(long(1_234_567, 0), "1,234,567");
        assert_eq!(long(-1, 2), "-1.00");
        let decimal =
            |v, scale, digits| Pattern::of_digits(digits).format(Cell::Decimal(v), scale).unwrap();
        assert_eq!(decimal(25, 1, 0), "2");
        assert_eq!(decimal(35, 1, 0), "4");
        assert_eq!(decimal(-1, 3, 2), "-0.00");
        assert_eq!(decimal(9_995, 3, 2), "10.00");
        let percent = Pattern::new("#.##%").unwrap();
        assert_eq!(percent.format(Cell::Long(i64::MAX), 0).unwrap(), "922337203685477580700%");
    }
}
