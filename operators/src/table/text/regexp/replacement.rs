//! Replacement texts. In them, `$1` and `${name}` refer to groups, and a backslash escapes the next
//! character.

use crate::table::text::regexp::Regex;

/// A part of a replacement text: literal text or a reference to a group.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Text that is inserted unchanged.
    Text(String),
    /// A reference to the text that the group with this number captured.
    Group(usize),
}

/// A parsed replacement text, as a sequence of parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Replacement(pub Vec<Part>);

impl Replacement {
    /// Parses a replacement for a pattern. The digits of a group number are consumed as long as
    /// they form the number of an existing group. The error describes the mistake, such as
    /// an unknown group.
    pub fn new(text: &str, regex: &Regex) -> Result<Self, String> {
        let bad = |reason: &str| Err(reason.to_string());
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some(escaped) => plain.push(escaped),
                    None => return bad("character to be escaped is missing"),
                },
                '$' => {
                    let group = match chars.next() {
                        Some('{') => {
                            let mut name = String::new();
                            while let Some(c) = chars.next_if(char::is_ascii_alphanumeric) {
                                name.push(c);
                            }
                            if name.is_empty() {
                                return bad("named capturing group is missing its name");
                            }
                            if chars.next() != Some('}') {
                                return bad("named capturing group is missing trailing '}'");
                            }
                            if name.starts_with(|c: char| c.is_ascii_digit()) {
                                let reason =
                                    format!("the group name {{{name}}} starts with a digit");
                                return bad(&reason);
                            }
                            match regex.group_named(&name) {
                                Some(group) => group,
                                None => return bad(&format!("No group with name {{{name}}}")),
                            }
                        }
                        Some(digit) if digit.is_ascii_digit() => {
                            let mut group = digit.to_digit(10).unwrap_or(0) as usize;
                            if group > regex.groups() {
                                return bad(&format!("No group {group}"));
                            }
                            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                                let longer = group * 10 + digit as usize;
                                if longer > regex.groups() {
                                    break;
                                }
                                group = longer;
                                chars.next();
                            }
                            group
                        }
                        Some(_) => return bad("Illegal group reference"),
                        None => return bad("Illegal group reference: group index is missing"),
                    };
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Group(group));
                }
                c => plain.push(c),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }
}
