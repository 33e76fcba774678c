//! Numbers and values as Java formats them: what `format_number` and `format_string` do.

use super::text::bounded;
use crate::table::datetime::Tz;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{EvalError, failed};
use crate::table::types::DataType;
use crate::table::value::decimal_text;

use DataType as T;

pub fn plain_double(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let text = format!("{value:?}");
    // Without an exponent, all its digits written out.
    if text.contains('e') { format!("{value}") } else { text }
}

/// Digits behind the point cut or filled, rounded half to even, as Java's DecimalFormat does.
pub fn fixed(text: &str, digits: usize) -> String {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    if !whole.bytes().all(|b| b.is_ascii_digit()) {
        return text.to_string();
    }
    let mut all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    let keep = whole.len() + digits;
    if all.len() > keep {
        let (first, beyond) = (all[keep], all[keep + 1..].iter().any(|b| *b != b'0'));
        let odd = keep > 0 && (all[keep - 1] - b'0') % 2 == 1;
        all.truncate(keep);
        if first > b'5' || first == b'5' && (beyond || odd) {
            let mut at = keep;
            loop {
                if at == 0 {
                    all.insert(0, b'1');
                    break;
                }
                at -= 1;
                if all[at] == b'9' {
                    all[at] = b'0';
                } else {
                    all[at] += 1;
                    break;
                }
            }
        }
    }
    let grown = all.len().saturating_sub(keep);
    let point = if all.len() >= keep { whole.len() + grown } else { whole.len() };
    let text: String = all.iter().map(|b| *b as char).collect();
    let (whole, fraction) = text.split_at(point.min(text.len()));
    let zero = all.iter().all(|b| *b == b'0');
    let sign = if zero { "" } else { sign };
    if digits == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{fraction:0<digits$}")
}

/// With a comma between groups of three digits.
pub fn grouped(text: &str) -> String {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (whole, fraction) = match rest.find('.') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let mut out = String::from(sign);
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out + fraction
}

/// Java's format: `%[index$][flags][width][.precision]conversion`.
pub fn format_string(
    pattern: &str,
    args: &[Cell<'_>],
    types: &[&DataType],
    zone: Tz,
) -> Result<String, Box<EvalError>> {
    let wrong = |what: String| {
        failed("INVALID_PARAMETER_VALUE.PATTERN", what, "Write %s, %d, %.2f, %x, %%")
    };
    let mut out = String::new();
    let mut next = 0;
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let digits_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let mut index = None;
        if rest[digits_end..].starts_with('$') {
            index = rest[..digits_end].parse::<usize>().ok();
            rest = &rest[digits_end + 1..];
        }
        let flags_end = rest.find(|c: char| !"-+ 0,(#".contains(c)).unwrap_or(rest.len());
        let (flags, after) = rest.split_at(flags_end);
        let width_end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let width = after[..width_end].parse::<usize>().unwrap_or(0);
        rest = &after[width_end..];
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            precision = after[..end].parse::<usize>().ok();
            rest = &after[end..];
        }
        let Some(conversion) = rest.chars().next() else {
            return wrong("the pattern ends behind %".to_string());
        };
        rest = &rest[conversion.len_utf8()..];
        if width > 1 << 16 || precision.is_some_and(|p| p > 1 << 10) {
            return wrong("a width or precision is too large".to_string());
        }
        let body = match conversion {
            '%' => "%".to_string(),
            'n' => "\n".to_string(),
            _ => {
                let which = index.map_or(next, |index| index.saturating_sub(1));
                if index.is_none() {
                    next += 1;
                }
                let Some(arg) = args.get(which) else {
                    return wrong(format!("%{conversion} has no argument"));
                };
                match converted(conversion, flags, precision, *arg, types[which], zone) {
                    Some(text) => text,
                    None => {
                        return wrong(format!("%{conversion} cannot take {}", types[which]));
                    }
                }
            }
        };
        let length = body.chars().count();
        if length >= width {
            out.push_str(&body);
        } else if flags.contains('-') {
            out.push_str(&body);
            out.extend(std::iter::repeat_n(' ', width - length));
        } else if flags.contains('0') && matches!(conversion, 'd' | 'f' | 'e' | 'x' | 'X' | 'o') {
            let (sign, digits) = match body.strip_prefix(['-', '+']) {
                Some(digits) => (&body[..1], digits),
                None => ("", body.as_str()),
            };
            out.push_str(sign);
            out.extend(std::iter::repeat_n('0', width - length));
            out.push_str(digits);
        } else {
            out.extend(std::iter::repeat_n(' ', width - length));
            out.push_str(&body);
        }
        bounded(out.len())?;
    }
    out.push_str(rest);
    Ok(out)
}

fn converted(
    conversion: char,
    flags: &str,
    precision: Option<usize>,
    arg: Cell<'_>,
    data_type: &DataType,
    zone: Tz,
) -> Option<String> {
    let shown = || match arg {
        Cell::Null => "null".to_string(),
        other => {
            other.value(data_type).display(data_type, zone).unwrap_or_else(|| "null".to_string())
        }
    };
    if arg.is_null() && !matches!(conversion, 'b' | 'B') {
        return Some("null".to_string());
    }
    let signed = |text: String, negative: bool| {
        let text = if flags.contains(',') { grouped(&text) } else { text };
        if !negative && flags.contains('+') {
            format!("+{text}")
        } else if !negative && flags.contains(' ') {
            format!(" {text}")
        } else {
            text
        }
    };
    let real = |arg: Cell<'_>| match arg {
        Cell::Double(v) => Some(v),
        Cell::Decimal(v) => {
            let scale = data_type.as_decimal().map_or(0, |(_, s)| s);
            decimal_text(v, scale).parse().ok()
        }
        _ => None,
    };
    Some(match conversion {
        's' | 'S' => {
            let text = shown();
            let cut: String = match precision {
                Some(most) => text.chars().take(most).collect(),
                None => text,
            };
            if conversion == 'S' { cut.to_uppercase() } else { cut }
        }
        'd' => match arg {
            Cell::Long(v) if data_type.is_integral() => signed(v.to_string(), v < 0),
            _ => return None,
        },
        'x' | 'X' | 'o' => {
            let value = match arg {
                Cell::Long(v) if *data_type == T::Long => v as u64,
                Cell::Long(v) if data_type.is_integral() => u64::from(v as u32),
                _ => return None,
            };
            match conversion {
                'x' => format!("{value:x}"),
                'X' => format!("{value:X}"),
                _ => format!("{value:o}"),
            }
        }
        'f' => {
            let value = real(arg)?;
            let text = plain_half_up(value, precision.unwrap_or(6));
            signed(text, value < 0.0)
        }
        'e' | 'E' => {
            let value = real(arg)?;
            let text = format!("{value:.*e}", precision.unwrap_or(6));
            let (mantissa, exponent) = text.split_once('e')?;
            let exponent: i32 = exponent.parse().ok()?;
            let sign = if exponent < 0 { '-' } else { '+' };
            let text = format!("{mantissa}e{sign}{:02}", exponent.abs());
            signed(if conversion == 'E' { text.to_uppercase() } else { text }, value < 0.0)
        }
        'c' => match arg {
            Cell::Long(v) => char::from_u32(u32::try_from(v).ok()?)?.to_string(),
            Cell::Bytes(_) => arg.text().chars().next().map(String::from)?,
            _ => return None,
        },
        'b' | 'B' => match arg {
            Cell::Null => "false".to_string(),
            Cell::Bool(v) => v.to_string(),
            _ => "true".to_string(),
        },
        _ => return None,
    })
}

/// Rounded half up, as Java's formatter does.
pub fn plain_half_up(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        let text = if value.is_nan() { "NaN" } else { "Infinity" };
        return if value == f64::NEG_INFINITY { format!("-{text}") } else { text.to_string() };
    }
    let exact = plain_double(value);
    let behind = exact.split_once('.').map_or("", |(_, fraction)| fraction);
    // A five that is cut off goes up.
    let half = behind.len() > digits
        && behind.as_bytes()[digits] == b'5'
        && behind[digits + 1..].bytes().all(|b| b == b'0');
    if !half {
        return format!("{value:.digits$}");
    }
    let nudged = format!("{}1", exact);
    fixed(&nudged, digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_java_formats_them() {
        assert_eq!(grouped(&fixed("1234567.891", 2)), "1,234,567.89");
        assert_eq!(fixed("0.125", 2), "0.12");
        assert_eq!(fixed("0.375", 2), "0.38");
        assert_eq!(fixed("9.99", 1), "10.0");
        assert_eq!(fixed("-0.001", 2), "0.00");
        assert_eq!(plain_half_up(0.125, 2), "0.13");
        assert_eq!(plain_half_up(2.5, 0), "3");
    }
}
