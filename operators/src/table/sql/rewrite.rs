//! Rewrites tokens before parsing, where the parser does not support Spark's syntax, for example
//! intervals, numbers with a type suffix, quantified LIKE, and names of struct fields.
//!
//! A statement may have a million tokens. One pass determines which rewrites are needed ([`Uses`]),
//! and only those are applied.

use super::nesting::Brackets;
use super::values_rows::with_rows_in_parentheses;
use super::{PIVOT_MARK, REWRITTEN, dialect, is_word, place, syntax, word};
use crate::table::error::PlanResult;
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// The units of intervals.
const UNITS: [&str; 9] =
    ["YEAR", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "SECOND", "MILLISECOND", "MICROSECOND"];
/// Keywords of syntax that [`with_literals`] may rewrite.
const OF_LITERALS: [&str; 8] =
    ["INTERVAL", "LIKE", "ILIKE", "RLIKE", "REGEXP", "TIMESTAMP_LTZ", "EXISTS", "STRUCT"];

/// The rewrites that a statement needs.
#[derive(Default)]
struct Uses {
    operators: bool,
    sets: bool,
    literals: bool,
    fields: bool,
    asof: bool,
    values: bool,
    pivot: bool,
    unpivot: bool,
}

impl Uses {
    fn of(tokens: &[TokenWithSpan]) -> Self {
        let mut uses = Self::default();
        let mut number_end = None;
        for TokenWithSpan { token, span } in tokens {
            match token {
                Token::Word(_) => {
                    uses.literals |= number_end == Some(span.start)
                        || OF_LITERALS.iter().any(|one| is_word(token, one));
                    uses.sets |= is_word(token, "GROUPING");
                    uses.fields |= is_word(token, "STRUCT");
                    uses.asof |= is_word(token, "ASOF");
                    uses.values |= is_word(token, "VALUES");
                    uses.pivot |= is_word(token, "PIVOT");
                    uses.unpivot |= is_word(token, "UNPIVOT");
                }
                Token::ShiftRight | Token::ExclamationMark | Token::DoubleExclamationMark => {
                    uses.operators = true;
                }
                _ => {}
            }
            number_end = matches!(token, Token::Number(..)).then_some(span.end);
        }
        uses
    }
}

/// Applies all rewrites that are needed.
pub(super) fn rewritten(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let Uses { operators, sets, literals, fields, asof, values, pivot, unpivot } =
        Uses::of(&tokens);
    let tokens = if asof { with_plain_asof(tokens) } else { tokens };
    let tokens = if operators { with_operators(tokens) } else { tokens };
    let tokens = if sets { with_flat_sets(tokens) } else { tokens };
    let tokens = if literals { with_literals(tokens) } else { tokens };
    let tokens = if values { with_rows_in_parentheses(tokens) } else { tokens };
    let tokens = if unpivot { with_unpivot_aliases(tokens) } else { tokens };
    let tokens = if fields { with_field_names(tokens) } else { tokens };
    if pivot || unpivot { with_marked_pivots(tokens) } else { tokens }
}

/// Inserts `CROSS JOIN` and a marked relation before PIVOT and UNPIVOT. The parser applies them to
/// one relation, but as in Spark, they apply to all relations before them in FROM.
fn with_marked_pivots(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len() + 8);
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let begins = tokens.peek().is_some_and(|next| match &next.token {
            Token::LParen => is_word(&token.token, "PIVOT") || is_word(&token.token, "UNPIVOT"),
            other => {
                is_word(&token.token, "UNPIVOT")
                    && ["INCLUDE", "EXCLUDE"].iter().any(|word| is_word(other, word))
            }
        });
        if begins && out.last().is_some_and(|last| ends_relation(&last.token)) {
            let of_join = ["CROSS", "JOIN"].map(Token::make_keyword);
            let mark = Token::make_word(PIVOT_MARK, None);
            let marked = of_join.into_iter().chain([mark]);
            out.extend(marked.map(|one| TokenWithSpan::new(one, token.span)));
        }
        out.push(token);
    }
    out
}

/// Whether a token may be the last one of a relation, its alias or the condition of its join.
fn ends_relation(token: &Token) -> bool {
    const OTHERS: [&str; 12] = [
        "AND", "AS", "BY", "DISTINCT", "FROM", "IN", "JOIN", "LATERAL", "NOT", "OR", "SELECT",
        "WITH",
    ];
    match token {
        Token::Word(_) => !OTHERS.iter().any(|word| is_word(token, word)),
        Token::RParen
        | Token::RBracket
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_) => true,
        _ => false,
    }
}

/// Inserts AS before the aliases in the list of `UNPIVOT (v FOR name IN (a x, (b, c) y))`.
fn with_unpivot_aliases(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    // The number of open parentheses since UNPIVOT, and whether its list has begun.
    let (mut depth, mut in_list) = (None, false);
    for token in tokens {
        let before = out.last().map(|last| &last.token);
        match (&token.token, depth) {
            (Token::LParen, Some(open)) => depth = Some(open + 1),
            (Token::RParen, Some(open)) => {
                depth = (open > 1).then_some(open - 1);
                in_list &= open > 2;
            }
            (Token::Word(_), Some(2)) if in_list && !is_word(&token.token, "AS") => {
                let ends_column = match before {
                    Some(Token::Word(_)) => before.is_some_and(|word| !is_word(word, "AS")),
                    Some(Token::RParen) => true,
                    _ => false,
                };
                if ends_column {
                    out.push(TokenWithSpan::new(Token::make_keyword("AS"), token.span));
                }
            }
            (word, None) if is_word(word, "UNPIVOT") => (depth, in_list) = (Some(0), false),
            (word, Some(1)) if is_word(word, "IN") => in_list = true,
            _ => {}
        }
        out.push(token);
    }
    out
}

/// Moves a token out of a list, and leaves a placeholder.
pub(super) fn take(token: &mut TokenWithSpan) -> TokenWithSpan {
    TokenWithSpan { token: std::mem::replace(&mut token.token, Token::EOF), span: token.span }
}

pub(super) fn is_unit(token: &Token) -> bool {
    let Some(word) = word(token) else { return false };
    let one = word.strip_suffix(['s', 'S']).unwrap_or(word);
    UNITS.iter().any(|unit| unit.eq_ignore_ascii_case(one))
}

/// Splits or joins operators that the tokenizer splits differently from Spark: `>>>`, `!<`, `!>`
/// and `!!`.
fn with_operators(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut brackets = Brackets::default();
    // Whether the last token is a `>>` that ends two types, as in `ARRAY<ARRAY<ARRAY<INT>>>`.
    let mut ends_types = false;
    for token in tokens {
        let of_types = token.token == Token::ShiftRight && brackets.ends_two_types();
        brackets.see(out.last().map(|last| &last.token), &token.token);
        let joined = match (out.last(), &token.token) {
            (Some(last), now) if last.span.end == token.span.start => match (&last.token, now) {
                (Token::ShiftRight, Token::Gt) if !ends_types => {
                    Some(Token::CustomBinaryOperator(dialect::UNSIGNED_SHIFT.to_string()))
                }
                (Token::ExclamationMark, Token::Lt) => Some(Token::GtEq),
                (Token::ExclamationMark, Token::Gt) => Some(Token::LtEq),
                _ => None,
            },
            _ => None,
        };
        ends_types = of_types;
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

/// Inserts AS before the field names in `struct(a x, b y)`.
fn with_field_names(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    // These keywords are followed by an operand, or cannot be a name after a value.
    const OPEN: [&str; 19] = [
        "AND", "AS", "BETWEEN", "CASE", "DATE", "DISTINCT", "DIV", "ELSE", "ESCAPE", "FROM",
        "ILIKE", "IN", "IS", "LIKE", "NOT", "OR", "RLIKE", "THEN", "WHEN",
    ];
    const NO_NAMES: [&str; 3] = ["END", "NULL", "UNKNOWN"];
    let among = |words: &[&str], token: &Token| words.iter().any(|one| is_word(token, one));
    // For each open parenthesis: whether it belongs to `struct(`.
    let mut open: Vec<bool> = Vec::new();
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for i in 0..tokens.len() {
        let token = take(&mut tokens[i]);
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
                // A number and its type suffix are adjacent tokens of one literal, so no AS is
                // inserted between them.
                let apart = out.last().is_some_and(|last| last.span.end != token.span.start);
                if ends_value && ends_field && apart {
                    out.push(TokenWithSpan::new(Token::make_keyword("AS"), token.span));
                }
            }
            _ => {}
        }
        out.push(token);
    }
    out
}

/// The name of the function that marks the match condition of `LEFT ASOF JOIN`.
pub(super) const LEFT_MATCH: &str = "left_match";

/// Rewrites `[INNER | LEFT [OUTER]] ASOF JOIN` to `ASOF JOIN`, the only form that the parser
/// supports. A left join is marked by a call around its match condition.
fn with_plain_asof(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let ends_with = |out: &[TokenWithSpan], word: &str| {
        out.last().is_some_and(|last| is_word(&last.token, word))
    };
    let mut depth = 0usize;
    // The parenthesis depths at which the match condition of a left join is still expected, and
    // those at which a match condition ends.
    let (mut to_come, mut ends): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    for i in 0..tokens.len() {
        let token = take(&mut tokens[i]);
        let next = tokens.get(i + 1).map(|next| &next.token);
        let span = token.span;
        let begins_match = is_word(&token.token, "MATCH_CONDITION") && next == Some(&Token::LParen);
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth = depth.saturating_sub(1);
                if ends.pop_if(|end| *end == depth).is_some() {
                    out.push(TokenWithSpan::new(Token::RParen, span));
                }
            }
            Token::Word(_)
                if is_word(&token.token, "ASOF") && next.is_some_and(|t| is_word(t, "JOIN")) =>
            {
                if ends_with(&out, "INNER") {
                    out.pop();
                } else {
                    if ends_with(&out, "OUTER")
                        && is_word(&out[out.len().saturating_sub(2)].token, "LEFT")
                    {
                        out.pop();
                    }
                    if ends_with(&out, "LEFT") {
                        out.pop();
                        to_come.push(depth);
                    }
                }
            }
            _ => {}
        }
        out.push(token);
        if begins_match && to_come.pop_if(|at| *at == depth).is_some() {
            ends.push(depth);
            let open = TokenWithSpan::new(Token::LParen, span);
            let name = Token::make_word(&format!("{REWRITTEN}{LEFT_MATCH}"), None);
            // The call's name is inserted before the existing parenthesis, which becomes that of
            // the call.
            out.extend([open, TokenWithSpan::new(name, span)]);
        }
    }
    out
}

/// Flattens GROUPING SETS inside GROUPING SETS. The flat list has the same meaning.
fn with_flat_sets(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let begins = |tokens: &[TokenWithSpan], i: usize| {
        let at = |i: usize| tokens.get(i).map(|t| &t.token);
        at(i).is_some_and(|t| is_word(t, "GROUPING"))
            && at(i + 1).is_some_and(|t| is_word(t, "SETS"))
            && at(i + 2) == Some(&Token::LParen)
    };
    // For each open parenthesis: whether it belongs to GROUPING SETS, and whether it is preserved.
    let mut open: Vec<(bool, bool)> = Vec::new();
    let mut out = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        if begins(&tokens, i) {
            let inside = open.last().is_some_and(|(of_sets, _)| *of_sets);
            if !inside {
                out.extend(tokens[i..i + 3].iter_mut().map(take));
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
            out.push(take(&mut tokens[i]));
        }
        i += 1;
    }
    out
}

/// Fails for `* EXCEPT name` without parentheses, which the parser would accept.
pub(super) fn check_except(tokens: &[TokenWithSpan]) -> PlanResult<()> {
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

/// Rewrites intervals and quantified LIKE to calls, joins a number and its type suffix (`2Y`,
/// `1.5F`) to one token, and rewrites a few other forms that the parser does not support.
fn with_literals(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        match rewritten_at(&tokens, i) {
            Some((instead, next)) => {
                let span = tokens[i].span;
                out.extend(instead.into_iter().map(|token| TokenWithSpan::new(token, span)));
                i = next;
            }
            None => {
                out.push(take(&mut tokens[i]));
                i += 1;
            }
        }
    }
    out
}

/// The first tokens of a call that stands for rewritten syntax: the name and the parenthesis.
fn call_of(name: &str) -> [Token; 2] {
    [Token::make_word(&format!("{REWRITTEN}{name}"), None), Token::LParen]
}

/// The replacement of the tokens at index `i`, and the index after the replaced tokens. `None` if
/// the tokens need no rewriting.
fn rewritten_at(tokens: &[TokenWithSpan], i: usize) -> Option<(Vec<Token>, usize)> {
    let token = &tokens[i].token;
    let at = |i: usize| tokens.get(i).map(|t| &t.token);
    if let Token::Number(digits, false) = token {
        // A number and its type suffix are one literal only if there is no space between them.
        let joined = |next: &&TokenWithSpan| next.span.start == tokens[i].span.end;
        let suffix = word(&tokens.get(i + 1).filter(joined)?.token)?;
        let known = ["Y", "S", "F", "D", "BD"].iter().any(|s| s.eq_ignore_ascii_case(suffix));
        let text = format!("{digits}{suffix}");
        // A name may begin with digits: `2012_total`.
        let is_name = digits.bytes().all(|byte| byte.is_ascii_digit());
        return match (known, is_name) {
            (true, _) => Some((vec![Token::Number(text, false)], i + 2)),
            (false, true) => Some((vec![Token::make_word(&text, None)], i + 2)),
            (false, false) => None,
        };
    }
    let name = word(token)?;
    let is = |expected: &str| name.eq_ignore_ascii_case(expected);
    if let Some((text, next)) = interval_text(tokens, i) {
        let [name, open] = call_of("interval");
        return Some((vec![name, open, Token::SingleQuotedString(text), Token::RParen], next));
    }
    // The pattern list of a quantified LIKE becomes a call.
    if (is("LIKE") || is("ILIKE")) && at(i + 2) == Some(&Token::LParen) {
        let quantifier = at(i + 1)?;
        let call = if is_word(quantifier, "ANY") || is_word(quantifier, "SOME") {
            "like_any"
        } else if is_word(quantifier, "ALL") {
            "like_all"
        } else {
            return None;
        };
        let [name, _] = call_of(call);
        return Some((vec![token.clone(), name], i + 2));
    }
    // The parser would treat NULL after RLIKE as part of the operator.
    if (is("RLIKE") || is("REGEXP")) && at(i + 1).is_some_and(|next| is_word(next, "NULL")) {
        let null = at(i + 1)?.clone();
        return Some((vec![token.clone(), Token::LParen, null, Token::RParen], i + 2));
    }
    if is("TIMESTAMP_LTZ") {
        let (Token::SingleQuotedString(text) | Token::DoubleQuotedString(text)) = at(i + 1)? else {
            return None;
        };
        let [name, open] = call_of("timestamp_ltz");
        let text = Token::SingleQuotedString(text.clone());
        return Some((vec![name, open, text, Token::RParen], i + 2));
    }
    // This is the function `exists`, which takes a lambda, not the keyword.
    if is("EXISTS") && at(i + 1) == Some(&Token::LParen) {
        let takes_query = is_query(tokens, i + 2);
        return (!takes_query).then(|| (vec![Token::make_word("exists", Some('`'))], i + 1));
    }
    // The parser's syntax for `struct(…)` does not accept `*`, so it becomes a plain call.
    if is("STRUCT") && (at(i + 1), at(i + 2)) == (Some(&Token::LParen), Some(&Token::Mul)) {
        return Some((vec![Token::make_word("struct", Some('`'))], i + 1));
    }
    None
}

/// Whether the contents of a parenthesis, which start at index `i`, are a query. A query in
/// parentheses that a comma follows is an argument of a function.
fn is_query(tokens: &[TokenWithSpan], mut i: usize) -> bool {
    const QUERY: [&str; 4] = ["SELECT", "WITH", "FROM", "VALUES"];
    let at = |i: usize| tokens.get(i).map(|t| &t.token);
    let begin = i;
    while at(i) == Some(&Token::LParen) {
        i += 1;
    }
    let Some(first) = at(i) else { return false };
    let names_table = is_word(first, "TABLE") && matches!(at(i + 1), Some(Token::Word(_)));
    if !names_table && !QUERY.iter().any(|word| is_word(first, word)) {
        return false;
    }
    if i == begin {
        return true;
    }
    let mut levels = 0usize;
    for (token, next) in tokens[begin..].iter().zip(&tokens[begin + 1..]) {
        match token.token {
            Token::LParen => levels += 1,
            Token::RParen => levels -= 1,
            _ => {}
        }
        if levels == 0 {
            return next.token != Token::Comma;
        }
    }
    true
}

/// The text of an interval that starts at a token, and the index of the token after it: one quoted
/// text, or numbers with units. `None` if no interval starts there.
pub(super) fn interval_text(tokens: &[TokenWithSpan], begin: usize) -> Option<(String, usize)> {
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
            _ if quoted && text.is_empty() => return Some((format!("{sign}'{number}'"), next + 1)),
            _ => break,
        }
    }
    (!text.is_empty()).then(|| (text.trim().to_string(), i))
}
