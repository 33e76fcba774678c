//! Job files: `CREATE TEMPORARY VIEW`, `CREATE STREAMING TABLE`, `SET`.

use super::{Catalog, is_word, parse_tokens, place, syntax, tokenize, word};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::plan::{Options, Plan};
use crate::table::types::Schema;
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// A statement of a job file.
#[derive(Debug)]
pub enum Statement {
    /// `CREATE [OR REPLACE] TEMPORARY VIEW name [(schema)] USING format [OPTIONS (…)]`.
    SourceView {
        /// The view's name.
        name: String,
        /// The user's schema, if one is given.
        schema: Option<Schema>,
        /// The source's format.
        format: String,
        /// Its options.
        options: Options,
        /// Where the statement begins.
        place: Place,
    },
    /// `CREATE [OR REPLACE] TEMPORARY VIEW name AS query`.
    QueryView {
        /// The view's name.
        name: String,
        /// The query's tokens, planned when all before is known.
        query: Tokens,
    },
    /// `CREATE STREAMING TABLE name USING format [OPTIONS (…)] AS query`: starts a query.
    StreamingTable {
        /// The query's name, unless the options say another.
        name: String,
        /// The sink's format.
        format: String,
        /// The sink's options and the query's own.
        options: Options,
        /// The query's tokens.
        query: Tokens,
        /// Where the statement begins.
        place: Place,
    },
    /// A query by itself: its result is shown.
    Query(Tokens, Place),
    /// `SET key = value`.
    Set {
        /// The setting.
        key: String,
        /// Its value.
        value: String,
        /// Where the statement begins.
        place: Place,
    },
}

/// A query that is not planned yet.
#[derive(Debug)]
pub struct Tokens(Vec<TokenWithSpan>);

impl Tokens {
    /// Plans it.
    pub fn plan(&self, catalog: &dyn Catalog) -> PlanResult<Plan> {
        parse_tokens(&self.0, catalog)
    }
}

/// Splits a job file into statements.
pub fn parse(sql: &str) -> PlanResult<Vec<Statement>> {
    let tokens = tokenize(sql)?;
    let statements = tokens.split(|t| t.token == Token::SemiColon);
    statements
        .filter(|tokens| !tokens.is_empty())
        .map(|tokens| statement(Reader { tokens, next: 0 }))
        .collect()
}

struct Reader<'t> {
    tokens: &'t [TokenWithSpan],
    next: usize,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<&'t TokenWithSpan> {
        self.tokens.get(self.next)
    }

    fn here(&self) -> Place {
        let last = self.tokens.last().map(|t| place(t.span.end));
        self.peek().map(|t| place(t.span.start)).or(last).unwrap_or_default()
    }

    fn unexpected(&self, expected: &str) -> PlanError {
        let found = self
            .peek()
            .map_or("the end of the statement".to_string(), |t| format!("'{}'", t.token));
        syntax(format!("{found} stands where {expected} should"), self.here())
    }

    /// Takes a keyword if it is next.
    fn keyword(&mut self, expected: &str) -> bool {
        let found = self.peek().is_some_and(|t| is_word(&t.token, expected));
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, expected: &str) -> PlanResult<()> {
        if self.keyword(expected) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn token(&mut self, expected: &Token) -> bool {
        let found = self.peek().is_some_and(|t| t.token == *expected);
        self.next += usize::from(found);
        found
    }

    fn name(&mut self) -> PlanResult<String> {
        match self.peek().map(|t| &t.token) {
            Some(Token::Word(word)) => {
                self.next += 1;
                Ok(word.value.clone())
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// The text of the tokens up to the matching closing parenthesis.
    fn parenthesised(&mut self) -> PlanResult<String> {
        let (mut depth, mut text) = (0, String::new());
        while let Some(token) = self.peek() {
            self.next += 1;
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => return Ok(text),
                Token::RParen => depth -= 1,
                _ => {}
            }
            text.push_str(&token.token.to_string());
            text.push(' ');
        }
        Err(self.unexpected("')'"))
    }

    /// `(key 'value', 'key' = value, a.b 'value' …)`.
    fn options(&mut self) -> PlanResult<Options> {
        let mut options = Options::new();
        if !self.keyword("OPTIONS") {
            return Ok(options);
        }
        if !self.token(&Token::LParen) {
            return Err(self.unexpected("'('"));
        }
        loop {
            let key = self.option_key()?;
            let _ = self.token(&Token::Eq);
            let value = self.option_value()?;
            options.push((key, value));
            if self.token(&Token::Comma) {
                continue;
            }
            return if self.token(&Token::RParen) {
                Ok(options)
            } else {
                Err(self.unexpected("',' or ')'"))
            };
        }
    }

    /// `PARTITIONED BY (a, b)`, as the option that says the same.
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

    fn option_value(&mut self) -> PlanResult<String> {
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

    fn rest(&mut self) -> PlanResult<Tokens> {
        let rest = &self.tokens[self.next..];
        if rest.is_empty() {
            return Err(self.unexpected("a query"));
        }
        Ok(Tokens(rest.to_vec()))
    }
}

fn statement(mut reader: Reader<'_>) -> PlanResult<Statement> {
    let here = reader.here();
    if reader.keyword("SET") {
        let mut key = reader.name()?;
        while reader.token(&Token::Period) {
            key = format!("{key}.{}", reader.name()?);
        }
        if !reader.token(&Token::Eq) {
            return Err(reader.unexpected("'='"));
        }
        let value: String = reader.tokens[reader.next..]
            .iter()
            .map(|t| match &t.token {
                Token::SingleQuotedString(text) => text.clone(),
                other => other.to_string(),
            })
            .collect::<Vec<_>>()
            .join(" ");
        return Ok(Statement::Set { key, value, place: here });
    }
    let begins_query = ["SELECT", "WITH", "VALUES", "FROM"];
    if reader.peek().is_some_and(|t| {
        t.token == Token::LParen || begins_query.iter().any(|word| is_word(&t.token, word))
    }) {
        return Ok(Statement::Query(reader.rest()?, here));
    }
    if !reader.keyword("CREATE") {
        let fix = "A job file has CREATE TEMPORARY VIEW, CREATE STREAMING TABLE and SET, each ended by ';'";
        let mut error = reader.unexpected("CREATE or SET");
        error.fix = fix.to_string();
        return Err(error);
    }
    if reader.keyword("OR") {
        reader.expect("REPLACE")?;
    }
    if reader.keyword("STREAMING") {
        reader.expect("TABLE")?;
        let name = reader.name()?;
        reader.expect("USING")?;
        let format = reader.name()?;
        let mut partitioned = reader.partitioned_by()?;
        let mut options = reader.options()?;
        partitioned = partitioned.or(reader.partitioned_by()?);
        options.extend(partitioned.map(|names| ("partitionBy".to_string(), names)));
        reader.expect("AS")?;
        return Ok(Statement::StreamingTable {
            name,
            format,
            options,
            query: reader.rest()?,
            place: here,
        });
    }
    if !reader.keyword("TEMPORARY") && !reader.keyword("TEMP") {
        return Err(reader.unexpected("TEMPORARY VIEW or STREAMING TABLE"));
    }
    reader.expect("VIEW")?;
    let name = reader.name()?;
    let mut schema = None;
    if reader.token(&Token::LParen) {
        let at = reader.here();
        schema = Some(Schema::parse_ddl(&reader.parenthesised()?).map_err(|error| error.at(at))?);
    }
    if reader.keyword("USING") {
        let format = reader.name()?;
        let options = reader.options()?;
        if reader.peek().is_some() {
            return Err(reader.unexpected("the end of the statement"));
        }
        return Ok(Statement::SourceView { name, schema, format, options, place: here });
    }
    reader.expect("AS")?;
    Ok(Statement::QueryView { name, query: reader.rest()? })
}
