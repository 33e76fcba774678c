//! Spark's implicit type coercion: the common type of several types, and the type that an argument
//! is cast to.
//!
//! As in Spark, many rules have two versions. In ANSI mode (`spark.sql.ansi.enabled`) a STRING is
//! cast to the other type or a wider one; in legacy mode the common type is mostly STRING.
//! [`Rules::current`] tells which mode applies. The arguments of functions are described by
//! [`Accepts`] and listed in [`signatures`]. Operands of operators have rules of their own, in
//! [`operands`].

mod accepts;
pub mod operands;
pub mod signatures;

use super::{Node, Resolved};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::type_rules::Rules;
use crate::table::types::{DataType, Field};
pub use accepts::Accepts;

use DataType as T;

/// The common type of two types; `None` if there is none. Strings are not cast. Different DECIMAL
/// types have no common type here. A DECIMAL and an integer have one if the DECIMAL holds every
/// value of the integer's type. Not every conversion is exact: the common type of BIGINT and DOUBLE
/// is DOUBLE.
pub fn tightest(a: &DataType, b: &DataType) -> Option<DataType> {
    simple(a, b).or_else(|| match (a, b) {
        (T::Decimal(p, s), whole) | (whole, T::Decimal(p, s)) => {
            let (digits, _) = whole.as_decimal().filter(|_| whole.is_integral())?;
            (p - s >= digits).then_some(T::Decimal(*p, *s))
        }
        _ => nested(a, b, tightest),
    })
}

/// The common type of equal types, of VOID and any type, and of types that are neither DECIMAL,
/// STRING nor nested; `None` if there is none. Only that of FLOAT and an integer depends on the
/// mode.
fn simple(a: &DataType, b: &DataType) -> Option<DataType> {
    Some(match (a, b) {
        (a, b) if a == b => a.clone(),
        (T::Null, other) | (other, T::Null) => other.clone(),
        (T::Date | T::TimestampNtz, T::Timestamp) | (T::Timestamp, T::Date | T::TimestampNtz) => {
            T::Timestamp
        }
        (T::Date, T::TimestampNtz) | (T::TimestampNtz, T::Date) => T::TimestampNtz,
        (T::Time(a), T::Time(b)) => T::Time(*a.max(b)),
        (T::DayTimeInterval(a, b), T::DayTimeInterval(c, d)) => {
            T::DayTimeInterval(*a.min(c), *b.max(d))
        }
        (T::YearMonthInterval(a, b), T::YearMonthInterval(c, d)) => {
            T::YearMonthInterval(*a.min(c), *b.max(d))
        }
        (a, b) if a.is_integral() && b.is_integral() => {
            if a.integral_range().1 >= b.integral_range().1 { a.clone() } else { b.clone() }
        }
        (T::Double, other) | (other, T::Double) if is_binary_number(other) => T::Double,
        // FLOAT cannot represent every INT exactly, so ANSI mode widens both to DOUBLE.
        (T::Float, other) | (other, T::Float) if other.is_integral() => {
            if Rules::current().ansi {
                T::Double
            } else {
                T::Float
            }
        }
        _ => return None,
    })
}

fn is_binary_number(data_type: &DataType) -> bool {
    data_type.is_numeric() && !matches!(data_type, T::Decimal(..))
}

/// The common type of two numbers of which at least one is a DECIMAL. The result is DOUBLE if the
/// other is FLOAT or DOUBLE, otherwise a DECIMAL.
fn of_decimals(a: &DataType, b: &DataType) -> Option<DataType> {
    let decimal = |t: &DataType| matches!(t, T::Decimal(..));
    match (a, b) {
        (a, b) if !decimal(a) && !decimal(b) => None,
        (T::Float | T::Double, _) | (_, T::Float | T::Double) => Some(T::Double),
        (a, b) => {
            let ((p1, s1), (p2, s2)) = (a.as_decimal()?, b.as_decimal()?);
            let (scale, whole) = (s1.max(s2), (p1 - s1).max(p2 - s2));
            // If 38 digits do not suffice, the digits before the decimal point are kept and the
            // scale is reduced.
            let over = (whole + scale).saturating_sub(38);
            Some(T::Decimal((whole + scale).min(38), scale.saturating_sub(over)))
        }
    }
}

type Widen = fn(&DataType, &DataType) -> Option<DataType>;

/// The common type of nested types with the same structure. `widen` computes the common type of
/// their elements.
fn nested(a: &DataType, b: &DataType, widen: Widen) -> Option<DataType> {
    Some(match (a, b) {
        (T::Array(a), T::Array(b)) => T::Array(Box::new(widen(a, b)?)),
        (T::Map(ak, av), T::Map(bk, bv)) => {
            let key = widen(ak, bk)?;
            // A cast from STRING may give NULL, which is not allowed as a map key.
            let converted = [ak, bk].into_iter().any(|k| **k == T::String) && key != T::String;
            (!converted).then_some(T::Map(Box::new(key), Box::new(widen(av, bv)?)))?
        }
        (T::Struct(a), T::Struct(b)) if a.len() == b.len() => {
            let fields = a.iter().zip(b).map(|(a, b)| {
                let data_type = widen(&a.data_type, &b.data_type)?;
                let same = a.name.eq_ignore_ascii_case(&b.name);
                same.then(|| Field::new(a.name.clone(), data_type, a.nullable || b.nullable))
            });
            T::Struct(fields.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// Returns a type with the field names of another type; `None` if their structures differ.
fn named_like(data_type: &DataType, like: &DataType) -> Option<DataType> {
    Some(match (data_type, like) {
        (T::Array(a), T::Array(b)) => T::Array(Box::new(named_like(a, b)?)),
        (T::Map(ak, av), T::Map(bk, bv)) => {
            T::Map(Box::new(named_like(ak, bk)?), Box::new(named_like(av, bv)?))
        }
        (T::Struct(a), T::Struct(b)) if a.len() == b.len() => {
            let field = |(a, b): (&Field, &Field)| {
                Some(Field::new(
                    b.name.clone(),
                    named_like(&a.data_type, &b.data_type)?,
                    a.nullable,
                ))
            };
            T::Struct(a.iter().zip(b).map(field).collect::<Option<_>>()?)
        }
        (a, b) => (a == b).then(|| a.clone())?,
    })
}

/// Gives all values the field names of the first value. Field names do not affect comparisons, but
/// the types must be equal.
pub fn with_equal_names(args: Vec<Resolved>) -> Vec<Resolved> {
    let Some(like) = args.first().map(|arg| arg.data_type.clone()) else { return args };
    if !like.is_nested() {
        return args;
    }
    let one = |arg: Resolved| match named_like(&arg.data_type, &like) {
        Some(data_type) => Resolved { data_type, ..arg },
        None => arg,
    };
    args.into_iter().map(one).collect()
}

/// Like [`widest`], but does not cast strings.
pub fn widest_without_text(a: &DataType, b: &DataType) -> Option<DataType> {
    tightest(a, b).or_else(|| of_decimals(a, b)).or_else(|| nested(a, b, widest_without_text))
}

/// The common type of two types, for CASE branches, array elements and set operations.
pub fn widest(a: &DataType, b: &DataType) -> Option<DataType> {
    let numbers = tightest(a, b).or_else(|| of_decimals(a, b));
    if Rules::current().ansi {
        numbers.or_else(|| nested(a, b, widest)).or_else(|| of_text(a, b))
    } else {
        numbers.or_else(|| as_text(a, b)).or_else(|| nested(a, b, widest))
    }
}

/// ANSI mode: the common type of a STRING and another type.
fn of_text(a: &DataType, b: &DataType) -> Option<DataType> {
    let ((T::String, other) | (other, T::String)) = (a, b) else { return None };
    Some(match other {
        other if other.is_integral() => T::Long,
        other if other.is_numeric() => T::Double,
        T::String | T::Null => T::String,
        T::Boolean | T::Date | T::Timestamp | T::TimestampNtz | T::Time(_) | T::Binary => {
            other.clone()
        }
        _ => return None,
    })
}

/// Legacy mode: the common type of a STRING and another type, which is STRING.
fn as_text(a: &DataType, b: &DataType) -> Option<DataType> {
    let ((T::String, other) | (other, T::String)) = (a, b) else { return None };
    let refused =
        other.is_nested() || matches!(other, T::Boolean | T::Binary | T::CalendarInterval);
    (!refused).then_some(T::String)
}

/// The common type of several types; `None` if there is none.
pub fn widest_of<'t>(types: impl IntoIterator<Item = &'t DataType>) -> Option<DataType> {
    let rules = Rules::current();
    let mut all: Vec<&DataType> = types.into_iter().collect();
    if !rules.ansi {
        // Types with strings come first, so that the result does not depend on the order of the
        // types.
        all.sort_by_key(|t| !has_text(t));
    }
    all.into_iter().try_fold(T::Null, |common, next| widest(&common, next))
}

fn has_text(data_type: &DataType) -> bool {
    match data_type {
        T::String => true,
        T::Array(element) => has_text(element),
        _ => false,
    }
}

/// Whether two types contain intervals with different units. Functions on arrays and maps do not
/// cast between such types.
pub fn units_differ(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (T::Array(a), T::Array(b)) => units_differ(a, b),
        (T::Map(k, v), T::Map(l, w)) => units_differ(k, l) || units_differ(v, w),
        (T::Struct(a), T::Struct(b)) => {
            a.iter().zip(b.iter()).any(|(a, b)| units_differ(&a.data_type, &b.data_type))
        }
        (a, b) => a.is_interval() && b.is_interval() && a != b,
    }
}

/// Casts all arguments to the common type that `widest` computes. If there is none, the error has
/// the given condition.
pub fn unify_as(
    condition: &str,
    what: &str,
    args: Vec<Resolved>,
    widest: impl Fn(&[Resolved]) -> Option<DataType>,
) -> PlanResult<Vec<Resolved>> {
    let Some(common) = widest(&args) else {
        let mut types: Vec<String> = args.iter().map(|arg| arg.data_type.to_string()).collect();
        types.dedup();
        let reason = format!("{what} needs values of one type, but has {}", types.join(", "));
        return Err(PlanError::new(condition, reason, "Cast them to one type"));
    };
    Ok(args.into_iter().map(|arg| arg.coerce(&common)).collect())
}

/// Casts all arguments to their common type. Fails if there is none.
pub fn unify(what: &str, args: Vec<Resolved>) -> PlanResult<Vec<Resolved>> {
    unify_as("DATATYPE_MISMATCH.DATA_DIFF_TYPES", what, args, |args| {
        widest_of(args.iter().map(|arg| &arg.data_type))
    })
}

/// Casts all arguments to their common type without casting strings. Fails if there is none.
pub fn unify_without_text(what: &str, args: Vec<Resolved>) -> PlanResult<Vec<Resolved>> {
    unify_as("DATATYPE_MISMATCH.DATA_DIFF_TYPES", what, args, |args| {
        let mut types = args.iter().map(|arg| &arg.data_type);
        types.try_fold(T::Null, |common, next| widest_without_text(&common, next))
    })
}

/// Fails if a value cannot be ordered because of its type.
pub fn check_order(what: &str, arg: &Resolved) -> PlanResult<()> {
    if arg.data_type.is_orderable() {
        return Ok(());
    }
    let fix = match arg.data_type.has_calendar_interval() {
        true => "Compare a date plus each of the intervals",
        false => "Compare the map's entries: map_entries gives them as an array",
    };
    Err(PlanError::new(
        "DATATYPE_MISMATCH.INVALID_ORDERING_TYPE",
        format!("{what} needs values with an order, but `{arg}` is {}", arg.data_type),
        fix,
    ))
}

/// A TIME as a timestamp: that time of the current day.
pub fn today_at(time: Resolved, to: &DataType) -> Resolved {
    let node = Node::Call("current_timestamp", Vec::new());
    let now = Resolved { node, data_type: T::Timestamp, nullable: false };
    let nullable = time.nullable;
    let node = Node::Call("datetime_make_timestamp", vec![now.coerce(&T::Date), time]);
    Resolved { node, data_type: to.clone(), nullable }
}

/// Casts an argument to the type that a function needs. Fails with Spark's error if the implicit
/// cast does not exist.
pub fn expect_type(arg: Resolved, to: &DataType, what: &str) -> PlanResult<Resolved> {
    if let Some(to) = accepts::to_type(&arg.data_type, to) {
        return Ok(arg.coerce(&to));
    }
    if let (T::Time(_), T::Timestamp) = (&arg.data_type, to) {
        return Ok(today_at(arg, to));
    }
    // Spark casts a TIME to a date as if it could, and then refuses the cast.
    let condition = match (&arg.data_type, to) {
        (T::Time(_), T::Date) => "DATATYPE_MISMATCH.CAST_WITHOUT_SUGGESTION",
        _ => "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
    };
    Err(PlanError::new(
        condition,
        format!("{what} needs {to}, but `{arg}` is {}", arg.data_type),
        format!("Cast it: CAST({arg} AS {to})"),
    ))
}
