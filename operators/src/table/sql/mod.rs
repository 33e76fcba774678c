//! Spark SQL: job files ([`job`]) and queries ([`query`]), parsed with `sqlparser` and built into
//! plans by the analyser.

pub mod expr;
pub mod job;
pub mod query;

use super::error::{Place, PlanError, PlanResult};
use super::plan::Plan;
use sqlparser::dialect::SparkSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

/// What a query may read by name.
pub trait Catalog {
    /// The plan behind a name.
    fn relation(&self, name: &str) -> Option<Plan>;
    /// All names, to suggest from.
    fn names(&self) -> Vec<String>;
}

const DIALECT: SparkSqlDialect = SparkSqlDialect {};
/// Words that go on with the query behind a table that is itself named `stream`.
const CLAUSES: [Keyword; 17] = [
    Keyword::AS,
    Keyword::WHERE,
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::ORDER,
    Keyword::LIMIT,
    Keyword::UNION,
    Keyword::EXCEPT,
    Keyword::INTERSECT,
    Keyword::LATERAL,
    Keyword::JOIN,
    Keyword::INNER,
    Keyword::LEFT,
    Keyword::RIGHT,
    Keyword::FULL,
    Keyword::CROSS,
    Keyword::ON,
];
/// Nesting that a query may have.
const DEPTH: usize = 64;

fn place(location: Location) -> Place {
    Place { line: location.line, column: location.column }
}

fn syntax(reason: impl Into<String>, at: Place) -> PlanError {
    PlanError::new("PARSE_SYNTAX_ERROR", reason, "").at(at)
}

/// The tokens of a text, without comments and white space.
pub(crate) fn tokenize(sql: &str) -> PlanResult<Vec<TokenWithSpan>> {
    let tokens = Tokenizer::new(&DIALECT, sql).tokenize_with_location();
    let tokens = tokens.map_err(|error| syntax(error.message, place(error.location)))?;
    Ok(tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect())
}

fn word(token: &Token) -> Option<&str> {
    match token {
        Token::Word(word) if word.quote_style.is_none() => Some(&word.value),
        _ => None,
    }
}

fn is_word(token: &Token, expected: &str) -> bool {
    word(token).is_some_and(|word| word.eq_ignore_ascii_case(expected))
}

/// Takes `STREAM` off `STREAM t` and `STREAM(t)`: every source here is a stream.
fn without_stream(tokens: &[TokenWithSpan]) -> PlanResult<Vec<TokenWithSpan>> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        let token = &tokens[i];
        let before = out.last().map(|t| &t.token);
        let in_from =
            before.is_some_and(|t| is_word(t, "FROM") || is_word(t, "JOIN") || *t == Token::Comma);
        if in_from && is_word(&token.token, "STREAM") {
            match (tokens.get(i + 1).map(|t| &t.token), tokens.get(i + 3).map(|t| &t.token)) {
                (Some(Token::LParen), Some(Token::RParen)) => {
                    out.push(tokens[i + 2].clone());
                    i += 4;
                    continue;
                }
                (Some(Token::Word(next)), _)
                    if next.quote_style.is_some() || !CLAUSES.contains(&next.keyword) =>
                {
                    i += 1;
                    continue;
                }
                _ => {}
            }
        }
        if is_word(&token.token, "WATERMARK")
            && tokens.get(i + 1).is_some_and(|t| word(&t.token).is_some())
        {
            return Err(PlanError::not_yet("WATERMARK").at(place(token.span.start)));
        }
        out.push(token.clone());
        i += 1;
    }
    Ok(out)
}

/// Reads `3, Column: 14`.
fn parse_place(text: &str) -> Option<Place> {
    let (line, column) = text.split_once(", Column: ")?;
    Some(Place { line: line.parse().ok()?, column: column.trim().parse().ok()? })
}

/// Parses one query from tokens.
fn parse_tokens(tokens: &[TokenWithSpan], catalog: &dyn Catalog) -> PlanResult<Plan> {
    let mut tokens = without_stream(tokens)?;
    let end = tokens.last().map_or(Place::default(), |t| place(t.span.end));
    let eof = tokens.last().map(|t| TokenWithSpan::new(Token::EOF, t.span));
    tokens.extend(eof);
    let mut parser =
        Parser::new(&DIALECT).with_recursion_limit(DEPTH).with_tokens_with_locations(tokens);
    let failed = |error: ParserError, parser: &Parser<'_>| {
        let text = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
            ParserError::RecursionLimitExceeded => format!("more than {DEPTH} levels deep"),
        };
        // The parser puts the position behind, as text; ours stands in front.
        let (reason, at) = match text.split_once(" at Line: ") {
            Some((reason, at)) => (reason, parse_place(at)),
            None => (text.as_str(), Some(place(parser.peek_token_ref().span.start))),
        };
        syntax(reason, at.filter(|at| at.line > 0).unwrap_or(end))
    };
    let query = match parser.parse_query() {
        Ok(query) => query,
        Err(error) => return Err(failed(error, &parser)),
    };
    let rest = parser.peek_token_ref();
    if !matches!(rest.token, Token::EOF | Token::SemiColon) {
        return Err(syntax(
            format!("'{}' is not expected here", rest.token),
            place(rest.span.start),
        ));
    }
    query::plan(&query, catalog)
}

/// Plans one query.
pub fn parse_query(sql: &str, catalog: &dyn Catalog) -> PlanResult<Plan> {
    parse_tokens(&tokenize(sql)?, catalog)
}
