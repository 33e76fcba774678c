//! Puts the rows of VALUES that are single values into parentheses, as the parser needs them:
//! `VALUES 1, 2` becomes `VALUES (1), (2)`.

use super::is_word;
use super::rewrite::{is_unit, take};
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Keywords that end the rows of VALUES.
const ENDS: [&str; 29] = [
    "ANTI",
    "AS",
    "CLUSTER",
    "CROSS",
    "DISTRIBUTE",
    "EXCEPT",
    "FULL",
    "GROUP",
    "HAVING",
    "INNER",
    "INTERSECT",
    "JOIN",
    "LATERAL",
    "LEFT",
    "LIMIT",
    "MINUS",
    "NATURAL",
    "OFFSET",
    "ON",
    "ORDER",
    "PIVOT",
    "RIGHT",
    "SEMI",
    "SORT",
    "TABLESAMPLE",
    "UNION",
    "UNPIVOT",
    "WHERE",
    "WINDOW",
];
/// Keywords after which an operand or another keyword of the same expression follows.
const OPERATORS: [&str; 17] = [
    "AND",
    "BETWEEN",
    "DATE",
    "DISTINCT",
    "DIV",
    "ESCAPE",
    "FROM",
    "ILIKE",
    "IN",
    "INTERVAL",
    "IS",
    "LIKE",
    "NOT",
    "OR",
    "REGEXP",
    "RLIKE",
    "TIMESTAMP",
];
/// Tokens after which VALUES begins a query or a relation.
const BEFORE: [&str; 9] =
    ["ALL", "AS", "DISTINCT", "EXCEPT", "FROM", "INTERSECT", "JOIN", "MINUS", "UNION"];

fn among(words: &[&str], token: &Token) -> bool {
    words.iter().any(|word| is_word(token, word))
}

/// Whether VALUES begins rows, from the tokens before and behind it.
fn begins_rows(before: &[TokenWithSpan], behind: Option<&TokenWithSpan>) -> bool {
    const NO_OPERANDS: [&str; 12] = [
        "AND", "BETWEEN", "DIV", "ESCAPE", "FROM", "ILIKE", "IN", "IS", "LIKE", "OR", "REGEXP",
        "RLIKE",
    ];
    let before_it = before.last().map(|token| &token.token);
    let is_at_begin = match before_it {
        None | Some(Token::LParen) => true,
        Some(token) => among(&BEFORE, token),
    };
    let of_subquery = || match before {
        [.., first, _] => among(&["FROM", "JOIN", "IN", "EXISTS", "AS"], &first.token),
        _ => true,
    };
    let operand_follows = match behind.map(|token| &token.token) {
        Some(Token::Word(word)) if word.quote_style.is_some() => true,
        Some(token @ Token::Word(_)) => !among(&ENDS, token) && !among(&NO_OPERANDS, token),
        // `(values - 1)` is an expression over a column.
        Some(Token::Minus) => before_it != Some(&Token::LParen) || of_subquery(),
        Some(Token::LParen | Token::Number(..) | Token::HexStringLiteral(_)) => true,
        Some(Token::SingleQuotedString(_) | Token::DoubleQuotedString(_)) => true,
        _ => false,
    };
    is_at_begin && operand_follows
}

/// The end of the row that begins at an index: the comma behind it, or what ends all rows.
fn end_of_row(tokens: &[TokenWithSpan], begin: usize) -> usize {
    let (mut depth, mut cases) = (0usize, 0usize);
    let mut at = begin;
    while let Some(TokenWithSpan { token, .. }) = tokens.get(at) {
        let before = (at > begin).then(|| &tokens[at - 1].token);
        match token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket if depth == 0 => return at,
            Token::RParen | Token::RBracket => depth -= 1,
            Token::Comma if depth == 0 => return at,
            Token::Word(_) if depth == 0 => {
                if is_word(token, "CASE") {
                    cases += 1;
                } else if is_word(token, "END") {
                    cases = cases.saturating_sub(1);
                } else if cases == 0 {
                    let is_alias = before.is_some_and(is_operand)
                        && !among(&OPERATORS, token)
                        && !is_unit(token);
                    if among(&ENDS, token) || is_alias {
                        return at;
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    at
}

/// Whether a token may end an operand.
fn is_operand(token: &Token) -> bool {
    match token {
        Token::Word(_) => !among(&OPERATORS, token),
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::HexStringLiteral(_)
        | Token::RParen
        | Token::RBracket => true,
        _ => false,
    }
}

/// Rewrites the rows of each VALUES.
pub(super) fn with_rows_in_parentheses(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len() + 16);
    let mut at = 0;
    while at < tokens.len() {
        let begins = is_word(&tokens[at].token, "VALUES") && begins_rows(&out, tokens.get(at + 1));
        out.push(take(&mut tokens[at]));
        let values = out.len() - 1;
        at += 1;
        while begins && at < tokens.len() {
            let end = end_of_row(&tokens, at);
            let row = &mut tokens[at..end];
            let (Some(first), Some(last)) = (row.first(), row.last()) else { break };
            let is_row = first.token == Token::LParen && closes_at_end(row);
            let (open, close) = (first.span, last.span);
            if !is_row {
                out.push(TokenWithSpan::new(Token::LParen, open));
            }
            out.extend(row.iter_mut().map(take));
            if !is_row {
                out.push(TokenWithSpan::new(Token::RParen, close));
            }
            at = end;
            if tokens.get(at).is_none_or(|token| token.token != Token::Comma) {
                break;
            }
            out.push(take(&mut tokens[at]));
            at += 1;
        }
        // `FROM (VALUES (1) AS t(x))`: the parentheses of a relation with an alias are dropped.
        if begins
            && is_in_relation(&out[..values])
            && let Some(close) = end_of_alias(&tokens, at)
        {
            out.extend(tokens[at..close].iter_mut().map(take));
            out.remove(values - 1);
            at = close + 1;
        }
    }
    out
}

/// Whether the tokens end with the parenthesis of a relation in FROM.
fn is_in_relation(before: &[TokenWithSpan]) -> bool {
    match before {
        [.., first, open] if open.token == Token::LParen => {
            first.token == Token::Comma || among(&["FROM", "JOIN"], &first.token)
        }
        _ => false,
    }
}

/// The parenthesis behind the alias that begins at an index; `None` if there is no alias, or no
/// parenthesis behind it.
fn end_of_alias(tokens: &[TokenWithSpan], begin: usize) -> Option<usize> {
    let at = |index: usize| tokens.get(index).map(|token| &token.token);
    let mut next = begin + usize::from(at(begin).is_some_and(|token| is_word(token, "AS")));
    let is_name = matches!(at(next), Some(token @ Token::Word(_)) if !among(&ENDS, token));
    next += usize::from(is_name);
    if is_name && at(next) == Some(&Token::LParen) {
        let list = tokens[next..].iter().position(|token| token.token == Token::RParen)?;
        next += list + 1;
    }
    (is_name && at(next) == Some(&Token::RParen)).then_some(next)
}

/// Whether the parenthesis that a row begins with is closed by its last token.
fn closes_at_end(row: &[TokenWithSpan]) -> bool {
    let mut depth = 0usize;
    for (at, token) in row.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1 == row.len();
        }
    }
    false
}
