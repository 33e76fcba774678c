//! Spark SQL: job files ([`job`]) and queries ([`query`]), parsed with `sqlparser` and built into
//! plans by the analyser.

pub mod describe;
mod dialect;
pub mod expr;
mod group;
pub mod job;
mod join;
pub(crate) mod literals;
mod nesting;
mod order;
pub mod query;
mod subquery;

use super::depth::{MOST_LEVELS, on_large_stack};
use super::error::{Place, PlanError, PlanResult};
use super::expr::Expr;
use super::expr::compile::Semantics;
use super::expr::rules::Rules;
use super::expr::user::{UserAggregate, UserFunction};
use super::plan::{METADATA, Plan};
pub use literals::Reading;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use std::sync::Arc;

/// What a query may read by name.
pub trait Catalog {
    /// The plan behind a name.
    fn relation(&self, name: &str) -> Option<Plan>;
    /// All names, to suggest from.
    fn names(&self) -> Vec<String>;
    /// A function of the program's own.
    fn function(&self, _name: &str) -> Option<Arc<UserFunction>> {
        None
    }
    /// An aggregate function of the program's own.
    fn aggregate(&self, _name: &str) -> Option<Arc<UserAggregate>> {
        None
    }
    /// The WATERMARK clause of a number, of the query that is being read.
    fn watermark(&self, _number: usize) -> Option<&Watermark> {
        None
    }
    /// Whether the query that is being read may name the column with the file of a row.
    fn may_name_files(&self) -> bool {
        true
    }
    /// Time zone and ANSI mode, for what is computed while planning.
    fn semantics(&self) -> Semantics {
        Semantics::default()
    }
    /// How string literals are read.
    fn literals(&self) -> Reading {
        Reading::default()
    }
}

const DIALECT: dialect::Spark = dialect::Spark;
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
/// The beginning of the alias of a relation with a WATERMARK clause, before its number.
const WATERMARK_MARK: &str = "millstream_watermark_";
/// The beginning of the name of a table that is read as a stream.
const STREAM_MARK: &str = "millstream_stream_of_";
/// The beginning of names of calls that stand for what the parser does not know.
const REWRITTEN: &str = "millstream_literal_";
/// Units of intervals.
const UNITS: [&str; 9] =
    ["YEAR", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "SECOND", "MILLISECOND", "MICROSECOND"];
/// Calls of the parser within each other; of each level of nesting it makes several. The bound of
/// what is written is [`MOST_LEVELS`]; this one is for what has no parentheses.
const PARSER_CALLS: usize = MOST_LEVELS * 8;

/// A WATERMARK clause.
#[derive(Debug)]
pub struct Watermark {
    /// The event time.
    pub time: Expr,
    /// Its name, if it is not a column.
    pub name: Option<String>,
    /// How far the watermark stays behind.
    pub delay: String,
    /// How far ahead of the clock an event time may be.
    pub skew: Option<String>,
    /// The relation's alias.
    pub alias: Option<String>,
    /// Where it stands.
    pub place: Place,
}

/// A catalog with the WATERMARK clauses of a query.
struct WithWatermarks<'c> {
    outer: &'c dyn Catalog,
    watermarks: Vec<Watermark>,
    names_files: bool,
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
    fn watermark(&self, number: usize) -> Option<&Watermark> {
        self.watermarks.get(number)
    }
    fn may_name_files(&self) -> bool {
        self.names_files
    }
    fn semantics(&self) -> Semantics {
        self.outer.semantics()
    }
    fn literals(&self) -> Reading {
        self.outer.literals()
    }
}

fn place(location: Location) -> Place {
    Place { line: location.line, column: location.column }
}

fn syntax(reason: impl Into<String>, at: Place) -> PlanError {
    PlanError::new("PARSE_SYNTAX_ERROR", reason, "").at(at)
}

/// The tokens of a text, without comments and white space.
pub(crate) fn tokenize(sql: &str, reading: Reading) -> PlanResult<Vec<TokenWithSpan>> {
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

/// Reads `WATERMARK time [AS name] DELAY OF INTERVAL … [MAX FUTURE SKEW OF INTERVAL …] [[AS] alias]`,
/// which begins at a token, and says where it ends.
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
            if named > next || word.quote_style.is_some() || !CLAUSES.contains(&word.keyword) =>
        {
            (alias, next) = (Some(word.value.clone()), named + 1);
        }
        _ => {}
    }
    let delay = text.replace('\'', " ");
    let delay = delay.trim().to_string();
    Ok((Watermark { time, name, delay, skew, alias, place: here }, next))
}

/// One expression.
fn expr_of(tokens: &[TokenWithSpan], catalog: &dyn Catalog) -> PlanResult<Expr> {
    let begin = tokens.first().map_or(Place::default(), |t| place(t.span.start));
    let mut tokens = with_literals(tokens.to_vec());
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

/// Puts the word `STREAM` of `STREAM t` and `STREAM(t)` into the name of the table, and WATERMARK
/// clauses into aliases, behind which the clauses are found by their number.
fn with_marked_streams(
    tokens: &[TokenWithSpan],
    catalog: &dyn Catalog,
) -> PlanResult<(Vec<TokenWithSpan>, Vec<Watermark>)> {
    let mut watermarks = Vec::new();
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut i = 0;
    // Whether a relation may stand here, by depth of parentheses.
    let mut in_from = vec![false];
    let marked = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) => {
            let name = format!("{STREAM_MARK}{}", word.value);
            TokenWithSpan::new(Token::make_word(&name, word.quote_style), token.span)
        }
        _ => token.clone(),
    };
    while i < tokens.len() {
        let token = &tokens[i];
        let begins = match out.last().map(|t| &t.token) {
            Some(Token::Comma | Token::LParen) => in_from.last() == Some(&true),
            Some(before) => is_word(before, "FROM") || is_word(before, "JOIN"),
            None => false,
        };
        match &token.token {
            // A relation in parentheses is in FROM as these are.
            Token::LParen => in_from.push(begins),
            Token::RParen => drop(in_from.pop()),
            other if word(other).is_some() => {
                let ends =
                    ["SELECT", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "ON", "LATERAL"];
                if is_word(other, "FROM") || is_word(other, "JOIN") {
                    in_from.pop();
                    in_from.push(true);
                } else if ends.iter().any(|end| is_word(other, end)) {
                    in_from.pop();
                    in_from.push(false);
                }
            }
            _ => {}
        }
        if begins && is_word(&token.token, "STREAM") {
            match (tokens.get(i + 1).map(|t| &t.token), tokens.get(i + 3).map(|t| &t.token)) {
                (Some(Token::LParen), Some(Token::RParen))
                    if matches!(tokens[i + 2].token, Token::Word(_)) =>
                {
                    out.push(marked(&tokens[i + 2]));
                    i += 4;
                    continue;
                }
                (Some(Token::Word(next)), _)
                    if next.quote_style.is_some() || !CLAUSES.contains(&next.keyword) =>
                {
                    out.push(marked(&tokens[i + 1]));
                    i += 2;
                    continue;
                }
                _ => {}
            }
        }
        let behind_relation = matches!(
            out.last().map(|t| &t.token),
            Some(Token::Word(before)) if before.quote_style.is_some()
                || !CLAUSES.contains(&before.keyword)
        ) || matches!(out.last().map(|t| &t.token), Some(Token::RParen));
        if is_word(&token.token, "WATERMARK")
            && behind_relation
            && in_from.last() == Some(&true)
            && tokens[i..]
                .windows(2)
                .any(|pair| is_word(&pair[0].token, "DELAY") && is_word(&pair[1].token, "OF"))
        {
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

fn is_unit(token: &Token) -> bool {
    let Some(word) = word(token) else { return false };
    let upper = word.to_ascii_uppercase();
    UNITS.contains(&upper.strip_suffix('S').unwrap_or(&upper))
}

/// Operators of several characters that the tokenizer takes apart or together: `>>>`, `!<`, `!>`
/// and two signs of negation.
fn with_operators(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let joined = match (out.last(), &token.token) {
            (Some(last), now) if last.span.end == token.span.start => match (&last.token, now) {
                (Token::ShiftRight, Token::Gt) => {
                    Some(Token::CustomBinaryOperator(dialect::UNSIGNED_SHIFT.to_string()))
                }
                (Token::ExclamationMark, Token::Lt) => Some(Token::GtEq),
                (Token::ExclamationMark, Token::Gt) => Some(Token::LtEq),
                _ => None,
            },
            _ => None,
        };
        match (joined, out.last_mut()) {
            (Some(joined), Some(last)) => last.token = joined,
            _ if token.token == Token::DoubleExclamationMark => {
                let one = TokenWithSpan::new(Token::ExclamationMark, token.span);
                out.extend([one.clone(), one]);
            }
            _ => out.push(token),
        }
    }
    out
}

/// Puts AS before the names of fields in `struct(a x, b y)`.
fn with_field_names(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    // Words behind which a word is an operand, and words that are no names behind a value.
    const OPEN: [&str; 19] = [
        "AND", "AS", "BETWEEN", "CASE", "DATE", "DISTINCT", "DIV", "ELSE", "ESCAPE", "FROM",
        "ILIKE", "IN", "IS", "LIKE", "NOT", "OR", "RLIKE", "THEN", "WHEN",
    ];
    const NO_NAMES: [&str; 3] = ["END", "NULL", "UNKNOWN"];
    let among = |words: &[&str], token: &Token| words.iter().any(|one| is_word(token, one));
    // Of each parenthesis that is open, whether it is of `struct(`.
    let mut open: Vec<bool> = Vec::new();
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for (i, token) in tokens.iter().enumerate() {
        let before = out.last().map(|last| &last.token);
        match &token.token {
            Token::LParen => open.push(before.is_some_and(|word| is_word(word, "STRUCT"))),
            Token::RParen => drop(open.pop()),
            Token::Word(_) if open.last() == Some(&true) && !among(&NO_NAMES, &token.token) => {
                let ends_value = match before {
                    Some(Token::Word(_)) => before.is_some_and(|word| !among(&OPEN, word)),
                    Some(
                        Token::Number(..)
                        | Token::SingleQuotedString(_)
                        | Token::DoubleQuotedString(_)
                        | Token::HexStringLiteral(_)
                        | Token::RParen
                        | Token::RBracket,
                    ) => true,
                    _ => false,
                };
                let ends_field = matches!(
                    tokens.get(i + 1).map(|next| &next.token),
                    Some(Token::Comma | Token::RParen)
                );
                // A number and the letters of its type are one literal.
                let apart = out.last().is_some_and(|last| last.span.end != token.span.start);
                if ends_value && ends_field && apart {
                    out.push(TokenWithSpan::new(Token::make_keyword("AS"), token.span));
                }
            }
            _ => {}
        }
        out.push(token.clone());
    }
    out
}

/// GROUPING SETS inside of GROUPING SETS as its sets, which is what it means.
fn with_flat_sets(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let begins = |i: usize| {
        let at = |i: usize| tokens.get(i).map(|t| &t.token);
        at(i).is_some_and(|t| is_word(t, "GROUPING"))
            && at(i + 1).is_some_and(|t| is_word(t, "SETS"))
            && at(i + 2) == Some(&Token::LParen)
    };
    // Of each parenthesis that is open, whether it is of GROUPING SETS, and whether it stays.
    let mut open: Vec<(bool, bool)> = Vec::new();
    let mut out = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        if begins(i) {
            let inside = open.last().is_some_and(|(of_sets, _)| *of_sets);
            if !inside {
                out.extend(tokens[i..i + 3].iter().cloned());
            }
            open.push((true, !inside));
            i += 3;
            continue;
        }
        let stays = match &tokens[i].token {
            Token::LParen => {
                open.push((false, true));
                true
            }
            Token::RParen => open.pop().is_none_or(|(_, stays)| stays),
            _ => true,
        };
        if stays {
            out.push(tokens[i].clone());
        }
        i += 1;
    }
    out
}

/// Refuses `* EXCEPT name`, which the parser takes.
fn check_except(tokens: &[TokenWithSpan]) -> PlanResult<()> {
    for three in tokens.windows(3) {
        let query = ["SELECT", "ALL", "DISTINCT", "VALUES", "TABLE", "FROM"];
        if three[0].token == Token::Mul
            && is_word(&three[1].token, "EXCEPT")
            && matches!(&three[2].token, Token::Word(_))
            && !query.iter().any(|word| is_word(&three[2].token, word))
        {
            let at = place(three[2].span.start);
            return Err(syntax("`EXCEPT` needs parentheses around its columns", at));
        }
    }
    Ok(())
}

/// Puts intervals and numbers with a suffix (`2Y`, `1.5F`) into calls and casts: the parser knows
/// only some of them.
fn with_literals(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let tokens = with_flat_sets(with_operators(tokens));
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let at = |i: usize| tokens.get(i).map(|t| &t.token);
    let mut i = 0;
    while i < tokens.len() {
        let span = tokens[i].span;
        let mut put = |token: Token| out.push(TokenWithSpan::new(token, span));
        if let Some((text, next)) = interval_text(&tokens, i) {
            put(Token::make_word(&format!("{REWRITTEN}interval"), None));
            put(Token::LParen);
            put(Token::SingleQuotedString(text));
            put(Token::RParen);
            i = next;
            continue;
        }
        // The list of patterns of a quantified LIKE as a call.
        let list = is_word(&tokens[i].token, "LIKE") || is_word(&tokens[i].token, "ILIKE");
        if list && at(i + 2) == Some(&Token::LParen) {
            let name = match at(i + 1).and_then(word).map(str::to_ascii_uppercase).as_deref() {
                Some("ANY" | "SOME") => Some("like_any"),
                Some("ALL") => Some("like_all"),
                _ => None,
            };
            if let Some(name) = name {
                put(tokens[i].token.clone());
                put(Token::make_word(&format!("{REWRITTEN}{name}"), None));
                i += 2;
                continue;
            }
        }
        // The parser takes NULL behind RLIKE for a part of the operator.
        let rlike = is_word(&tokens[i].token, "RLIKE") || is_word(&tokens[i].token, "REGEXP");
        if rlike && at(i + 1).is_some_and(|next| is_word(next, "NULL")) {
            put(tokens[i].token.clone());
            put(Token::LParen);
            put(tokens[i + 1].token.clone());
            put(Token::RParen);
            i += 2;
            continue;
        }
        if let (true, Some(Token::SingleQuotedString(text) | Token::DoubleQuotedString(text))) =
            (is_word(&tokens[i].token, "TIMESTAMP_LTZ"), at(i + 1))
        {
            put(Token::make_word(&format!("{REWRITTEN}timestamp_ltz"), None));
            put(Token::LParen);
            put(Token::SingleQuotedString(text.clone()));
            put(Token::RParen);
            i += 2;
            continue;
        }
        // A function of that name, not the keyword.
        let after = at(i + 2).and_then(word).map(str::to_ascii_uppercase);
        let begins_query = matches!(after.as_deref(), Some("SELECT" | "WITH" | "FROM" | "VALUES"));
        if is_word(&tokens[i].token, "EXISTS") && at(i + 1) == Some(&Token::LParen) && !begins_query
        {
            put(Token::make_word("exists", Some('`')));
            i += 1;
            continue;
        }
        // The parser knows a literal `struct(…)` without a star in it.
        if is_word(&tokens[i].token, "STRUCT")
            && (at(i + 1), at(i + 2)) == (Some(&Token::LParen), Some(&Token::Mul))
        {
            put(Token::make_word("struct", Some('`')));
            i += 1;
            continue;
        }
        let suffix = at(i + 1).and_then(word).filter(|_| {
            tokens.get(i + 1).is_some_and(|next| next.span.start == tokens[i].span.end)
        });
        // A number and the letters of its type are one literal.
        let is_suffix = |text: &str| {
            ["Y", "S", "F", "D", "BD"].iter().any(|suffix| suffix.eq_ignore_ascii_case(text))
        };
        if let (Token::Number(digits, false), Some(suffix)) =
            (&tokens[i].token, suffix.filter(|text| is_suffix(text)))
        {
            put(Token::Number(format!("{digits}{suffix}"), false));
            i += 2;
            continue;
        }
        out.push(tokens[i].clone());
        i += 1;
    }
    with_field_names(out)
}

/// The text of an interval that begins at a token, and where it ends.
fn interval_text(tokens: &[TokenWithSpan], begin: usize) -> Option<(String, usize)> {
    let at = |i: usize| tokens.get(i).map(|t| &t.token);
    if !at(begin).is_some_and(|token| is_word(token, "INTERVAL")) {
        return None;
    }
    let mut text = String::new();
    let mut i = begin + 1;
    loop {
        let mut next = i;
        let mut sign = "";
        if at(next) == Some(&Token::Minus) {
            sign = "-";
            next += 1;
        }
        let (number, quoted) = match at(next) {
            Some(Token::Number(digits, _)) => (digits.clone(), false),
            Some(Token::SingleQuotedString(text) | Token::DoubleQuotedString(text)) => {
                (text.clone(), true)
            }
            _ => break,
        };
        match at(next + 1) {
            Some(unit) if is_unit(unit) => {
                text.push_str(&if quoted {
                    format!(" {sign}'{number}' {unit}")
                } else {
                    format!(" {sign}{number} {unit}")
                });
                i = next + 2;
                if at(i).is_some_and(|t| is_word(t, "TO")) && at(i + 1).is_some_and(is_unit) {
                    text.push_str(&format!(" TO {}", at(i + 1)?));
                    i += 2;
                    break;
                }
            }
            _ if quoted && text.is_empty() => return Some((number, next + 1)),
            _ => break,
        }
    }
    (!text.is_empty()).then(|| (text.trim().to_string(), i))
}

/// Reads `3, Column: 14`.
fn parse_place(text: &str) -> Option<Place> {
    let (line, column) = text.split_once(", Column: ")?;
    Some(Place { line: line.parse().ok()?, column: column.trim().parse().ok()? })
}

/// Parses one query from tokens.
fn parse_tokens(tokens: &[TokenWithSpan], catalog: &dyn Catalog) -> PlanResult<Plan> {
    on_large_stack(|| {
        let plan = Rules::of(catalog.semantics()).apply(|| plan_tokens(tokens, catalog))?;
        plan.check_levels()?;
        Ok(plan)
    })
}

fn plan_tokens(tokens: &[TokenWithSpan], catalog: &dyn Catalog) -> PlanResult<Plan> {
    check_except(tokens)?;
    nesting::check(tokens)?;
    let names_files = tokens.iter().any(|token| match &token.token {
        Token::Word(word) => word.value.to_lowercase().contains(METADATA),
        _ => false,
    });
    let (tokens, watermarks) = with_marked_streams(tokens, catalog)?;
    let mut tokens = with_literals(tokens);
    let catalog = &WithWatermarks { outer: catalog, watermarks, names_files };
    let end = tokens.last().map_or(Place::default(), |t| place(t.span.end));
    let eof = tokens.last().map(|t| TokenWithSpan::new(Token::EOF, t.span));
    tokens.extend(eof);
    let empty_list = tokens
        .windows(3)
        .find(|three| {
            is_word(&three[0].token, "IN")
                && three[1].token == Token::LParen
                && three[2].token == Token::RParen
        })
        .map(|three| place(three[0].span.start));
    let mut parser =
        Parser::new(&DIALECT).with_recursion_limit(PARSER_CALLS).with_tokens_with_locations(tokens);
    let failed = |error: ParserError, parser: &Parser<'_>| {
        let here = || place(parser.peek_token_ref().span.start);
        let text = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
            ParserError::RecursionLimitExceeded => return nesting::too_deep(here()),
        };
        // The parser puts the position behind, as text; ours stands in front.
        let (reason, at) = match text.split_once(" at Line: ") {
            Some((reason, at)) => (reason, parse_place(at)),
            None => (text.as_str(), Some(here())),
        };
        syntax(reason, at.filter(|at| at.line > 0).unwrap_or(end))
    };
    let query = match parser.parse_query() {
        Ok(query) => query,
        Err(error) => {
            let error = failed(error, &parser);
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
        return Err(syntax(
            format!("'{}' is not expected here", rest.token),
            place(rest.span.start),
        ));
    }
    query::plan(&query, catalog)
}

/// Reads one expression of a SELECT list, perhaps with `AS name`.
pub fn parse_expr(sql: &str, catalog: &dyn Catalog) -> PlanResult<Expr> {
    on_large_stack(|| one_expr(sql, catalog))
}

fn one_expr(sql: &str, catalog: &dyn Catalog) -> PlanResult<Expr> {
    let tokens = tokenize(&format!("SELECT {sql}"), catalog.literals())?;
    nesting::check(&tokens)?;
    let mut parser = Parser::new(&DIALECT)
        .with_recursion_limit(PARSER_CALLS)
        .with_tokens_with_locations(with_literals(tokens));
    let wrong = |error: ParserError| syntax(error.to_string(), Place::default());
    let select = parser.parse_select().map_err(wrong)?;
    let rest = parser.peek_token_ref();
    let plain = select.from.is_empty() && select.selection.is_none();
    match (select.projection.as_slice(), plain && rest.token == Token::EOF) {
        ([one], true) => query::item(one, catalog),
        _ => Err(syntax(format!("'{sql}' is not one expression"), Place::default())),
    }
}

/// Plans one query.
pub fn parse_query(sql: &str, catalog: &dyn Catalog) -> PlanResult<Plan> {
    parse_tokens(&tokenize(sql, catalog.literals())?, catalog)
}
