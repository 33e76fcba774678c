//! The signatures of functions: the types that each argument accepts.

use super::{Accepts, Rules};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::compile::{Semantics, fold};
use crate::table::expr::{Node, Resolved};
use crate::table::types::DataType;
use crate::table::value::Value;

use Accepts as A;

/// A function's name and the types of its arguments. The last type applies to all further
/// arguments.
type Signature = (&'static str, &'static [Accepts]);

const SIGNED: Accepts = A::OneOf(&[A::Number, A::YearMonthInterval, A::DayTimeInterval]);
const SIGNED_OR_CALENDAR: Accepts =
    A::OneOf(&[A::Number, A::YearMonthInterval, A::DayTimeInterval, A::CalendarInterval]);
const TEXT: Accepts = A::Only(&[A::String]);
const MOMENT: Accepts = A::Only(&[A::Timestamp, A::TimestampNtz]);
const TIMES: Accepts = A::Only(&[A::String, A::Date, A::Timestamp, A::TimestampNtz]);

static SIGNATURES: &[Signature] = &[
    ("abs", &[SIGNED]),
    ("aes_decrypt", &[A::Binary, A::Binary, A::String, A::String, A::Binary]),
    ("aes_encrypt", &[A::Binary, A::Binary, A::String, A::String, A::Binary, A::Binary]),
    ("array_compact", &[A::Array]),
    ("array_distinct", &[A::Array]),
    ("array_insert", &[A::Any, A::Index, A::Any]),
    ("array_join", &[A::Only(&[A::Array]), TEXT]),
    ("array_max", &[A::Array]),
    ("array_min", &[A::Array]),
    ("array_repeat", &[A::Any, A::Only(&[A::Int])]),
    ("array_size", &[A::Array]),
    ("arrays_zip", &[A::Array]),
    ("bit_count", &[A::Only(&[A::Integral, A::Boolean])]),
    ("bit_get", &[A::Only(&[A::Integral]), A::Int]),
    ("bit_length", &[A::OneOf(&[A::String, A::Binary])]),
    ("bitmap_bit_position", &[A::Long]),
    ("bitmap_bucket_number", &[A::Long]),
    ("bround", &[A::Number, A::Int]),
    ("concat_ws", &[A::String, A::OneOf(&[A::String, A::Strings])]),
    ("date_add", &[A::Date, A::Days]),
    ("date_sub", &[A::Date, A::Days]),
    ("element_at", &[A::Array, A::Index]),
    ("format_number", &[A::Only(&[A::Number]), A::Only(&[A::Int, A::String])]),
    ("from_json", &[TEXT, A::Any]),
    ("get_json_object", &[TEXT]),
    ("if", &[A::Only(&[A::Boolean]), A::Any]),
    ("json_array_length", &[TEXT]),
    ("json_object_keys", &[TEXT]),
    ("map_entries", &[A::Map]),
    ("map_from_arrays", &[A::Array]),
    ("map_keys", &[A::Map]),
    ("map_values", &[A::Map]),
    ("negative", &[SIGNED]),
    ("not", &[A::Boolean]),
    ("octet_length", &[A::OneOf(&[A::String, A::Binary])]),
    ("positive", &[SIGNED_OR_CALENDAR]),
    ("quote", &[A::String]),
    ("rand", &[A::Only(&[A::Int, A::Long])]),
    ("randn", &[A::Only(&[A::Int, A::Long])]),
    ("round", &[A::Number, A::Int]),
    ("slice", &[A::Array, A::Int]),
    ("sort_array", &[A::Array, A::Only(&[A::Boolean])]),
    ("soundex", &[TEXT]),
    ("str_to_map", &[TEXT]),
    ("timestamp_micros", &[A::Only(&[A::Integral])]),
    ("timestamp_millis", &[A::Only(&[A::Integral])]),
    ("try_element_at", &[A::Array, A::Index]),
    ("unix_date", &[A::Only(&[A::Date])]),
    ("unix_micros", &[MOMENT]),
    ("unix_millis", &[MOMENT]),
    ("unix_seconds", &[MOMENT]),
    ("unix_timestamp", &[TIMES, TEXT]),
    ("~", &[A::Only(&[A::Integral])]),
];

/// Converts a number of days that is given as a STRING. With ANSI mode off, the STRING must be
/// constant, and NULL counts as 0.
fn written_days(function: &str, text: Resolved) -> PlanResult<Resolved> {
    if !text.is_constant() {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
            format!("`{function}` needs a number of days, but `{text}` is STRING"),
            "Cast it to INT",
        ));
    }
    let shown = text.to_string();
    let days = match fold(text.coerce(&DataType::Int), Semantics::default()).node {
        Node::Literal(Value::Long(days)) => days,
        Node::Literal(Value::Null) => 0,
        _ => {
            return Err(PlanError::new(
                "SECOND_FUNCTION_ARGUMENT_NOT_INTEGER",
                format!("`{function}` needs a whole number of days, but has {shown}"),
                "Write a number",
            ));
        }
    };
    Ok(Resolved::literal(Value::Long(days), DataType::Int))
}

/// Casts the arguments of a function to types that the function accepts, or fails. Functions
/// without a signature check their arguments themselves.
pub fn bring(function: &str, args: Vec<Resolved>) -> PlanResult<Vec<Resolved>> {
    let Some((_, signature)) = SIGNATURES.iter().find(|(name, _)| *name == function) else {
        return Ok(args);
    };
    let last = signature.last().copied().unwrap_or(A::Any);
    let accepted = signature.iter().copied().chain(std::iter::repeat(last));
    args.into_iter().zip(accepted).map(|(arg, accepts)| one(function, arg, accepts)).collect()
}

fn one(function: &str, arg: Resolved, accepts: Accepts) -> PlanResult<Resolved> {
    if accepts == A::Days && arg.data_type == DataType::String && !Rules::current().ansi {
        return written_days(function, arg);
    }
    match accepts.convert(&arg.data_type) {
        Some(to) => Ok(arg.coerce(&to)),
        None => Err(PlanError::new(
            "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
            format!("`{function}` needs {accepts}, but `{arg}` is {}", arg.data_type),
            "Cast it",
        )),
    }
}
