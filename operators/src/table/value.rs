//! Owned values outside a row, for literals and printing, for example.

use super::datetime::time_of_day::write_time;
use super::datetime::{CalendarInterval, Tz, interval, write_date, write_timestamp};
use super::row::{Array, Map, Row, RowWriter};
use super::types::{DataType, Field};
use crate::table::text::java_double::{write_double, write_float};
use crate::table::text::json::write_variant;
use crate::table::text::utf8;
use crate::table::variant::Variant;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::fmt::{self, Write};

/// The text that `show` prints for NULL. A cast to STRING writes `null` for a NULL in a nested
/// value.
const SHOWN_NULL: &str = "NULL";

/// A value of any type. The schema has the exact type.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Value {
    /// NULL.
    Null,
    /// BOOLEAN.
    Boolean(bool),
    /// A value represented as an integer: integers, dates, timestamps and intervals.
    Long(i64),
    /// FLOAT and DOUBLE.
    Double(f64),
    /// The unscaled value of a DECIMAL.
    Decimal(i128),
    /// STRING.
    String(String),
    /// BINARY, and the encoded bytes of a VARIANT or an INTERVAL.
    Binary(Vec<u8>),
    /// ARRAY.
    Array(Vec<Value>),
    /// MAP: its entries.
    Map(Vec<(Value, Value)>),
    /// STRUCT, in the order of its fields.
    Struct(Vec<Value>),
}

impl Value {
    /// Decodes a value of a type that is stored in a row's tail.
    pub fn from_bytes(bytes: &[u8], data_type: &DataType) -> Self {
        match data_type {
            DataType::Binary | DataType::Variant | DataType::CalendarInterval => {
                Self::Binary(bytes.to_vec())
            }
            DataType::Array(element) => {
                let array = Array::new(bytes);
                let element = |i| array.row.value(i, array.len, element);
                Self::Array((0..array.len).map(element).collect())
            }
            DataType::Map(key, value) => {
                let map = Map::new(bytes);
                let entry = |i| {
                    (map.keys.row.value(i, map.len, key), map.values.row.value(i, map.len, value))
                };
                Self::Map((0..map.len).map(entry).collect())
            }
            DataType::Struct(fields) => {
                let field =
                    |(i, f): (usize, &Field)| Row(bytes).value(i, fields.len(), &f.data_type);
                Self::Struct(fields.iter().enumerate().map(field).collect())
            }
            _ => Self::String(utf8::decode(bytes).into_owned()),
        }
    }

    /// Appends the encoded bytes of an array, map or struct. For any other value, appends nothing.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (mut writer, values) = match self {
            Self::Array(values) => (RowWriter::array(out, values.len()), values),
            Self::Struct(values) => (RowWriter::new(out, values.len()), values),
            Self::Map(entries) => {
                let (keys, values) = entries.iter().cloned().unzip();
                let mut bytes = Vec::new();
                Self::Array(keys).write(&mut bytes);
                let mut of_values = Vec::new();
                Self::Array(values).write(&mut of_values);
                Map::write(&bytes, &of_values, out);
                return;
            }
            _ => return,
        };
        for (index, value) in values.iter().enumerate() {
            writer.value(index, value);
        }
    }

    /// Formats the value like a cast to STRING. Returns `None` for NULL.
    pub fn display(&self, data_type: &DataType, zone: Tz) -> Option<String> {
        if *self == Self::Null {
            return None;
        }
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write_text(data_type, zone, "null", &mut out);
        Some(out)
    }

    /// Formats the value like Spark's `show`. It differs from a cast in the text of NULL, also of a
    /// nested one, and of BINARY.
    pub fn show(&self, data_type: &DataType, zone: Tz) -> String {
        self.show_as(data_type, Display { zone, binary: BinaryStyle::default() })
    }

    /// Like [`show`](Self::show), with a style of BINARY.
    pub fn show_as(&self, data_type: &DataType, display: Display) -> String {
        let mut out = String::new();
        let Display { zone, binary } = display;
        let notation = Notation { zone, null: SHOWN_NULL, binary };
        let _ = self.write_as(data_type, &notation, &mut out);
        out
    }

    /// Writes the value like [`display`](Self::display), but a NULL, also a nested one, as the text
    /// `null`.
    pub fn write_text(
        &self,
        data_type: &DataType,
        zone: Tz,
        null: &str,
        out: &mut dyn Write,
    ) -> fmt::Result {
        let notation = Notation { zone, null, binary: BinaryStyle::Utf8 };
        self.write_as(data_type, &notation, out)
    }

    fn write_as(
        &self,
        data_type: &DataType,
        notation: &Notation<'_>,
        out: &mut dyn Write,
    ) -> fmt::Result {
        match (self, data_type) {
            (Self::Null, _) => out.write_str(notation.null),
            (Self::Boolean(v), _) => out.write_str(if *v { "true" } else { "false" }),
            (Self::Long(v), DataType::Date) => write_date(*v, out),
            (Self::Long(v), DataType::Timestamp) => write_timestamp(*v, notation.zone, out),
            (Self::Long(v), DataType::TimestampNtz) => write_timestamp(*v, Tz::UTC, out),
            (Self::Long(v), DataType::Time(_)) => write_time(*v, out),
            (Self::Long(v), t) if t.is_interval() => out.write_str(&interval::text(*v, t)),
            (Self::Long(v), _) => write!(out, "{v}"),
            (Self::Double(v), DataType::Float) => write_float(*v as f32, out),
            (Self::Double(v), _) => write_double(*v, out),
            (Self::Decimal(v), DataType::Decimal(_, scale)) => write_decimal(*v, *scale, out),
            (Self::Decimal(v), _) => write!(out, "{v}"),
            (Self::String(v), _) => out.write_str(v),
            (Self::Binary(v), DataType::Variant) => {
                let mut text = Vec::new();
                write_variant(Variant::new(v), notation.zone, &mut text);
                out.write_str(&utf8::decode(&text))
            }
            (Self::Binary(v), DataType::CalendarInterval) => {
                write!(out, "{}", CalendarInterval::from_bytes(v))
            }
            (Self::Binary(v), _) => notation.binary.write(v, out),
            (Self::Array(values), DataType::Array(element)) => {
                list("[]", values, out, ", ", |v, out| v.write_as(element, notation, out))
            }
            (Self::Struct(values), DataType::Struct(fields)) => {
                let all = values.iter().zip(fields);
                list("{}", all, out, ", ", |(v, f), out| v.write_as(&f.data_type, notation, out))
            }
            (Self::Map(entries), DataType::Map(key, value)) => {
                list("{}", entries, out, ", ", |(k, v), out| {
                    k.write_as(key, notation, out)?;
                    out.write_str(" -> ")?;
                    v.write_as(value, notation, out)
                })
            }
            (Self::Array(_) | Self::Map(_) | Self::Struct(_), _) => Ok(()),
        }
    }
}

/// How texts of values are written.
struct Notation<'n> {
    zone: Tz,
    /// The text of a NULL.
    null: &'n str,
    binary: BinaryStyle,
}

/// How `show` and the console sink format values. The default is UTC and hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub struct Display {
    /// The time zone of TIMESTAMP values.
    pub zone: Tz,
    /// The style of BINARY values.
    pub binary: BinaryStyle,
}

impl Default for Display {
    fn default() -> Self {
        Self { zone: Tz::UTC, binary: BinaryStyle::default() }
    }
}

/// Base64 as Java decodes it: padding may be missing, and the bits that are left are ignored.
const BASE64_OF_JAVA: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The style of BINARY values in tables, as `spark.sql.binaryOutputStyle` sets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BinaryStyle {
    /// The text that the bytes encode: `ab`.
    Utf8,
    /// Signed numbers: `[97, 98]`.
    Basic,
    /// Base64 without padding: `YWI`.
    Base64,
    /// Hexadecimal digits: `6162`.
    Hex,
    /// Hexadecimal digits of each byte: `[61 62]`.
    #[default]
    HexDiscrete,
}

impl BinaryStyle {
    /// Writes a BINARY value.
    pub(crate) fn write(self, bytes: &[u8], out: &mut dyn Write) -> fmt::Result {
        match self {
            Self::Utf8 => out.write_str(&utf8::decode(bytes)),
            Self::Basic => list("[]", bytes, out, ", ", |b, out| write!(out, "{}", *b as i8)),
            Self::Base64 => {
                out.write_str(&base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes))
            }
            Self::Hex => bytes.iter().try_for_each(|b| write!(out, "{b:02X}")),
            Self::HexDiscrete => list("[]", bytes, out, " ", |b, out| write!(out, "{b:02X}")),
        }
    }

    /// Parses a BINARY value in this style. `None` for a text that is not in it.
    pub(crate) fn parse(self, text: &str) -> Option<Vec<u8>> {
        let byte = |digits: &str| {
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            is_hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
        };
        match self {
            Self::Utf8 => Some(text.as_bytes().to_vec()),
            Self::Basic => {
                let numbers = text.strip_prefix('[')?.strip_suffix(']')?.split(',');
                numbers.map(|number| number.trim().parse::<i8>().ok().map(|b| b as u8)).collect()
            }
            Self::Base64 => BASE64_OF_JAVA.decode(text).ok(),
            Self::Hex => {
                let odd = text.len() % 2;
                let (first, pairs) = text.split_at_checked(odd)?;
                let first = (odd == 1).then_some(first);
                let pairs = (0..pairs.len() / 2).map(|at| pairs.get(2 * at..2 * at + 2));
                first.map(Some).into_iter().chain(pairs).map(|digits| byte(digits?)).collect()
            }
            Self::HexDiscrete => {
                let inner = text.strip_prefix('[').unwrap_or(text);
                let inner = inner.strip_suffix(']').unwrap_or(inner);
                if inner.is_empty() {
                    return Some(Vec::new());
                }
                let pairs = inner.split(' ');
                pairs.map(|digits| byte(Some(digits).filter(|pair| pair.len() == 2)?)).collect()
            }
        }
    }
}

fn list<T>(
    brackets: &str,
    items: impl IntoIterator<Item = T>,
    out: &mut dyn Write,
    between: &str,
    mut write: impl FnMut(T, &mut dyn Write) -> fmt::Result,
) -> fmt::Result {
    out.write_str(&brackets[..1])?;
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.write_str(between)?;
        }
        write(item, out)?;
    }
    out.write_str(&brackets[1..])
}

/// A short text, such as a number, in a buffer without heap memory.
pub(crate) struct InlineText {
    bytes: [u8; 64],
    length: usize,
}

impl InlineText {
    /// Formats a text. Fails if the text is too long for the buffer.
    pub fn format(text: fmt::Arguments<'_>) -> Result<Self, fmt::Error> {
        let mut short = Self { bytes: [0; 64], length: 0 };
        short.write_fmt(text)?;
        Ok(short)
    }

    /// The formatted text.
    pub fn text(&self) -> &str {
        // The buffer contains only complete texts, so the conversion cannot fail.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl Write for InlineText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let to = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(fmt::Error)?;
        to.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

/// Formats a decimal with as many digits after the point as its scale.
pub fn decimal_text(unscaled: i128, scale: u8) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_decimal(unscaled, scale, &mut out);
    out
}

/// The decimal digits of an unsigned number.
struct Unsigned {
    bytes: [u8; 39],
    begin: usize,
}

impl Unsigned {
    fn new(value: u128) -> Self {
        // The digits are computed in blocks of 19, because a 64-bit division is a single
        // instruction.
        const BLOCK: u128 = 10u128.pow(19);
        let mut digits = Self { bytes: [b'0'; 39], begin: 39 };
        let (mut above, mut block) = (value / BLOCK, (value % BLOCK) as u64);
        let mut end = digits.bytes.len();
        loop {
            while block > 0 || digits.begin == 39 {
                digits.begin -= 1;
                digits.bytes[digits.begin] = b'0' + (block % 10) as u8;
                block /= 10;
            }
            if above == 0 {
                return digits;
            }
            end -= 19;
            digits.begin = end;
            (block, above) = ((above % BLOCK) as u64, above / BLOCK);
        }
    }

    fn text(&self) -> &str {
        // The buffer contains only ASCII, so the conversion cannot fail.
        std::str::from_utf8(&self.bytes[self.begin..]).unwrap_or_default()
    }
}

/// Writes a decimal like Java's `BigDecimal.toString`: with an exponent if the power of ten of the
/// first digit is below -6.
pub fn write_scientific(unscaled: i128, scale: u8, out: &mut dyn Write) -> fmt::Result {
    let digits = Unsigned::new(unscaled.unsigned_abs());
    let exponent = digits.text().len() as i32 - 1 - i32::from(scale);
    if exponent >= -6 {
        return write_plain(unscaled < 0, digits.text(), scale, out);
    }
    let (first, rest) = digits.text().split_at(1);
    let sign = if unscaled < 0 { "-" } else { "" };
    let point = if rest.is_empty() { "" } else { "." };
    write!(out, "{sign}{first}{point}{rest}E{exponent}")
}

pub(crate) fn write_decimal(unscaled: i128, scale: u8, out: &mut dyn Write) -> fmt::Result {
    write_plain(unscaled < 0, Unsigned::new(unscaled.unsigned_abs()).text(), scale, out)
}

/// Writes digits with a decimal point before the last `scale` digits.
fn write_plain(negative: bool, digits: &str, scale: u8, out: &mut dyn Write) -> fmt::Result {
    let mut text = InlineText { bytes: [b'0'; 64], length: 0 };
    let whole = digits.len().saturating_sub(usize::from(scale));
    let (whole, fraction) = digits.split_at(whole);
    text.write_str(if negative { "-" } else { "" })?;
    text.write_str(if whole.is_empty() { "0" } else { whole })?;
    if scale > 0 {
        text.write_str(".")?;
        // The buffer is filled with '0', so growing the length appends zeros.
        text.length += usize::from(scale) - fraction.len();
        text.write_str(fraction)?;
    }
    out.write_str(text.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spark 4.3 has given these values, with `from_xml`.
    #[test]
    fn a_binary_value_is_parsed_in_each_style() {
        type Texts = &'static [(&'static str, Option<&'static [u8]>)];
        let cases: [(BinaryStyle, Texts); 5] = [
            (BinaryStyle::Utf8, &[("Ea", Some(b"Ea")), ("[]", Some(b"[]"))]),
            (
                BinaryStyle::Basic,
                &[
                    ("[69, 97]", Some(b"Ea")),
                    ("[ 69 ,97 ]", Some(b"Ea")),
                    ("[-1, 5]", Some(b"\xff\x05")),
                    ("[300]", None),
                    ("[]", None),
                    ("69", None),
                    ("[69 97]", None),
                ],
            ),
            (
                BinaryStyle::Base64,
                &[
                    ("RWE", Some(b"Ea")),
                    ("RWE=", Some(b"Ea")),
                    ("456", Some(b"\xe3\x9e")),
                    ("zz", Some(b"\xcf")),
                    ("R!WE", None),
                ],
            ),
            (
                BinaryStyle::Hex,
                &[
                    ("4561", Some(b"Ea")),
                    ("456", Some(b"\x04\x56")),
                    ("ea", Some(b"\xea")),
                    ("zz", None),
                    ("+4", None),
                    ("ü", None),
                ],
            ),
            (
                BinaryStyle::HexDiscrete,
                &[
                    ("[45 61]", Some(b"Ea")),
                    ("ea fF", Some(b"\xea\xff")),
                    ("[]", Some(b"")),
                    ("[4]", None),
                    ("4561", None),
                    ("[]x", None),
                    ("ü", None),
                ],
            ),
        ];
        for (style, texts) in cases {
            for (text, bytes) in texts {
                assert_eq!(style.parse(text).as_deref(), *bytes, "{style:?} {text}");
            }
        }
    }

    #[test]
    fn values_are_shown_as_in_spark() {
        let double = |v: f64| Value::Double(v).show(&DataType::Double, Tz::UTC);
        assert_eq!(decimal_text(-5, 2), "-0.05");
        for (unscaled, scale, text) in [
            (0, 0, "0"),
            (0, 3, "0.000"),
            (10i128.pow(19), 0, "10000000000000000000"),
            (10i128.pow(19) - 1, 19, "0.9999999999999999999"),
            (-(10i128.pow(20) + 7), 1, "-10000000000000000000.7"),
            (10i128.pow(38) - 1, 38, "0.99999999999999999999999999999999999999"),
            (i128::MAX, 0, "170141183460469231731687303715884105727"),
        ] {
            assert_eq!(decimal_text(unscaled, scale), text);
        }
        assert_eq!(decimal_text(i128::MIN, 38), "-1.70141183460469231731687303715884105728");
        assert_eq!(double(1.0), "1.0");
        assert_eq!(double(1e10), "1.0E10");
        assert_eq!(double(1.5e-5), "1.5E-5");
        assert_eq!(double(-0.0), "-0.0");
        assert_eq!(double(-f64::MIN_POSITIVE), "-2.2250738585072014E-308");
        assert_eq!(Value::Double(f64::from(0.1f32)).show(&DataType::Float, Tz::UTC), "0.1");
    }
}
