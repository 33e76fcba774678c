//! Plans long queries in parts, while they are parsed.
//!
//! The parser's tree takes about 12 KB for each branch of a UNION ALL, and 10 KB for each view of a
//! WITH clause. In a query with many of them, each branch or view is planned and its tree is
//! dropped before the next one is parsed. A planning error is reported only after the rest of the
//! query has been parsed, because syntax errors take precedence, as in other queries.

use super::query;
use super::views::Views;
use super::{Catalog, is_word};
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Plan;
use crate::table::plan::analyzer::Unioned;
use sqlparser::ast;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// The largest number of views, and of UNION ALLs, with which a query is parsed as a whole.
const FEW: usize = 64;
/// The precedence of UNION in the parser. Operators that bind tighter belong to a branch.
const UNION: u8 = 10;

/// The size of a query's top-level structure, determined from its tokens.
#[derive(Default)]
pub(super) struct Outline {
    /// The number of views of its WITH clause, where only the first one and those without a column
    /// list are counted; 0 without the clause and for WITH RECURSIVE.
    views: usize,
    /// The number of UNION ALLs; 0 if the query also has other set operations.
    unions: usize,
}

impl Outline {
    /// Computes the outline of a long query; `None` if the query is short.
    pub fn of(tokens: &[TokenWithSpan]) -> Option<Self> {
        let at = |i: usize| tokens.get(i).map(|t| &t.token);
        let is = |i: usize, expected: &str| at(i).is_some_and(|token| is_word(token, expected));
        let with = is(0, "WITH") && !is(1, "RECURSIVE");
        let (mut outline, mut depth, mut others) = (Self::default(), 0usize, false);
        for (i, TokenWithSpan { token, .. }) in tokens.iter().enumerate() {
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.checked_sub(1)?,
                // A comma after the closing parenthesis of a view's definition separates views. In
                // any other list, `AS (` does not follow the next name.
                Token::Comma if depth == 0 && with && at(i - 1) == Some(&Token::RParen) => {
                    outline.views +=
                        usize::from(is(i + 2, "AS") && at(i + 3) == Some(&Token::LParen));
                }
                Token::Word(word) if depth == 0 && word.quote_style.is_none() => {
                    match word.keyword {
                        Keyword::UNION if is(i + 1, "ALL") && !is(i + 2, "BY") => {
                            outline.unions += 1;
                        }
                        Keyword::UNION | Keyword::EXCEPT | Keyword::MINUS | Keyword::INTERSECT => {
                            others = true
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        if others {
            outline.unions = 0;
        }
        outline.views = if with { outline.views + 1 } else { 0 };
        (outline.views.max(outline.unions) > FEW).then_some(outline)
    }
}

/// The first planning error. After an error, the rest of the query is parsed but not planned.
#[derive(Default)]
struct First(Option<PlanError>);

impl First {
    fn plan(&mut self, planning: impl FnOnce() -> PlanResult<()>) {
        if self.0.is_none() {
            self.0 = planning().err();
        }
    }
}

/// Parses and plans a long query. Before using the plan, the caller must check that no tokens
/// follow the query.
pub(super) fn plan(
    outline: &Outline,
    parser: &mut Parser<'_>,
    catalog: &dyn Catalog,
) -> Result<PlanResult<Plan>, ParserError> {
    let mut first = First::default();
    let mut views = Views::new(catalog);
    if outline.views > 0 && parser.parse_keyword(Keyword::WITH) {
        loop {
            let view = parser.parse_cte()?;
            first.plan(|| views.add(&view));
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
    }
    let mut union: Option<Unioned> = None;
    for _ in 0..outline.unions {
        let branch = parser.parse_query_body(UNION)?;
        if !parser.parse_keywords(&[Keyword::UNION, Keyword::ALL]) {
            // The outline guarantees a UNION ALL here. If the token is missing, a syntax error is
            // reported.
            let found = parser.peek_token_ref();
            let reason = format!("Expected: UNION ALL, found: {found}");
            return Err(ParserError::ParserError(reason));
        }
        first.plan(|| query::branch(&mut union, &branch, &views));
    }
    let last = last(parser)?;
    Ok(match first.0 {
        Some(error) => Err(error),
        None => query::plan_last(union, &last, &views),
    })
}

/// Parses the rest of a query: its last branch and the clauses after it.
fn last(parser: &mut Parser<'_>) -> Result<Box<ast::Query>, ParserError> {
    let begins = [Keyword::SELECT, Keyword::VALUES, Keyword::FROM, Keyword::TABLE];
    let token = &parser.peek_token_ref().token;
    let fits = match token {
        Token::LParen => true,
        Token::Word(word) => begins.contains(&word.keyword),
        _ => false,
    };
    if !fits {
        // This call fails, and returns the parser's error for the unexpected token.
        parser.parse_query_body(UNION)?;
    }
    parser.parse_query()
}
