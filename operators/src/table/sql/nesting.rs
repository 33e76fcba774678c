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

/// What an open bracket belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Parenthesis,
    Case,
    /// `<` after ARRAY, MAP or STRUCT.
    Type,
}

/// The brackets that are open at a token, outermost first.
#[derive(Default)]
pub(super) struct Brackets(Vec<Bracket>);

impl Brackets {
    /// Whether a `>>` at this position closes two types, and is not an operator.
    pub fn ends_two_types(&self) -> bool {
        self.0.ends_with(&[Bracket::Type, Bracket::Type])
    }

    /// Notes the next token; `before` is the token before it.
    pub fn see(&mut self, before: Option<&Token>, token: &Token) {
        const OF_TYPE: [&str; 3] = ["STRUCT", "ARRAY", "MAP"];
        match token {
            Token::LParen | Token::LBracket => self.0.push(Bracket::Parenthesis),
            Token::Lt if before.is_some_and(|b| OF_TYPE.iter().any(|word| is_word(b, word))) => {
                self.0.push(Bracket::Type);
            }
            Token::RParen | Token::RBracket => self.close(Bracket::Parenthesis),
            // A `>` outside of a type is a comparison.
            Token::Gt => drop(self.0.pop_if(|last| *last == Bracket::Type)),
            Token::ShiftRight if self.ends_two_types() => self.0.truncate(self.0.len() - 2),
            other if is_word(other, "CASE") => self.0.push(Bracket::Case),
            other if is_word(other, "END") => self.close(Bracket::Case),
            _ => {}
        }
    }

    /// Closes the innermost bracket, if it is of the given kind. A type still open inside it was a
    /// comparison with a column that is named like a type.
    fn close(&mut self, bracket: Bracket) {
        let types = self.0.iter().rev().take_while(|open| **open == Bracket::Type).count();
        let rest = self.0.len() - types;
        if self.0[..rest].last() == Some(&bracket) {
            self.0.truncate(rest - 1);
        }
    }
}

/// Fails if a text nests parentheses, brackets, CASE, types and prefix operators more than
/// [`MAX_NESTING`] levels deep.
pub(super) fn check(tokens: &[TokenWithSpan]) -> PlanResult<()> {
    let (mut brackets, mut prefixes) = (Brackets::default(), 0usize);
    for (i, token) in tokens.iter().enumerate() {
        let before = i.checked_sub(1).map(|before| &tokens[before].token);
        brackets.see(before, &token.token);
        prefixes = if is_prefix(&token.token) { prefixes + 1 } else { 0 };
        if brackets.0.len() + prefixes > MAX_NESTING {
            return Err(too_deep_error(place(token.span.start)));
        }
    }
    Ok(())
}
