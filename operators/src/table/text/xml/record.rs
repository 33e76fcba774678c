//! Reads XML documents into rows of a schema.
//!
//! The order in which events are consumed is that of Spark, because it decides what a bad record
//! still contains: after a value that does not fit, the rest of its element is read as part of the
//! element around it.

use crate::table::expr::cell::Cell;
use crate::table::row::{Bytes, Map, RowWriter};
use crate::table::text::xml::events::{Event, Events, Malformed, Tag};
use crate::table::text::xml::options::ReadOptions;
use crate::table::text::xml::values::Misfit;
use crate::table::types::{DataType, Field};
use bumpalo::Bump;
use bumpalo::collections::{String as BumpString, Vec as BumpVec};
use std::collections::HashSet;

use DataType as T;

/// The error of a document that is malformed or does not fit the schema. The columns that could be
/// read are in the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread;

/// A value in an arena. Arrays grow while the elements of their name come.
enum Value<'a> {
    Scalar(Cell<'a>),
    Row(Columns<'a>),
    Array(BumpVec<'a, Value<'a>>),
    Map(BumpVec<'a, (&'a str, Value<'a>)>),
}

type Columns<'a> = BumpVec<'a, Value<'a>>;

/// The reason why an element could not be read.
enum Fault<'a> {
    /// The document is malformed, or a text has the wrong type.
    Whole,
    /// Some columns of the element could not be read.
    Partial(Columns<'a>),
}

impl From<Malformed> for Fault<'_> {
    fn from(_: Malformed) -> Self {
        Self::Whole
    }
}

impl From<Misfit> for Fault<'_> {
    fn from(_: Misfit) -> Self {
        Self::Whole
    }
}

type Read<'a, V> = Result<V, Fault<'a>>;

/// Reads documents into rows.
#[derive(Clone, Debug)]
pub struct RecordReader {
    options: ReadOptions,
    fields: Vec<Field>,
}

impl RecordReader {
    /// Creates a reader of rows with these fields. The field at `corrupt` stays NULL.
    pub fn new(options: ReadOptions, mut fields: Vec<Field>, corrupt: Option<usize>) -> Self {
        if let Some(corrupt) = corrupt {
            // No element has an empty name.
            fields[corrupt].name.clear();
        }
        clear_doubles(&mut fields);
        Self { options, fields }
    }

    /// Reads a document and sets the fields of a row.
    pub fn read<'a, B: Bytes>(
        &self,
        document: &'a str,
        arena: &'a Bump,
        writer: &mut RowWriter<'_, B>,
    ) -> Result<(), Unread> {
        let events = Events::new(document, arena);
        let mut reading = Reading { events, options: &self.options, arena };
        let (columns, result) = match reading.root(&self.fields) {
            Ok(columns) => (columns, Ok(())),
            Err(Fault::Partial(columns)) => (columns, Err(Unread)),
            Err(Fault::Whole) => return Err(Unread),
        };
        for (index, (value, field)) in columns.iter().zip(&self.fields).enumerate() {
            write(value, &field.data_type, index, arena, writer);
        }
        result
    }
}

/// Clears the names of fields that come again. As in Spark the last of them gets the value.
fn clear_doubles(fields: &mut [Field]) {
    let mut names = HashSet::new();
    for field in fields.iter_mut().rev() {
        if !names.insert(field.name.to_lowercase()) {
            field.name.clear();
        }
        let mut data_type = &mut field.data_type;
        while let T::Array(of) | T::Map(_, of) = data_type {
            data_type = of;
        }
        if let T::Struct(fields) = data_type {
            clear_doubles(fields);
        }
    }
}

/// Sets a field of a row.
fn write<B: Bytes>(
    value: &Value<'_>,
    data_type: &DataType,
    index: usize,
    arena: &Bump,
    writer: &mut RowWriter<'_, B>,
) {
    match (value, data_type) {
        (Value::Scalar(cell), _) => cell.put(writer, index),
        (Value::Row(columns), T::Struct(fields)) => {
            writer.nested(index, fields.len(), |writer| {
                for (index, (value, field)) in columns.iter().zip(fields).enumerate() {
                    write(value, &field.data_type, index, arena, writer);
                }
            });
        }
        (Value::Array(elements), T::Array(of)) => {
            writer.nested_array(index, elements.len(), |writer| {
                for (index, value) in elements.iter().enumerate() {
                    write(value, of, index, arena, writer);
                }
            });
        }
        (Value::Map(entries), T::Map(_, of)) => {
            let (mut keys, mut values) = (BumpVec::new_in(arena), BumpVec::new_in(arena));
            let mut key_writer = RowWriter::array(&mut keys, entries.len());
            let mut value_writer = RowWriter::array(&mut values, entries.len());
            for (index, (key, value)) in entries.iter().enumerate() {
                key_writer.bytes(index, key.as_bytes());
                write(value, of, index, arena, &mut value_writer);
            }
            writer.tail(index, |out| Map::write(&keys, &values, out));
        }
        _ => {}
    }
}

/// The reading of one document.
struct Reading<'a, 'o> {
    events: Events<'a>,
    options: &'o ReadOptions,
    arena: &'a Bump,
}

impl<'a> Reading<'a, '_> {
    fn root(&mut self, fields: &[Field]) -> Read<'a, Columns<'a>> {
        match self.events.take()? {
            Event::Start(tag) => {
                let mut columns = self.nulls(fields.len());
                self.attributes(tag, fields, &mut columns)?;
                self.object(fields, columns)
            }
            _ => Err(Fault::Whole),
        }
    }

    fn nulls(&self, width: usize) -> Columns<'a> {
        BumpVec::from_iter_in((0..width).map(|_| Value::Scalar(Cell::Null)), self.arena)
    }

    /// Sets the columns that are attributes of a tag.
    fn attributes(
        &self,
        tag: Tag<'a>,
        fields: &[Field],
        columns: &mut Columns<'a>,
    ) -> Read<'a, ()> {
        if !self.options.has_attributes {
            return Ok(());
        }
        let prefix = self.options.attribute_prefix.as_str();
        for (name, text) in tag.attributes {
            let name = self.options.local(name);
            let is_it = |field: &Field| {
                let (start, end) = field.name.split_at_checked(prefix.len()).unwrap_or_default();
                is_same(start, prefix) && is_same(end, name)
            };
            if let Some(index) = fields.iter().position(is_it) {
                let value =
                    self.options.values.convert(text, &fields[index].data_type, self.arena)?;
                columns[index] = Value::Scalar(value);
            }
        }
        Ok(())
    }

    /// Reads children and texts up to the end tag of an element.
    fn object(&mut self, fields: &[Field], mut columns: Columns<'a>) -> Read<'a, Columns<'a>> {
        let (mut is_bad, mut expected) = (false, 0);
        loop {
            match self.events.take()? {
                Event::Start(tag) => {
                    is_bad |= self.child(tag, fields, &mut columns, &mut expected).is_err();
                }
                Event::Text(text) if !is_white(text) => self.text(text, fields, &mut columns)?,
                Event::Text(_) => {}
                Event::End(_) | Event::Finish => break,
            }
        }
        match is_bad {
            true => Err(Fault::Partial(columns)),
            false => Ok(columns),
        }
    }

    /// Reads a child into its column. `expected` is the column after that of the child before.
    fn child(
        &mut self,
        tag: Tag<'a>,
        fields: &[Field],
        columns: &mut Columns<'a>,
        expected: &mut usize,
    ) -> Read<'a, ()> {
        let name = self.options.local(tag.name);
        let in_order = (0..fields.len()).map(|i| (i + *expected) % fields.len());
        let Some(index) = { in_order }.find(|i| is_same(&fields[*i].name, name)) else {
            return self.wildcard(fields, columns);
        };
        *expected = index + 1;
        match &fields[index].data_type {
            T::Array(of) => {
                let value = match &**of {
                    T::Struct(fields) => self.nested(tag, fields)?,
                    of => self.field(of, None)?,
                };
                self.push(&mut columns[index], value);
            }
            T::Struct(fields) => columns[index] = self.nested(tag, fields)?,
            data_type => columns[index] = self.field(data_type, Some(tag))?,
        }
        Ok(())
    }

    /// Reads an element that has no column of its own.
    fn wildcard(&mut self, fields: &[Field], columns: &mut Columns<'a>) -> Read<'a, ()> {
        let is_wildcard = |field: &Field| field.name == self.options.wildcard;
        let Some(index) = fields.iter().position(is_wildcard) else {
            return Ok(self.events.skip_element()?);
        };
        let value = self.field(&T::String, None)?;
        match &fields[index].data_type {
            T::String => columns[index] = value,
            T::Array(of) if **of == T::String => self.push(&mut columns[index], value),
            _ => return Err(Fault::Whole),
        }
        Ok(())
    }

    /// Appends to an array, which is NULL before its first element.
    fn push(&self, array: &mut Value<'a>, value: Value<'a>) {
        match array {
            Value::Array(elements) => elements.push(value),
            other => *other = Value::Array(bumpalo::vec![in self.arena; value]),
        }
    }

    /// Adds a text between children to the column for such texts.
    fn text(&self, text: &'a str, fields: &[Field], columns: &mut Columns<'a>) -> Read<'a, ()> {
        let is_value = |field: &Field| field.name == self.options.value_tag;
        let Some(index) = fields.iter().position(is_value) else { return Ok(()) };
        match &fields[index].data_type {
            T::Array(of) => {
                let value = self.options.values.convert(text, of, self.arena)?;
                self.push(&mut columns[index], Value::Scalar(value));
            }
            of => {
                columns[index] = Value::Scalar(self.options.values.convert(text, of, self.arena)?)
            }
        }
        Ok(())
    }

    /// Reads an element whose columns are its attributes and children.
    fn nested(&mut self, tag: Tag<'a>, fields: &[Field]) -> Read<'a, Value<'a>> {
        let mut attributes = self.nulls(fields.len());
        self.attributes(tag, fields, &mut attributes)?;
        let mut columns = match self.events.peek()? {
            Event::End(_) => {
                self.skip_end()?;
                return Ok(Value::Row(attributes));
            }
            _ => self.object(fields, self.nulls(fields.len()))?,
        };
        for (column, attribute) in columns.iter_mut().zip(attributes) {
            if !matches!(attribute, Value::Scalar(Cell::Null)) {
                *column = attribute;
            }
        }
        Ok(Value::Row(columns))
    }

    /// Reads the content and the end tag of an element as a value. `tag` has the attributes for a
    /// MAP.
    fn field(&mut self, data_type: &DataType, tag: Option<Tag<'a>>) -> Read<'a, Value<'a>> {
        loop {
            match (self.events.peek()?, data_type) {
                (Event::Start(_) | Event::Text(_), T::String) => {
                    let text = self.inner()?;
                    let value = self.options.values.convert(text, data_type, self.arena)?;
                    return Ok(Value::Scalar(value));
                }
                (Event::Start(_) | Event::Text(_), T::Struct(fields)) => {
                    return self.object(fields, self.nulls(fields.len())).map(Value::Row);
                }
                (Event::Start(_), T::Map(_, of)) => return self.map(of, tag),
                // The elements of an ARRAY are siblings, so an ARRAY in an ARRAY or MAP has no text.
                (Event::Start(_) | Event::Text(_), T::Array(_)) => return Err(Fault::Whole),
                (Event::Start(_) | Event::Finish, _) => return Err(Fault::Whole),
                (Event::End(_), _) => {
                    self.skip_end()?;
                    let is_text = *data_type == T::String && !self.options.values.is_null("");
                    return Ok(Value::Scalar(if is_text { Cell::Bytes(b"") } else { Cell::Null }));
                }
                // It may be the space before the first child.
                (Event::Text(text), _) if is_white(text) => {
                    self.events.take()?;
                }
                (Event::Text(text), _) => {
                    let value = self.options.values.convert(text, data_type, self.arena)?;
                    self.events.take()?;
                    self.skip_end()?;
                    return Ok(Value::Scalar(value));
                }
            }
        }
    }

    /// Reads children as the entries of a MAP. Of several with the same name the last one counts.
    fn map(&mut self, of: &DataType, tag: Option<Tag<'a>>) -> Read<'a, Value<'a>> {
        let mut entries: BumpVec<'a, (&'a str, Value<'a>)> = BumpVec::new_in(self.arena);
        for (name, text) in tag.map(|tag| tag.attributes).unwrap_or_default() {
            let mut key = BumpString::from_str_in(&self.options.attribute_prefix, self.arena);
            key.push_str(name);
            let value = self.options.values.convert(text, of, self.arena)?;
            entries.push((key.into_bump_str(), Value::Scalar(value)));
        }
        loop {
            let (key, value) = match self.events.take()? {
                Event::Start(tag) => (self.options.local(tag.name), self.field(of, None)?),
                Event::Text(text) if !is_white(text) => {
                    let value = Value::Scalar(self.options.values.convert(text, of, self.arena)?);
                    (&*self.arena.alloc_str(&self.options.value_tag), value)
                }
                Event::Text(_) => continue,
                Event::End(_) | Event::Finish => return Ok(Value::Map(entries)),
            };
            match entries.iter_mut().find(|(known, _)| *known == key) {
                Some((_, known)) => *known = value,
                None => entries.push((key, value)),
            }
        }
    }

    /// The content of an element as text, with the tags of its children. Reads its end tag too.
    fn inner(&mut self) -> Read<'a, &'a str> {
        if let Event::Text(text) = self.events.peek()? {
            self.events.take()?;
            if let Event::End(_) = self.events.peek()? {
                self.skip_end()?;
                return Ok(text);
            }
            return self.inner_from(text);
        }
        self.inner_from("")
    }

    fn inner_from(&mut self, start: &str) -> Read<'a, &'a str> {
        let mut out = BumpString::from_str_in(start, self.arena);
        let mut depth = 0usize;
        loop {
            match self.events.take()? {
                Event::Start(tag) => {
                    out.push('<');
                    out.push_str(tag.name);
                    for (name, value) in tag.attributes {
                        for part in [" ", name, "=\"", value, "\""] {
                            out.push_str(part);
                        }
                    }
                    out.push('>');
                    depth += 1;
                }
                Event::End(_) if depth == 0 => return Ok(out.into_bump_str()),
                Event::End(name) => {
                    for part in ["</", name, ">"] {
                        out.push_str(part);
                    }
                    depth -= 1;
                }
                Event::Text(text) => out.push_str(text),
                Event::Finish => return Err(Fault::Whole),
            }
        }
    }

    /// Reads an end tag, and the white space before it.
    fn skip_end(&mut self) -> Read<'a, ()> {
        loop {
            match self.events.take()? {
                Event::Text(text) if is_white(text) => {}
                Event::End(_) => return Ok(()),
                _ => return Err(Fault::Whole),
            }
        }
    }
}

/// Whether a text is only white space.
pub(super) fn is_white(text: &str) -> bool {
    text.bytes().all(|b| b <= b' ')
}

/// Whether two names are equal, in any case.
fn is_same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
        || !a.is_ascii() && !b.is_ascii() && a.to_lowercase() == b.to_lowercase()
}
