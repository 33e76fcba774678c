//! Additional names of functions (aliases, cast functions and `try_` forms), and the list of
//! functions that are documented for users.

use super::all;
use crate::table::expr::bind::BIND;
use crate::table::function_docs::{FunctionDoc, FunctionKind, Usage, usage};
use crate::table::types::DataType;

/// Aliases of functions and operators: (alias, canonical name, usage of the alias).
pub const ALIASES: &[(&str, &str, Usage)] = &[
    ("ucase", "upper", usage("1.0.1", "ucase('Millstream')", "MILLSTREAM")),
    ("lcase", "lower", usage("1.0.1", "lcase('Millstream')", "millstream")),
    ("char_length", "length", usage("2.3.0", "char_length('stream')", "6")),
    ("character_length", "length", usage("2.3.0", "character_length('stream')", "6")),
    ("len", "length", usage("3.4.0", "len('stream')", "6")),
    ("substr", "substring", usage("1.5.0", "substr('Millstream', 5, 3)", "str")),
    ("||", "concat", usage("2.3.0", "'mill' || 'stream'", "millstream")),
    ("mod", "%", usage("2.3.0", "mod(-7, 3)", "-1")),
    ("==", "=", usage("1.0.0", "2 == 2", "true")),
    ("!=", "<>", usage("1.0.0", "1 != 2", "true")),
    ("equal_null", "<=>", usage("3.4.0", "equal_null(NULL, NULL)", "true")),
    ("cardinality", "size", usage("2.4.0", "cardinality(array('b', 'd', 'c'))", "3")),
    ("ceiling", "ceil", usage("3.3.0", "ceiling(-1.5)", "-1")),
    ("to_varchar", "to_char", usage("3.5.0", "to_varchar(1234.5, '$9,999.99')", "$1,234.50")),
    ("signum", "sign", usage("1.4.0", "signum(-5)", "-1.0")),
    ("ifnull", "coalesce", usage("2.0.0", "ifnull(NULL, 2)", "2")),
    ("nvl", "coalesce", usage("2.0.0", "nvl(NULL, 2)", "2")),
    ("power", "pow", usage("1.4.0", "power(2, 3)", "8.0")),
    ("rlike", "regexp_like", usage("1.0.0", "rlike('Millstream', 'l+')", "true")),
    ("regexp", "regexp_like", usage("3.2.0", "regexp('Millstream', 'l+')", "true")),
    ("printf", "format_string", usage("1.5.0", "printf('%s: %5.2f', 'pi', pi())", "pi:  3.14")),
    ("char", "chr", usage("2.3.0", "char(65)", "A")),
    ("getbit", "bit_get", usage("3.2.0", "getbit(6, 1)", "1")),
    ("position", "locate", usage("2.3.0", "position('l', 'Millstream', 4)", "4")),
    (
        "sha",
        "sha1",
        usage("1.5.0", "sha('Millstream')", "7010b1fc9f89792c94bf4dedc46e2e591e61bbe2"),
    ),
    ("dateadd", "date_add", usage("3.4.0", "dateadd('2024-02-28', 2)", "2024-03-01")),
    ("datediff", "date_diff", usage("1.5.0", "datediff('2024-03-01', '2024-02-28')", "2")),
    ("day", "dayofmonth", usage("1.5.0", "day('2024-02-29')", "29")),
    ("reduce", "aggregate", usage("3.4.0", "reduce(array(1, 2, 3), 0, (sum, x) -> sum + x)", "6")),
    ("some", "exists", usage("2.4.0", "some(array(1, 2, 3), x -> x > 2)", "true")),
    (
        "to_unix_timestamp",
        "unix_timestamp",
        usage("1.6.0", "to_unix_timestamp('1970-01-02', 'yyyy-MM-dd')", "86400"),
    ),
    (
        "to_timestamp_ltz",
        "to_timestamp",
        usage("3.4.0", "to_timestamp_ltz('2024-02-29 12:30:00')", "2024-02-29 12:30:00"),
    ),
    (
        "make_timestamp_ltz",
        "make_timestamp",
        usage("3.4.0", "make_timestamp_ltz(2024, 2, 29, 12, 30, 45.5)", "2024-02-29 12:30:45.5"),
    ),
    ("random", "rand", usage("3.0.0", "random(1) < 1", "true")),
    ("now", "current_timestamp", usage("1.6.0", "now() = current_timestamp()", "true")),
    ("curdate", "current_date", usage("3.4.0", "curdate() = current_date()", "true")),
    ("<<", "shiftleft", usage("4.0.0", "1 << 4", "16")),
    (">>", "shiftright", usage("4.0.0", "-16 >> 2", "-4")),
    (">>>", "shiftrightunsigned", usage("4.0.0", "16 >>> 2", "4")),
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
        "localtime",
        "localtime([digits]): the same as `current_time`",
        usage("4.3.0", "localtime() = current_time()", "true"),
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
    const INTERNAL: [&str; 14] = [
        BIND,
        "array_sort_by",
        "getitem",
        "json_field",
        "length_us",
        "map_element",
        "map_size",
        "one_of_equals",
        "range_bound",
        "second_fraction",
        "try",
        super::properties::TRY_RESULT,
        "variant_entries",
        "windows",
    ];
    ["calendar_interval_", "datetime_", "getfield", "interval_"]
        .iter()
        .any(|begin| name.starts_with(begin))
        || INTERNAL.contains(&name)
}

/// The descriptions of every scalar function and operator that a query can call.
pub fn documented() -> Vec<FunctionDoc> {
    let doc =
        |name: &str, help: &str, usage| FunctionDoc::new(name, FunctionKind::Scalar, help, usage);
    let own = all().filter(|function| !is_internal(function.name));
    let own = own.map(|function| doc(function.name, function.help, function.usage));
    let aliases = ALIASES.iter().map(|(alias, name, usage)| {
        let is_name = alias.starts_with(|c: char| c.is_alphabetic());
        let signature = if is_name { format!("{alias}(…)") } else { format!("a {alias} b") };
        let help = format!("{signature}: the same as `{name}`");
        doc(alias, &help, *usage)
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
        let aliases = ALIASES.iter().map(|(alias, name, _)| (*alias, *name));
        for (alias, name) in aliases.chain(tried) {
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
