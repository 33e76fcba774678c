//! What the parser does not read as Spark does, rewritten in the tokens before it sees them:
//! intervals, numbers with a type's letters, quantified LIKE, names of a struct's fields.
//!
//! A statement may have a million tokens. One loop looks at what there is ([`Uses`]), each rewriting
//! runs only where it has something to do, and tokens are moved and not copied.

use super::{REWRITTEN, dialect, is_word, place, syntax, word};
use crate::table::error::PlanResult;
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Units of intervals.
const UNITS: [&str; 9] =
    ["YEAR", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "SECOND", "MILLISECOND", "MICROSECOND"];
/// Words that [`with_literals`] looks for.
const OF_LITERALS: [&str; 8] =
    ["INTERVAL", "LIKE", "ILIKE", "RLIKE", "REGEXP", "TIMESTAMP_LTZ", "EXISTS", "STRUCT"];

/// Which rewritings have something to do.
#[derive(Default)]
struct Uses {
    operators: bool,
    sets: bool,
    literals: bool,
    fields: bool,
    asof: bool,
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

/// The tokens as the parser is to read them.
pub(super) fn rewritten(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let Uses { operators, sets, literals, fields, asof } = Uses::of(&tokens);
    let tokens = if asof { with_plain_asof(tokens) } else { tokens };
    let tokens = if operators { with_operators(tokens) } else { tokens };
    let tokens = if sets { with_flat_sets(tokens) } else { tokens };
    let tokens = if literals { with_literals(tokens) } else { tokens };
    if fields { with_field_names(tokens) } else { tokens }
}

/// Takes a token out of a list that is read from front to back.
fn take(token: &mut TokenWithSpan) -> TokenWithSpan {
    TokenWithSpan { token: std::mem::replace(&mut token.token, Token::EOF), span: token.span }
}

fn is_unit(token: &Token) -> bool {
    let Some(word) = word(token) else { return false };
    let one = word.strip_suffix(['s', 'S']).unwrap_or(word);
    UNITS.iter().any(|unit| unit.eq_ignore_ascii_case(one))
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
fn with_field_names(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
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
                // A number and the letters of its type are one literal.
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

/// The function around the match condition of `LEFT ASOF JOIN`.
pub(super) const LEFT_MATCH: &str = "left_match";

/// `[INNER | LEFT [OUTER]] ASOF JOIN` as `ASOF JOIN`, which is what the parser knows. A call around the
/// match condition says that it is a left one.
fn with_plain_asof(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let ends_with = |out: &[TokenWithSpan], word: &str| {
        out.last().is_some_and(|last| is_word(&last.token, word))
    };
    let mut depth = 0usize;
    // At which depth of parentheses the match condition of a left join is to come, and where that
    // of one ends.
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
            // Before the parenthesis that is there, which then belongs to the call.
            out.extend([open, TokenWithSpan::new(name, span)]);
        }
    }
    out
}

/// GROUPING SETS inside of GROUPING SETS as its sets, which is what it means.
fn with_flat_sets(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let begins = |tokens: &[TokenWithSpan], i: usize| {
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

/// Refuses `* EXCEPT name`, which the parser takes.
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

/// Puts intervals and numbers with a suffix (`2Y`, `1.5F`) into calls and casts: the parser knows
/// only some of them.
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

/// A call of a function of the analyser, up to its opening parenthesis.
fn call_of(name: &str) -> [Token; 2] {
    [Token::make_word(&format!("{REWRITTEN}{name}"), None), Token::LParen]
}

/// What stands in the place of the tokens from one on, and where these end.
fn rewritten_at(tokens: &[TokenWithSpan], i: usize) -> Option<(Vec<Token>, usize)> {
    let token = &tokens[i].token;
    let at = |i: usize| tokens.get(i).map(|t| &t.token);
    if let Token::Number(digits, false) = token {
        // A number and the letters of its type are one literal.
        let joined = |next: &&TokenWithSpan| next.span.start == tokens[i].span.end;
        let suffix = word(&tokens.get(i + 1).filter(joined)?.token)?;
        let known = ["Y", "S", "F", "D", "BD"].iter().any(|s| s.eq_ignore_ascii_case(suffix));
        return known.then(|| (vec![Token::Number(format!("{digits}{suffix}"), false)], i + 2));
    }
    let name = word(token)?;
    let is = |expected: &str| name.eq_ignore_ascii_case(expected);
    if let Some((text, next)) = interval_text(tokens, i) {
        let [name, open] = call_of("interval");
        return Some((vec![name, open, Token::SingleQuotedString(text), Token::RParen], next));
    }
    // The list of patterns of a quantified LIKE as a call.
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
    // The parser takes NULL behind RLIKE for a part of the operator.
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
    // A function of that name, not the keyword.
    if is("EXISTS") && at(i + 1) == Some(&Token::LParen) {
        let begins_query = at(i + 2).is_some_and(|next| {
            ["SELECT", "WITH", "FROM", "VALUES"].iter().any(|word| is_word(next, word))
        });
        return (!begins_query).then(|| (vec![Token::make_word("exists", Some('`'))], i + 1));
    }
    // The parser knows a literal `struct(…)` without a star in it.
    if is("STRUCT") && (at(i + 1), at(i + 2)) == (Some(&Token::LParen), Some(&Token::Mul)) {
        return Some((vec![Token::make_word("struct", Some('`'))], i + 1));
    }
    None
}

/// The text of an interval that begins at a token, and where it ends.
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
            _ if quoted && text.is_empty() => return Some((number, next + 1)),
            _ => break,
        }
    }
    (!text.is_empty()).then(|| (text.trim().to_string(), i))
}
