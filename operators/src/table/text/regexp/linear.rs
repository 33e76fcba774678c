//! The linear engine: the crate `regex`, for patterns that it matches as Java does. The pattern's
//! tree is printed in the syntax of that crate. The engine does not support look-around,
//! back-references, and possessive or atomic parts.
//!
//! Some patterns are equivalent only for most texts: Java's `$` also matches before a final line
//! end, and its `\b` treats non-ASCII letters differently. For all other texts the backtracking
//! engine is used.

use crate::table::text::regexp::meter::automaton;
use crate::table::text::regexp::node::{Assertion, Kind, Node};
use crate::table::text::regexp::set::CharSet;
use regex_automata::hybrid::dfa::DFA;
use std::fmt::Write;
use std::sync::OnceLock;

/// A pattern compiled for the linear engine.
#[derive(Debug)]
pub struct Linear {
    /// The compiled pattern.
    pub regex: regex::Regex,
    /// Whether texts that end with a line end need the backtracking engine.
    no_line_end: bool,
    /// Whether texts that are not ASCII need the backtracking engine.
    ascii: bool,
    /// Whether not only the match but also the captured groups are those of Java.
    pub groups: bool,
    /// The automaton of the [`Meter`](crate::table::text::regexp::meter::Meter), built on first
    /// use.
    automaton: OnceLock<Option<DFA>>,
}

/// The size limit of a compiled pattern, in bytes.
const SIZE: usize = 1 << 20;

impl Linear {
    /// Compiles a pattern; `None` if the engine would not match it as Java does, or if the compiled
    /// pattern is too large.
    pub fn new(node: &Node) -> Option<Self> {
        let mut printer =
            Printer { out: String::new(), no_line_end: false, ascii: false, groups: true };
        printer.print(node)?;
        let regex = regex::RegexBuilder::new(&printer.out).size_limit(SIZE).build().ok()?;
        let Printer { no_line_end, ascii, groups, .. } = printer;
        Some(Self { regex, no_line_end, ascii, groups, automaton: OnceLock::new() })
    }

    /// The automaton of the pattern, which [`Meter`](crate::table::text::regexp::meter::Meter) runs
    /// byte by byte; `None` if it exceeds the size limit.
    pub fn automaton(&self) -> Option<&DFA> {
        self.automaton.get_or_init(|| automaton(self.regex.as_str(), SIZE)).as_ref()
    }

    /// Whether the engine is known to return Java's result for this text. False for some patterns
    /// if the text is not ASCII, or if it ends with a line end.
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
        // In Java an empty iteration ends a loop.
        if kind == Kind::Possessive || node.can_be_empty() {
            return None;
        }
        // In Java a group within a repeated group retains the capture of its last attempt.
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
