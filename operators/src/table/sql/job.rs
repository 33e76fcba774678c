//! Parses job files: `CREATE TEMPORARY VIEW`, `CREATE STREAMING TABLE`, `SET`, `SET TIME ZONE`,
//! `RESET`, queries, and statements that describe views or change the tables of the session.

use super::describe::{Describe, describe, explain, show};
use super::literals::LiteralSettings;
use super::table_statement::{self, TableStatement};
use super::{Catalog, is_word, parse_tokens, place, syntax, tokenize, word};
use crate::table::datetime::{SECOND_US, Tz};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::Expr;
use crate::table::expr::resolve::did_you_mean;
use crate::table::plan::{Options, Plan};
use crate::table::types::DataType;
use crate::table::value::Value;
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// A parsed statement of a job file.
#[derive(Debug)]
pub enum Statement {
    /// `CREATE [OR REPLACE] TEMPORARY VIEW name [(schema)] USING format [OPTIONS (…)]`.
    SourceView {
        /// The view's name.
        name: String,
        /// The schema in DDL and its position; `None` if it is not given. The schema is parsed when
        /// the statement is executed, because settings affect its types.
        schema: Option<(String, Place)>,
        /// The source's format.
        format: String,
        /// The options of the source.
        options: Options,
        /// The positions of the options.
        option_places: OptionPlaces,
        /// Whether the statement may replace an existing view.
        replace: bool,
        /// The position of the statement.
        place: Place,
    },
    /// `CREATE [OR REPLACE] [TEMPORARY] VIEW [IF NOT EXISTS] name [(a, b)] AS query`.
    QueryView {
        /// The view's name.
        name: String,
        /// The column names and their position; `None` if they are not given.
        columns: Option<(Vec<String>, Place)>,
        /// What happens if the view exists.
        on_existing: OnExisting,
        /// The position of the statement.
        place: Place,
        /// The tokens of the query. It is planned after all earlier statements have been executed.
        query: Tokens,
    },
    /// `CREATE STREAMING TABLE name USING format [OPTIONS (…)] AS query`: starts a query.
    StreamingTable {
        /// The name of the query, unless the options contain another name.
        name: String,
        /// The sink's format.
        format: String,
        /// The options of the sink and of the query.
        options: Options,
        /// The positions of the options.
        option_places: OptionPlaces,
        /// The tokens of the query. It is planned after all earlier statements have been executed.
        query: Tokens,
        /// The position of the statement.
        place: Place,
    },
    /// A query whose result is shown to the user.
    Query(Tokens, Place),
    /// `DESCRIBE`, `EXPLAIN` or `SHOW`. The result is shown to the user.
    Describe(Describe, Place),
    /// A statement that changes the tables of the session.
    Table(TableStatement, Place),
    /// `RESET` or `RESET key`: restores the default of all settings, or of one.
    Reset(Option<String>, Place),
    /// `SET key = value` or `SET TIME ZONE …`.
    Set {
        /// The name of the setting.
        key: String,
        /// The value, without quotes.
        value: String,
        /// The position of the statement.
        place: Place,
    },
}

/// What happens if a table or view that is to be created exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExisting {
    /// The statement fails.
    Fail,
    /// `OR REPLACE`: the new one replaces it.
    Replace,
    /// `IF NOT EXISTS`: the statement does nothing.
    Keep,
}

/// The positions of a statement's options, by name.
#[derive(Debug, Default)]
pub struct OptionPlaces(Vec<(String, Place)>);

impl OptionPlaces {
    /// Sets the position of an error that has no position. If the error's reason quotes an option,
    /// the option's position is used, otherwise that of the statement.
    pub fn put_into(&self, error: PlanError, statement: Place) -> PlanError {
        if error.place.line > 0 {
            return error;
        }
        let reason = error.reason.to_lowercase();
        let quoted = |key: &str| reason.contains(&format!("'{}'", key.to_lowercase()));
        let found = self.0.iter().rev().find(|(key, _)| quoted(key));
        let at = found.map_or(statement, |(_, at)| *at);
        error.at(at)
    }
}

/// The tokens of a query that is not planned yet.
#[derive(Debug)]
pub struct Tokens(Vec<TokenWithSpan>);

/// A parsed statement, or the part of one before its query.
pub(super) enum Head {
    Whole(Statement),
    /// Completes the statement with the tokens of its query, which must not be empty.
    Before(Box<dyn FnOnce(Tokens) -> Statement>),
}

impl Head {
    pub(super) fn before(made: impl FnOnce(Tokens) -> Statement + 'static) -> Self {
        Self::Before(Box::new(made))
    }
}

impl Tokens {
    pub(super) fn new(tokens: Vec<TokenWithSpan>) -> Self {
        Self(tokens)
    }

    /// Parses and plans the query. The views in it must exist in the catalog.
    pub fn plan(self, catalog: &dyn Catalog) -> PlanResult<Plan> {
        parse_tokens(self.0, catalog)
    }
}

/// Parses a job file to statements. `reading` has the settings of string literals at the start of
/// the file; a `SET` in the file changes them for the statements after it.
pub fn parse(sql: &str, reading: LiteralSettings) -> PlanResult<Vec<Statement>> {
    // A byte order mark, which editors write at the start of files, is skipped.
    let mut tokens = tokenize(sql.strip_prefix('\u{feff}').unwrap_or(sql), reading)?;
    let ends: Vec<usize> =
        (0..tokens.len()).filter(|i| tokens[*i].token == Token::SemiColon).collect();
    // The statements are split off from last to first, so that each token is moved only once.
    let mut parts = Vec::with_capacity(ends.len() + 1);
    for end in ends.into_iter().rev() {
        parts.push(tokens.split_off(end + 1));
        tokens.truncate(end);
    }
    parts.push(tokens);
    let parts = parts.into_iter().rev().filter(|tokens| !tokens.is_empty());
    parts.flat_map(table_statement::insert_first).map(statement).collect()
}

pub(super) struct Reader<'t> {
    pub(super) tokens: &'t [TokenWithSpan],
    pub(super) next: usize,
}

impl<'t> Reader<'t> {
    pub(super) fn peek(&self) -> Option<&'t TokenWithSpan> {
        self.tokens.get(self.next)
    }

    pub(super) fn here(&self) -> Place {
        let last = self.tokens.last().map(|t| place(t.span.end));
        self.peek().map(|t| place(t.span.start)).or(last).unwrap_or_default()
    }

    pub(super) fn unexpected(&self, expected: &str) -> PlanError {
        let found = self
            .peek()
            .map_or("the end of the statement".to_string(), |t| format!("'{}'", t.token));
        let mut error = syntax(format!("expected {expected}, found {found}"), self.here());
        if self.next > 0 && super::begins_create(&self.tokens[self.next..]) {
            error.fix = super::END_BEFORE_CREATE.to_string();
        }
        error
    }

    /// Consumes a keyword if it is the next token. Returns whether it is.
    pub(super) fn keyword(&mut self, expected: &str) -> bool {
        let found = self.peek().is_some_and(|t| is_word(&t.token, expected));
        self.next += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, expected: &str) -> PlanResult<()> {
        if self.keyword(expected) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    pub(super) fn token(&mut self, expected: &Token) -> bool {
        let found = self.peek().is_some_and(|t| t.token == *expected);
        self.next += usize::from(found);
        found
    }

    pub(super) fn name(&mut self) -> PlanResult<String> {
        match self.peek().map(|t| &t.token) {
            Some(Token::Word(word)) => {
                self.next += 1;
                Ok(word.value.clone())
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// Parses the name of a table, which may be qualified by the names of Spark's catalog and
    /// default database.
    pub(super) fn table_name(&mut self) -> PlanResult<String> {
        let mut name = self.name()?;
        for qualifier in ["spark_catalog", "default"] {
            if name.eq_ignore_ascii_case(qualifier) && self.token(&Token::Period) {
                name = self.name()?;
            }
        }
        Ok(name)
    }

    /// Consumes a list in parentheses.
    pub(super) fn list_in_parentheses(&mut self) -> PlanResult<()> {
        if !self.token(&Token::LParen) {
            return Err(self.unexpected("'('"));
        }
        self.parenthesised().map(drop)
    }

    /// Whether a list of names in parentheses starts at the next token, and not a query.
    pub(super) fn begins_list_of_names(&self) -> bool {
        let at = |ahead| self.tokens.get(self.next + ahead).map(|t: &TokenWithSpan| &t.token);
        at(0) == Some(&Token::LParen)
            && matches!(at(1), Some(Token::Word(_)))
            && matches!(at(2), Some(Token::Comma | Token::RParen))
    }

    /// Consumes tokens through the matching closing parenthesis and returns the text before it.
    pub(super) fn parenthesised(&mut self) -> PlanResult<String> {
        let (mut depth, mut text) = (0, String::new());
        while let Some(token) = self.peek() {
            self.next += 1;
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => return Ok(text),
                Token::RParen => depth -= 1,
                _ => {}
            }
            // The text of a literal is decoded, so it needs escapes again.
            match &token.token {
                Token::SingleQuotedString(literal) | Token::DoubleQuotedString(literal) => {
                    let literal = literal.replace('\\', r"\\").replace('\'', r"\'");
                    text.push_str(&format!("'{literal}'"));
                }
                other => text.push_str(&other.to_string()),
            }
            text.push(' ');
        }
        Err(self.unexpected("')'"))
    }

    /// Parses `OPTIONS (key 'value', 'key' = value, a.b 'value' …)`. The clause is optional.
    pub(super) fn options(&mut self) -> PlanResult<(Options, OptionPlaces)> {
        let (mut options, mut places) = (Options::new(), OptionPlaces::default());
        if !self.keyword("OPTIONS") {
            return Ok((options, places));
        }
        if !self.token(&Token::LParen) {
            return Err(self.unexpected("'('"));
        }
        loop {
            let at = self.here();
            let key = self.option_key()?;
            places.0.push((key.clone(), at));
            let _ = self.token(&Token::Eq);
            let value = self.option_value()?;
            options.push((key, value));
            if self.token(&Token::Comma) {
                continue;
            }
            return if self.token(&Token::RParen) {
                Ok((options, places))
            } else {
                Err(self.unexpected("',' or ')'"))
            };
        }
    }

    /// Parses `PARTITIONED BY (a, b)`. Returns the value of the equivalent option `partitionBy`.
    fn partitioned_by(&mut self) -> PlanResult<Option<String>> {
        if !self.keyword("PARTITIONED") {
            return Ok(None);
        }
        self.expect("BY")?;
        if !self.token(&Token::LParen) {
            return Err(self.unexpected("'('"));
        }
        let mut names = vec![self.name()?];
        while self.token(&Token::Comma) {
            names.push(self.name()?);
        }
        if self.token(&Token::RParen) {
            Ok(Some(names.join(",")))
        } else {
            Err(self.unexpected("',' or ')'"))
        }
    }

    /// Parses the column list of a view: `(a, b COMMENT 'text')`.
    pub(super) fn view_columns(&mut self) -> PlanResult<Vec<String>> {
        if !self.token(&Token::LParen) {
            return Err(self.unexpected("'('"));
        }
        let mut names = Vec::new();
        loop {
            names.push(self.name()?);
            self.comment()?;
            if self.token(&Token::RParen) {
                return Ok(names);
            }
            if !self.token(&Token::Comma) {
                let mut error = self.unexpected("',' or ')'");
                error.fix = "The columns of a view of a query have names alone, and their types \
                             from the query: CAST(a AS INT)"
                    .to_string();
                return Err(error);
            }
        }
    }

    /// Parses the rest of `WITH SCHEMA BINDING`, `COMPENSATION`, `EVOLUTION` or `TYPE EVOLUTION`. A
    /// view of a session does not outlive the session, so the mode has no effect.
    fn schema_mode(&mut self) -> PlanResult<()> {
        self.expect("SCHEMA")?;
        let is_of_types = self.keyword("TYPE");
        if self.keyword("EVOLUTION")
            || !is_of_types && (self.keyword("BINDING") || self.keyword("COMPENSATION"))
        {
            return Ok(());
        }
        Err(self.unexpected("BINDING, COMPENSATION, EVOLUTION or TYPE EVOLUTION"))
    }

    /// Parses `COMMENT 'text'`, which has no effect.
    fn comment(&mut self) -> PlanResult<()> {
        if self.keyword("COMMENT") {
            match self.peek().map(|t| &t.token) {
                Some(Token::SingleQuotedString(_) | Token::DoubleQuotedString(_)) => self.next += 1,
                _ => return Err(self.unexpected("a text in quotes")),
            }
        }
        Ok(())
    }

    fn option_key(&mut self) -> PlanResult<String> {
        if let Some(Token::SingleQuotedString(key)) = self.peek().map(|t| &t.token) {
            self.next += 1;
            return Ok(key.clone());
        }
        let mut key = self.name()?;
        while self.token(&Token::Period) {
            key = format!("{key}.{}", self.name()?);
        }
        Ok(key)
    }

    pub(super) fn option_value(&mut self) -> PlanResult<String> {
        let value = match self.peek().map(|t| &t.token) {
            Some(Token::SingleQuotedString(value) | Token::DoubleQuotedString(value)) => {
                value.clone()
            }
            Some(Token::Number(value, _)) => value.clone(),
            Some(token)
                if word(token).is_some_and(|w| {
                    w.eq_ignore_ascii_case("true") || w.eq_ignore_ascii_case("false")
                }) =>
            {
                token.to_string().to_lowercase()
            }
            _ => return Err(self.unexpected("a value in quotes")),
        };
        self.next += 1;
        Ok(value)
    }

    /// Whether a query starts at the next token.
    pub(super) fn begins_query(&self) -> bool {
        let words = ["SELECT", "WITH", "VALUES", "FROM"];
        self.peek().is_some_and(|t| {
            t.token == Token::LParen || words.iter().any(|word| is_word(&t.token, word))
        })
    }

    /// Fails unless the statement ends here.
    pub(super) fn end(&self) -> PlanResult<()> {
        match self.peek() {
            Some(_) => Err(self.unexpected("the end of the statement")),
            None => Ok(()),
        }
    }

    pub(super) fn rest(&mut self) -> PlanResult<Tokens> {
        let rest = &self.tokens[self.next..];
        if rest.is_empty() {
            return Err(self.unexpected("a query"));
        }
        Ok(Tokens(rest.to_vec()))
    }
}

/// Keywords that start a statement, for suggestions.
const BEGINNINGS: [&str; 14] = [
    "SELECT", "WITH", "VALUES", "FROM", "TABLE", "CREATE", "INSERT", "TRUNCATE", "DROP", "SET",
    "RESET", "DESCRIBE", "SHOW", "EXPLAIN",
];

/// The error of a text that does not start with the keyword of a statement.
fn no_statement(reader: &Reader<'_>) -> PlanError {
    let mut error = reader.unexpected("a statement");
    let first = reader.peek().and_then(|t| word(&t.token)).unwrap_or_default().to_uppercase();
    error.fix = format!(
        "{}A query begins with SELECT, WITH, VALUES, FROM or TABLE; the other statements are CREATE \
         TEMPORARY VIEW, CREATE STREAMING TABLE, CREATE TABLE, INSERT, TRUNCATE, DROP, SET, RESET, \
         DESCRIBE, SHOW and EXPLAIN, each ended by ';'",
        did_you_mean(&first, BEGINNINGS)
    );
    error
}

fn statement(mut tokens: Vec<TokenWithSpan>) -> PlanResult<Statement> {
    let mut reader = Reader { tokens: &tokens, next: 0 };
    match head(&mut reader)? {
        Head::Whole(statement) => Ok(statement),
        Head::Before(_) if reader.peek().is_none() => Err(reader.unexpected("a query")),
        Head::Before(made) => {
            let before = reader.next;
            tokens.drain(..before);
            Ok(made(Tokens(tokens)))
        }
    }
}

fn head(reader: &mut Reader<'_>) -> PlanResult<Head> {
    let here = reader.here();
    if reader.keyword("SET") {
        return set(reader, here).map(Head::Whole);
    }
    if reader.begins_query() || reader.peek().is_some_and(|t| is_word(&t.token, "TABLE")) {
        return Ok(Head::before(move |query| Statement::Query(query, here)));
    }
    if reader.keyword("DESCRIBE") || reader.keyword("DESC") {
        return Ok(Head::Whole(Statement::Describe(describe(reader)?, here)));
    }
    if reader.keyword("SHOW") {
        return Ok(Head::Whole(Statement::Describe(show(reader)?, here)));
    }
    if reader.keyword("EXPLAIN") {
        return Ok(Head::Whole(Statement::Describe(explain(reader)?, here)));
    }
    if reader.keyword("RESET") {
        return reset(reader, here).map(Head::Whole);
    }
    if reader.keyword("INSERT") {
        return table_statement::insert(reader, here);
    }
    if reader.keyword("TRUNCATE") {
        return table_statement::truncate(reader, here);
    }
    if reader.keyword("DROP") {
        return table_statement::drop(reader, here);
    }
    if !reader.keyword("CREATE") {
        return Err(no_statement(reader));
    }
    let replace = reader.keyword("OR");
    if replace {
        reader.expect("REPLACE")?;
    }
    if !replace && reader.keyword("STREAMING") {
        reader.expect("TABLE")?;
        let name = reader.name()?;
        reader.expect("USING")?;
        let format = reader.name()?;
        let mut partitioned = reader.partitioned_by()?;
        let (mut options, option_places) = reader.options()?;
        partitioned = partitioned.or(reader.partitioned_by()?);
        options.extend(partitioned.map(|names| ("partitionBy".to_string(), names)));
        reader.expect("AS")?;
        return Ok(Head::before(move |query| Statement::StreamingTable {
            name,
            format,
            options,
            option_places,
            query,
            place: here,
        }));
    }
    if reader.keyword("TABLE") {
        return table_statement::create(reader, replace, here);
    }
    let is_temporary = reader.keyword("TEMPORARY") || reader.keyword("TEMP");
    if !reader.keyword("VIEW") {
        return Err(match is_temporary {
            true => reader.unexpected("VIEW"),
            false if replace => reader.unexpected("TEMPORARY VIEW, VIEW or TABLE"),
            false => reader.unexpected("TEMPORARY VIEW, STREAMING TABLE, VIEW or TABLE"),
        });
    }
    let on_existing = match (replace, is_temporary) {
        (true, _) => OnExisting::Replace,
        (false, false) if table_statement::if_exists(reader, true)? => OnExisting::Keep,
        (false, _) => OnExisting::Fail,
    };
    let name = reader.table_name()?;
    let mut schema = None;
    let begins_list = reader.next;
    if reader.token(&Token::LParen) {
        let at = reader.here();
        schema = Some((reader.parenthesised()?, at));
    }
    if is_temporary && reader.keyword("USING") {
        let format = reader.name()?;
        let (options, option_places) = reader.options()?;
        if reader.peek().is_some() {
            return Err(reader.unexpected("the end of the statement"));
        }
        return Ok(Head::Whole(Statement::SourceView {
            name,
            schema,
            format,
            options,
            option_places,
            replace,
            place: here,
        }));
    }
    let behind_list = std::mem::replace(&mut reader.next, begins_list);
    let columns = match schema {
        Some((_, at)) => Some((reader.view_columns()?, at)),
        None => None,
    };
    debug_assert_eq!(reader.next, behind_list);
    reader.comment()?;
    if !is_temporary && reader.keyword("WITH") {
        reader.schema_mode()?;
    }
    reader.expect("AS")?;
    let place = here;
    Ok(Head::before(move |query| Statement::QueryView { name, columns, on_existing, place, query }))
}

/// Parses the rest of `RESET` or `RESET key`.
fn reset(reader: &mut Reader<'_>, place: Place) -> PlanResult<Statement> {
    if reader.peek().is_none() {
        return Ok(Statement::Reset(None, place));
    }
    let key = reader.option_key()?;
    reader.end()?;
    Ok(Statement::Reset(Some(key), place))
}

/// Parses `SET key = value`, where the value may be quoted, or `SET TIME ZONE …`.
fn set(reader: &mut Reader<'_>, place: Place) -> PlanResult<Statement> {
    let mut key = reader.name()?;
    if key.eq_ignore_ascii_case("TIME") && reader.keyword("ZONE") {
        let key = "spark.sql.session.timeZone".to_string();
        return Ok(Statement::Set { key, value: time_zone(reader)?, place });
    }
    while reader.token(&Token::Period) {
        key = format!("{key}.{}", reader.name()?);
    }
    if !reader.token(&Token::Eq) {
        return Err(reader.unexpected("'='"));
    }
    Ok(Statement::Set { key, value: as_written(&reader.tokens[reader.next..]), place })
}

/// The text of tokens as the user wrote it, without quotes. For example, `America/New_York`
/// consists of three tokens.
fn as_written(tokens: &[TokenWithSpan]) -> String {
    let mut text = String::new();
    let mut end = None;
    for token in tokens {
        if end.is_some_and(|end| end != token.span.start) {
            text.push(' ');
        }
        end = Some(token.span.end);
        match &token.token {
            Token::SingleQuotedString(quoted) | Token::DoubleQuotedString(quoted) => {
                text.push_str(quoted);
            }
            Token::Word(word) => text.push_str(&word.value),
            other => text.push_str(&other.to_string()),
        }
    }
    text
}

/// Parses the rest of a statement after `SET TIME ZONE`: LOCAL, a quoted name, or an interval.
fn time_zone(reader: &mut Reader<'_>) -> PlanResult<String> {
    let here = reader.here();
    let zone = if reader.keyword("LOCAL") {
        local_zone()
    } else if let Some(Token::SingleQuotedString(name) | Token::DoubleQuotedString(name)) =
        reader.peek().map(|t| &t.token)
    {
        reader.next += 1;
        name.clone()
    } else if reader.peek().is_some_and(|t| is_word(&t.token, "INTERVAL")) {
        let text = reader.tokens[reader.next + 1..].iter().map(|t| t.token.to_string());
        let text = text.collect::<Vec<_>>().join(" ");
        reader.next = reader.tokens.len();
        offset_name(&text).map_err(|error| error.at(here))?
    } else {
        return Err(reader.unexpected("LOCAL, a time zone in quotes or an interval"));
    };
    if reader.peek().is_some() {
        return Err(reader.unexpected("the end of the statement"));
    }
    Ok(zone)
}

/// The ID of the time zone whose offset from UTC is the given interval.
fn offset_name(interval: &str) -> PlanResult<String> {
    let zone = match super::expr::interval_literal(interval)? {
        Expr::Literal(Value::Long(micros), DataType::DayTimeInterval(..))
            if micros % SECOND_US == 0 =>
        {
            i32::try_from(micros / SECOND_US).ok().and_then(Tz::fixed)
        }
        _ => None,
    };
    zone.map(|zone| zone.name().into_owned()).ok_or_else(|| {
        PlanError::new(
            "INVALID_INTERVAL_FORMAT.TIMEZONE_INTERVAL_OUT_OF_RANGE",
            format!("`INTERVAL` {interval} is not an offset from UTC"),
            "It has hours, minutes and seconds, 18 hours at most",
        )
    })
}

/// The time zone of the machine: the environment variable TZ, or else the target of /etc/localtime,
/// or else UTC. A name that is not a known zone is passed over.
fn local_zone() -> String {
    let linked = || {
        let link = std::fs::read_link("/etc/localtime").ok()?;
        Some(link.to_str()?.split_once("zoneinfo/")?.1.to_string())
    };
    let known = |name: &String| Tz::named(name).is_some();
    let named = std::env::var("TZ").ok().filter(known);
    named.or_else(|| linked().filter(known)).unwrap_or_else(|| "UTC".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(sql: &str) -> Result<(String, String), String> {
        match parse(sql, LiteralSettings::default()).map(|mut statements| statements.remove(0)) {
            Ok(Statement::Set { key, value, .. }) => Ok((key, value)),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.condition.to_string()),
        }
    }

    #[test]
    fn values_of_settings_need_no_quotes() {
        for (written, value) in [
            ("America/New_York", "America/New_York"),
            ("+05:30", "+05:30"),
            ("Etc/GMT+3", "Etc/GMT+3"),
            ("'Europe/Paris'", "Europe/Paris"),
            ("10 seconds", "10 seconds"),
        ] {
            let read = set(&format!("SET a.b = {written}"));
            assert_eq!(read, Ok(("a.b".to_string(), value.to_string())));
        }
    }

    #[test]
    fn time_zones_are_set_by_name_or_distance() {
        let zone = |written: &str| {
            set(&format!("SET TIME ZONE {written}")).map(|(key, value)| {
                assert_eq!(key, "spark.sql.session.timeZone");
                value
            })
        };
        for (written, name) in [
            ("'Asia/Kolkata'", "Asia/Kolkata"),
            ("INTERVAL '5:30' HOUR TO MINUTE", "+05:30"),
            ("INTERVAL 5 HOURS 30 MINUTES", "+05:30"),
            ("INTERVAL -5 HOURS", "-05:00"),
            ("INTERVAL '10:00:01' HOUR TO SECOND", "+10:00:01"),
        ] {
            assert_eq!(zone(written).as_deref(), Ok(name), "{written}");
        }
        assert!(zone("LOCAL").is_ok());
        for wrong in ["INTERVAL 19 HOURS", "INTERVAL 1 MONTH", "INTERVAL 9 HOURS 5 MILLISECONDS"] {
            let condition = "INVALID_INTERVAL_FORMAT.TIMEZONE_INTERVAL_OUT_OF_RANGE";
            assert_eq!(zone(wrong), Err(condition.to_string()), "{wrong}");
        }
        assert!(zone("UTC").is_err() && zone("+5").is_err());
    }
}
