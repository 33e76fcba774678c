//! Spark SQL: job files ([`job`]) and queries ([`query`]). The crate `sqlparser` parses the text,
//! and the analyser builds plans.

pub mod describe;
mod dialect;
pub mod expr;
pub mod files;
mod group;
mod inline_table;
pub mod job;
mod join;
mod lateral;
pub(crate) mod literals;
mod long;
mod memo;
mod nesting;
mod order;
mod pivot;
pub mod query;
mod range;
mod refused;
mod rewrite;
mod set_operation;
mod subquery;
mod table_function;
pub mod table_statement;
mod unpivot;
mod values_rows;
mod views;
mod windows;

use super::error::{Place, PlanError, PlanResult};
use super::expr::Expr;
use super::expr::compile::Semantics;
use super::plan::{METADATA, Plan};
use crate::table::expr::type_rules::Rules;
use crate::table::expr::user_function::{UserAggregate, UserFunction};
use crate::table::plan::limits::{MAX_NESTING, on_large_stack, statement};
use files::FilesInFrom;
pub use literals::LiteralSettings;
use rewrite::interval_text;
use sqlparser::ast::{GroupByExpr, Query};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use std::sync::Arc;
pub use table_function::keywords;

/// The names that a query can refer to, and the session's settings.
pub trait Catalog {
    /// The plan of a view or table; `None` if the name is unknown.
    fn relation(&self, name: &str) -> Option<Plan>;
    /// All view and table names, for suggestions in errors and for SHOW.
    fn names(&self) -> Vec<String>;
    /// The user-defined scalar function with a name; `None` if there is none.
    fn function(&self, _name: &str) -> Option<Arc<UserFunction>> {
        None
    }
    /// The user-defined aggregate function with a name; `None` if there is none.
    fn aggregate(&self, _name: &str) -> Option<Arc<UserAggregate>> {
        None
    }
    /// The names of the user-defined functions, for SHOW FUNCTIONS.
    fn user_functions(&self) -> Vec<String> {
        Vec::new()
    }
    /// The plan of files that a query names in FROM, whose schema may be inferred from them; `None`
    /// if the catalog cannot read files.
    fn files(&self, _files: FilesInFrom) -> Option<PlanResult<Plan>> {
        None
    }
    /// The WATERMARK clause of the current query with an index; `None` if there is none.
    fn watermark(&self, _number: usize) -> Option<&Watermark> {
        None
    }
    /// The position of a clause's keyword: its first occurrence at or after `from`, or else `from`.
    fn clause(&self, _word: &str, from: Place) -> Place {
        from
    }
    /// Whether the current query may refer to the column `_metadata`, which describes the file of a
    /// row.
    fn may_name_files(&self) -> bool {
        true
    }
    /// The session settings, such as time zone and ANSI mode.
    fn semantics(&self) -> Semantics {
        Semantics::default()
    }
    /// The settings of string literals.
    fn literals(&self) -> LiteralSettings {
        LiteralSettings::default()
    }
    /// Whether ASOF joins are enabled.
    fn has_asof_join(&self) -> bool {
        false
    }
}

const DIALECT: dialect::Spark = dialect::Spark;
/// Keywords of clauses. If one of them follows the word STREAM, the word is the name of a table.
const CLAUSES: [Keyword; 24] = [
    Keyword::SELECT,
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
    Keyword::NATURAL,
    Keyword::SEMI,
    Keyword::ANTI,
    Keyword::ASOF,
    Keyword::MINUS,
    Keyword::USING,
];
/// More keywords that cannot be the alias of a relation, because they start a clause that may
/// follow the relation.
const BEHIND_RELATION: [Keyword; 9] = [
    Keyword::TABLESAMPLE,
    Keyword::OFFSET,
    Keyword::WINDOW,
    Keyword::QUALIFY,
    Keyword::SORT,
    Keyword::CLUSTER,
    Keyword::DISTRIBUTE,
    Keyword::PIVOT,
    Keyword::UNPIVOT,
];
/// The prefix of an alias that marks a relation with a WATERMARK clause. The index of the clause
/// follows the prefix.
const WATERMARK_MARK: &str = "millstream_watermark_";
/// The prefix of a table name that marks a table to be read as a stream.
const STREAM_MARK: &str = "millstream_stream_of_";
/// The prefix of function names that stand for syntax that the parser does not support.
const REWRITTEN: &str = "millstream_literal_";
/// The name of the relation in `CROSS JOIN name PIVOT (…)`, as which PIVOT and UNPIVOT are parsed.
const PIVOT_MARK: &str = "millstream_pivoted";
/// The recursion limit of the parser, which makes several calls for each level of nesting.
const PARSER_CALLS: usize = MAX_NESTING * 8;

/// A parsed WATERMARK clause, which declares the event time of a relation.
#[derive(Debug)]
pub struct Watermark {
    /// The event time expression.
    pub time: Expr,
    /// The name in `AS name`: a column of this name with the event time is added to the relation.
    /// It may be missing only if the event time is a column.
    pub name: Option<String>,
    /// The delay of the watermark, as the text of an interval.
    pub delay: String,
    /// The maximum distance of event times ahead of the clock, as the text of an interval.
    pub skew: Option<String>,
    /// The alias of the relation.
    pub alias: Option<String>,
    /// The position of the clause.
    pub place: Place,
}

/// A catalog that also contains the WATERMARK clauses of a query.
struct WithWatermarks<'c> {
    outer: &'c dyn Catalog,
    watermarks: Vec<Watermark>,
    names_files: bool,
    /// Keywords of clauses that may be rejected, with their positions.
    clauses: Vec<(&'static str, Place)>,
}

impl Catalog for WithWatermarks<'_> {
    fn relation(&self, name: &str) -> Option<Plan> {
        self.outer.relation(name)
    }
    fn names(&self) -> Vec<String> {
        self.outer.names()
    }
    fn function(&self, name: &str) -> Option<Arc<UserFunction>> {
        self.outer.function(name)
    }
    fn aggregate(&self, name: &str) -> Option<Arc<UserAggregate>> {
        self.outer.aggregate(name)
    }
    fn files(&self, files: FilesInFrom) -> Option<PlanResult<Plan>> {
        self.outer.files(files)
    }
    fn watermark(&self, number: usize) -> Option<&Watermark> {
        self.watermarks.get(number)
    }
    fn clause(&self, word: &str, from: Place) -> Place {
        let behind = |at: &Place| (at.line, at.column) >= (from.line, from.column);
        let mut found = self.clauses.iter().filter(|(written, at)| *written == word && behind(at));
        found.next().map_or(from, |(_, at)| *at)
    }
    fn may_name_files(&self) -> bool {
        self.names_files
    }
    fn semantics(&self) -> Semantics {
        self.outer.semantics()
    }
    fn literals(&self) -> LiteralSettings {
        self.outer.literals()
    }
    fn has_asof_join(&self) -> bool {
        self.outer.has_asof_join()
    }
}

fn place(location: Location) -> Place {
    Place { line: location.line, column: location.column }
}

fn syntax(reason: impl Into<String>, at: Place) -> PlanError {
    PlanError::new("PARSE_SYNTAX_ERROR", reason, "").at(at)
}

/// Splits a text into tokens. Comments and white space are dropped.
pub(crate) fn tokenize(sql: &str, reading: LiteralSettings) -> PlanResult<Vec<TokenWithSpan>> {
    let (sql, literals) = literals::hide(sql, reading)?;
    let tokens = Tokenizer::new(&DIALECT, &sql).tokenize_with_location();
    let mut tokens = tokens.map_err(|error| syntax(error.message, place(error.location)))?;
    literals.put_back(&mut tokens)?;
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

/// Parses `WATERMARK time [AS name] DELAY OF INTERVAL … [MAX FUTURE SKEW OF INTERVAL …] [[AS]
/// alias]` at the token `begin`. Returns the clause and the index of the token after it.
fn watermark_clause(
    tokens: &[TokenWithSpan],
    begin: usize,
    catalog: &dyn Catalog,
) -> PlanResult<(Watermark, usize)> {
    let here = place(tokens[begin].span.start);
    let wrong = |reason: &str| {
        let mut error = syntax(reason, here);
        error.fix = "Write: FROM STREAM t WATERMARK time DELAY OF INTERVAL 10 MINUTES AS t".into();
        error
    };
    let is = |i: usize, expected: &str| tokens.get(i).is_some_and(|t| is_word(&t.token, expected));
    let delay = (begin..tokens.len()).find(|i| is(*i, "DELAY") && is(*i + 1, "OF"));
    let delay = delay.ok_or_else(|| wrong("`WATERMARK` without `DELAY OF`"))?;
    let (mut time, mut name) = (&tokens[begin + 1..delay], None);
    if let [before @ .., as_word, last] = time
        && is_word(&as_word.token, "AS")
        && let Token::Word(word) = &last.token
    {
        (time, name) = (before, Some(word.value.clone()));
    }
    let time = expr_of(time, catalog)?;
    let (text, mut next) =
        interval_text(tokens, delay + 2).ok_or_else(|| wrong("DELAY OF without an interval"))?;
    let limited = ["MAX", "FUTURE", "SKEW", "OF"];
    let mut skew = None;
    if (0..limited.len()).all(|i| is(next + i, limited[i])) {
        let found = interval_text(tokens, next + limited.len());
        let (text, behind) =
            found.ok_or_else(|| wrong("MAX FUTURE SKEW OF without an interval"))?;
        (skew, next) = (Some(text.replace('\'', " ").trim().to_string()), behind);
    }
    let mut alias = None;
    let named = if is(next, "AS") { next + 1 } else { next };
    match tokens.get(named).map(|t| &t.token) {
        Some(Token::Word(word))
            if named > next
                || word.quote_style.is_some()
                || !CLAUSES.contains(&word.keyword) && !BEHIND_RELATION.contains(&word.keyword) =>
        {
            (alias, next) = (Some(word.value.clone()), named + 1);
        }
        _ => {}
    }
    let delay = text.replace('\'', " ");
    let delay = delay.trim().to_string();
    Ok((Watermark { time, name, delay, skew, alias, place: here }, next))
}

/// Parses a single expression.
fn expr_of(tokens: &[TokenWithSpan], catalog: &dyn Catalog) -> PlanResult<Expr> {
    let begin = tokens.first().map_or(Place::default(), |t| place(t.span.start));
    let mut tokens = rewrite::rewritten(tokens.to_vec());
    let eof = tokens.last().map(|t| TokenWithSpan::new(Token::EOF, t.span));
    tokens.extend(eof);
    let mut parser =
        Parser::new(&DIALECT).with_recursion_limit(PARSER_CALLS).with_tokens_with_locations(tokens);
    let wrong = |reason: String| syntax(reason, begin);
    let expr = parser.parse_expr().map_err(|error| wrong(error.to_string()))?;
    if parser.peek_token_ref().token != Token::EOF {
        return Err(wrong("this is not one expression".to_string()));
    }
    expr::convert_with(&expr, &subquery::constants(catalog))
}

/// Replaces `STREAM t` and `STREAM(t)` by a table name with a mark, and each WATERMARK clause by an
/// alias that contains its index. Returns the new tokens and the clauses.
fn with_marked_streams(
    tokens: Vec<TokenWithSpan>,
    catalog: &dyn Catalog,
) -> PlanResult<(Vec<TokenWithSpan>, Vec<Watermark>)> {
    let mut watermarks = Vec::new();
    let marks = |t: &TokenWithSpan| is_word(&t.token, "STREAM") || is_word(&t.token, "WATERMARK");
    if !tokens.iter().any(marks) {
        return Ok((tokens, watermarks));
    }
    let tokens = &tokens[..];
    let last_delay = tokens
        .windows(2)
        .rposition(|pair| is_word(&pair[0].token, "DELAY") && is_word(&pair[1].token, "OF"));
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut i = 0;
    // For each open parenthesis: whether a relation may follow a comma or parenthesis here.
    let mut in_from = vec![false];
    while i < tokens.len() {
        let token = &tokens[i];
        let begins = match out.last().map(|t| &t.token) {
            Some(Token::Comma | Token::LParen) => in_from.last() == Some(&true),
            Some(before) => is_word(before, "FROM") || is_word(before, "JOIN"),
            None => false,
        };
        note_clause(&token.token, begins, &mut in_from);
        if begins
            && is_word(&token.token, "STREAM")
            && let Some((name, next)) = streamed_relation(tokens, i)
        {
            out.push(marked(name));
            i = next;
            continue;
        }
        let behind_relation = matches!(
            out.last().map(|t| &t.token),
            Some(Token::Word(before)) if before.quote_style.is_some()
                || !CLAUSES.contains(&before.keyword)
        ) || matches!(out.last().map(|t| &t.token), Some(Token::RParen));
        if is_word(&token.token, "WATERMARK")
            && behind_relation
            && in_from.last() == Some(&true)
            && last_delay.is_some_and(|last| last >= i)
        {
            if let Some(alias) = alias_at_end(&out) {
                return Err(alias_before_watermark(alias, place(token.span.start)));
            }
            let (watermark, next) = watermark_clause(tokens, i, catalog)?;
            let mark = format!("{WATERMARK_MARK}{}", watermarks.len());
            watermarks.push(watermark);
            out.push(TokenWithSpan::new(Token::make_keyword("AS"), token.span));
            out.push(TokenWithSpan::new(Token::make_word(&mark, None), token.span));
            i = next;
            continue;
        }
        out.push(token.clone());
        i += 1;
    }
    Ok((out, watermarks))
}

/// The alias with which the tokens of a relation end; `None` if they end with its name.
fn alias_at_end(tokens: &[TokenWithSpan]) -> Option<&str> {
    // The names of columns in parentheses follow the alias, if there are any.
    let [.., before, alias] = without_parenthesis(tokens)? else { return None };
    let Token::Word(alias) = &alias.token else { return None };
    let begins_relation =
        |keyword| BEFORE_RELATION.contains(&keyword) || CLAUSES.contains(&keyword);
    if alias.quote_style.is_none() && begins_relation(alias.keyword) {
        return None;
    }
    let follows_relation = match &before.token {
        Token::RParen | Token::SingleQuotedString(_) => true,
        Token::Word(word) if word.quote_style.is_some() || word.keyword == Keyword::AS => true,
        Token::Word(word) => !begins_relation(word.keyword),
        _ => false,
    };
    follows_relation.then_some(&alias.value)
}

/// The tokens before the parenthesis that ends them, if one does. `None` if it is not opened.
fn without_parenthesis(tokens: &[TokenWithSpan]) -> Option<&[TokenWithSpan]> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().rev() {
        match token.token {
            Token::RParen => depth += 1,
            Token::LParen => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            let is_whole = at + 1 == tokens.len();
            return Some(if is_whole { tokens } else { &tokens[..at] });
        }
    }
    None
}

/// Further keywords that a relation may follow.
const BEFORE_RELATION: [Keyword; 3] = [Keyword::FROM, Keyword::OUTER, Keyword::TABLESAMPLE];

/// The error of a WATERMARK clause after the alias of its relation.
fn alias_before_watermark(alias: &str, at: Place) -> PlanError {
    let mut error = syntax(format!("`WATERMARK` stands behind the alias `{alias}`"), at);
    error.fix = format!(
        "Write the alias last: FROM STREAM t WATERMARK time DELAY OF INTERVAL 10 MINUTES AS {alias}"
    );
    error
}

/// The token of a table or file name, with the mark of a relation that is read as a stream.
fn marked(token: &TokenWithSpan) -> TokenWithSpan {
    match &token.token {
        Token::Word(word) => {
            let name = format!("{STREAM_MARK}{}", word.value);
            TokenWithSpan::new(Token::make_word(&name, word.quote_style), token.span)
        }
        Token::SingleQuotedString(path) => {
            let name = format!("{STREAM_MARK}{path}");
            TokenWithSpan::new(Token::SingleQuotedString(name), token.span)
        }
        _ => token.clone(),
    }
}

/// Updates, for each open parenthesis, whether the tokens are in a FROM clause. `begins` tells
/// whether a relation may begin at the token.
fn note_clause(token: &Token, begins: bool, in_from: &mut Vec<bool>) {
    const ENDS: [&str; 8] =
        ["SELECT", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "ON", "LATERAL"];
    match token {
        // Relations in parentheses after FROM belong to the FROM clause.
        Token::LParen => in_from.push(begins),
        Token::RParen => drop(in_from.pop()),
        other if word(other).is_some() => {
            if is_word(other, "FROM") || is_word(other, "JOIN") {
                in_from.pop();
                in_from.push(true);
            } else if ENDS.iter().any(|end| is_word(other, end)) {
                in_from.pop();
                in_from.push(false);
            }
        }
        _ => {}
    }
}

/// The name of the table or file in `STREAM t` or `STREAM(t)` that starts at token `i`, and the
/// index of the token after it.
fn streamed_relation(tokens: &[TokenWithSpan], i: usize) -> Option<(&TokenWithSpan, usize)> {
    match (tokens.get(i + 1).map(|t| &t.token), tokens.get(i + 3).map(|t| &t.token)) {
        (Some(Token::LParen), Some(Token::RParen))
            if matches!(tokens[i + 2].token, Token::Word(_) | Token::SingleQuotedString(_)) =>
        {
            Some((&tokens[i + 2], i + 4))
        }
        (Some(Token::SingleQuotedString(_)), _) => Some((&tokens[i + 1], i + 2)),
        (Some(Token::Word(next)), _)
            if next.quote_style.is_some() || !CLAUSES.contains(&next.keyword) =>
        {
            Some((&tokens[i + 1], i + 2))
        }
        _ => None,
    }
}

/// Parses a position in the parser's format: `3, Column: 14`.
fn parse_place(text: &str) -> Option<Place> {
    let (line, column) = text.split_once(", Column: ")?;
    Some(Place { line: line.parse().ok()?, column: column.trim().parse().ok()? })
}

/// Parses and plans a single query.
fn parse_tokens(tokens: Vec<TokenWithSpan>, catalog: &dyn Catalog) -> PlanResult<Plan> {
    statement(|| {
        let planning = || memo::of_statement(|| plan_tokens(tokens, catalog));
        let plan = Rules::of(catalog.semantics()).apply(planning)?;
        plan.check_levels()?;
        Ok(plan)
    })
}

/// The start of the names of the functions of a row's file, such as `input_file_name`.
const INPUT_FILE: &str = "input_file_";

/// Whether a word contains the name of the file metadata column, `_metadata`, or that of a function
/// of a row's file.
fn names_files(token: &TokenWithSpan) -> bool {
    let Token::Word(word) = &token.token else { return false };
    [METADATA, INPUT_FILE].iter().any(|name| {
        let parts = word.value.as_bytes().windows(name.len());
        parts.into_iter().any(|part| part.eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// The maximum number of words in [`clause_words`]. An error in a later clause is reported without
/// the exact position.
const MAX_CLAUSE_WORDS: usize = 1024;

/// The positions of the keywords of clauses that may be rejected.
fn clause_words(tokens: &[TokenWithSpan]) -> Vec<(&'static str, Place)> {
    let words = tokens.iter().filter_map(|token| match &token.token {
        Token::Word(word) if word.keyword != Keyword::NoKeyword && word.quote_style.is_none() => {
            let found = refused::WORDS.iter().find(|one| word.value.eq_ignore_ascii_case(one))?;
            Some((*found, place(token.span.start)))
        }
        _ => None,
    });
    words.take(MAX_CLAUSE_WORDS).collect()
}

/// The suggested fix if a CREATE statement starts inside another statement.
const END_BEFORE_CREATE: &str = "End the statement before CREATE with ';'";

/// Whether the tokens start with `CREATE [OR REPLACE] STREAMING TABLE` or `… TEMPORARY VIEW`.
fn begins_create(tokens: &[TokenWithSpan]) -> bool {
    let is = |at: usize, words: &[&str]| {
        tokens.get(at).is_some_and(|token| words.iter().any(|word| is_word(&token.token, word)))
    };
    let at = if is(1, &["OR"]) && is(2, &["REPLACE"]) { 3 } else { 1 };
    is(0, &["CREATE"])
        && (is(at, &["STREAMING"]) && is(at + 1, &["TABLE"])
            || is(at, &["TEMP", "TEMPORARY"]) && is(at + 1, &["VIEW"]))
}

/// The result of parsing a query, which may already include its plan.
enum Parsed {
    Query(Box<Query>),
    Planned(PlanResult<Plan>),
}

fn plan_tokens(tokens: Vec<TokenWithSpan>, catalog: &dyn Catalog) -> PlanResult<Plan> {
    rewrite::check_except(&tokens)?;
    refused::check_join_words(&tokens)?;
    nesting::check(&tokens)?;
    let names_files = tokens.iter().any(names_files);
    let (tokens, watermarks) = with_marked_streams(tokens, catalog)?;
    let mut tokens = rewrite::rewritten(tokens);
    let clauses = clause_words(&tokens);
    let catalog = &WithWatermarks { outer: catalog, watermarks, names_files, clauses };
    let end = tokens.last().map_or(Place::default(), |t| place(t.span.end));
    let eof = tokens.last().map(|t| TokenWithSpan::new(Token::EOF, t.span));
    tokens.extend(eof);
    let empty_list = tokens
        .windows(3)
        .find(|three| {
            three[1].token == Token::LParen
                && three[2].token == Token::RParen
                && is_word(&three[0].token, "IN")
        })
        .map(|three| place(three[0].span.start));
    // The position of a CREATE inside the query: the ';' before it is probably missing.
    let create = (1..tokens.len()).find(|at| begins_create(&tokens[*at..]));
    let create = create.map(|at| place(tokens[at].span.start));
    let forgotten = |error: PlanError| match create {
        Some(at) => {
            let reason = "'CREATE' begins a statement within another one";
            PlanError::new("PARSE_SYNTAX_ERROR", reason, END_BEFORE_CREATE).at(at)
        }
        None => error,
    };
    let outline = long::Outline::of(&tokens);
    let mut parser =
        Parser::new(&DIALECT).with_recursion_limit(PARSER_CALLS).with_tokens_with_locations(tokens);
    let failed = |error: ParserError, parser: &Parser<'_>| {
        let here = || place(parser.peek_token_ref().span.start);
        let text = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
            ParserError::RecursionLimitExceeded => return nesting::too_deep_error(here()),
        };
        // The parser appends the position to the message; it is moved to the error's own field.
        let (reason, at) = match text.split_once(" at Line: ") {
            Some((reason, at)) => (reason, parse_place(at)),
            None => (text.as_str(), Some(here())),
        };
        let mut error = syntax(reason, at.filter(|at| at.line > 0).unwrap_or(end));
        if reason.contains("MATCH_CONDITION") {
            error.fix =
                "Write ASOF JOIN t MATCH_CONDITION (l.time >= r.time) ON l.key = r.key".into();
        }
        error
    };
    // A long query is planned while it is parsed.
    let parsed = match &outline {
        Some(outline) => long::plan(outline, &mut parser, catalog).map(Parsed::Planned),
        None => parser.parse_query().map(Parsed::Query),
    };
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let error = forgotten(failed(error, &parser));
            return Err(empty_list.map_or(error, |at| {
                PlanError::new(
                    "INVALID_SQL_SYNTAX.EMPTY_IN_PREDICATE",
                    "`IN` has a list without values",
                    "Write at least one value",
                )
                .at(at)
            }));
        }
    };
    let rest = parser.peek_token_ref();
    if !matches!(rest.token, Token::EOF | Token::SemiColon) {
        let reason = format!("'{}' is not expected here", rest.token);
        return Err(forgotten(syntax(reason, place(rest.span.start))));
    }
    // The parser is dropped before planning, because its tokens take more memory than the query.
    drop(parser);
    match parsed {
        Parsed::Query(query) => query::plan(&query, catalog),
        Parsed::Planned(plan) => plan,
    }
}

/// Parses an expression of a SELECT list, which may end with `AS name`.
pub fn parse_expr(sql: &str, catalog: &dyn Catalog) -> PlanResult<Expr> {
    on_large_stack(|| one_expr(sql, catalog))
}

fn one_expr(sql: &str, catalog: &dyn Catalog) -> PlanResult<Expr> {
    let tokens = tokenize(&format!("SELECT {sql}"), catalog.literals())?;
    nesting::check(&tokens)?;
    let mut parser = Parser::new(&DIALECT)
        .with_recursion_limit(PARSER_CALLS)
        .with_tokens_with_locations(rewrite::rewritten(tokens));
    let wrong = |error: ParserError| syntax(error.to_string(), Place::default());
    let select = parser.parse_select().map_err(wrong)?;
    let rest = parser.peek_token_ref();
    let plain = select.from.is_empty()
        && select.selection.is_none()
        && select.distinct.is_none()
        && select.having.is_none()
        && matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    match (select.projection.as_slice(), plain && rest.token == Token::EOF) {
        ([one], true) => query::item(one, catalog),
        _ => Err(syntax(format!("'{sql}' is not one expression"), Place::default())),
    }
}

/// Parses and plans a single query.
pub fn parse_query(sql: &str, catalog: &dyn Catalog) -> PlanResult<Plan> {
    parse_tokens(tokenize(sql, catalog.literals())?, catalog)
}
