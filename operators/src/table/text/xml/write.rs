//! Writes values as XML text, like Spark's `to_xml`.

use crate::table::text::xml::events::{is_char, is_name};
use crate::table::text::xml::options::WriteOptions;
use crate::table::types::DataType;
use crate::table::value::Value;
use std::fmt::{self, Write};

use DataType as T;

/// The reason why a value cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwritable {
    /// A field or a key is not a name of XML.
    Name(String),
    /// XML has no such character.
    Char(char),
}

type Written = Result<(), Unwritable>;

/// Writes rows as elements. Its buffers are reused.
#[derive(Clone, Debug)]
pub struct Writer {
    options: WriteOptions,
    out: String,
    /// The text of a scalar.
    scratch: String,
    depth: usize,
    /// Whether the last start tag lacks its `>`.
    is_tag_open: bool,
    /// Whether the open element has a child, so that its end tag is on a line of its own.
    has_child: bool,
}

impl Writer {
    /// Creates a writer.
    pub fn new(options: WriteOptions) -> Self {
        Self {
            options,
            out: String::new(),
            scratch: String::new(),
            depth: 0,
            is_tag_open: false,
            has_child: false,
        }
    }

    /// Writes a row.
    pub fn row(&mut self, row: &Value, data_type: &DataType) -> Result<&str, Unwritable> {
        self.out.clear();
        (self.depth, self.is_tag_open, self.has_child) = (0, false, false);
        let tag = self.options.row_tag.clone();
        self.element(&tag, row, data_type)?;
        if self.options.indent.is_empty() {
            self.out.push('\n');
        }
        Ok(&self.out)
    }

    fn is_attribute(&self, name: &str) -> bool {
        name.starts_with(&self.options.attribute_prefix) && name != self.options.value_tag
    }

    /// Writes a field of a row or an entry of a map.
    fn child(&mut self, name: &str, value: &Value, data_type: &DataType) -> Written {
        if self.is_attribute(name) {
            return self.attribute(name, value, data_type);
        }
        match (value, data_type) {
            (Value::Array(values), T::Array(of)) => {
                values.iter().try_for_each(|value| self.element(name, value, of))
            }
            _ => self.element(name, value, data_type),
        }
    }

    fn element(&mut self, name: &str, value: &Value, data_type: &DataType) -> Written {
        if *value == Value::Null && self.options.null.is_none() {
            return Ok(());
        }
        if name == self.options.value_tag {
            return self.content(value, data_type);
        }
        self.start(name)?;
        self.content(value, data_type)?;
        self.end(name);
        Ok(())
    }

    /// Writes what is between the tags of an element.
    fn content(&mut self, value: &Value, data_type: &DataType) -> Written {
        match (value, data_type) {
            (Value::Null, _) => {
                let null = self.options.null.clone().unwrap_or_default();
                self.text(&null)
            }
            (Value::Array(values), T::Array(of)) => {
                let name = self.options.element_name.clone();
                values.iter().try_for_each(|value| self.child(&name, value, of))
            }
            (Value::Struct(values), T::Struct(fields)) => {
                // Attributes come first.
                for is_attribute in [true, false] {
                    for (value, field) in values.iter().zip(fields) {
                        if self.is_attribute(&field.name) == is_attribute {
                            self.child(&field.name, value, &field.data_type)?;
                        }
                    }
                }
                Ok(())
            }
            (Value::Map(entries), T::Map(key_type, of)) => {
                let mut keys = Vec::with_capacity(entries.len());
                for (key, _) in entries {
                    let mut name = String::new();
                    // Writing to a string does not fail.
                    let _ = write_raw(key, key_type, &mut name);
                    keys.push(name);
                }
                for is_attribute in [true, false] {
                    for (name, (_, value)) in keys.iter().zip(entries) {
                        if self.is_attribute(name) == is_attribute {
                            self.child(name, value, of)?;
                        }
                    }
                }
                Ok(())
            }
            (Value::String(text), _) => self.text(text),
            _ => {
                let mut text = std::mem::take(&mut self.scratch);
                text.clear();
                // Writing to a string does not fail.
                let _ = match value {
                    Value::Binary(bytes) => self.options.notation.binary.write(bytes, &mut text),
                    _ => self.options.notation.write(value, data_type, &mut text),
                };
                let written = self.text(&text);
                self.scratch = text;
                written
            }
        }
    }

    fn attribute(&mut self, name: &str, value: &Value, data_type: &DataType) -> Written {
        let name = &name[self.options.attribute_prefix.len()..];
        let mut text = String::new();
        match (value, &self.options.null) {
            (Value::Null, None) => return Ok(()),
            (Value::Null, Some(null)) => text.push_str(null),
            // Writing to a string does not fail.
            _ => _ = write_raw(value, data_type, &mut text),
        }
        self.check_name(name)?;
        self.out.push(' ');
        self.out.push_str(name);
        self.out.push_str("=\"");
        for c in text.chars() {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '"' => self.out.push_str("&quot;"),
                '\t' => self.out.push_str("&#x9;"),
                '\n' => self.out.push_str("&#xa;"),
                '\r' => self.out.push_str("&#xd;"),
                c if is_char(c) => self.out.push(c),
                c => return Err(Unwritable::Char(c)),
            }
        }
        self.out.push('"');
        Ok(())
    }

    fn check_name(&self, name: &str) -> Written {
        let is_written = !self.options.checks_names && !name.is_empty();
        match is_written || is_name(name) && !name.contains(':') {
            true => Ok(()),
            false => Err(Unwritable::Name(name.to_string())),
        }
    }

    fn start(&mut self, name: &str) -> Written {
        self.check_name(name)?;
        if self.depth > 0 {
            self.close_tag();
            self.line();
        }
        self.depth += 1;
        self.has_child = false;
        self.out.push('<');
        self.out.push_str(name);
        self.is_tag_open = true;
        Ok(())
    }

    fn end(&mut self, name: &str) {
        self.depth -= 1;
        if self.has_child {
            self.line();
        }
        if self.is_tag_open {
            self.out.push_str("/>");
        } else {
            self.out.push_str("</");
            self.out.push_str(name);
            self.out.push('>');
        }
        self.is_tag_open = false;
        self.has_child = true;
    }

    fn close_tag(&mut self) {
        if std::mem::take(&mut self.is_tag_open) {
            self.out.push('>');
        }
    }

    fn line(&mut self) {
        if self.options.indent.is_empty() {
            return;
        }
        self.out.push('\n');
        for _ in 0..self.depth {
            self.out.push_str(&self.options.indent);
        }
    }

    fn text(&mut self, text: &str) -> Written {
        self.close_tag();
        let mut before = ']';
        for c in text.chars() {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                // As in Spark, wherever it may end a CDATA section.
                '>' if before == ']' => self.out.push_str("&gt;"),
                '\r' => self.out.push_str("&#xd;"),
                c if is_char(c) => self.out.push(c),
                c => return Err(Unwritable::Char(c)),
            }
            before = c;
        }
        Ok(())
    }
}

/// Writes a value in its internal form, which attributes and keys have in Spark: dates and times are
/// numbers.
fn write_raw(value: &Value, data_type: &DataType, out: &mut String) -> fmt::Result {
    fn list<'v>(
        values: impl Iterator<Item = (&'v Value, &'v DataType)>,
        out: &mut String,
    ) -> fmt::Result {
        out.push('[');
        for (i, (value, data_type)) in values.enumerate() {
            out.push_str(if i > 0 { "," } else { "" });
            write_raw(value, data_type, out)?;
        }
        out.push(']');
        Ok(())
    }
    match (value, data_type) {
        (Value::Null, _) => out.write_str("null"),
        (Value::Long(v), _) => write!(out, "{v}"),
        (Value::Array(values), T::Array(of)) => list(values.iter().map(|v| (v, &**of)), out),
        (Value::Struct(values), T::Struct(fields)) => {
            list(values.iter().zip(fields.iter().map(|field| &field.data_type)), out)
        }
        (Value::Map(entries), T::Map(key, of)) => {
            out.push_str("keys: ");
            list(entries.iter().map(|(k, _)| (k, &**key)), out)?;
            out.push_str(", values: ");
            list(entries.iter().map(|(_, v)| (v, &**of)), out)
        }
        _ => value.write_text(data_type, crate::table::datetime::Tz::UTC, "", out),
    }
}
