//! Additional names of functions (aliases, cast functions and `try_` forms), and the list of
//! functions that are documented for users.

use super::all;
use crate::table::expr::bind::BIND;
use crate::table::function_docs::{FunctionDoc, FunctionKind, Usage, usage};
use crate::table::types::DataType;

/// Aliases of functions and operators: (alias, canonical name).
pub const ALIASES: &[(&str, &str)] = &[
    ("ucase", "upper"),
    ("lcase", "lower"),
    ("char_length", "length"),
    ("character_length", "length"),
    ("len", "length"),
    ("substr", "substring"),
    ("||", "concat"),
    ("mod", "%"),
    ("==", "="),
    ("!=", "<>"),
    ("equal_null", "<=>"),
    ("cardinality", "size"),
    ("ceiling", "ceil"),
    ("to_varchar", "to_char"),
    ("signum", "sign"),
    ("ifnull", "coalesce"),
    ("nvl", "coalesce"),
    ("power", "pow"),
    ("rlike", "regexp_like"),
    ("regexp", "regexp_like"),
    ("printf", "format_string"),
    ("char", "chr"),
    ("getbit", "bit_get"),
    ("position", "locate"),
    ("sha", "sha1"),
    ("dateadd", "date_add"),
    ("datediff", "date_diff"),
    ("day", "dayofmonth"),
    ("reduce", "aggregate"),
    ("some", "exists"),
    ("to_unix_timestamp", "unix_timestamp"),
    ("to_timestamp_ltz", "to_timestamp"),
    ("make_timestamp_ltz", "make_timestamp"),
    ("random", "rand"),
    ("now", "current_timestamp"),
    ("curdate", "current_date"),
    ("<<", "shiftleft"),
    (">>", "shiftright"),
    (">>>", "shiftrightunsigned"),
];

/// Functions that cast their argument to a type, such as `int(x)`: (name, type, usage).
const CASTS: &[(&str, DataType, Usage)] = &[
    ("boolean", DataType::Boolean, usage("2.0.1", "boolean('true')", "true")),
    ("tinyint", DataType::Byte, usage("2.0.1", "tinyint('12')", "12")),
    ("smallint", DataType::Short, usage("2.0.1", "smallint('12')", "12")),
    ("int", DataType::Int, usage("2.0.1", "int('12')", "12")),
    ("bigint", DataType::Long, usage("2.0.1", "bigint('12')", "12")),
    ("float", DataType::Float, usage("2.0.1", "float('1.5')", "1.5")),
    ("double", DataType::Double, usage("2.0.1", "double('1.5')", "1.5")),
    ("decimal", DataType::Decimal(10, 0), usage("2.0.1", "decimal('1.5')", "2")),
    ("string", DataType::String, usage("2.0.1", "string(12)", "12")),
    ("binary", DataType::Binary, usage("2.0.1", "binary('ab')", "[61 62]")),
    ("date", DataType::Date, usage("2.0.1", "date('2024-02-29')", "2024-02-29")),
    (
        "timestamp",
        DataType::Timestamp,
        usage("2.0.1", "timestamp('2024-02-29 12:00:00')", "2024-02-29 12:00:00"),
    ),
];

/// The `try_` functions, which return NULL instead of most errors: (name without `try_`, the
/// function or operator that is tried, usage).
const TRIED: &[(&str, &str, Usage)] = &[
    ("add", "+", usage("3.2.0", "try_add(2147483647, 1)", "NULL")),
    ("subtract", "-", usage("3.3.0", "try_subtract(-2147483647, 2)", "NULL")),
    ("multiply", "*", usage("3.3.0", "try_multiply(2147483647, 2)", "NULL")),
    ("divide", "/", usage("3.2.0", "try_divide(1, 0)", "NULL")),
    ("mod", "%", usage("4.0.0", "try_mod(1, 0)", "NULL")),
    ("to_timestamp", "to_timestamp", usage("3.4.0", "try_to_timestamp('no time')", "NULL")),
    ("to_date", "to_date", usage("4.1.0", "try_to_date('no date')", "NULL")),
    (
        "make_timestamp",
        "make_timestamp",
        usage("4.0.0", "try_make_timestamp(2024, 2, 30, 0, 0, 0)", "NULL"),
    ),
    (
        "make_timestamp_ltz",
        "make_timestamp",
        usage("4.0.0", "try_make_timestamp_ltz(2024, 2, 30, 0, 0, 0)", "NULL"),
    ),
    (
        "make_timestamp_ntz",
        "make_timestamp_ntz",
        usage("4.0.0", "try_make_timestamp_ntz(2024, 2, 30, 0, 0, 0)", "NULL"),
    ),
    (
        "aes_decrypt",
        "aes_decrypt",
        usage("3.5.0", "try_aes_decrypt('abc', '0000111122223333')", "NULL"),
    ),
    ("to_time", "to_time", usage("4.1.0", "try_to_time('no time')", "NULL")),
    ("to_binary", "to_binary", usage("3.3.0", "try_to_binary('xyz', 'hex')", "NULL")),
    ("validate_utf8", "validate_utf8", usage("4.0.0", "try_validate_utf8(X'80')", "NULL")),
    ("url_decode", "url_decode", usage("4.0.0", "try_url_decode('%zz')", "NULL")),
    ("parse_url", "parse_url", usage("4.0.0", "try_parse_url('http://a b', 'HOST')", "NULL")),
    ("to_number", "to_number", usage("3.3.0", "try_to_number('abc', '999')", "NULL")),
];

/// Functions with special resolution, which are therefore not in the function tables: (name,
/// help, usage).
const OTHERS: &[(&str, &str, Usage)] = &[
    (
        "date_part",
        "date_part('YEAR', x): a part of a date, a time or an interval",
        usage("3.0.0", "date_part('YEAR', date'2024-02-29')", "2024"),
    ),
    (
        "datepart",
        "datepart('YEAR', x): the same as `date_part`",
        usage("3.4.0", "datepart('MONTH', date'2024-02-29')", "2"),
    ),
    (
        "extract",
        "extract(YEAR FROM x): a part of a date, a time or an interval",
        usage("3.0.0", "extract(DAY FROM date'2024-02-29')", "29"),
    ),
    (
        "current_time",
        "current_time([digits]): the time of day at which the query or its batch started",
        usage("4.1.0", "length(current_time(0))", "8"),
    ),
    (
        "grouping",
        "grouping(key): 1 where a grouping set leaves the key out",
        usage(
            "2.0.0",
            "k, grouping(k), count(*) FROM VALUES ('a') AS t(k) GROUP BY ROLLUP(k) ORDER BY 2",
            "a, 0, 1\nNULL, 1, 1",
        ),
    ),
    (
        "grouping_id",
        "grouping_id(): a bit for each key that a grouping set leaves out",
        usage(
            "2.0.0",
            "k, grouping_id(), count(*) FROM VALUES ('a') AS t(k) GROUP BY ROLLUP(k) ORDER BY 2",
            "a, 0, 1\nNULL, 1, 1",
        ),
    ),
];

/// The target type of a cast function; `None` if the name is not that of a cast function.
pub(super) fn cast_of(name: &str) -> Option<DataType> {
    let cast = CASTS.iter().find(|(cast, ..)| cast.eq_ignore_ascii_case(name));
    cast.map(|(_, to, _)| to.clone())
}

/// The function or operator that a `try_` function wraps. `name` is the name without `try_`.
pub(super) fn operator_of(name: &str) -> Option<&'static str> {
    TRIED.iter().find(|(tried, ..)| *tried == name).map(|(_, operator, _)| *operator)
}

/// Whether a function is only called by other expressions after resolution, never by users.
fn is_internal(name: &str) -> bool {
    const INTERNAL: [&str; 11] = [
        BIND,
        "array_sort_by",
        "getitem",
        "json_field",
        "length_us",
        "map_element",
        "map_size",
        "one_of_equals",
        "second_fraction",
        "try",
        "windows",
    ];
    ["datetime_", "getfield", "interval_"].iter().any(|begin| name.starts_with(begin))
        || INTERNAL.contains(&name)
}

/// The descriptions of every scalar function and operator that a query can call.
pub fn documented() -> Vec<FunctionDoc> {
    let doc =
        |name: &str, help: &str, usage| FunctionDoc::new(name, FunctionKind::Scalar, help, usage);
    let own = all().filter(|function| !is_internal(function.name));
    let own = own.map(|function| doc(function.name, function.help, function.usage));
    let aliases = ALIASES.iter().filter_map(|(alias, name)| {
        let function = all().find(|function| function.name == *name)?;
        let is_name = alias.starts_with(|c: char| c.is_alphabetic());
        let signature = if is_name { format!("{alias}(…)") } else { format!("a {alias} b") };
        let help = format!("{signature}: the same as `{name}`");
        Some(doc(alias, &help, function.usage))
    });
    let casts = CASTS.iter().map(|(name, to, usage)| {
        let help = format!("{name}(x): CAST(x AS {to})");
        doc(name, &help, *usage)
    });
    let tried = TRIED.iter().map(|(name, of, usage)| {
        let help = format!("try_{name}(…): as `{of}`, but NULL instead of an error");
        doc(&format!("try_{name}"), &help, *usage)
    });
    let others = OTHERS.iter().map(|(name, help, usage)| doc(name, help, *usage));
    own.chain(aliases).chain(casts).chain(tried).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alias_names_a_function() {
        let tried = TRIED.iter().map(|(name, of, _)| (*name, *of));
        for (alias, name) in ALIASES.iter().copied().chain(tried) {
            assert!(all().any(|f| f.name == name), "{alias}");
        }
        let names: Vec<_> = documented().into_iter().map(|doc| doc.name).collect();
        for name in ["ucase", "try_add", "int", "extract", "sentences"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        for name in ["length_us", "getfield", "interval_add", "windows"] {
            assert!(!names.iter().any(|known| known == name), "{name}");
        }
    }
}
