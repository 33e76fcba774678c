//! Regular expressions with the results of Java 17's `java.util.regex`. A pattern is parsed
//! (`parse`) into a tree (`node`). The linear engine (`linear`) matches the pattern if it can,
//! otherwise the backtracking engine (`machine`) does.
//!
//! Limits: a search that takes too many steps fails, and the flag `c` (canonical equivalence) is
//! rejected.

mod cache;
mod escape;
mod grapheme;
mod input;
mod linear;
mod machine;
mod matcher;
mod meter;
mod node;
mod parse;
mod program;
mod property;
mod replacement;
mod set;
mod tables;
#[cfg(test)]
mod tests;

pub use cache::PatternCache;
pub use machine::StepLimitExceeded;
pub use matcher::{Matcher, Subject};
pub use property::any as char_set;
pub use replacement::{Part, Replacement};
pub use set::CharSet;

use linear::Linear;
use program::Program;
use std::collections::HashMap;

/// A compiled regular expression.
#[derive(Debug)]
pub struct Regex {
    program: Program,
    linear: Option<Linear>,
    names: HashMap<String, usize>,
    /// Whether a match never starts between the surrogates of a pair.
    whole: bool,
    /// Whether the pattern has the same matches in UTF-8 and in UTF-16.
    even: bool,
}

impl Regex {
    /// Compiles a pattern. The error describes what is wrong with it, or what is not supported.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let parsed = parse::parse(pattern)?;
        let mut even = !parsed.node.can_be_empty();
        parsed.node.visit(&mut |node| {
            even &= match node {
                node::Node::Set(set) => set.treats_surrogates_alike(),
                node::Node::Char(c) => !(0xd800..0xe000).contains(c),
                node::Node::Look { .. } => false,
                _ => true,
            }
        });
        Ok(Self {
            program: Program::new(&parsed),
            linear: Linear::new(&parsed.node),
            names: parsed.names,
            whole: parsed.has_supplementary,
            even,
        })
    }

    /// The number of capturing groups.
    pub fn groups(&self) -> usize {
        self.program.groups
    }

    /// The number of the group with a name; `None` if there is no such group.
    pub fn group_named(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Whether the pattern occurs anywhere in a text. Fails if the search exceeds its limit of
    /// steps.
    pub fn is_match(&self, text: &str) -> Result<bool, StepLimitExceeded> {
        if let Some(linear) = &self.linear
            && self.is_even_for(text)
            && linear.fits(text)
        {
            return Ok(linear.regex.is_match(text));
        }
        let subject = self.subject(text);
        Matcher::new(self, &subject, false).find()
    }

    /// Converts a text to the encoding that this pattern requires: UTF-8 if possible, otherwise
    /// UTF-16.
    pub fn subject<'t>(&self, text: &'t str) -> Subject<'t> {
        if self.is_even_for(text) {
            Subject::Utf8(text)
        } else {
            Subject::Utf16(text.encode_utf16().collect())
        }
    }

    #[inline]
    fn is_even_for(&self, text: &str) -> bool {
        self.even || text.as_bytes().iter().all(|byte| *byte < 0xf0)
    }
}
