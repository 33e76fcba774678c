//! Compiles a pattern's tree to the instructions of the backtracking
//! [machine](crate::table::text::regexp::machine).
//!
//! Java has several kinds of repetition. They differ in the captures that remain afterwards, and in
//! whether matching can backtrack into an iteration. The compiler chooses the kind as Java does:
//!
//! * a single character: [`Op::Chars`];
//! * a node that is not a group, a group that matches in one way only, or a possessive repetition:
//!   [`Op::Each`], without backtracking into its iterations;
//! * any other group: a [`Loop`], with backtracking into its iterations.
//!
//! An optional part (`?`) other than a single character needs no loop.

use crate::table::text::regexp::node::{Assertion, Kind, Node};
use crate::table::text::regexp::parse::Parsed;
use crate::table::text::regexp::set::{CharSet, Fold};
use std::sync::Arc;

/// The character or the set with which a character of the text is compared.
#[derive(Debug, Clone)]
pub enum Atom {
    Char(u32),
    Set(Arc<CharSet>),
}

impl Atom {
    #[inline]
    pub fn matches(&self, c: u32) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::Set(set) => set.contains(c),
        }
    }
}

/// The bounds and the strategy of a repetition.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub min: u32,
    pub max: u32,
    pub kind: Kind,
}

/// An instruction. Jump targets are indices of instructions.
#[derive(Debug, Clone)]
pub enum Op {
    Atom(Atom),
    Chars(Atom, Times),
    Assert(Assertion),
    /// Tries the first target, and the second one on backtracking.
    Split(usize, usize),
    Jump(usize),
    /// Stores the start of a group in a register.
    Open(usize),
    /// Ends a group. The first number is the register with the group's start, the second is the
    /// number of the group if it captures.
    Close(usize, Option<usize>),
    /// Enters the loop with this index.
    Enter(usize),
    /// Ends one iteration of the loop with this index.
    Round(usize),
    /// Repeats a body, which ends with `Accept`, without backtracking into an iteration. Unless the
    /// repetition is possessive, backtracking may change the number of iterations. The group, if
    /// there is one, captures the last iteration.
    Each {
        body: usize,
        times: Times,
        group: Option<usize>,
    },
    /// Runs a body once, without backtracking into it.
    Once {
        body: usize,
        optional: bool,
    },
    Look {
        body: usize,
        negated: bool,
    },
    /// A look-behind: tries to match the body from a position that is `min` to `max` characters
    /// back.
    Behind {
        body: usize,
        negated: bool,
        min: i32,
        max: i32,
    },
    /// Fails unless the body of a look-behind ends where the look-behind started.
    BehindEnd,
    Reference(usize, Fold),
    LineEnding,
    Grapheme,
    Accept,
}

/// A loop over a group, with backtracking into its iterations.
#[derive(Debug, Clone, Copy)]
pub struct Loop {
    pub times: Times,
    /// The register that counts iterations.
    pub count: usize,
    /// The register for the start of the current iteration.
    pub begin: usize,
    pub body: usize,
    pub next: usize,
    /// Whether positions at which the body failed are recorded, so that they are not tried again.
    pub memo: bool,
}

/// A pattern compiled to instructions for the backtracking engine.
#[derive(Debug, Default)]
pub struct Program {
    pub ops: Vec<Op>,
    pub loops: Vec<Loop>,
    /// The number of registers, without the captured groups.
    pub registers: usize,
    /// The number of capturing groups.
    pub groups: usize,
    /// The characters with which a match can start; `None` if they are not known or a match may be
    /// empty.
    pub first: Option<CharSet>,
    memo: bool,
    nesting: usize,
}

impl Program {
    pub fn new(parsed: &Parsed) -> Self {
        let mut program = Self {
            groups: parsed.groups,
            first: first(&parsed.node),
            memo: !parsed.has_references,
            ..Self::default()
        };
        program.node(&parsed.node);
        program.ops.push(Op::Accept);
        program
    }

    fn push(&mut self, op: Op) -> usize {
        self.ops.push(op);
        self.ops.len() - 1
    }

    fn register(&mut self) -> usize {
        self.registers += 1;
        self.registers - 1
    }

    fn here(&self) -> usize {
        self.ops.len()
    }

    /// Emits a body that ends with `Accept`, and a jump around the body. Returns the index of the
    /// body's first instruction.
    fn apart(&mut self, write: impl FnOnce(&mut Self)) -> usize {
        let jump = self.push(Op::Jump(0));
        let body = self.here();
        self.nesting += 1;
        write(self);
        self.nesting -= 1;
        self.push(Op::Accept);
        self.ops[jump] = Op::Jump(self.here());
        body
    }

    fn node(&mut self, node: &Node) {
        match node {
            Node::Empty => {}
            Node::Char(c) => drop(self.push(Op::Atom(Atom::Char(*c)))),
            Node::Set(set) => drop(self.push(Op::Atom(Atom::Set(set.clone())))),
            Node::Assert(assertion) => drop(self.push(Op::Assert(*assertion))),
            Node::Concat(nodes) => nodes.iter().for_each(|node| self.node(node)),
            Node::Alternate(nodes) => self.alternate(nodes),
            Node::Group(None, node) => self.node(node),
            Node::Group(Some(group), node) => {
                let begin = self.register();
                self.push(Op::Open(begin));
                self.node(node);
                self.push(Op::Close(begin, Some(*group)));
            }
            Node::Repeat { node, min, max, kind } => {
                let max = max.unwrap_or(i32::MAX as u32);
                self.repeat(node, Times { min: *min, max, kind: *kind });
            }
            Node::Atomic(node) => {
                let body = self.apart(|program| program.node(node));
                self.push(Op::Once { body, optional: false });
            }
            Node::Look { behind: false, negated, node } => {
                let body = self.apart(|program| program.node(node));
                self.push(Op::Look { body, negated: *negated });
            }
            Node::Look { behind: true, negated, node } => {
                let study = node.study();
                let body = self.apart(|program| {
                    program.node(node);
                    program.push(Op::BehindEnd);
                });
                let (min, max) = (study.min, study.max);
                self.push(Op::Behind { body, negated: *negated, min, max });
            }
            Node::Reference(group, fold) => drop(self.push(Op::Reference(*group, *fold))),
            Node::LineEnding => drop(self.push(Op::LineEnding)),
            Node::Grapheme => drop(self.push(Op::Grapheme)),
        }
    }

    fn alternate(&mut self, nodes: &[Node]) {
        let mut ends = Vec::new();
        for (i, node) in nodes.iter().enumerate() {
            if i + 1 == nodes.len() {
                self.node(node);
                break;
            }
            let split = self.push(Op::Split(0, 0));
            self.node(node);
            ends.push(self.push(Op::Jump(0)));
            self.ops[split] = Op::Split(split + 1, self.here());
        }
        for end in ends {
            self.ops[end] = Op::Jump(self.here());
        }
    }

    /// Emits an optional part, into which matching can backtrack.
    fn optional(&mut self, lazy: bool, write: impl FnOnce(&mut Self)) {
        let split = self.push(Op::Split(0, 0));
        write(self);
        let (inside, behind) = (split + 1, self.here());
        self.ops[split] = if lazy { Op::Split(behind, inside) } else { Op::Split(inside, behind) };
    }

    fn repeat(&mut self, node: &Node, times: Times) {
        let once = (times.min, times.max) == (0, 1);
        let possessive = times.kind == Kind::Possessive;
        let atom = match node {
            Node::Char(c) => Some(Atom::Char(*c)),
            Node::Set(set) => Some(Atom::Set(set.clone())),
            _ => None,
        };
        if let Some(atom) = atom {
            self.push(Op::Chars(atom, times));
            return;
        }
        let Node::Group(group, inner) = node else {
            // As in Java, matching does not backtrack into a node that is not a group.
            let body = self.apart(|program| program.node(node));
            match (once, possessive) {
                (true, true) => drop(self.push(Op::Once { body, optional: true })),
                (true, false) => self.optional(times.kind == Kind::Lazy, |program| {
                    program.push(Op::Once { body, optional: false });
                }),
                _ => drop(self.push(Op::Each { body, times, group: None })),
            }
            return;
        };
        if possessive {
            let body = self.apart(|program| program.node(node));
            self.push(if once {
                Op::Once { body, optional: true }
            } else {
                Op::Each { body, times, group: None }
            });
        } else if once {
            self.optional(times.kind == Kind::Lazy, |program| program.node(node));
        } else if node.study().deterministic {
            let body = self.apart(|program| program.node(inner));
            self.push(Op::Each { body, times, group: *group });
        } else {
            self.repeat_group(*group, inner, times);
        }
    }

    fn repeat_group(&mut self, group: Option<usize>, inner: &Node, times: Times) {
        let (count, begin) = (self.register(), self.register());
        let id = self.loops.len();
        let endless = times.kind == Kind::Greedy && times.max == i32::MAX as u32;
        let memo = self.memo && endless && self.nesting == 0;
        self.loops.push(Loop { times, count, begin, body: 0, next: 0, memo });
        self.push(Op::Enter(id));
        let body = self.push(Op::Open(begin));
        self.nesting += 1;
        self.node(inner);
        self.nesting -= 1;
        self.push(Op::Close(begin, group));
        self.push(Op::Round(id));
        let next = self.here();
        self.loops[id].body = body;
        self.loops[id].next = next;
    }
}

/// The characters with which a match of a node can start. `None` if the match may be empty, or if
/// the characters are not known.
fn first(node: &Node) -> Option<CharSet> {
    match node {
        Node::Char(c) => Some(CharSet::one(*c)),
        Node::Set(set) => Some((**set).clone()),
        Node::Concat(nodes) => first(nodes.first()?),
        Node::Alternate(nodes) => {
            let all: Option<Vec<_>> = nodes.iter().map(first).collect();
            all?.into_iter().reduce(|a, b| a.union(&b))
        }
        Node::Group(_, node) | Node::Atomic(node) => first(node),
        Node::Repeat { node, min: 1.., .. } => first(node),
        _ => None,
    }
}
