//! The syntax tree of a pattern.

use crate::table::text::regexp::set::{CharSet, Fold};
use std::sync::Arc;

/// The strategy of a repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Tries the most iterations first.
    Greedy,
    /// Tries the fewest iterations first.
    Lazy,
    /// Takes the most iterations and does not backtrack into fewer.
    Possessive,
}

/// A condition on a position of the text, which matches without consuming characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assertion {
    /// The start of the text: `^` without the flag `m`, and `\A`.
    Begin,
    /// The end of the text: `\z`.
    End,
    /// The end of a line: `$` and `\Z`. Without `multiline` it matches only at the end of the text
    /// and before a final line end. With `unix` only `\n` is a line end.
    Dollar { multiline: bool, unix: bool },
    /// The start of the text and of each line, but not the end of the text: `^` with the flag `m`.
    Caret { unix: bool },
    /// The end of the previous match: `\G`.
    LastMatch,
    /// A word boundary, `\b`, or its negation, `\B`.
    Bound { negated: bool, unicode: bool },
    /// A boundary of grapheme clusters: `\b{g}`.
    GraphemeBound,
}

/// A node of the syntax tree.
#[derive(Debug, Clone)]
pub enum Node {
    Empty,
    Char(u32),
    Set(Arc<CharSet>),
    Assert(Assertion),
    Concat(Vec<Node>),
    Alternate(Vec<Node>),
    /// A group in parentheses. The number is set if the group captures.
    Group(Option<usize>, Box<Node>),
    Repeat {
        node: Box<Node>,
        min: u32,
        max: Option<u32>,
        kind: Kind,
    },
    /// An atomic group: `(?>…)`.
    Atomic(Box<Node>),
    Look {
        behind: bool,
        negated: bool,
        node: Box<Node>,
    },
    Reference(usize, Fold),
    /// Any line end: `\R`.
    LineEnding,
    /// A grapheme cluster: `\X`.
    Grapheme,
}

/// The lengths that Java computes for a node before matching. They overflow like Java's 32-bit
/// integers. This must be reproduced, because the lengths decide how far back a look-behind starts.
#[derive(Debug, Clone, Copy)]
pub struct MatchLength {
    /// The minimum length of a match, in characters.
    pub min: i32,
    /// The maximum length of a match, in characters, if `bounded`.
    pub max: i32,
    /// Whether there is a maximum length.
    pub bounded: bool,
    /// Whether the node matches any text in at most one way.
    pub deterministic: bool,
}

impl MatchLength {
    /// The lengths of a zero-width node.
    pub const NONE: Self = Self { min: 0, max: 0, bounded: true, deterministic: true };

    /// Adds the lengths of consecutive nodes; `parts` has the next node at its end. As in Java, a
    /// choice restarts the computation for the nodes after it, and nodes after some loops are not
    /// examined.
    fn pass(&mut self, mut parts: Vec<&Node>) {
        while let Some(part) = parts.pop() {
            match part {
                Node::Empty | Node::Assert(_) | Node::Look { .. } => {}
                Node::Char(_) | Node::Set(_) => self.add(1, 1),
                Node::LineEnding => self.add(1, 2),
                Node::Grapheme => {
                    self.add(1, 0);
                    self.deterministic = false;
                }
                Node::Reference(..) => self.bounded = false,
                Node::Concat(nodes) => parts.extend(nodes.iter().rev()),
                Node::Group(_, node) => parts.push(node),
                Node::Atomic(node) => self.pass(vec![node]),
                Node::Alternate(nodes) => return self.choose(nodes.iter().collect(), parts),
                Node::Repeat { node, min: 0, max: Some(1), kind }
                    if matches!(**node, Node::Group(..)) && *kind != Kind::Possessive =>
                {
                    return self.choose(vec![node, &Node::Empty], parts);
                }
                Node::Repeat { node, min: 0, max: Some(1), .. } => {
                    let least = self.min;
                    self.pass(vec![node]);
                    self.min = least;
                    self.deterministic = false;
                }
                Node::Repeat { node, min, max, kind } => {
                    if !self.repeat(node, *min, *max, *kind) {
                        return;
                    }
                }
            }
        }
    }

    fn add(&mut self, min: i32, max: i32) {
        self.min = self.min.wrapping_add(min);
        self.max = self.max.wrapping_add(max);
    }

    fn choose(&mut self, nodes: Vec<&Node>, rest: Vec<&Node>) {
        let (mut least, mut most) = (i32::MAX, -1);
        for node in nodes {
            let one = node.study();
            (least, most) = (least.min(one.min), most.max(one.max));
            self.bounded &= one.bounded;
        }
        let mut behind = Self::NONE;
        behind.pass(rest);
        self.add(least.wrapping_add(behind.min), most.wrapping_add(behind.max));
        self.bounded &= behind.bounded;
        self.deterministic = false;
    }

    /// Adds the lengths of a repetition. Returns whether the nodes after the repetition are
    /// examined too.
    fn repeat(&mut self, node: &Node, min: u32, max: Option<u32>, kind: Kind) -> bool {
        let (least, most) = (min as i32, max.map_or(i32::MAX, |max| max as i32));
        if node.is_char() && max.is_none() && kind == Kind::Greedy {
            self.add(least, if self.bounded { i32::MAX } else { 0 });
            self.deterministic = false;
            return true;
        }
        let inner = node.study();
        let group = matches!(node, Node::Group(..)) && kind != Kind::Possessive;
        if group && !inner.deterministic {
            self.bounded = false;
            self.deterministic = false;
            return false;
        }
        self.min = inner.min.wrapping_mul(least).wrapping_add(self.min);
        let longest = inner.max.wrapping_mul(most).wrapping_add(self.max);
        self.bounded &= inner.bounded && longest >= self.max;
        self.max = longest;
        self.deterministic &= inner.deterministic && Some(min) == max;
        true
    }
}

impl Node {
    /// Computes the lengths of this node, without the nodes after it.
    pub fn study(&self) -> MatchLength {
        let mut study = MatchLength::NONE;
        study.pass(vec![self]);
        study
    }

    /// Whether the node matches exactly one character.
    pub fn is_char(&self) -> bool {
        matches!(self, Self::Char(_) | Self::Set(_))
    }

    /// Whether the node can match the empty text.
    pub fn can_be_empty(&self) -> bool {
        match self {
            Self::Char(_) | Self::Set(_) | Self::LineEnding | Self::Grapheme => false,
            Self::Empty | Self::Assert(_) | Self::Look { .. } | Self::Reference(..) => true,
            Self::Concat(nodes) => nodes.iter().all(Self::can_be_empty),
            Self::Alternate(nodes) => nodes.iter().any(Self::can_be_empty),
            Self::Group(_, node) | Self::Atomic(node) => node.can_be_empty(),
            Self::Repeat { node, min, .. } => *min == 0 || node.can_be_empty(),
        }
    }

    /// Calls `f` for this node and all its descendants.
    pub fn visit(&self, f: &mut dyn FnMut(&Self)) {
        f(self);
        match self {
            Self::Concat(nodes) | Self::Alternate(nodes) => nodes.iter().for_each(|n| n.visit(f)),
            Self::Group(_, node)
            | Self::Atomic(node)
            | Self::Repeat { node, .. }
            | Self::Look { node, .. } => node.visit(f),
            _ => {}
        }
    }
}
