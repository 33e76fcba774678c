//! Additional names of functions (aliases, cast functions and `try_` forms), and the list of
//! functions that are documented for users.

use crate::table::expr::bind::BIND;
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

/// Functions that cast their argument to a type, such as `int(x)`.
const CASTS: &[(&str, DataType)] = &[
    ("boolean", DataType::Boolean),
    ("tinyint", DataType::Byte),
    ("smallint", DataType::Short),
    ("int", DataType::Int),
    ("bigint", DataType::Long),
    ("float", DataType::Float),
    ("double", DataType::Double),
    ("decimal", DataType::Decimal(10, 0)),
    ("string", DataType::String),
    ("binary", DataType::Binary),
    ("date", DataType::Date),
    ("timestamp", DataType::Timestamp),
];

/// The `try_` functions, which return NULL instead of most errors: (name without `try_`, the
/// function or operator that is tried).
const TRIED: &[(&str, &str)] = &[
    ("add", "+"),
    ("subtract", "-"),
    ("multiply", "*"),
    ("divide", "/"),
    ("mod", "%"),
    ("to_timestamp", "to_timestamp"),
    ("to_date", "to_date"),
    ("make_timestamp", "make_timestamp"),
    ("make_timestamp_ltz", "make_timestamp"),
    ("make_timestamp_ntz", "make_timestamp_ntz"),
    ("to_binary", "to_binary"),
    ("validate_utf8", "validate_utf8"),
    ("url_decode", "url_decode"),
    ("parse_url", "parse_url"),
    ("to_number", "to_number"),
];

/// Functions with special resolution, which are therefore not in the function tables: (name, help).
const OTHERS: &[(&str, &str)] = &[
    ("date_part", "date_part('YEAR', x): a part of a date, a time or an interval"),
    ("datepart", "datepart('YEAR', x): the same as `date_part`"),
    ("extract", "extract(YEAR FROM x): a part of a date, a time or an interval"),
    ("grouping", "grouping(key): 1 where a grouping set leaves the key out"),
    ("grouping_id", "grouping_id(): a bit for each key that a grouping set leaves out"),
];

/// The target type of a cast function; `None` if the name is not that of a cast function.
pub(super) fn cast_of(name: &str) -> Option<DataType> {
    let cast = CASTS.iter().find(|(cast, _)| cast.eq_ignore_ascii_case(name));
    cast.map(|(_, to)| to.clone())
}

/// The function or operator that a `try_` function wraps. `name` is the name without `try_`.
pub(super) fn operator_of(name: &str) -> Option<&'static str> {
    TRIED.iter().find(|(tried, _)| *tried == name).map(|(_, operator)| *operator)
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

/// Every scalar function and operator that a query can call, with one line of help.
pub fn documented() -> Vec<(String, String)> {
    let own = crate::table::expr::functions::all().filter(|function| !is_internal(function.name));
    let own = own.map(|function| (function.name.to_string(), function.help.to_string()));
    let same = |name: &str| format!("the same as `{name}`");
    let aliases = ALIASES.iter().map(|(alias, name)| (alias.to_string(), same(name)));
    let casts = CASTS.iter().map(|(name, to)| {
        let help = format!("{name}(x): CAST(x AS {to})");
        (name.to_string(), help)
    });
    let tried = TRIED.iter().map(|(name, of)| {
        let help = format!("as `{of}`, but NULL instead of an error");
        (format!("try_{name}"), help)
    });
    let others = OTHERS.iter().map(|(name, help)| (name.to_string(), help.to_string()));
    own.chain(aliases).chain(casts).chain(tried).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alias_names_a_function() {
        for (alias, name) in ALIASES.iter().chain(TRIED) {
            assert!(crate::table::expr::functions::all().any(|f| f.name == *name), "{alias}");
        }
        let names: Vec<_> = documented().into_iter().map(|(name, _)| name).collect();
        for name in ["ucase", "try_add", "int", "extract", "sentences"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        for name in ["length_us", "getfield", "interval_add", "windows"] {
            assert!(!names.iter().any(|known| known == name), "{name}");
        }
    }
}
