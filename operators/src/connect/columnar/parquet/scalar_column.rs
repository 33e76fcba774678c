//! Converts a stored scalar column to the requested type, a batch at a time. There is no copy if
//! the stored representation is the one of row slots.
//!
//! Spark's conversions are allowed, except two that silently change values: reading a DECIMAL's
//! unscaled digits as an integer, and truncating an integer that does not fit a narrower type.
//! Those are errors.

use crate::connect::columnar::column::Column;
use crate::connect::columnar::julian_calendar::days_of_hybrid;
use crate::connect::columnar::parquet::rebase::{
    Calendar, Calendars, SAME_FROM_DAYS, SAME_FROM_US, micros_of_old, refusal,
};
use crate::connect::columnar::parquet::schema::{Meaning, Scalar, Unit};
use crate::table::datetime::DAY_US;
use crate::table::types::DataType;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{ArrayRef, Decimal128Array, Int32Array, Int64Array};
use parquet::basic::Type as Physical;

/// Converts one batch of a column. The error describes the offending value.
pub type Convert = Box<dyn Fn(&ArrayRef) -> Result<Column, String> + Send>;

fn boxed(
    convert: impl Fn(&ArrayRef) -> Result<Column, String> + Send + 'static,
) -> Option<Convert> {
    Some(Box::new(convert))
}

/// The conversion from a stored scalar to a type. Returns `None` if there is none.
pub fn convert(scalar: Scalar, to: &DataType, calendars: &Calendars) -> Option<Convert> {
    if scalar.meaning == Meaning::Null {
        return (!to.is_nested()).then(|| boxed(|_| Ok(Column::Null)))?;
    }
    match scalar.physical {
        Physical::BOOLEAN => (*to == DataType::Boolean)
            .then(|| boxed(|array| Ok(Column::Bool(array.as_boolean().clone()))))?,
        Physical::INT32 => int32(scalar.meaning, to, calendars.datetime),
        Physical::INT64 => int64(scalar.meaning, to, calendars.datetime),
        // The decoder was configured to yield microseconds for INT96.
        Physical::INT96 => micros(Unit::Micros, to, calendars.int96, |array| {
            array.as_primitive::<TimestampMicrosecondType>().reinterpret_cast()
        }),
        Physical::FLOAT => match to {
            DataType::Float => {
                boxed(|array| Ok(Column::Float(array.as_primitive::<Float32Type>().clone())))
            }
            DataType::Double => boxed(|array| {
                let floats = array.as_primitive::<Float32Type>();
                Ok(Column::Double(floats.unary::<_, Float64Type>(f64::from)))
            }),
            _ => None,
        },
        Physical::DOUBLE => (*to == DataType::Double).then(|| {
            boxed(|array| Ok(Column::Double(array.as_primitive::<Float64Type>().clone())))
        })?,
        Physical::BYTE_ARRAY => bytes(scalar.meaning, to),
        Physical::FIXED_LEN_BYTE_ARRAY => fixed(scalar.meaning, to),
    }
}

fn ints(array: &ArrayRef) -> &Int32Array {
    array.as_primitive::<Int32Type>()
}

fn longs(array: &ArrayRef) -> &Int64Array {
    array.as_primitive::<Int64Type>()
}

fn int32(meaning: Meaning, to: &DataType, calendar: Calendar) -> Option<Convert> {
    match (meaning, to) {
        (Meaning::Decimal(p, s), DataType::Decimal(q, t)) => {
            let factor = factor((p, s), (*q, *t))?;
            boxed(move |array| scaled(ints(array).unary::<_, Decimal128Type>(i128::from), factor))
        }
        (Meaning::Decimal(..), _) => None,
        (Meaning::Date | Meaning::Plain | Meaning::Integer(_, true), DataType::Date) => {
            boxed(move |array| dates(ints(array), calendar).map(Column::Int))
        }
        (Meaning::Date, DataType::TimestampNtz) => boxed(|array| {
            let micros = |days: i32| i64::from(days).checked_mul(DAY_US).ok_or(());
            let micros = ints(array).try_unary::<_, Int64Type, _>(micros);
            micros
                .map(Column::Long)
                .map_err(|()| "a date is out of the range of TIMESTAMP".to_string())
        }),
        (Meaning::Plain | Meaning::Integer(_, true), DataType::YearMonthInterval(..)) => {
            boxed(|array| Ok(Column::Int(ints(array).clone())))
        }
        (Meaning::Integer(32, false), _) => {
            let wide = |array: &ArrayRef| -> Int64Array {
                ints(array).unary(|value| i64::from(value.cast_unsigned()))
            };
            match to {
                DataType::Long => boxed(move |array| Ok(Column::Long(wide(array)))),
                DataType::Double => boxed(move |array| {
                    Ok(Column::Double(wide(array).unary::<_, Float64Type>(|v| v as f64)))
                }),
                DataType::Decimal(q, t) => {
                    let factor = factor((10, 0), (*q, *t))?;
                    boxed(move |array| {
                        scaled(wide(array).unary::<_, Decimal128Type>(i128::from), factor)
                    })
                }
                _ => None,
            }
        }
        _ => narrow(meaning, to),
    }
}

/// Converts an INT32 that holds a signed integer of up to 32 bits or an unsigned one of up to 16.
fn narrow(meaning: Meaning, to: &DataType) -> Option<Convert> {
    // Well-behaved writers keep to the annotated width. Excess bits are cut off, so that rows can
    // rely on the width.
    let (low, high, cut): (i32, i32, fn(i32) -> i32) = match meaning {
        Meaning::Integer(8, true) => (i8::MIN.into(), i8::MAX.into(), |v| i32::from(v as i8)),
        Meaning::Integer(16, true) => (i16::MIN.into(), i16::MAX.into(), |v| i32::from(v as i16)),
        Meaning::Integer(8, false) => (0, u8::MAX.into(), |v| i32::from(v as u8)),
        Meaning::Integer(16, false) => (0, u16::MAX.into(), |v| i32::from(v as u16)),
        _ => (i32::MIN, i32::MAX, |v| v),
    };
    let whole = low == i32::MIN;
    let values = move |array: &ArrayRef| -> Int32Array {
        if whole { ints(array).clone() } else { ints(array).unary(cut) }
    };
    match to {
        DataType::Byte | DataType::Short | DataType::Int | DataType::Long => {
            let (least, most) = to.integral_range();
            let fits = i64::from(low) >= least && i64::from(high) <= most;
            let name = to.to_string();
            boxed(move |array| {
                let values = values(array);
                let is_beyond = |v: i32| i64::from(v) < least || i64::from(v) > most;
                match values.iter().flatten().find(|v| !fits && is_beyond(*v)) {
                    Some(value) => Err(format!("the value {value} is out of the range of {name}")),
                    None => Ok(Column::Int(values)),
                }
            })
        }
        DataType::Double => {
            boxed(move |array| Ok(Column::Double(values(array).unary::<_, Float64Type>(f64::from))))
        }
        DataType::Decimal(q, t) if !matches!(meaning, Meaning::Date | Meaning::Time(_)) => {
            let digits = if low >= -128 && high <= 255 {
                3
            } else if whole {
                10
            } else {
                5
            };
            let factor = factor((digits, 0), (*q, *t))?;
            boxed(move |array| scaled(values(array).unary::<_, Decimal128Type>(i128::from), factor))
        }
        _ => None,
    }
}

fn int64(meaning: Meaning, to: &DataType, calendar: Calendar) -> Option<Convert> {
    match (meaning, to) {
        (Meaning::Decimal(p, s), DataType::Decimal(q, t)) => {
            let factor = factor((p, s), (*q, *t))?;
            boxed(move |array| scaled(longs(array).unary::<_, Decimal128Type>(i128::from), factor))
        }
        (Meaning::Decimal(..), _) => None,
        (Meaning::Integer(64, false), DataType::Decimal(q, t)) => {
            let factor = factor((20, 0), (*q, *t))?;
            let unsigned = |value: i64| i128::from(value.cast_unsigned());
            boxed(move |array| scaled(longs(array).unary::<_, Decimal128Type>(unsigned), factor))
        }
        (Meaning::Integer(64, false), _) => None,
        (_, DataType::Long) => boxed(|array| Ok(Column::Long(longs(array).clone()))),
        (Meaning::Timestamp(unit, _), DataType::Timestamp | DataType::TimestampNtz) => {
            micros(unit, to, calendar, |array| longs(array).clone())
        }
        (Meaning::Plain | Meaning::Integer(..), DataType::Decimal(q, t)) => {
            let factor = factor((20, 0), (*q, *t))?;
            boxed(move |array| scaled(longs(array).unary::<_, Decimal128Type>(i128::from), factor))
        }
        (Meaning::Plain | Meaning::Integer(..), DataType::DayTimeInterval(..)) => {
            boxed(|array| Ok(Column::Long(longs(array).clone())))
        }
        _ => None,
    }
}

/// Converts timestamps to microseconds. Only TIMESTAMP is rebased from the hybrid calendar, not
/// TIMESTAMP_NTZ, as in Spark.
fn micros(
    unit: Unit,
    to: &DataType,
    calendar: Calendar,
    values: impl Fn(&ArrayRef) -> Int64Array + Send + 'static,
) -> Option<Convert> {
    let calendar = match to {
        DataType::Timestamp => calendar,
        DataType::TimestampNtz => Calendar::Proleptic,
        _ => return None,
    };
    boxed(move |array| {
        let values = values(array);
        let micros = match unit {
            Unit::Micros => values,
            Unit::Millis => values
                .try_unary::<_, Int64Type, _>(|millis| millis.checked_mul(1000).ok_or(()))
                .map_err(|()| "a time is out of the range of TIMESTAMP".to_string())?,
            Unit::Nanos => values.unary(|nanos| nanos.div_euclid(1000)),
        };
        match calendar {
            Calendar::Proleptic => Ok(Column::Long(micros)),
            Calendar::Hybrid(zone) => {
                Ok(Column::Long(micros.unary(|micros| micros_of_old(micros, zone))))
            }
            Calendar::Refused if micros.iter().flatten().any(|m| m < SAME_FROM_US) => {
                Err(refused_in_read())
            }
            Calendar::Refused => Ok(Column::Long(micros)),
        }
    })
}

fn dates(days: &Int32Array, calendar: Calendar) -> Result<Int32Array, String> {
    match calendar {
        Calendar::Proleptic => Ok(days.clone()),
        Calendar::Hybrid(_) => Ok(days.unary(|days| days_of_hybrid(days.into()) as i32)),
        Calendar::Refused if days.iter().flatten().any(|d| i64::from(d) < SAME_FROM_DAYS) => {
            Err(refused_in_read())
        }
        Calendar::Refused => Ok(days.clone()),
    }
}

fn refused_in_read() -> String {
    let fix = "Set the options datetimeRebaseMode and int96RebaseMode to LEGACY if Spark 2 or Hive \
               wrote the file, to CORRECTED if not";
    refusal("READ_ANCIENT_DATETIME", fix)
}

/// The factor that rescales a decimal of precision `p` and scale `s` to `q` and `t`. Returns `None`
/// if the target has fewer digits on either side of the point.
fn factor((p, s): (u8, u8), (q, t): (u8, u8)) -> Option<i128> {
    let fits = t >= s && q.checked_sub(t)? >= p.saturating_sub(s);
    fits.then(|| 10i128.pow(u32::from(t - s)))
}

fn scaled(digits: Decimal128Array, factor: i128) -> Result<Column, String> {
    if factor == 1 {
        return Ok(Column::Decimal(digits));
    }
    let scaled = |digits: i128| digits.checked_mul(factor).filter(|digits| fits(*digits));
    let digits = digits.try_unary::<_, Decimal128Type, _>(|of| scaled(of).ok_or(()));
    digits.map(Column::Decimal).map_err(|()| "a DECIMAL has more digits than its type".to_string())
}

/// Whether a number has at most 38 digits, the maximum of a DECIMAL.
fn fits(digits: i128) -> bool {
    digits.unsigned_abs() < 10u128.pow(38)
}

/// Decodes a signed big-endian integer. Returns `None` if it has more than 38 digits.
fn digits_of(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { 0xFF } else { 0 };
    let (more, last) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut filled = [sign; 16];
    filled[16 - last.len()..].copy_from_slice(last);
    let value = i128::from_be_bytes(filled);
    let is_whole = more.iter().all(|byte| *byte == sign) && (value < 0) == (sign != 0);
    (is_whole && fits(value)).then_some(value)
}

fn decimals<'a>(
    values: impl Iterator<Item = Option<&'a [u8]>>,
    factor: i128,
) -> Result<Column, String> {
    let digits = values.map(|bytes| match bytes {
        None => Ok(None),
        Some(bytes) => digits_of(bytes).map(Some).ok_or("a DECIMAL has more than 38 digits"),
    });
    scaled(digits.collect::<Result<Decimal128Array, _>>()?, factor)
}

fn bytes(meaning: Meaning, to: &DataType) -> Option<Convert> {
    match (meaning, to) {
        (Meaning::Decimal(p, s), DataType::Decimal(q, t)) => {
            let factor = factor((p, s), (*q, *t))?;
            boxed(move |array| decimals(array.as_binary::<i32>().iter(), factor))
        }
        (Meaning::Decimal(..), _) => None,
        (_, DataType::String | DataType::Binary) => {
            boxed(|array| Ok(Column::Binary(array.as_binary::<i32>().clone())))
        }
        _ => None,
    }
}

fn fixed(meaning: Meaning, to: &DataType) -> Option<Convert> {
    match (meaning, to) {
        (Meaning::Decimal(p, s), DataType::Decimal(q, t)) => {
            let factor = factor((p, s), (*q, *t))?;
            boxed(move |array| decimals(array.as_fixed_size_binary().iter(), factor))
        }
        (Meaning::Decimal(..), _) => None,
        (Meaning::HalfFloat, DataType::Float | DataType::Double) => boxed(|array| {
            let halves = array.as_fixed_size_binary().iter();
            let float = |bytes: Option<&[u8]>| match bytes {
                Some([low, high]) => Some(half(u16::from_le_bytes([*low, *high]))),
                _ => None,
            };
            Ok(Column::Double(halves.map(float).collect()))
        }),
        (_, DataType::Binary) | (Meaning::Plain, DataType::String) => {
            boxed(|array| Ok(Column::Fixed(array.as_fixed_size_binary().clone())))
        }
        _ => None,
    }
}

/// Decodes a half-precision float: a sign bit, 5 bits of exponent and 10 of fraction.
fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let fraction = f64::from(bits & 0x3FF);
    let magnitude = match i32::from(bits >> 10 & 31) {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => return f64::NAN,
        exponent => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    };
    sign * magnitude
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::BinaryArray;
    use std::sync::Arc;

    const NOW: Calendars = Calendars { datetime: Calendar::Proleptic, int96: Calendar::Proleptic };

    fn read(
        physical: Physical,
        meaning: Meaning,
        array: ArrayRef,
        to: &DataType,
    ) -> Option<Result<Column, String>> {
        Some(convert(Scalar { physical, meaning }, to, &NOW)?(&array))
    }

    #[test]
    fn integers_are_widened_and_never_cut() {
        let array = || Arc::new(Int32Array::from(vec![Some(200), None])) as ArrayRef;
        let of = |meaning, to| read(Physical::INT32, meaning, array(), &to);
        let Some(Ok(Column::Int(bytes))) = of(Meaning::Integer(8, false), DataType::Short) else {
            panic!("bytes without a sign are SMALLINT")
        };
        assert_eq!(bytes, Int32Array::from(vec![Some(200), None]));
        assert!(matches!(of(Meaning::Plain, DataType::Short), Some(Ok(Column::Int(_)))));
        let Some(Err(error)) = of(Meaning::Plain, DataType::Byte) else { panic!("200 is no byte") };
        assert_eq!(error, "the value 200 is out of the range of TINYINT");
        assert!(of(Meaning::Decimal(9, 2), DataType::Int).is_none());
        assert!(of(Meaning::Plain, DataType::Float).is_none());
        assert!(of(Meaning::Plain, DataType::Decimal(9, 0)).is_none());
        let Some(Ok(Column::Decimal(digits))) = of(Meaning::Plain, DataType::Decimal(12, 2)) else {
            panic!("an INT has at most ten digits")
        };
        assert_eq!(digits.value(0), 20_000);
        let large = Arc::new(Int32Array::from(vec![-1])) as ArrayRef;
        let unsigned = Meaning::Integer(32, false);
        let Some(Ok(Column::Long(longs))) = read(Physical::INT32, unsigned, large, &DataType::Long)
        else {
            panic!("32 bits without a sign are BIGINT")
        };
        assert_eq!(longs.value(0), 4_294_967_295);
    }

    #[test]
    fn decimals_of_any_byte_length_are_read() {
        for (bytes, digits) in [
            (vec![], Some(0)),
            (vec![0x7F], Some(127)),
            (vec![0xFF, 0x85], Some(-123)),
            ([vec![0xFF; 20], vec![0x80, 1]].concat(), Some(-32_767)),
            ([vec![0; 4], vec![0x80; 16]].concat(), None),
            ([vec![1], vec![0; 16]].concat(), None),
            ((10i128.pow(38) - 1).to_be_bytes().to_vec(), Some(10i128.pow(38) - 1)),
            (10i128.pow(38).to_be_bytes().to_vec(), None),
            ((-10i128.pow(38)).to_be_bytes().to_vec(), None),
        ] {
            assert_eq!(digits_of(&bytes), digits, "{bytes:?}");
        }
        let array = Arc::new(BinaryArray::from(vec![&[0x30, 0x39][..]])) as ArrayRef;
        let meaning = Meaning::Decimal(7, 2);
        let to = DataType::Decimal(9, 4);
        let Some(Ok(Column::Decimal(found))) = read(Physical::BYTE_ARRAY, meaning, array, &to)
        else {
            panic!("it has a larger scale")
        };
        assert_eq!(found.value(0), 1_234_500);
        let long = 10i128.pow(37).to_be_bytes();
        let array = Arc::new(BinaryArray::from(vec![&long[..]])) as ArrayRef;
        let to = DataType::Decimal(38, 4);
        let meaning = Meaning::Decimal(35, 2);
        assert!(matches!(read(Physical::BYTE_ARRAY, meaning, array, &to), Some(Err(_))));
    }

    #[test]
    fn half_floats_are_exact() {
        for (bits, value) in [
            (0x3E00, 1.5),
            (0xC000, -2.0),
            (0x0001, 5.960_464_477_539_063e-8),
            (0x7BFF, 65504.0),
            (0xFC00, f64::NEG_INFINITY),
            (0x8000, -0.0),
        ] {
            assert_eq!(half(bits).to_bits(), f64::to_bits(value), "{bits:x}");
        }
        assert!(half(0x7E01).is_nan());
    }

    #[test]
    fn nanoseconds_before_1970_are_rounded_down() {
        let array = Arc::new(Int64Array::from(vec![-1, 1_999])) as ArrayRef;
        let meaning = Meaning::Timestamp(Unit::Nanos, true);
        let Some(Ok(Column::Long(micros))) =
            read(Physical::INT64, meaning, array, &DataType::Timestamp)
        else {
            panic!("nanoseconds are times")
        };
        assert_eq!(micros, Int64Array::from(vec![-1, 1]));
    }
}
