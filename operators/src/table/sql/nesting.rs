//! Checks the nesting depth of a text by its tokens, before the parser's recursion.

use super::{is_word, place};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::plan::limits::{MAX_NESTING, too_complex};
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// The error of a text that is nested too deeply.
pub(super) fn too_deep_error(at: Place) -> PlanError {
    too_complex(format!("it is nested more than {MAX_NESTING} levels deep"), at)
}

/// Whether a token is a prefix operator, such as a sign.
fn is_prefix(token: &Token) -> bool {
    matches!(
        token,
        Token::Minus
            | Token::Plus
            | Token::Tilde
            | Token::ExclamationMark
            | Token::DoubleExclamationMark
    ) || is_word(token, "NOT")
}

/// Fails if a text nests parentheses, brackets, CASE, types and prefix operators more than
/// [`MAX_NESTING`] levels deep.
pub(super) fn check(tokens: &[TokenWithSpan]) -> PlanResult<()> {
    let (mut levels, mut prefixes) = (0usize, 0usize);
    for (i, token) in tokens.iter().enumerate() {
        let before = i.checked_sub(1).map(|before| &tokens[before].token);
        let of_type = ["STRUCT", "ARRAY", "MAP"];
        match &token.token {
            Token::LParen | Token::LBracket => levels += 1,
            Token::Lt if before.is_some_and(|b| of_type.iter().any(|word| is_word(b, word))) => {
                levels += 1;
            }
            other if is_word(other, "CASE") => levels += 1,
            Token::RParen | Token::RBracket => levels = levels.saturating_sub(1),
            // A `>` that is a comparison must not reduce the depth. If one does, the nesting is
            // undercounted, but the parser's own limit still applies.
            Token::Gt | Token::ShiftRight => {
                let closed = if token.token == Token::Gt { 1 } else { 2 };
                levels = levels.saturating_sub(if in_type(before) { closed } else { 0 });
            }
            other if is_word(other, "END") => levels = levels.saturating_sub(1),
            _ => {}
        }
        prefixes = if is_prefix(&token.token) { prefixes + 1 } else { 0 };
        if levels + prefixes > MAX_NESTING {
            return Err(too_deep_error(place(token.span.start)));
        }
    }
    Ok(())
}

/// Whether the token before a `>` ends a type: it is the name of a type without parameters, or
/// another `>`.
fn in_type(before: Option<&Token>) -> bool {
    let Some(before) = before else { return false };
    const NAMES: [&str; 22] = [
        "BOOLEAN",
        "TINYINT",
        "BYTE",
        "SMALLINT",
        "SHORT",
        "INT",
        "INTEGER",
        "BIGINT",
        "LONG",
        "FLOAT",
        "REAL",
        "DOUBLE",
        "STRING",
        "BINARY",
        "DATE",
        "TIMESTAMP",
        "TIMESTAMP_NTZ",
        "TIMESTAMP_LTZ",
        "DECIMAL",
        "NUMERIC",
        "VOID",
        "NULL",
    ];
    matches!(before, Token::Gt | Token::ShiftRight)
        || NAMES.iter().any(|name| is_word(before, name))
}
