//! The registry of scalar functions and operators, and the resolution of calls by name.

mod aes;
mod aliases;
mod array;
mod array_types;
mod avro;
mod bad_record;
mod bitmap;
mod canonical_value;
mod charset;
mod collation;
mod compare;
mod compile_call;
mod condition;
mod csv;
mod field_access;
mod hash;
mod java_hash;
mod json;
mod lambda;
mod levenshtein;
mod like;
mod like_search;
mod map;
mod mask;
mod math;
mod number;
mod number_format;
mod printf;
mod properties;
mod protobuf;
mod random;
mod record_encoding;
pub mod record_options;
mod regexp;
mod registry;
mod rounding;
pub mod row_origin;
mod session_text;
mod split;
mod strict_math;
mod string;
mod string_rare;
mod substring;
mod time;
mod to_char;
mod url;
mod value_index;
mod variant;
mod variant_change;
mod vector;
mod window;
mod xml;
mod xpath;

pub use aliases::documented;
pub use canonical_value::{
    as_grouping_key, canonical_double, canonicalized, order as order_values,
};
pub(crate) use charset::type_name;
pub use compare::{is_null, order_doubles};
pub use compile_call::compile;
pub use field_access::field_of;
pub(in crate::table) use hash::murmur_bytes;
pub use hash::xxhash64;
pub(in crate::table) use java_hash::{java_hash, spread};
pub use json::tuple as json_tuple;
pub use lambda::{resolve_lambda, takes_lambda};
pub use math::wrapping;
pub use properties::{
    TRY_RESULT, is_deterministic, is_null_of_null, is_operator, is_random, may_leave_out,
};
pub use random::with_seeds;
pub use registry::Function;
pub use split::Splitter;
pub use time::of_word as time_of_word;
pub use variant::variant_entries;

use super::coercion;
use super::{Node, Resolved, lower};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::functions::aliases::{cast_of, operator_of};
use crate::table::expr::type_rules::Rules;
use crate::table::types::DataType;
use crate::table::value::Value;
use crate::table::{function_docs, functions_not_here};
use field_access::indexed;
use registry::{MANY, Typed};
use std::collections::HashMap;
use std::sync::OnceLock;

fn tables() -> [&'static [Function]; 41] {
    [
        math::FUNCTIONS,
        number::FUNCTIONS,
        rounding::FUNCTIONS,
        session_text::FUNCTIONS,
        compare::FUNCTIONS,
        condition::FUNCTIONS,
        string::FUNCTIONS,
        like::FUNCTIONS,
        split::FUNCTIONS,
        string_rare::FUNCTIONS,
        substring::FUNCTIONS,
        charset::FUNCTIONS,
        regexp::FUNCTIONS,
        time::FUNCTIONS,
        time::MADE_FUNCTIONS,
        time::INTERVAL_FUNCTIONS,
        time::CALENDAR_INTERVAL_FUNCTIONS,
        time::TIME_FUNCTIONS,
        array::FUNCTIONS,
        map::FUNCTIONS,
        lambda::FUNCTIONS,
        json::FUNCTIONS,
        csv::FUNCTIONS,
        avro::FUNCTIONS,
        protobuf::FUNCTIONS,
        hash::FUNCTIONS,
        window::FUNCTIONS,
        canonical_value::FUNCTIONS,
        random::FUNCTIONS,
        mask::FUNCTIONS,
        to_char::FUNCTIONS,
        url::FUNCTIONS,
        aes::FUNCTIONS,
        bitmap::FUNCTIONS,
        collation::FUNCTIONS,
        vector::FUNCTIONS,
        variant::FUNCTIONS,
        variant_change::FUNCTIONS,
        xml::FUNCTIONS,
        xpath::FUNCTIONS,
        row_origin::FUNCTIONS,
    ]
}

/// Looks up a function by its canonical name.
fn registered(name: &str) -> Option<&'static Function> {
    static BY_NAME: OnceLock<HashMap<&'static str, &'static Function>> = OnceLock::new();
    // Reversed, so that of two functions with the same name the first one wins.
    let by_name = || all().map(|f| (f.name, f)).collect::<Vec<_>>().into_iter().rev().collect();
    BY_NAME.get_or_init(by_name).get(name).copied()
}

/// Every registered function.
pub fn all() -> impl Iterator<Item = &'static Function> {
    tables().into_iter().flatten()
}

/// The canonical name of a function, by its name or an alias in lower case. An unknown name is
/// returned unchanged.
pub(super) fn canonical(lower: &str) -> &str {
    static ALIASES: OnceLock<HashMap<&'static str, &'static str>> = OnceLock::new();
    let by_name =
        || aliases::ALIASES.iter().rev().map(|(alias, name, _)| (*alias, *name)).collect();
    let aliases = ALIASES.get_or_init(by_name);
    aliases.get(lower).copied().unwrap_or(lower)
}

/// For a random function, by its canonical name, the index of its optional argument that is the
/// seed. `None` for any other function.
fn seed_index(name: &str) -> Option<usize> {
    registered(name).and_then(|function| function.seed)
}

fn find(name: &str) -> PlanResult<&'static Function> {
    let lower = lower(name);
    let canonical = canonical(&lower);
    registered(canonical).ok_or_else(|| {
        if let Some(error) = functions_not_here::error(canonical) {
            return error;
        }
        let near: Vec<_> =
            function_docs::near(name).iter().map(|name| format!("`{name}`")).collect();
        let near = match near.as_slice() {
            [] => String::new(),
            near => format!("Did you mean {}? ", near.join(" or ")),
        };
        PlanError::new(
            "UNRESOLVED_ROUTINE",
            format!("there is no function `{name}`"),
            format!("{near}`millstream functions` lists all"),
        )
    })
}

/// Fails with Spark's error condition if there is no function of this name. Case is ignored.
/// Aggregates and casts such as `int` count as functions.
pub fn check_name(name: &str) -> PlanResult<()> {
    let lower = lower(name);
    let known = cast_of(&lower).is_some()
        || crate::table::plan::aggregate_function::AggregateFunction::of(&lower).is_some()
        || lower.strip_prefix("try_").is_some_and(|inner| operator_of(inner).is_some())
        || matches!(
            &*lower,
            "current_time"
                | "localtime"
                | "extract"
                | "date_part"
                | "datepart"
                | "grouping"
                | "grouping_id"
        );
    if known { Ok(()) } else { find(&lower).map(drop) }
}

/// Resolves a call of a function or an operator. Its arguments are cast as Spark does implicitly.
pub fn resolve(name: &str, args: Vec<Resolved>) -> PlanResult<Resolved> {
    // A type name as a function, such as `bigint(x)`, is a cast, as in Spark.
    if let ([_], Some(to)) = (args.as_slice(), cast_of(name)) {
        let Some(arg) = args.into_iter().next() else { unreachable!("it was counted") };
        return super::resolve::cast(arg, &to, false);
    }
    let lower = lower(name);
    if let Some(resolved) = time::of_time(canonical(&lower), &args) {
        return resolved;
    }
    if let Some(inner) = lower.strip_prefix("try_").and_then(operator_of) {
        let fails_of_operands = properties::fails_of_operands(inner, &args);
        let (data_type, node) = {
            let inner = match resolve(inner, args) {
                // In `try_to_binary`, an unknown format gives NULL instead of an error.
                Err(error) if inner == "to_binary" && error.condition.ends_with("ARG_VALUE") => {
                    return Ok(Resolved::literal(Value::Null, DataType::Binary));
                }
                inner => inner?,
            };
            let data_type = inner.data_type.clone();
            let node = match inner.node {
                // Without a pattern, the function is a cast.
                Node::Call("to_date" | "to_timestamp", mut args)
                    if matches!(args.as_slice(), [Resolved { node: Node::Cast(..), .. }]) =>
                {
                    match args.remove(0).node {
                        Node::Cast(value, _) => Node::Cast(value, true),
                        other => other,
                    }
                }
                Node::Call(..) if fails_of_operands => Node::Call(TRY_RESULT, vec![inner]),
                _ => Node::Call("try", vec![inner]),
            };
            (data_type, node)
        };
        return Ok(Resolved { node, data_type, nullable: true });
    }
    if let Some(resolved) = time::arithmetic(name, &args) {
        return resolved;
    }
    if let Some(resolved) = indexed(name, &args) {
        return resolved;
    }
    if let ("date_part" | "datepart" | "extract", [field, source]) = (&*lower, args.as_slice())
        && let Some(field) = field.literal_text()
    {
        return time::extract(field, source.clone());
    }
    if let ("uniform", 2 | 3) = (&*lower, args.len()) {
        return random::uniform(args);
    }
    if args.is_empty()
        && let Some(text) = session_text::of(&lower)
    {
        return Ok(Resolved::literal(Value::String(text), DataType::String));
    }
    // Functions of the current time return the batch's timestamp, in the session time zone.
    if lower == "unix_timestamp" && args.is_empty() {
        return resolve(name, vec![resolve("current_timestamp", args)?]);
    }
    if matches!(&*lower, "current_time" | "localtime") && args.len() <= 1 {
        let now = super::resolve::cast(
            resolve("current_timestamp", Vec::new())?,
            &DataType::TimestampNtz,
            false,
        )?;
        return time::current_time(now, args.first());
    }
    let of_now = match (&*lower, args.is_empty()) {
        ("current_date" | "curdate", true) => Some(DataType::Date),
        ("localtimestamp", true) => Some(DataType::TimestampNtz),
        _ => None,
    };
    if let Some(to) = of_now {
        return super::resolve::cast(resolve("current_timestamp", args)?, &to, false);
    }
    if let ("make_timestamp", [date]) = (&*lower, args.as_slice()) {
        return match date.data_type {
            DataType::Date | DataType::Null => {
                super::resolve::cast(date.clone(), &DataType::Timestamp, false)
            }
            _ => Err(registry::unexpected(name, "a DATE", date)),
        };
    }
    if name.eq_ignore_ascii_case("decode") && args.len() > 2 {
        return condition::decode(args);
    }
    if matches!(&*lower, "to_char" | "to_varchar")
        && let Some(resolved) = to_char::of_other_types(&args)
    {
        return resolved;
    }
    if Rules::current().timestamps_without_zone {
        match &*lower {
            "to_timestamp" => return time::to_timestamp_without_zone(args),
            // A time zone argument has no effect on a timestamp without a zone.
            "make_timestamp" if (6..=7).contains(&args.len()) => {
                return resolve("make_timestamp_ntz", args.into_iter().take(6).collect());
            }
            _ => {}
        }
    }
    let function = find(name)?;
    let (least, most) = match &*lower {
        "nvl" | "ifnull" => (2, 2),
        _ => function.arity,
    };
    if args.len() < least || args.len() > most {
        let wanted = match (least, most) {
            (a, b) if a == b => a.to_string(),
            (a, MANY) => format!("at least {a}"),
            (a, b) => format!("{a} to {b}"),
        };
        return Err(PlanError::new(
            "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
            format!("`{}` takes {wanted} arguments, but has {}", function.name, args.len()),
            function.help,
        ));
    }
    let args = coercion::operands::bring(function.name, args)?;
    let args = coercion::signatures::bring(function.name, args)?;
    let Typed { args, data_type, is_nullable } = (function.resolve)(function.name, args)?;
    Ok(Resolved { node: Node::Call(function.name, args), data_type, nullable: is_nullable })
}
