//! Parses the statements that change the tables of a session: `CREATE TABLE`, `INSERT`, `TRUNCATE
//! TABLE`, `DROP TABLE` and `DROP VIEW`.

use super::is_word;
use super::job::{Head, OnExisting, OptionPlaces, Reader, Statement, Tokens};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::plan::Options;
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// A statement that changes the tables of a session.
#[derive(Debug)]
pub enum TableStatement {
    /// `CREATE TABLE name (schema)` or `CREATE TABLE name AS query`.
    Create {
        /// The name of the table.
        name: String,
        /// The schema in DDL and its position. `None` if the query gives the columns.
        schema: Option<(String, Place)>,
        /// What happens if the table exists.
        on_existing: OnExisting,
        /// The columns of PARTITIONED BY, which become the last ones.
        partition_columns: Vec<String>,
        /// The query whose rows the table gets.
        query: Option<Tokens>,
    },
    /// `INSERT INTO name [PARTITION (c = 1, d)] [(a, b)] query` or `INSERT OVERWRITE …`.
    Insert {
        /// The name of the table.
        name: String,
        /// The columns that the query gives, in its order. `None`: all columns of the table.
        columns: Option<Vec<String>>,
        /// The columns of PARTITION with their constant values. `None`: the query gives the value.
        partition: Vec<(String, Option<Tokens>)>,
        /// Whether the rows replace those of the table.
        overwrite: bool,
        /// The query.
        query: Tokens,
    },
    /// `TRUNCATE TABLE name`.
    Truncate {
        /// The name of the table.
        name: String,
    },
    /// `DROP TABLE [IF EXISTS] name` or `DROP VIEW [IF EXISTS] name`.
    Drop {
        /// The name of the table or view.
        name: String,
        /// Whether the statement is `DROP VIEW`.
        is_view: bool,
        /// Whether a name that does not exist is not an error.
        if_exists: bool,
    },
}

fn unsupported(what: &str, fix: &str, place: Place) -> PlanError {
    PlanError::new("NOT_YET_SUPPORTED", format!("{what} is not supported yet"), fix).at(place)
}

/// Parses `IF NOT EXISTS` or `IF EXISTS`. Returns whether it is there.
pub(super) fn if_exists(reader: &mut Reader<'_>, not: bool) -> PlanResult<bool> {
    // `if` may be the name of a table.
    let next = reader.tokens.get(reader.next + 1);
    if !next.is_some_and(|t| is_word(&t.token, if not { "NOT" } else { "EXISTS" })) {
        return Ok(false);
    }
    let found = reader.keyword("IF");
    if found && not {
        reader.expect("NOT")?;
    }
    if found {
        reader.expect("EXISTS")?;
    }
    Ok(found)
}

/// The clauses of `CREATE TABLE` between the columns and the query.
#[derive(Default)]
struct Clauses {
    format: Option<String>,
    options: Options,
    option_places: OptionPlaces,
    partition_columns: Vec<String>,
}

impl Clauses {
    fn parse(reader: &mut Reader<'_>) -> PlanResult<Self> {
        let mut clauses = Self::default();
        loop {
            let here = reader.here();
            if reader.keyword("USING") {
                clauses.format = Some(reader.name()?);
            } else if reader.peek().is_some_and(|t| is_word(&t.token, "OPTIONS")) {
                let (options, places) = reader.options()?;
                (clauses.options, clauses.option_places) = (options, places);
            } else if reader.keyword("LOCATION") {
                clauses.options.push(("path".to_string(), reader.option_value()?));
            } else if reader.keyword("COMMENT") {
                reader.option_value()?;
            } else if reader.keyword("PARTITIONED") {
                reader.expect("BY")?;
                clauses.partition_columns = reader.view_columns()?;
            } else if reader.keyword("TBLPROPERTIES") {
                reader.list_in_parentheses()?;
            } else if reader.keyword("CLUSTERED") || reader.keyword("CLUSTER") {
                let fix = "Leave it out: the tables of a session are in memory";
                return Err(unsupported("CLUSTERED BY", fix, here));
            } else {
                return Ok(clauses);
            }
        }
    }
}

/// Parses the rest of a statement after `CREATE [OR REPLACE] TABLE`. A table with a path is a view
/// of its files.
pub(super) fn create(reader: &mut Reader<'_>, replace: bool, place: Place) -> PlanResult<Head> {
    let on_existing = match (replace, if_exists(reader, true)?) {
        (true, _) => OnExisting::Replace,
        (false, true) => OnExisting::Keep,
        (false, false) => OnExisting::Fail,
    };
    let name = reader.table_name()?;
    let mut schema = None;
    if reader.token(&Token::LParen) {
        let at = reader.here();
        schema = Some((reader.parenthesised()?, at));
    }
    let Clauses { format, options, option_places, partition_columns } = Clauses::parse(reader)?;
    let has_path = options.iter().any(|(key, _)| key.eq_ignore_ascii_case("path"));
    let has_query = reader.keyword("AS") || reader.begins_query();
    if has_path && has_query {
        let fix = "Write CREATE STREAMING TABLE … USING FORMAT OPTIONS (path '…', trigger \
                   'available-now') AS SELECT …";
        return Err(unsupported("CREATE TABLE of files AS a query", fix, place));
    }
    if has_path {
        reader.end()?;
        if on_existing == OnExisting::Keep {
            let fix = "Write CREATE OR REPLACE TABLE";
            return Err(unsupported("IF NOT EXISTS of a table of files", fix, place));
        }
        let format = format.unwrap_or_else(|| "parquet".to_string());
        return Ok(Head::Whole(Statement::SourceView {
            name,
            schema,
            format,
            options,
            option_places,
            replace,
            place,
        }));
    }
    if let Some(format) = format
        && !["parquet", "csv", "json", "orc", "text"].contains(&format.to_lowercase().as_str())
    {
        return Err(PlanError::new(
            "DATA_SOURCE_NOT_FOUND",
            format!("a table cannot have the format '{format}'"),
            "Formats: parquet, csv, json, orc, text. The tables of a session are in memory, \
             whatever their format",
        )
        .at(place));
    }
    if !has_query {
        reader.end()?;
        if schema.is_none() {
            let mut error = reader.unexpected("the columns of the table, or AS");
            error.fix = "Write CREATE TABLE t (a INT, b STRING)".to_string();
            return Err(error);
        }
        let query = None;
        let create = TableStatement::Create { name, schema, on_existing, partition_columns, query };
        return Ok(Head::Whole(Statement::Table(create, place)));
    }
    if let Some((_, at)) = schema {
        return Err(PlanError::new(
            "PARSE_SYNTAX_ERROR",
            "a table AS a query has the columns of the query",
            "Leave the column list out, and name and cast the columns in the query",
        )
        .at(at));
    }
    Ok(Head::before(move |query| {
        let query = Some(query);
        let create = TableStatement::Create { name, schema, on_existing, partition_columns, query };
        Statement::Table(create, place)
    }))
}

/// Parses the rest of a statement after `INSERT`.
pub(super) fn insert(reader: &mut Reader<'_>, place: Place) -> PlanResult<Head> {
    let overwrite = reader.keyword("OVERWRITE");
    if !overwrite {
        reader.expect("INTO")?;
    }
    let _ = reader.keyword("TABLE");
    let name = reader.table_name()?;
    let at_partition = reader.here();
    let partition = partition(reader)?;
    if overwrite && !partition.is_empty() {
        // The tables of a session have no partitions: every row of the table would be replaced.
        let fix = "Write INSERT INTO, or INSERT OVERWRITE t with all rows of the table";
        return Err(unsupported("INSERT OVERWRITE … PARTITION", fix, at_partition));
    }
    for clause in ["BY", "REPLACE", "IF"] {
        let here = reader.here();
        if reader.keyword(clause) {
            let fix = "Write INSERT INTO t (a, b) SELECT …";
            return Err(unsupported(&format!("{clause} of INSERT"), fix, here));
        }
    }
    let mut columns = None;
    if !reader.begins_query() || reader.begins_list_of_names() {
        let is_table = reader.peek().is_some_and(|t| is_word(&t.token, "TABLE"));
        if !is_table {
            columns = Some(reader.view_columns()?);
        }
    }
    if reader.keyword("TABLE") {
        let query = super::describe::table(reader)?;
        reader.end()?;
        let insert = TableStatement::Insert { name, columns, partition, overwrite, query };
        return Ok(Head::Whole(Statement::Table(insert, place)));
    }
    if !reader.begins_query() {
        return Err(reader.unexpected("VALUES, a query or a list of columns"));
    }
    Ok(Head::before(move |query| {
        let insert = TableStatement::Insert { name, columns, partition, overwrite, query };
        Statement::Table(insert, place)
    }))
}

/// Parses `PARTITION (a = 1, b)`. Returns the columns, each with the query of its value if it has
/// one.
fn partition(reader: &mut Reader<'_>) -> PlanResult<Vec<(String, Option<Tokens>)>> {
    let mut values = Vec::new();
    if !reader.keyword("PARTITION") {
        return Ok(values);
    }
    if !reader.token(&Token::LParen) {
        return Err(reader.unexpected("'('"));
    }
    loop {
        let span = reader.peek().map(|token| token.span);
        let name = reader.name()?;
        let mut value = None;
        if reader.token(&Token::Eq) {
            let begin = reader.next;
            let mut depth = 0;
            while let Some(token) = reader.peek() {
                match token.token {
                    Token::LParen => depth += 1,
                    Token::Comma | Token::RParen if depth == 0 => break,
                    Token::RParen => depth -= 1,
                    _ => {}
                }
                reader.next += 1;
            }
            let mut query: Vec<_> = span
                .map(|span| TokenWithSpan::new(Token::make_keyword("SELECT"), span))
                .into_iter()
                .collect();
            query.extend_from_slice(&reader.tokens[begin..reader.next]);
            value = Some(Tokens::new(query));
        }
        values.push((name, value));
        if reader.token(&Token::RParen) {
            return Ok(values);
        }
        if !reader.token(&Token::Comma) {
            return Err(reader.unexpected("',' or ')'"));
        }
    }
}

/// The index of the query in the tokens of an INSERT: a keyword that begins a query outside
/// parentheses, or the parenthesis before one. The number of tokens if there is none.
fn begin_of_query(insert: &[TokenWithSpan]) -> usize {
    const BEGINNINGS: [&str; 5] = ["SELECT", "VALUES", "FROM", "TABLE", "WITH"];
    let begins = |at: usize| {
        insert.get(at).is_some_and(|t| BEGINNINGS.iter().any(|word| is_word(&t.token, word)))
    };
    let is_list_of_names = |at: usize| {
        insert.get(at + 2).is_some_and(|t| matches!(t.token, Token::Comma | Token::RParen))
    };
    let mut depth = 0;
    // The first two tokens are INSERT INTO, and TABLE may follow them.
    for (at, token) in insert.iter().enumerate().skip(3) {
        match token.token {
            Token::LParen if depth == 0 => {
                let inner = (at..insert.len()).find(|at| insert[*at].token != Token::LParen);
                let nested = inner.is_some_and(begins);
                if nested && !is_list_of_names(at) {
                    return at;
                }
                depth = 1;
            }
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ if depth == 0 && begins(at) => return at,
            _ => {}
        }
    }
    insert.len()
}

/// Rewrites Hive's `[WITH …] [FROM …] INSERT INTO t SELECT … INSERT INTO u SELECT …` to a statement
/// for each INSERT: `INSERT INTO t [WITH …] [FROM …] SELECT …`. Other statements are returned
/// unchanged.
pub(super) fn insert_first(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    let is = |token: Option<&TokenWithSpan>, words: &[&str]| {
        token.is_some_and(|token| words.iter().any(|word| is_word(&token.token, word)))
    };
    if !is(tokens.first(), &["WITH", "FROM"]) {
        return vec![tokens];
    }
    let mut depth = 0;
    let mut places = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ if depth == 0
                && is(Some(token), &["INSERT"])
                && is(tokens.get(at + 1), &["INTO", "OVERWRITE"]) =>
            {
                places.push(at);
            }
            _ => {}
        }
    }
    let Some(first) = places.first().copied() else { return vec![tokens] };
    let ends = places[1..].iter().copied().chain([tokens.len()]);
    let moved = places.iter().zip(ends).map(|(begin, end)| {
        let insert = &tokens[*begin..end];
        let (head, query) = insert.split_at(begin_of_query(insert));
        [head, &tokens[..first], query].concat()
    });
    moved.collect()
}

/// Parses the rest of a statement after `TRUNCATE`.
pub(super) fn truncate(reader: &mut Reader<'_>, place: Place) -> PlanResult<Head> {
    reader.expect("TABLE")?;
    let name = reader.table_name()?;
    reader.end()?;
    Ok(Head::Whole(Statement::Table(TableStatement::Truncate { name }, place)))
}

/// Parses the rest of a statement after `DROP`.
pub(super) fn drop(reader: &mut Reader<'_>, place: Place) -> PlanResult<Head> {
    let is_view = reader.keyword("VIEW");
    if !is_view && !reader.keyword("TABLE") {
        return Err(reader.unexpected("TABLE or VIEW"));
    }
    let if_exists = if_exists(reader, false)?;
    let name = reader.table_name()?;
    let _ = !is_view && reader.keyword("PURGE");
    reader.end()?;
    Ok(Head::Whole(Statement::Table(TableStatement::Drop { name, is_view, if_exists }, place)))
}
