//! Plans table functions in FROM: generators such as `explode`, and the lists
//! `collations()` and `sql_keywords()`. `range` has a module of its own.

use super::Catalog;
use super::expr::convert_with;
use super::query::{plain, renamed};
use super::subquery::constants;
use crate::table::error::{Place, PlanError, PlanResult, counted};
use crate::table::expr::{Expr, functions};
use crate::table::plan::generator::{is_generator, is_table_only};
use crate::table::plan::{Plan, analyzer};
use crate::table::types::{DataType, Field, Schema};
use crate::table::value::Value;
use sqlparser::ast::{
    self, FunctionArg, FunctionArgumentList, FunctionArguments, Ident, ObjectName, TableAlias,
};

/// The keywords of Spark 4.3. None is reserved, unless ANSI mode enforces it, as in Spark.
const KEYWORDS: &str = include_str!("keywords.txt");

/// The keywords of Spark 4.3, in upper case.
pub fn keywords() -> impl Iterator<Item = &'static str> {
    KEYWORDS.split_whitespace()
}

/// Table functions other than generators.
const LISTS: [&str; 3] = ["collations", "range", "sql_keywords"];

/// The prefix of the name of a call in FROM, for generators that are only called there.
pub(super) const IN_FROM: &str = "\0in from ";

/// Whether a name is that of a table function that is not a generator.
pub(super) fn is_list(name: &str) -> bool {
    LISTS.iter().any(|list| list.eq_ignore_ascii_case(name))
}

/// The error of a table function as a scalar expression.
pub(super) fn not_a_scalar(name: &str, here: Place) -> PlanError {
    PlanError::new(
        "NOT_A_SCALAR_FUNCTION",
        format!("`{name}` gives rows, not a value"),
        format!("Write: SELECT * FROM {name}(…)"),
    )
    .at(here)
}

/// A generator in FROM, as an expression.
pub(super) fn call_of(
    name: &ObjectName,
    args: &[FunctionArg],
    catalog: &dyn Catalog,
) -> PlanResult<Expr> {
    let list = FunctionArgumentList {
        duplicate_treatment: None,
        args: args.to_vec(),
        clauses: Vec::new(),
    };
    let lower = plain(name).to_ascii_lowercase();
    let name = match is_table_only(&lower) {
        true => ObjectName::from(vec![Ident::new(format!("{IN_FROM}{lower}"))]),
        false => name.clone(),
    };
    let call = ast::Expr::Function(ast::Function {
        name,
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    });
    convert_with(&call, &constants(catalog))
}

/// Plans a table function other than `range`. Its arguments are constants.
pub(super) fn table_function(
    name: &ObjectName,
    args: &[FunctionArg],
    alias: Option<&TableAlias>,
    catalog: &dyn Catalog,
    here: Place,
) -> PlanResult<Plan> {
    let written = plain(name).to_ascii_lowercase();
    let made = match written.as_str() {
        "collations" | "sql_keywords" if !args.is_empty() => {
            return Err(PlanError::new(
                "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
                format!("`{written}` has {}, and takes none", counted(args.len(), "argument")),
                format!("{written}()"),
            )
            .at(here));
        }
        "collations" => collations(),
        "sql_keywords" => keyword_table(),
        _ => {
            let call = call_of(name, args, catalog)?;
            if !is_generator(&call) {
                return Err(not_a_table(&written).at(here));
            }
            let nothing = Plan::Values(Schema::default(), vec![Vec::new()]);
            analyzer::project(nothing, &[call]).map_err(|error| error.at(here))?
        }
    };
    let Some(alias) = alias else { return Ok(made) };
    if !alias.columns.is_empty() && alias.columns.len() != made.width() {
        return Err(PlanError::new(
            "NUM_TABLE_VALUE_ALIASES_MISMATCH",
            format!(
                "`{written}` gives {}, but {} are named",
                counted(made.width(), "column"),
                alias.columns.len()
            ),
            "Name each column",
        )
        .at(here));
    }
    Ok(Plan::Alias(Box::new(renamed(made, alias)?), alias.name.value.clone()))
}

fn not_a_table(name: &str) -> PlanError {
    if functions::check_name(name).is_ok() {
        return PlanError::new(
            "NOT_A_TABLE_FUNCTION",
            format!("`{name}` gives a value, not rows"),
            format!("Write: SELECT {name}(…)"),
        );
    }
    PlanError::new(
        "UNRESOLVABLE_TABLE_VALUED_FUNCTION",
        format!("there is no table function `{name}`"),
        "`millstream functions` lists all functions",
    )
}

/// The collations: only the default one. The columns are those of Spark.
fn collations() -> Plan {
    let text = |name: &str, nullable| Field::new(name, DataType::String, nullable);
    let schema = Schema::new(vec![
        text("CATALOG", false),
        text("SCHEMA", false),
        text("NAME", false),
        text("LANGUAGE", true),
        text("COUNTRY", true),
        text("ACCENT_SENSITIVITY", false),
        text("CASE_SENSITIVITY", false),
        text("PAD_ATTRIBUTE", false),
        text("ICU_VERSION", true),
    ]);
    let known = |text: &str| Value::String(text.to_string());
    let row = vec![
        known("SYSTEM"),
        known("BUILTIN"),
        known("UTF8_BINARY"),
        Value::Null,
        Value::Null,
        known("ACCENT_SENSITIVE"),
        known("CASE_SENSITIVE"),
        known("NO_PAD"),
        Value::Null,
    ];
    Plan::Values(schema, vec![row])
}

fn keyword_table() -> Plan {
    let schema = Schema::new(vec![
        Field::new("keyword", DataType::String, false),
        Field::new("reserved", DataType::Boolean, false),
    ]);
    let row = |word: &str| vec![Value::String(word.to_string()), Value::Boolean(false)];
    Plan::Values(schema, keywords().map(row).collect())
}
