//! `DESCRIBE`, `EXPLAIN`, `SHOW COLUMNS`, `SHOW VIEWS`, `SHOW TABLES` and `SHOW FUNCTIONS`, whose
//! results are rows in Spark's format.

use super::job::{Reader, Tokens};
use super::{Catalog, is_word};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::function_docs;
use crate::table::plan::optimizer::optimize;
use crate::table::types::{DataType, Field, Schema};
use crate::table::value::Value;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

/// A statement that describes views and their columns, functions, or a query.
#[derive(Debug)]
pub enum Describe {
    /// `DESCRIBE view`, `DESCRIBE [QUERY] query`: the columns with their types.
    Query(Tokens),
    /// A column: `DESCRIBE [EXTENDED | FORMATTED] view column`.
    Column {
        /// The name of the view.
        table: Tokens,
        /// The name of the column, and its position in the text.
        column: (String, Place),
        /// Whether the statement has EXTENDED or FORMATTED, which adds rows for statistics. The
        /// statistics are always NULL.
        extended: bool,
    },
    /// `SHOW COLUMNS IN view`.
    Columns(Tokens),
    /// `SHOW VIEWS [LIKE 'pattern']` or `SHOW TABLES …`.
    Views {
        /// The name of the result's second column.
        column: &'static str,
        /// The pattern of the names; `None` for all.
        pattern: Option<String>,
    },
    /// `SHOW [USER | SYSTEM | ALL] FUNCTIONS [LIKE 'pattern']`.
    Functions {
        /// Whether the built-in functions are shown.
        builtin: bool,
        /// Whether the user-defined functions are shown.
        of_user: bool,
        /// The pattern of the names; `None` for all.
        pattern: Option<String>,
    },
    /// `DESCRIBE FUNCTION [EXTENDED] name`.
    Function {
        /// The name of the function, and its position in the text.
        name: (String, Place),
        /// Whether examples and the version are shown.
        extended: bool,
    },
    /// `EXPLAIN query`: the plan as text, a row for each line.
    Explain {
        /// The query.
        query: Tokens,
        /// Whether the plan after optimization is also shown: EXTENDED, FORMATTED, COST or CODEGEN.
        extended: bool,
    },
}

/// A schema and its rows.
pub type Table = (Schema, Vec<Vec<Value>>);

/// Parses the rest of a statement after `DESCRIBE` or `DESC`: a query, a view, a column of a view or
/// a function. A field of a column is an error.
pub(super) fn describe(reader: &mut Reader<'_>) -> PlanResult<Describe> {
    let begin = reader.next;
    // At the end of the statement, FUNCTION is the name of a view.
    if reader.tokens.len() > reader.next + 1 && reader.keyword("FUNCTION") {
        return function(reader);
    }
    let is_query = reader.keyword("QUERY") || reader.begins_query();
    if is_query && (reader.begins_query() || reader.tokens.len() > reader.next + 1) {
        return Ok(Describe::Query(reader.rest()?));
    }
    // At most one word follows QUERY, so QUERY is the name of a view.
    reader.next = begin;
    // At the end of the statement, `TABLE`, `EXTENDED` or `FORMATTED` is the name of a view.
    let has_more = |reader: &Reader<'_>| reader.tokens.len() > reader.next + 1;
    let _ = has_more(reader) && reader.keyword("TABLE");
    let extended = has_more(reader) && (reader.keyword("EXTENDED") || reader.keyword("FORMATTED"));
    let table = table(reader)?;
    if reader.peek().is_none() {
        return Ok(Describe::Query(table));
    }
    let place = reader.here();
    let column = reader.name()?;
    if reader.peek().is_some_and(|t| t.token == Token::Period) {
        return Err(PlanError::new(
            "UNSUPPORTED_FEATURE.DESCRIBE_NESTED_COLUMN",
            format!("`{column}` is described as a whole, not a field of it"),
            "Name the column alone",
        )
        .at(place));
    }
    reader.end()?;
    Ok(Describe::Column { table, column: (column, place), extended })
}

/// Parses `DESCRIBE FUNCTION [EXTENDED] name` after FUNCTION. The name may be an operator.
fn function(reader: &mut Reader<'_>) -> PlanResult<Describe> {
    let has_more = reader.tokens.len() > reader.next + 1;
    let extended = has_more && reader.keyword("EXTENDED");
    let place = reader.here();
    let mut name = String::new();
    while let Some(token) = reader.peek() {
        match &token.token {
            Token::Word(word) => name.push_str(&word.value),
            Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => {
                name.push_str(text);
            }
            other => name.push_str(&other.to_string()),
        }
        reader.next += 1;
    }
    let name = name.rsplit_once('.').map_or(name.as_str(), |(_, name)| name).to_string();
    Ok(Describe::Function { name: (name, place), extended })
}

/// Parses the rest of a statement after `EXPLAIN`: `[EXTENDED | FORMATTED | COST | CODEGEN] query`.
pub(super) fn explain(reader: &mut Reader<'_>) -> PlanResult<Describe> {
    let words = ["EXTENDED", "FORMATTED", "COST", "CODEGEN"];
    let extended = words.iter().any(|word| reader.keyword(word));
    let is_query =
        reader.begins_query() || reader.peek().is_some_and(|t| is_word(&t.token, "TABLE"));
    if !is_query {
        let mut error = reader.unexpected("a query");
        error.fix =
            "EXPLAIN shows the plan of a query; `millstream explain job.sql` shows the queries \
                     of a job file"
                .to_string();
        return Err(error);
    }
    Ok(Describe::Explain { query: reader.rest()?, extended })
}

/// Parses `[LIKE] 'pattern'` or `LIKE name` at the end of a statement.
fn pattern(reader: &mut Reader<'_>) -> PlanResult<Option<String>> {
    let has_like = reader.keyword("LIKE");
    let pattern = match reader.peek().map(|t| &t.token) {
        Some(Token::SingleQuotedString(text) | Token::DoubleQuotedString(text)) => {
            reader.next += 1;
            Some(text.clone())
        }
        Some(Token::Word(_)) if has_like => Some(reader.name()?),
        _ if has_like => return Err(reader.unexpected("a pattern in quotes")),
        _ => None,
    };
    reader.end()?;
    Ok(pattern)
}

/// Parses `[IN | FROM] default`, the only database.
fn database(reader: &mut Reader<'_>) -> PlanResult<()> {
    if !reader.keyword("IN") && !reader.keyword("FROM") {
        return Ok(());
    }
    let here = reader.here();
    let name = reader.name()?;
    if name.eq_ignore_ascii_case("default") {
        return Ok(());
    }
    let reason = format!("there is no database `{name}`");
    let fix = "Leave it out: a session has the database `default` alone";
    Err(PlanError::new("SCHEMA_NOT_FOUND", reason, fix).at(here))
}

/// Whether a name matches a pattern of SHOW: `*` stands for any characters, `|` separates
/// alternatives, and the case does not matter.
fn matches(name: &str, pattern: &str) -> bool {
    fn one(name: &str, pattern: &str) -> bool {
        let Some((before, rest)) = pattern.split_once('*') else { return name == pattern };
        let Some(mut name) = name.strip_prefix(before) else { return false };
        let mut parts: Vec<&str> = rest.split('*').collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            match name.find(part) {
                Some(at) => name = &name[at + part.len()..],
                None => return false,
            }
        }
        name.ends_with(last)
    }
    let name = name.to_lowercase();
    pattern.to_lowercase().split('|').any(|pattern| one(&name, pattern.trim()))
}

/// Parses the rest of a statement after `SHOW`: VIEWS, TABLES, FUNCTIONS, or COLUMNS IN a view.
/// Anything else is an error.
pub(super) fn show(reader: &mut Reader<'_>) -> PlanResult<Describe> {
    for (word, column) in [("VIEWS", "viewName"), ("TABLES", "tableName")] {
        if reader.keyword(word) {
            database(reader)?;
            return Ok(Describe::Views { column, pattern: pattern(reader)? });
        }
    }
    let (of_user, builtin) = (reader.keyword("USER"), reader.keyword("SYSTEM"));
    let kind = of_user || builtin || reader.keyword("ALL");
    if reader.keyword("FUNCTIONS") {
        database(reader)?;
        let (builtin, of_user) = (builtin || !of_user, of_user || !builtin);
        return Ok(Describe::Functions { builtin, of_user, pattern: pattern(reader)? });
    }
    if kind || !reader.keyword("COLUMNS") {
        return Err(reader.unexpected("COLUMNS, FUNCTIONS, TABLES or VIEWS"));
    }
    if !reader.keyword("IN") && !reader.keyword("FROM") {
        return Err(reader.unexpected("IN or FROM"));
    }
    let table = table(reader)?;
    database(reader)?;
    reader.end()?;
    Ok(Describe::Columns(table))
}

/// Parses a table name and returns the query `SELECT * FROM name`, so that lookup and errors are
/// those of a query.
pub(super) fn table(reader: &mut Reader<'_>) -> PlanResult<Tokens> {
    let first = reader.next;
    reader.name()?;
    while reader.token(&Token::Period) {
        reader.name()?;
    }
    let name = &reader.tokens[first..reader.next];
    let span = name[0].span;
    let token = |token| TokenWithSpan { token, span };
    let word = |text: &str, keyword| {
        token(Token::Word(Word { value: text.to_string(), quote_style: None, keyword }))
    };
    let mut tokens = vec![word("SELECT", Keyword::SELECT), token(Token::Mul)];
    tokens.push(word("FROM", Keyword::FROM));
    tokens.extend_from_slice(name);
    Ok(Tokens::new(tokens))
}

fn table_of(columns: &[&str], rows: Vec<Vec<Value>>) -> Table {
    let field = |name: &&str| match *name {
        "isTemporary" => Field::new(*name, DataType::Boolean, false),
        _ => Field::new(*name, DataType::String, true),
    };
    (Schema::new(columns.iter().map(field).collect()), rows)
}

fn text(text: impl Into<String>) -> Value {
    Value::String(text.into())
}

impl Describe {
    /// Executes the statement and returns its result as rows.
    pub fn rows(self, catalog: &dyn Catalog) -> PlanResult<Table> {
        match self {
            Self::Query(query) => {
                let columns = query.plan(catalog)?.schema();
                let rows = columns.fields.iter().map(|field| {
                    vec![text(&field.name), text(type_name(&field.data_type)), Value::Null]
                });
                Ok(table_of(&["col_name", "data_type", "comment"], rows.collect()))
            }
            Self::Column { table, column: (name, place), extended } => {
                let rows = column_rows(&table.plan(catalog)?.schema(), &name, extended);
                let rows = rows.map_err(|error| error.at(place))?;
                Ok(table_of(&["info_name", "info_value"], rows))
            }
            Self::Columns(table) => {
                let columns = table.plan(catalog)?.schema();
                let rows = columns.fields.iter().map(|field| vec![text(&field.name)]);
                Ok(table_of(&["col_name"], rows.collect()))
            }
            Self::Views { column, pattern } => {
                let mut names = chosen(catalog.names(), pattern.as_deref());
                names.sort();
                let rows =
                    names.into_iter().map(|name| vec![text(""), text(name), Value::Boolean(true)]);
                Ok(table_of(&["namespace", column, "isTemporary"], rows.collect()))
            }
            Self::Functions { builtin, of_user, pattern } => {
                let mut names = Vec::new();
                if builtin {
                    names.extend(function_docs::all().into_iter().map(|doc| doc.name));
                }
                if of_user {
                    names.extend(catalog.user_functions());
                }
                let mut names = chosen(names, pattern.as_deref());
                names.sort();
                names.dedup();
                let rows = names.into_iter().map(|name| vec![text(name)]);
                Ok(table_of(&["function"], rows.collect()))
            }
            Self::Function { name: (name, place), extended } => {
                let rows = function_rows(&name, extended, catalog);
                let rows = rows.map_err(|error| error.at(place))?;
                Ok(table_of(&["function_desc"], rows))
            }
            Self::Explain { query, extended } => {
                let plan = query.plan(catalog)?;
                let mut shown = format!("== Logical Plan ==\n{}", plan.tree());
                if extended {
                    let (schema, optimized) = (plan.schema().tree(), optimize(&plan).tree());
                    shown = format!(
                        "== Schema ==\n{schema}\n{shown}\n== Optimized Logical Plan ==\n{optimized}"
                    );
                }
                let lines = shown.lines().map(|line| vec![text(line)]);
                Ok(table_of(&["plan"], lines.collect()))
            }
        }
    }
}

/// The rows of `DESCRIBE view column`. Fails if there is no column of this name.
fn column_rows(columns: &Schema, name: &str, extended: bool) -> PlanResult<Vec<Vec<Value>>> {
    let field = columns.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    let field = field.ok_or_else(|| {
        let names: Vec<_> = columns.fields.iter().map(|f| f.name.as_str()).collect();
        let fix = format!("Columns: {}", names.join(", "));
        PlanError::new("COLUMN_NOT_FOUND", format!("there is no column `{name}`"), fix)
    })?;
    let info = |name: &str, value: Value| vec![text(name), value];
    let mut rows = vec![
        info("col_name", text(&field.name)),
        info("data_type", text(type_name(&field.data_type))),
        info("comment", Value::Null),
    ];
    if extended {
        let statistics = [
            "min",
            "max",
            "num_nulls",
            "distinct_count",
            "avg_col_len",
            "max_col_len",
            "histogram",
        ];
        rows.extend(statistics.iter().map(|name| info(name, Value::Null)));
    }
    Ok(rows)
}

/// The names that match a pattern; all without a pattern.
fn chosen(mut names: Vec<String>, pattern: Option<&str>) -> Vec<String> {
    if let Some(pattern) = pattern {
        names.retain(|name| matches(name, pattern));
    }
    names
}

/// The rows of `DESCRIBE FUNCTION`. Fails for an unknown function, with the nearest names.
fn function_rows(name: &str, extended: bool, catalog: &dyn Catalog) -> PlanResult<Vec<Vec<Value>>> {
    let line = |shown: String| vec![text(shown)];
    if catalog.function(name).is_some() || catalog.aggregate(name).is_some() {
        let usage = "Usage: a function of the user".to_string();
        return Ok(vec![line(format!("Function: {name}")), line(usage)]);
    }
    let docs = function_docs::named(name);
    if docs.is_empty() {
        let near = function_docs::near(name);
        let fix = match near.as_slice() {
            [] => "SHOW FUNCTIONS lists all".to_string(),
            near => format!("Did you mean {}?", near.join(" or ")),
        };
        let reason = format!("there is no function `{name}`");
        return Err(PlanError::new("UNRESOLVED_ROUTINE", reason, fix));
    }
    let mut rows = Vec::new();
    for doc in docs {
        rows.push(line(format!("Function: {}", doc.name)));
        rows.push(line(format!("Usage: {} - {}", doc.signature(), doc.description())));
        if extended {
            let title = ["Extended Usage:", "    Examples:"].map(str::to_string);
            let example = format!("      > SELECT {};", doc.usage.example);
            let result = doc.usage.result.lines().map(|row| format!("       {row}"));
            let since = format!("    Since: {}", doc.usage.since);
            let lines = title.into_iter().chain([example]).chain(result).chain([since]);
            rows.extend(lines.map(line));
        }
    }
    Ok(rows)
}

/// Writes a type like `typeof`: `int`, `struct<x:int>`.
fn type_name(data_type: &DataType) -> String {
    let mut name = String::new();
    crate::table::expr::functions::type_name(data_type, &mut name);
    name
}
