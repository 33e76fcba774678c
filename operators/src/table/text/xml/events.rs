//! The events of an XML document: start tags, end tags and texts.
//!
//! The crate quick-xml finds the markup. This module adds the checks of a conforming parser that it
//! leaves out, replaces references, and joins adjacent texts. As in Spark, only the five predefined
//! entities and characters by number are known: a document type is skipped, and nothing is loaded.

use bumpalo::Bump;
use bumpalo::collections::{String as BumpString, Vec as BumpVec};
use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event as Markup};
use std::borrow::Cow;

/// The deepest nesting of elements, as in Spark's parser.
pub const DEPTH_MAX: usize = 1000;

/// The error of a text that is not well-formed XML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A start tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag<'a> {
    /// The name, with its namespace prefix.
    pub name: &'a str,
    /// Names and values of the attributes.
    pub attributes: &'a [(&'a str, &'a str)],
}

/// An event of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The start of an element. An element without content has a start and an end too.
    Start(Tag<'a>),
    /// The end of the element with this name.
    End(&'a str),
    /// The text between two tags, comments or processing instructions.
    Text(&'a str),
    /// The end of the document.
    Finish,
}

/// Reads the events of a document. Names and texts borrow from the document, or from an arena if
/// they had references.
pub struct Events<'a> {
    reader: Reader<&'a [u8]>,
    arena: &'a Bump,
    /// The names of the open elements.
    open: BumpVec<'a, &'a str>,
    peeked: Option<Result<Event<'a>, Malformed>>,
    /// The markup behind a text, which is read first.
    behind: Option<Markup<'a>>,
    is_root_seen: bool,
    /// Whether the document is malformed here, so that no event follows.
    is_broken: bool,
}

impl<'a> Events<'a> {
    /// Starts to read a document.
    pub fn new(document: &'a str, arena: &'a Bump) -> Self {
        let mut reader = Reader::from_str(document);
        let config = reader.config_mut();
        config.expand_empty_elements = true;
        // `end` compares the names.
        config.check_end_names = false;
        config.check_comments = true;
        // A `&` that starts no reference spoils its text only.
        config.allow_dangling_amp = true;
        config.trim_markup_names_in_closing_tags = true;
        Self {
            reader,
            arena,
            open: BumpVec::new_in(arena),
            peeked: None,
            behind: None,
            is_root_seen: false,
            is_broken: false,
        }
    }

    /// The next event, which stays the next.
    pub fn peek(&mut self) -> Result<Event<'a>, Malformed> {
        let next = match self.peeked {
            Some(next) => next,
            None => self.read(),
        };
        // A malformed text is reported once; the events behind it can be read.
        self.peeked = next.is_ok().then_some(next);
        next
    }

    /// Takes the next event.
    pub fn take(&mut self) -> Result<Event<'a>, Malformed> {
        match self.peeked.take() {
            Some(next) => next,
            None => self.read(),
        }
    }

    /// Skips what remains of an element whose start tag has been read, with its end tag.
    pub fn skip_element(&mut self) -> Result<(), Malformed> {
        let mut depth = 0usize;
        loop {
            match self.take()? {
                Event::Start(_) => depth += 1,
                Event::End(_) if depth == 0 => return Ok(()),
                Event::End(_) => depth -= 1,
                Event::Text(_) => {}
                Event::Finish => return Err(Malformed),
            }
        }
    }

    fn read(&mut self) -> Result<Event<'a>, Malformed> {
        if self.is_broken {
            return Err(Malformed);
        }
        let mut text = Text::new(self.arena);
        loop {
            let markup = match self.behind.take() {
                Some(markup) => markup,
                None => self.reader.read_event().map_err(|_| self.broken())?,
            };
            match markup {
                Markup::Text(part) => text.add_written(part.into_inner()),
                Markup::CData(part) => text.add_literal(part.into_inner()),
                Markup::GeneralRef(reference) => text.add_reference(&reference),
                other if text.has_content() => {
                    self.behind = Some(other);
                    let text = text.finish(self.arena)?;
                    if !self.open.is_empty() {
                        return Ok(Event::Text(text));
                    }
                    // Between the declaration and the root only white space may stand.
                    if !text.bytes().all(is_space) {
                        return Err(self.broken());
                    }
                    return self.read();
                }
                Markup::Start(start) => return self.start(&start),
                Markup::End(end) => return self.end(&end),
                Markup::Eof if self.open.is_empty() && self.is_root_seen => {
                    return Ok(Event::Finish);
                }
                Markup::DocType(_) if !self.is_root_seen => {}
                Markup::Eof | Markup::DocType(_) => return Err(self.broken()),
                Markup::Comment(_) | Markup::PI(_) | Markup::Decl(_) | Markup::Empty(_) => {}
            }
        }
    }

    #[cold]
    fn broken(&mut self) -> Malformed {
        self.is_broken = true;
        Malformed
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<Event<'a>, Malformed> {
        match self.tag(start) {
            Ok(tag)
                if self.open.len() < DEPTH_MAX && !(self.open.is_empty() && self.is_root_seen) =>
            {
                self.is_root_seen = true;
                self.open.push(tag.name);
                Ok(Event::Start(tag))
            }
            _ => Err(self.broken()),
        }
    }

    fn end(&mut self, name: &[u8]) -> Result<Event<'a>, Malformed> {
        match self.open.pop() {
            Some(open) if open.as_bytes() == name => Ok(Event::End(open)),
            _ => Err(self.broken()),
        }
    }

    fn tag(&self, start: &BytesStart<'_>) -> Result<Tag<'a>, Malformed> {
        let name = self.name(start.name().into_inner())?;
        let mut attributes = BumpVec::new_in(self.arena);
        let mut written = start.attributes();
        if !are_separated(start.attributes_raw()) {
            return Err(Malformed);
        }
        for attribute in written.with_checks(false) {
            let attribute = attribute.map_err(|_| Malformed)?;
            let name = self.name(attribute.key.into_inner())?;
            if attributes.iter().any(|(known, _)| *known == name) {
                return Err(Malformed);
            }
            attributes.push((name, self.attribute_value(&attribute.value)?));
        }
        Ok(Tag { name, attributes: attributes.into_bump_slice() })
    }

    fn name(&self, name: &[u8]) -> Result<&'a str, Malformed> {
        let name = std::str::from_utf8(name).map_err(|_| Malformed)?;
        match is_name(name) {
            true => Ok(self.arena.alloc_str(name)),
            false => Err(Malformed),
        }
    }

    /// The value of an attribute: references are replaced, and white space becomes spaces.
    fn attribute_value(&self, written: &[u8]) -> Result<&'a str, Malformed> {
        let written = std::str::from_utf8(written).map_err(|_| Malformed)?;
        if !written.chars().all(|c| is_char(c) && c != '<') {
            return Err(Malformed);
        }
        if !written.bytes().any(|b| matches!(b, b'&' | b'\t' | b'\n' | b'\r')) {
            return Ok(self.arena.alloc_str(written));
        }
        let mut value = BumpString::with_capacity_in(written.len(), self.arena);
        let mut rest = written;
        while let Some(at) = rest.find(['&', '\t', '\n', '\r']) {
            value.push_str(&rest[..at]);
            let is_reference = rest[at..].starts_with('&');
            let is_line_end = rest[at..].starts_with("\r\n");
            rest = &rest[at + if is_line_end { 2 } else { 1 }..];
            if !is_reference {
                value.push(' ');
                continue;
            }
            let (reference, behind) = rest.split_once(';').ok_or(Malformed)?;
            value.push(referenced(&BytesRef::new(reference)).ok_or(Malformed)?);
            rest = behind;
        }
        value.push_str(rest);
        Ok(value.into_bump_str())
    }
}

/// Whether white space follows each value of the attributes of a tag.
fn are_separated(attributes: &[u8]) -> bool {
    let mut rest = attributes;
    while let Some(open) = memchr::memchr2(b'"', b'\'', rest) {
        let quote = rest[open];
        let Some(length) = memchr::memchr(quote, &rest[open + 1..]) else { return true };
        rest = &rest[open + length + 2..];
        if rest.first().is_some_and(|byte| !is_space(*byte)) {
            return false;
        }
    }
    true
}

/// A text in parts. A single part is borrowed.
struct Text<'a> {
    first: Option<Cow<'a, [u8]>>,
    joined: BumpVec<'a, u8>,
    is_malformed: bool,
}

impl<'a> Text<'a> {
    fn new(arena: &'a Bump) -> Self {
        Self { first: None, joined: BumpVec::new_in(arena), is_malformed: false }
    }

    fn has_content(&self) -> bool {
        self.first.is_some()
    }

    /// Adds characters as they are in the document.
    fn add_written(&mut self, part: Cow<'a, [u8]>) {
        // The end of a CDATA section may not be in a text.
        let has_end = memchr::memmem::find(&part, b"]]>").is_some();
        self.is_malformed |= has_end || part.contains(&b'&');
        self.add_literal(part);
    }

    fn add_literal(&mut self, part: Cow<'a, [u8]>) {
        match &self.first {
            None => self.first = Some(part),
            Some(first) => {
                if self.joined.is_empty() {
                    push_lines(first, &mut self.joined);
                }
                push_lines(&part, &mut self.joined);
            }
        }
    }

    fn add_reference(&mut self, reference: &BytesRef<'_>) {
        self.add_literal(Cow::Borrowed(b""));
        match referenced(reference) {
            Some(c) => {
                if self.joined.is_empty()
                    && let Some(first) = &self.first
                {
                    push_lines(first, &mut self.joined);
                }
                self.joined.extend_from_slice_copy(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            None => self.is_malformed = true,
        }
    }

    fn finish(mut self, arena: &'a Bump) -> Result<&'a str, Malformed> {
        let bytes: &'a [u8] = match self.first {
            _ if self.is_malformed => return Err(Malformed),
            _ if !self.joined.is_empty() => self.joined.into_bump_slice(),
            Some(Cow::Borrowed(first)) if !first.contains(&b'\r') => first,
            Some(first) => {
                push_lines(&first, &mut self.joined);
                self.joined.into_bump_slice()
            }
            None => arena.alloc_slice_copy(&[]),
        };
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed)?;
        match text.chars().all(is_char) {
            true => Ok(text),
            false => Err(Malformed),
        }
    }
}

/// Appends a text in which the line ends are `\n`.
fn push_lines(mut text: &[u8], out: &mut BumpVec<'_, u8>) {
    while let Some(at) = memchr::memchr(b'\r', text) {
        out.extend_from_slice_copy(&text[..at]);
        out.push(b'\n');
        let is_two = text.get(at + 1) == Some(&b'\n');
        text = &text[at + if is_two { 2 } else { 1 }..];
    }
    out.extend_from_slice_copy(text);
}

/// The character of a reference, such as `lt` or `#65`.
fn referenced(reference: &BytesRef<'_>) -> Option<char> {
    if reference.is_char_ref() {
        return reference.resolve_char_ref().ok()?.filter(|c| is_char(*c));
    }
    Some(match &**reference {
        b"lt" => '<',
        b"gt" => '>',
        b"amp" => '&',
        b"apos" => '\'',
        b"quot" => '"',
        _ => return None,
    })
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Whether XML 1.0 allows a character in a document.
pub(super) fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

/// Whether a text is a name of XML 1.0.
pub(super) fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(is_name_start) && chars.all(is_name_char)
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic()
        || matches!(c, ':' | '_' | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}')
        || matches!(c, '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}')
        || matches!(c, '\u{2070}'..='\u{218F}' | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}')
        || matches!(c, '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}' | '\u{10000}'..='\u{EFFFF}')
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_digit()
        || matches!(c, '-' | '.' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
        || is_name_start(c)
}
