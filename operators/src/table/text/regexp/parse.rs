//! Parses patterns in the syntax of Java 17 into a tree. The flag for canonical equivalence and
//! very deep nesting are rejected. Everything else is parsed as in Java, also in corner cases: `]`
//! at the start of a class is a character, the right operand of `&&` extends to the end of the
//! class, and `{` without a number is an error.

use crate::table::text::regexp::escape::Escape;
use crate::table::text::regexp::node::{Assertion, Kind, Node};
use crate::table::text::regexp::set::Fold;
use crate::table::text::regexp::set::{CharSet, folded};
use std::collections::HashMap;
use std::sync::Arc;

/// The flags in effect at a position of the pattern.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flags {
    /// Whether matching ignores case (`i`).
    pub ignore_case: bool,
    /// Whether ignoring case also applies to non-ASCII letters (`u`).
    pub unicode_case: bool,
    /// Whether `\w` and similar classes cover all of Unicode (`U`).
    pub unicode_classes: bool,
    /// Whether `^` and `$` match at every line (`m`).
    pub multiline: bool,
    /// Whether `.` also matches line ends (`s`).
    pub dot_all: bool,
    /// Whether only `\n` is a line end (`d`).
    pub unix_lines: bool,
    /// Whether white space and comments in the pattern are ignored (`x`).
    pub comments: bool,
}

impl Flags {
    /// The case folding that these flags select.
    pub fn fold(self) -> Fold {
        match (self.ignore_case, self.unicode_case) {
            (false, _) => Fold::None,
            (true, false) => Fold::Ascii,
            (true, true) => Fold::Unicode,
        }
    }
}

/// The syntax tree of a pattern, with the properties that compilation needs.
#[derive(Debug)]
pub struct Parsed {
    /// The root of the pattern's tree.
    pub node: Node,
    /// The number of capturing groups.
    pub groups: usize,
    /// The number of each named group, by name.
    pub names: HashMap<String, usize>,
    /// Whether the pattern contains back-references.
    pub has_references: bool,
    /// Whether the pattern contains supplementary characters. If so, no match starts between the
    /// surrogates of a pair.
    pub has_supplementary: bool,
}

/// The maximum nesting depth of groups and classes.
const DEPTH: usize = 250;

pub type Parse<T> = Result<T, String>;

pub struct Parser {
    pub text: Vec<u32>,
    pub at: usize,
    pub flags: Flags,
    pub groups: usize,
    pub names: HashMap<String, usize>,
    pub has_references: bool,
    pub has_supplementary: bool,
    pub depth: usize,
}

pub fn error<T>(reason: impl Into<String>) -> Parse<T> {
    Err(reason.into())
}

pub fn ascii(c: u32) -> Option<char> {
    char::from_u32(c).filter(char::is_ascii)
}

fn is_space(c: u32) -> bool {
    matches!(c, 9..=13 | 32)
}

/// Parses a pattern. The error describes the mistake, mostly in the words of Java's message.
pub fn parse(pattern: &str) -> Parse<Parsed> {
    let text = without_quotes(pattern.chars().map(u32::from).collect());
    let mut parser = Parser {
        text,
        at: 0,
        flags: Flags::default(),
        groups: 0,
        names: HashMap::new(),
        has_references: false,
        has_supplementary: false,
        depth: 0,
    };
    let node = parser.alternatives()?;
    if parser.at != parser.text.len() {
        return match ascii(parser.peek()) {
            Some(')') => error("Unmatched closing ')'"),
            _ => error("Unexpected internal error"),
        };
    }
    Ok(Parsed {
        node,
        groups: parser.groups,
        names: parser.names,
        has_references: parser.has_references,
        has_supplementary: parser.has_supplementary,
    })
}

/// Replaces `\Q…\E` by the quoted characters. A character that could have a special meaning gets a
/// backslash.
fn without_quotes(text: Vec<u32>) -> Vec<u32> {
    let is = |i: usize, c: char| text.get(i) == Some(&u32::from(c));
    let mut out = Vec::with_capacity(text.len());
    let (mut quoted, mut begun) = (false, false);
    let mut i = 0;
    while i < text.len() {
        let c = text[i];
        i += 1;
        if !quoted {
            out.push(c);
            if c != u32::from('\\') || i == text.len() {
                continue;
            }
            if is(i, 'Q') {
                out.pop();
                (quoted, begun) = (true, true);
            } else {
                out.push(text[i]);
            }
            i += 1;
            continue;
        }
        let first = std::mem::take(&mut begun);
        match ascii(c) {
            Some('\\') if is(i, 'E') => {
                i += 1;
                quoted = false;
            }
            // Directly after the quote's start, a digit could extend an escape before it, such as a
            // group number. So the digit is written in hexadecimal.
            Some(digit) if digit.is_ascii_digit() && first => {
                out.extend("\\x3".chars().map(u32::from));
                out.push(c);
            }
            Some(other) if !other.is_ascii_alphanumeric() => out.extend([u32::from('\\'), c]),
            _ => out.push(c),
        }
    }
    out
}

impl Parser {
    /// The character at a position; 0 after the end.
    pub fn char_at(&self, at: usize) -> u32 {
        self.text.get(at).copied().unwrap_or(0)
    }

    /// Skips white space and comments if the flag `x` is set.
    fn pass(&mut self) {
        while self.flags.comments {
            let c = self.char_at(self.at);
            if is_space(c) {
                self.at += 1;
            } else if c == u32::from('#') {
                while self.at < self.text.len() && !self.is_line_end(self.char_at(self.at)) {
                    self.at += 1;
                }
            } else {
                return;
            }
        }
    }

    fn is_line_end(&self, c: u32) -> bool {
        let others = [0x0d, 0x85, 0x2028, 0x2029];
        c == 0x0a || !self.flags.unix_lines && others.contains(&c)
    }

    pub fn peek(&mut self) -> u32 {
        self.pass();
        self.char_at(self.at)
    }

    pub fn read(&mut self) -> u32 {
        let c = self.peek();
        self.at += 1;
        c
    }

    /// Advances by one character and returns the character there.
    pub fn next(&mut self) -> u32 {
        self.at += 1;
        self.peek()
    }

    pub fn is_next(&mut self, c: char) -> bool {
        self.peek() == u32::from(c)
    }

    pub fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Parse<T>) -> Parse<T> {
        self.depth += 1;
        if self.depth > DEPTH {
            return error(format!("more than {DEPTH} levels deep"));
        }
        let result = f(self);
        self.depth -= 1;
        result
    }

    fn alternatives(&mut self) -> Parse<Node> {
        let mut nodes = vec![self.sequence()?];
        while self.is_next('|') {
            self.next();
            nodes.push(self.sequence()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Alternate(nodes) })
    }

    fn sequence(&mut self) -> Parse<Node> {
        let mut nodes = Vec::new();
        loop {
            let c = self.peek();
            let node = match ascii(c) {
                Some('\0') if self.at >= self.text.len() => break,
                Some('|' | ')') => break,
                Some('(') => match self.group()? {
                    Some(node) => node,
                    None => continue,
                },
                Some('[') => Node::Set(Arc::new(self.class_set()?)),
                Some('\\') => self.escaped()?,
                Some('^') => {
                    self.at += 1;
                    Node::Assert(if self.flags.multiline {
                        Assertion::Caret { unix: self.flags.unix_lines }
                    } else {
                        Assertion::Begin
                    })
                }
                Some('$') => {
                    self.at += 1;
                    let Flags { multiline, unix_lines: unix, .. } = self.flags;
                    Node::Assert(Assertion::Dollar { multiline, unix })
                }
                Some('.') => {
                    self.at += 1;
                    Node::Set(Arc::new(self.dot()))
                }
                Some(dangling @ ('*' | '+' | '?')) => {
                    return error(format!("Dangling meta character '{dangling}'"));
                }
                Some('{') => Node::Empty,
                _ => {
                    self.at += 1;
                    self.character(c)
                }
            };
            nodes.push(self.closure(node)?);
        }
        Ok(match nodes.len() {
            0 => Node::Empty,
            1 => nodes.remove(0),
            _ => Node::Concat(nodes),
        })
    }

    fn dot(&self) -> CharSet {
        match (self.flags.dot_all, self.flags.unix_lines) {
            (true, _) => CharSet::all(),
            (false, true) => CharSet::one(0x0a).negate(),
            (false, false) => CharSet::chars("\n\r\u{85}\u{2028}\u{2029}").negate(),
        }
    }

    /// Creates the node of a literal character. With case folding, it is a set.
    fn character(&mut self, c: u32) -> Node {
        self.has_supplementary |= c > 0xffff;
        match self.flags.fold() {
            Fold::None => Node::Char(c),
            fold => match folded(c, fold) {
                set if set.ranges() == [(c, c)] => Node::Char(c),
                set => Node::Set(Arc::new(set)),
            },
        }
    }

    /// Parses a character class, and records whether the class contains supplementary characters.
    fn class_set(&mut self) -> Parse<CharSet> {
        let set = self.class(true)?;
        self.sees(&set);
        Ok(set)
    }

    fn sees(&mut self, set: &CharSet) {
        self.has_supplementary |= set.ranges().last().is_some_and(|range| range.1 > 0xffff);
    }

    fn escaped(&mut self) -> Parse<Node> {
        Ok(match self.escape(false, false)? {
            Escape::Char(c) => self.character(c),
            Escape::Set(set) => {
                self.sees(&set);
                Node::Set(Arc::new(set))
            }
            Escape::Node(node) => node,
        })
    }

    /// Parses a group, starting at its `(`. Returns `None` for flags such as `(?i)`, which apply to
    /// the nodes after them.
    fn group(&mut self) -> Parse<Option<Node>> {
        self.deeper(Self::group_inside)
    }

    fn group_inside(&mut self) -> Parse<Option<Node>> {
        let saved = self.flags;
        let c = self.next();
        if c != u32::from('?') {
            let node = self.capturing(None)?;
            return self.closed(node, saved);
        }
        let kind = self.char_at(self.at + 1);
        self.at += 2;
        let node = match ascii(kind) {
            Some(':') => Node::Group(None, Box::new(self.alternatives()?)),
            Some(sign @ ('=' | '!')) => {
                let node = Box::new(self.alternatives()?);
                Node::Look { behind: false, negated: sign == '!', node }
            }
            Some('>') => Node::Atomic(Box::new(self.alternatives()?)),
            Some('<') => match ascii(self.read()) {
                Some(sign @ ('=' | '!')) => {
                    let node = Box::new(self.alternatives()?);
                    if !node.study().bounded {
                        return error("Look-behind group does not have an obvious maximum length");
                    }
                    Node::Look { behind: true, negated: sign == '!', node }
                }
                _ => {
                    self.at -= 1;
                    let name = self.group_name()?;
                    if self.names.contains_key(&name) {
                        return error(format!("Named capturing group <{name}> is already defined"));
                    }
                    self.capturing(Some(name))?
                }
            },
            Some('$' | '@') => return error("Unknown group type"),
            _ => {
                self.at -= 1;
                self.read_flags()?;
                match ascii(self.read()) {
                    Some(')') => return Ok(None),
                    Some(':') => Node::Group(None, Box::new(self.alternatives()?)),
                    _ => return error("Unknown inline modifier"),
                }
            }
        };
        self.closed(node, saved)
    }

    fn closed(&mut self, node: Node, flags: Flags) -> Parse<Option<Node>> {
        if self.read() != u32::from(')') {
            return error("Unclosed group");
        }
        self.flags = flags;
        Ok(Some(node))
    }

    fn capturing(&mut self, name: Option<String>) -> Parse<Node> {
        self.groups += 1;
        let index = self.groups;
        if let Some(name) = name {
            self.names.insert(name, index);
        }
        Ok(Node::Group(Some(index), Box::new(self.alternatives()?)))
    }

    /// Parses a group name and the `>` that ends it.
    pub fn group_name(&mut self) -> Parse<String> {
        let mut name = String::new();
        loop {
            match ascii(self.read()) {
                Some(c) if c.is_ascii_alphabetic() => name.push(c),
                Some(c) if c.is_ascii_digit() && !name.is_empty() => name.push(c),
                _ if name.is_empty() => {
                    return error("capturing group name does not start with a Latin letter");
                }
                Some('>') => return Ok(name),
                _ => return error("named capturing group is missing trailing '>'"),
            }
        }
    }

    fn read_flags(&mut self) -> Parse<()> {
        let mut on = true;
        loop {
            match ascii(self.peek()) {
                Some('i') => self.flags.ignore_case = on,
                Some('m') => self.flags.multiline = on,
                Some('s') => self.flags.dot_all = on,
                Some('d') => self.flags.unix_lines = on,
                Some('u') => self.flags.unicode_case = on,
                Some('c') => return error("canonical equivalence, (?c), is not supported"),
                Some('x') => self.flags.comments = on,
                Some('U') => {
                    self.flags.unicode_classes = on;
                    self.flags.unicode_case = on;
                }
                Some('-') if on => on = false,
                _ => return Ok(()),
            }
            self.at += 1;
        }
    }

    /// Parses the quantifier after a node, if there is one, and returns the complete node.
    fn closure(&mut self, node: Node) -> Parse<Node> {
        let (min, max) = match ascii(self.peek()) {
            Some('?') => (0, Some(1)),
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('{') => return self.counted(node),
            _ => return Ok(node),
        };
        self.at += 1;
        Ok(self.repeated(node, min, max))
    }

    fn counted(&mut self, node: Node) -> Parse<Node> {
        let first = ascii(self.char_at(self.at + 1));
        if !first.is_some_and(|c| c.is_ascii_digit()) {
            return error("Illegal repetition");
        }
        self.at += 1;
        let number = |parser: &mut Self| -> Parse<u32> {
            let mut value = 0u32;
            while let Some(digit) = ascii(parser.peek()).and_then(|c| c.to_digit(10)) {
                value = value
                    .checked_mul(10)
                    .and_then(|value| value.checked_add(digit))
                    .filter(|value| *value <= i32::MAX as u32)
                    .ok_or("Illegal repetition range")?;
                parser.at += 1;
            }
            Ok(value)
        };
        let min = number(self)?;
        let mut max = Some(min);
        if self.is_next(',') {
            self.at += 1;
            max = if self.is_next('}') { None } else { Some(number(self)?) };
        }
        if self.read() != u32::from('}') {
            return error("Unclosed counted closure");
        }
        if max.is_some_and(|max| max < min) {
            return error("Illegal repetition range");
        }
        Ok(self.repeated(node, min, max))
    }

    fn repeated(&mut self, node: Node, min: u32, max: Option<u32>) -> Node {
        let kind = match ascii(self.peek()) {
            Some('?') => Kind::Lazy,
            Some('+') => Kind::Possessive,
            _ => Kind::Greedy,
        };
        self.at += usize::from(kind != Kind::Greedy);
        Node::Repeat { node: Box::new(node), min, max, kind }
    }
}
