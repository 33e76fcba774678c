//! The linear engine, the crate regex, for patterns that it matches as Java does: their tree is
//! printed in its syntax. It knows no look-around, no references and no parts that are final.
//!
//! Some patterns mean the same for most texts only, and are left to the machine for the others:
//! `$` is also before a line end at the end, and `\b` has Java's own letters beyond ASCII.

use crate::table::text::regexp::meter::automaton;
use crate::table::text::regexp::node::{Assertion, Kind, Node};
use crate::table::text::regexp::set::CharSet;
use regex_automata::hybrid::dfa::DFA;
use std::fmt::Write;
use std::sync::OnceLock;

/// A pattern of the linear engine.
#[derive(Debug)]
pub struct Linear {
    /// The pattern.
    pub regex: regex::Regex,
    /// Whether it is right only for texts without a line end at their end.
    no_line_end: bool,
    /// Whether it is right only for ASCII.
    ascii: bool,
    /// Whether groups are right too, not only the match.
    pub groups: bool,
    /// For the [`Meter`](crate::table::text::regexp::meter::Meter), made when it is first needed.
    automaton: OnceLock<Option<DFA>>,
}

/// Longest program of the linear engine.
const SIZE: usize = 1 << 20;

impl Linear {
    /// Prints a pattern, if the engine matches it as Java does.
    pub fn new(node: &Node) -> Option<Self> {
        let mut printer =
            Printer { out: String::new(), no_line_end: false, ascii: false, groups: true };
        printer.print(node)?;
        let regex = regex::RegexBuilder::new(&printer.out).size_limit(SIZE).build().ok()?;
        let Printer { no_line_end, ascii, groups, .. } = printer;
        Some(Self { regex, no_line_end, ascii, groups, automaton: OnceLock::new() })
    }

    /// The pattern's automaton, to be run step by step.
    pub fn automaton(&self) -> Option<&DFA> {
        self.automaton.get_or_init(|| automaton(self.regex.as_str(), SIZE)).as_ref()
    }

    /// Whether it is right for a text.
    #[inline]
    pub fn fits(&self, text: &str) -> bool {
        if self.ascii && !text.is_ascii() {
            return false;
        }
        if !self.no_line_end {
            return true;
        }
        match text.as_bytes().last() {
            Some(b'\n' | b'\r') => false,
            Some(0..128) | None => true,
            Some(_) => !text.ends_with(['\u{85}', '\u{2028}', '\u{2029}']),
        }
    }
}

struct Printer {
    out: String,
    no_line_end: bool,
    ascii: bool,
    groups: bool,
}

impl Printer {
    fn print(&mut self, node: &Node) -> Option<()> {
        match node {
            Node::Empty => self.out.push_str("(?:)"),
            Node::Char(c) => self.char(*c)?,
            Node::Set(set) => self.set(set)?,
            Node::Assert(assertion) => self.assert(*assertion)?,
            Node::Concat(nodes) => {
                for node in nodes {
                    self.print(node)?;
                }
            }
            Node::Alternate(nodes) => {
                self.out.push_str("(?:");
                for (i, node) in nodes.iter().enumerate() {
                    if i > 0 {
                        self.out.push('|');
                    }
                    self.print(node)?;
                }
                self.out.push(')');
            }
            Node::Group(group, node) => {
                self.out.push_str(if group.is_some() { "(" } else { "(?:" });
                self.print(node)?;
                self.out.push(')');
            }
            Node::Repeat { node, min, max, kind } => self.repeat(node, *min, *max, *kind)?,
            Node::Atomic(_)
            | Node::Look { .. }
            | Node::Reference(..)
            | Node::LineEnding
            | Node::Grapheme => return None,
        }
        Some(())
    }

    fn char(&mut self, c: u32) -> Option<()> {
        char::from_u32(c)?;
        write!(self.out, r"\x{{{c:x}}}").ok()
    }

    fn set(&mut self, set: &CharSet) -> Option<()> {
        let set = set.without(&CharSet::new(vec![(0xd800, 0xdfff)]));
        if set.ranges().is_empty() {
            return None;
        }
        self.out.push('[');
        for (from, to) in set.ranges() {
            write!(self.out, r"\x{{{from:x}}}-\x{{{to:x}}}").ok()?;
        }
        self.out.push(']');
        Some(())
    }

    fn assert(&mut self, assertion: Assertion) -> Option<()> {
        let written = match assertion {
            Assertion::Begin => r"\A",
            Assertion::End => r"\z",
            Assertion::Dollar { multiline: false, .. } => {
                self.no_line_end = true;
                r"\z"
            }
            Assertion::Bound { negated, .. } => {
                self.ascii = true;
                if negated { r"(?-u:\B)" } else { r"(?-u:\b)" }
            }
            _ => return None,
        };
        self.out.push_str(written);
        Some(())
    }

    fn repeat(&mut self, node: &Node, min: u32, max: Option<u32>, kind: Kind) -> Option<()> {
        // Empty rounds end a loop in Java, and groups inside of rounds hold what was tried last.
        if kind == Kind::Possessive || node.can_be_empty() {
            return None;
        }
        if let Node::Group(_, inner) = node
            && max != Some(1)
        {
            inner.visit(&mut |part| self.groups &= !matches!(part, Node::Group(Some(_), _)));
        }
        self.out.push_str("(?:");
        self.print(node)?;
        self.out.push(')');
        match max {
            Some(max) => write!(self.out, "{{{min},{max}}}").ok()?,
            None => write!(self.out, "{{{min},}}").ok()?,
        }
        if kind == Kind::Lazy {
            self.out.push('?');
        }
        Some(())
    }
}
