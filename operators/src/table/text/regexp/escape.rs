//! Parses escapes and character classes.

use crate::table::text::regexp::node::{Assertion, Node};
use crate::table::text::regexp::parse::{Parse, Parser, ascii, error};
use crate::table::text::regexp::property;
use crate::table::text::regexp::set::{CharSet, LAST, folded, folded_range};

/// The meaning of an escape.
pub enum Escape {
    /// A character.
    Char(u32),
    /// Any character of a set.
    Set(CharSet),
    /// Any other node.
    Node(Node),
}

/// The characters that `\h` matches: horizontal white space.
fn horizontal() -> CharSet {
    CharSet::chars("\t \u{a0}\u{1680}\u{180e}\u{202f}\u{205f}\u{3000}")
        .union(&CharSet::new(vec![(0x2000, 0x200a)]))
}

/// The characters that `\v` matches: vertical white space.
fn vertical() -> CharSet {
    CharSet::chars("\n\u{b}\u{c}\r\u{85}\u{2028}\u{2029}")
}

fn hex(c: u32) -> Option<u32> {
    ascii(c)?.to_digit(16)
}

fn octal(c: u32) -> Option<u32> {
    ascii(c)?.to_digit(8)
}

impl Parser {
    /// Parses an escape, starting at its backslash. As an end of a range in a class (`in_range`),
    /// `\v` is a single character and not a set.
    pub fn escape(&mut self, in_class: bool, in_range: bool) -> Parse<Escape> {
        let escaped = self.char_at(self.at + 1);
        self.at += 2;
        if self.at > self.text.len() {
            return error("Unexpected internal error");
        }
        let Some(letter) = ascii(escaped) else { return Ok(Escape::Char(escaped)) };
        let node = |node: Node| Ok(Escape::Node(node));
        let assert = |assertion| Ok(Escape::Node(Node::Assert(assertion)));
        let unicode = self.flags.unicode_classes;
        match letter {
            'd' | 'D' | 'w' | 'W' | 's' | 'S' | 'h' | 'H' | 'V' | 'v' => {
                if letter == 'v' && in_range {
                    return Ok(Escape::Char(0x0b));
                }
                Ok(Escape::Set(self.class_escape(letter)))
            }
            'p' | 'P' => self.family(letter == 'P').map(Escape::Set),
            '0' => self.octal_escape().map(Escape::Char),
            'N' => self.named().map(Escape::Char),
            'a' => Ok(Escape::Char(7)),
            'c' if self.at < self.text.len() => Ok(Escape::Char(self.read() ^ 64)),
            'c' => error("Illegal control escape sequence"),
            'e' => Ok(Escape::Char(0x1b)),
            'f' => Ok(Escape::Char(0x0c)),
            'n' => Ok(Escape::Char(0x0a)),
            'r' => Ok(Escape::Char(0x0d)),
            't' => Ok(Escape::Char(9)),
            'u' => self.unicode_escape().map(Escape::Char),
            'x' => self.hex_escape().map(Escape::Char),
            '1'..='9' if !in_class => {
                self.has_references = true;
                node(Node::Reference(self.reference(letter), self.flags.fold()))
            }
            'A' if !in_class => assert(Assertion::Begin),
            'B' if !in_class => assert(Assertion::Bound { negated: true, unicode }),
            'b' if !in_class => self.bound(),
            'G' if !in_class => assert(Assertion::LastMatch),
            'R' if !in_class => node(Node::LineEnding),
            'X' if !in_class => node(Node::Grapheme),
            'Z' if !in_class => {
                assert(Assertion::Dollar { multiline: false, unix: self.flags.unix_lines })
            }
            'z' if !in_class => assert(Assertion::End),
            'k' if !in_class => self.named_reference(),
            other if other.is_ascii_alphanumeric() => {
                error(format!("Illegal/unsupported escape sequence: \\{other}"))
            }
            _ => Ok(Escape::Char(escaped)),
        }
    }

    /// The characters that a class escape such as `\d` matches.
    fn class_escape(&self, letter: char) -> CharSet {
        let unicode = self.flags.unicode_classes;
        let set = match letter.to_ascii_lowercase() {
            'h' => horizontal(),
            'v' => vertical(),
            'd' if unicode => property::digit(),
            'w' if unicode => property::word(),
            's' if unicode => property::white_space(),
            'd' => CharSet::new(vec![(0x30, 0x39)]),
            'w' => property::ascii_word(),
            _ => CharSet::chars(" \t\n\u{b}\u{c}\r"),
        };
        if letter.is_ascii_uppercase() { set.negate() } else { set }
    }

    /// Parses the rest of `\b` or `\b{g}`, whose `\b` has been consumed.
    fn bound(&mut self) -> Parse<Escape> {
        let assert = |assertion| Ok(Escape::Node(Node::Assert(assertion)));
        let here = ['{', 'g', '}'].map(u32::from);
        if self.text.get(self.at..self.at + 3) == Some(&here[..]) {
            self.at += 3;
            return assert(Assertion::GraphemeBound);
        }
        if self.text.get(self.at..self.at + 2) == Some(&here[..2]) {
            return error("Illegal/unsupported escape sequence");
        }
        assert(Assertion::Bound { negated: false, unicode: self.flags.unicode_classes })
    }

    /// Parses the rest of `\k<name>`, whose `\k` has been consumed.
    fn named_reference(&mut self) -> Parse<Escape> {
        if self.read() != u32::from('<') {
            return error("\\k is not followed by '<' for named capturing group");
        }
        let name = self.group_name()?;
        let Some(&group) = self.names.get(&name) else {
            return error(format!("named capturing group <{name}> does not exist"));
        };
        self.has_references = true;
        Ok(Escape::Node(Node::Reference(group, self.flags.fold())))
    }

    /// Parses a group number, whose first digit has been consumed. Further digits are consumed as
    /// long as they form the number of an existing group.
    fn reference(&mut self, first: char) -> usize {
        let mut number = first.to_digit(10).unwrap_or(0) as usize;
        while let Some(digit) = ascii(self.peek()).and_then(|c| c.to_digit(10)) {
            let longer = number * 10 + digit as usize;
            if longer > self.groups {
                break;
            }
            number = longer;
            self.at += 1;
        }
        number
    }

    fn octal_escape(&mut self) -> Parse<u32> {
        let mut value = 0;
        let mut digits = 0;
        while digits < 3 && (digits < 2 || value < 0o40) {
            let Some(digit) = octal(self.peek()) else { break };
            value = value * 8 + digit;
            digits += 1;
            self.at += 1;
        }
        if digits == 0 { error("Illegal octal escape sequence") } else { Ok(value) }
    }

    fn hex_escape(&mut self) -> Parse<u32> {
        let first = self.read();
        if let Some(high) = hex(first) {
            return match hex(self.read()) {
                Some(low) => Ok(high * 16 + low),
                None => error("Illegal hexadecimal escape sequence"),
            };
        }
        if first != u32::from('{') || hex(self.peek()).is_none() {
            return error("Illegal hexadecimal escape sequence");
        }
        let mut value = 0;
        loop {
            let c = self.read();
            match hex(c) {
                Some(digit) => value = value * 16 + digit,
                None if c == u32::from('}') => return Ok(value),
                None => return error("Unclosed hexadecimal escape sequence"),
            }
            if value > LAST {
                return error("Hexadecimal codepoint is too big");
            }
        }
    }

    fn four_digits(&mut self) -> Parse<u32> {
        let mut value = 0;
        for _ in 0..4 {
            match hex(self.read()) {
                Some(digit) => value = value * 16 + digit,
                None => return error("Illegal Unicode escape sequence"),
            }
        }
        Ok(value)
    }

    /// Parses `\u` and four hexadecimal digits. A surrogate pair consists of two such escapes.
    fn unicode_escape(&mut self) -> Parse<u32> {
        let high = self.four_digits()?;
        let after = self.at;
        if (0xd800..0xdc00).contains(&high)
            && self.read() == u32::from('\\')
            && self.read() == u32::from('u')
        {
            let low = self.four_digits()?;
            if (0xdc00..0xe000).contains(&low) {
                return Ok(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00));
            }
        }
        self.at = after;
        Ok(high)
    }

    /// Parses `\N{NAME}`, the character with a Unicode name.
    fn named(&mut self) -> Parse<u32> {
        if self.read() != u32::from('{') {
            return error("Illegal character name escape sequence");
        }
        let name = self.up_to_brace("Unclosed character name escape sequence")?;
        match property::named(&name) {
            Some(c) => Ok(c),
            None => error(format!("Unknown character name [{name}]")),
        }
    }

    fn up_to_brace(&mut self, otherwise: &str) -> Parse<String> {
        let mut text = String::new();
        while self.at < self.text.len() {
            let c = self.read();
            if c == u32::from('}') {
                return Ok(text);
            }
            text.extend(char::from_u32(c));
        }
        error(otherwise)
    }

    /// Parses `\pL` or `\p{…}`, whose letter `p` has been consumed.
    fn family(&mut self, complement: bool) -> Parse<CharSet> {
        let name = if self.is_next('{') {
            self.at += 1;
            let name = self.up_to_brace("Unclosed character family")?;
            if name.is_empty() {
                return error("Empty character family");
            }
            name
        } else {
            char::from_u32(self.read()).map(String::from).unwrap_or_default()
        };
        let set = property::family(&name, self.flags)?;
        Ok(if complement { set.negate() } else { set })
    }

    /// Parses `[…]`. If not `bracketed`, parses the right operand of `&&` up to the closing
    /// bracket, which is not consumed.
    pub fn class(&mut self, bracketed: bool) -> Parse<CharSet> {
        self.deeper(|parser| parser.class_inside(bracketed))
    }

    fn class_inside(&mut self, bracketed: bool) -> Parse<CharSet> {
        let mut set: Option<CharSet> = None;
        // The operand that an `&&` without a right side uses.
        let mut latest: Option<CharSet> = None;
        let mut negated = false;
        if bracketed {
            self.next();
            if self.is_next('^') && self.char_at(self.at - 1) == u32::from('[') {
                self.at += 1;
                negated = true;
            }
        }
        let join = |set: Option<CharSet>, more: &CharSet| match set {
            Some(set) => Some(set.union(more)),
            None => Some(more.clone()),
        };
        loop {
            match ascii(self.peek()) {
                Some('[') => {
                    let inner = self.class(true)?;
                    set = join(set, &inner);
                    latest = Some(inner);
                    continue;
                }
                Some('&') if self.char_at(self.at + 1) == u32::from('&') => {
                    self.at += 2;
                    let mut right = None;
                    while !matches!(ascii(self.peek()), Some(']' | '&')) {
                        if self.at >= self.text.len() {
                            return error("Unclosed character class");
                        }
                        let bracketed = self.is_next('[');
                        let part = self.class(bracketed)?;
                        right = join(right, &part);
                    }
                    latest = right.or(latest);
                    set = match (set, &latest) {
                        (Some(set), Some(right)) => Some(set.and(right)),
                        (None, Some(right)) => Some(right.clone()),
                        (set, None) => set,
                    };
                    if set.is_none() {
                        return error("Bad class syntax");
                    }
                    continue;
                }
                Some('\0') if self.at >= self.text.len() => {
                    return error("Unclosed character class");
                }
                Some(']') => {
                    if let Some(set) = set.take() {
                        self.at += usize::from(bracketed);
                        return Ok(if negated { set.negate() } else { set });
                    }
                }
                _ => {}
            }
            let part = self.class_part()?;
            set = join(set, &part);
            latest = Some(part);
        }
    }

    /// Parses a character, a range or an escape inside a class.
    fn class_part(&mut self) -> Parse<CharSet> {
        let c = self.peek();
        let from = if c == u32::from('\\') {
            let ranged = self.char_at(self.at + 2) == u32::from('-');
            match self.escape(true, ranged)? {
                Escape::Char(c) => c,
                Escape::Set(set) => return Ok(set),
                Escape::Node(_) => return error("Illegal/unsupported escape sequence"),
            }
        } else {
            self.at += 1;
            c
        };
        let fold = self.flags.fold();
        if !self.is_next('-') {
            return Ok(folded(from, fold));
        }
        if matches!(ascii(self.char_at(self.at + 1)), Some('[' | ']')) {
            return Ok(folded(from, fold));
        }
        let c = self.next();
        let to = if c == u32::from('\\') {
            match self.escape(true, true)? {
                Escape::Char(c) => c,
                _ => return error("Illegal character range"),
            }
        } else {
            self.at += 1;
            c
        };
        if to < from {
            return error("Illegal character range");
        }
        Ok(folded_range(from, to, fold))
    }
}
