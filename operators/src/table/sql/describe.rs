//! `DESCRIBE`, `SHOW COLUMNS`, `SHOW VIEWS` and `SHOW TABLES`, whose results are rows in Spark's
//! format.

use super::Catalog;
use super::job::{Reader, Tokens};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::plan::Plan;
use crate::table::types::{DataType, Field, Schema};
use crate::table::value::Value;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

/// A statement that describes views and their columns.
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
    /// `SHOW VIEWS` or `SHOW TABLES`, with the name of the result's second column.
    Views(&'static str),
}

/// A schema and its rows.
pub type Table = (Schema, Vec<Vec<Value>>);

/// Parses the rest of a statement after `DESCRIBE` or `DESC`: a query, a view or a column of a
/// view. A field of a column is an error.
pub(super) fn describe(reader: &mut Reader<'_>) -> PlanResult<Describe> {
    let begin = reader.next;
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

/// Parses the rest of a statement after `SHOW`: VIEWS, TABLES, or COLUMNS IN a view. Anything else
/// is an error.
pub(super) fn show(reader: &mut Reader<'_>) -> PlanResult<Describe> {
    if reader.keyword("VIEWS") {
        reader.end()?;
        return Ok(Describe::Views("viewName"));
    }
    if reader.keyword("TABLES") {
        reader.end()?;
        return Ok(Describe::Views("tableName"));
    }
    if !reader.keyword("COLUMNS") {
        return Err(reader.unexpected("COLUMNS, TABLES or VIEWS"));
    }
    if !reader.keyword("IN") && !reader.keyword("FROM") {
        return Err(reader.unexpected("IN or FROM"));
    }
    let table = table(reader)?;
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
                let columns = schema(&query.plan(catalog)?);
                let rows = columns.fields.iter().map(|field| {
                    vec![text(&field.name), text(type_name(&field.data_type)), Value::Null]
                });
                Ok(table_of(&["col_name", "data_type", "comment"], rows.collect()))
            }
            Self::Column { table, column: (name, place), extended } => {
                let columns = schema(&table.plan(catalog)?);
                let field = columns.fields.iter().find(|f| f.name.eq_ignore_ascii_case(&name));
                let field = field.ok_or_else(|| {
                    let names: Vec<_> = columns.fields.iter().map(|f| f.name.as_str()).collect();
                    let fix = format!("Columns: {}", names.join(", "));
                    let reason = format!("there is no column `{name}`");
                    PlanError::new("COLUMN_NOT_FOUND", reason, fix).at(place)
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
                Ok(table_of(&["info_name", "info_value"], rows))
            }
            Self::Columns(table) => {
                let columns = schema(&table.plan(catalog)?);
                let rows = columns.fields.iter().map(|field| vec![text(&field.name)]);
                Ok(table_of(&["col_name"], rows.collect()))
            }
            Self::Views(column) => {
                let mut names = catalog.names();
                names.sort();
                let rows =
                    names.into_iter().map(|name| vec![text(""), text(name), Value::Boolean(true)]);
                Ok(table_of(&["namespace", column, "isTemporary"], rows.collect()))
            }
        }
    }
}

fn schema(plan: &Plan) -> Schema {
    plan.schema()
}

/// Writes a type like `typeof`: `int`, `struct<x:int>`.
fn type_name(data_type: &DataType) -> String {
    let mut name = String::new();
    crate::table::expr::functions::type_name(data_type, &mut name);
    name
}
