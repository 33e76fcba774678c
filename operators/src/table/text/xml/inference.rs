//! XML schema inference by Spark's rules.

use crate::table::text::csv;
use crate::table::text::json::decimal_of;
use crate::table::text::xml::events::{Event, Events, Malformed, Tag};
use crate::table::text::xml::options::ReadOptions;
use crate::table::text::xml::record::is_white;
use crate::table::types::{DataType, Field};
use bumpalo::Bump;
use std::collections::BTreeMap;
use std::mem::{replace, take};

use DataType as T;

/// The maximum precision of a DECIMAL.
const DIGITS_MAX: usize = 38;

/// Infers the schema of a document.
#[derive(Clone, Debug)]
pub struct Inference {
    options: ReadOptions,
    /// Whether timestamps without a time zone are inferred as TIMESTAMP_NTZ.
    times_without_zone: bool,
}

/// The columns of an element by their names in lower case, each with the name that came first.
#[derive(Default)]
struct Columns(BTreeMap<String, (String, DataType)>);

impl Inference {
    /// Creates an inference.
    pub fn new(options: ReadOptions, times_without_zone: bool) -> Self {
        Self { options, times_without_zone }
    }

    /// The fields of a document.
    pub fn of(&self, document: &str) -> Result<Vec<Field>, Malformed> {
        let arena = Bump::new();
        let mut events = Events::new(document, &arena);
        let Event::Start(root) = events.take()? else { return Err(Malformed) };
        let fields = self.object(&mut events, Some(root))?;
        Ok(fields.into_iter().filter_map(finished_field).collect())
    }

    fn object(
        &self,
        events: &mut Events<'_>,
        root: Option<Tag<'_>>,
    ) -> Result<Vec<Field>, Malformed> {
        let mut columns = Columns::default();
        for field in self.attributes(root) {
            self.add(&mut columns, &field.name, field.data_type);
        }
        loop {
            match events.take()? {
                Event::Start(tag) => {
                    let mut attributes = self.attributes(Some(tag)).peekable();
                    let mut data_type = stack(|| self.field(events))?;
                    if attributes.peek().is_some() {
                        let mut fields = match data_type {
                            T::Struct(fields) => fields,
                            T::Null => Vec::new(),
                            scalar => vec![Field::new(&self.options.value_tag, scalar, true)],
                        };
                        fields.extend(attributes);
                        fields.sort_by(|a, b| a.name.cmp(&b.name));
                        data_type = T::Struct(fields);
                    }
                    self.add(&mut columns, self.options.local(tag.name), data_type);
                }
                Event::Text(text) if !is_white(text) => {
                    let data_type = self.scalar(text);
                    self.add(&mut columns, &self.options.value_tag, data_type);
                }
                Event::Text(_) => {}
                Event::End(_) | Event::Finish => break,
            }
        }
        Ok(columns.fields())
    }

    /// The type of an element whose start tag has been read.
    fn field(&self, events: &mut Events<'_>) -> Result<DataType, Malformed> {
        match events.peek()? {
            Event::End(_) => {
                events.take()?;
                Ok(T::Null)
            }
            Event::Start(_) => self.object(events, None).map(T::Struct),
            Event::Text(_) => {
                let mut fields = self.object(events, None)?;
                Ok(match fields.as_mut_slice() {
                    [] => T::Null,
                    [only]
                        if !only.data_type.is_nested()
                            && only.name.to_lowercase()
                                == self.options.value_tag.to_lowercase() =>
                    {
                        replace(&mut only.data_type, T::Null)
                    }
                    _ => T::Struct(fields),
                })
            }
            Event::Finish => Err(Malformed),
        }
    }

    fn attributes<'t>(&'t self, tag: Option<Tag<'t>>) -> impl Iterator<Item = Field> + 't {
        let tag = tag.filter(|_| self.options.has_attributes);
        tag.map(|tag| tag.attributes).unwrap_or_default().iter().map(|(name, text)| {
            let name = format!("{}{}", self.options.attribute_prefix, self.options.local(name));
            Field::new(name, self.scalar(text), true)
        })
    }

    /// Adds the type of a child or an attribute. A second one of the same name makes an array.
    fn add(&self, columns: &mut Columns, name: &str, data_type: DataType) {
        let Some((_, known)) = columns.0.get_mut(&name.to_lowercase()) else {
            columns.0.insert(name.to_lowercase(), (name.to_string(), data_type));
            return;
        };
        let before = replace(known, T::Null);
        let is_array = matches!(before, T::Array(_));
        let both = self.together(before, data_type);
        *known = if is_array { both } else { T::Array(Box::new(both)) };
    }

    /// The type of a text.
    fn scalar(&self, text: &str) -> DataType {
        let values = &self.options.values;
        let text = values.trimmed(text);
        if !self.options.infers {
            return T::String;
        }
        if text.is_empty() || values.is_null(text) {
            return T::Null;
        }
        if let Some(number) = self.number(text) {
            return number;
        }
        let times = &values.times;
        if times.notation().time(text).is_some() {
            T::Time(6)
        } else if self.options.prefers_date && times.is_date(text) {
            T::Date
        } else if self.times_without_zone && times.notation().is_timestamp_ntz(text) {
            T::TimestampNtz
        } else if times.is_timestamp(text) {
            T::Timestamp
        } else if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
            T::Boolean
        } else {
            T::String
        }
    }

    fn number(&self, text: &str) -> Option<DataType> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let first = digits.bytes().next()?;
        if first.is_ascii_digit() && csv::long(digits).is_some() {
            return Some(T::Long);
        }
        let is_number = first.is_ascii_digit() || first == b'.';
        if !is_number || digits.ends_with(['d', 'D', 'f', 'F']) {
            return None;
        }
        if self.options.prefers_decimal
            && let Some((precision, scale)) = decimal_of(&text.replace(',', ""))
            && precision.max(scale) <= DIGITS_MAX
        {
            return Some(T::Decimal(precision.max(scale) as u8, scale as u8));
        }
        csv::java_double(digits, &T::Double).map(|_| T::Double)
    }

    /// The type that represents values of both types.
    fn together(&self, a: DataType, b: DataType) -> DataType {
        match (a, b) {
            (T::Null, other) | (other, T::Null) => other,
            (T::Struct(a), T::Struct(b)) => {
                let mut columns = Columns::default();
                for field in a.into_iter().chain(b) {
                    let key = field.name.to_lowercase();
                    let known = columns.0.remove(&key);
                    let (name, before) = known.unwrap_or((field.name, T::Null));
                    let both = stack(|| self.together(before, field.data_type));
                    columns.0.insert(key, (name, both));
                }
                T::Struct(columns.fields())
            }
            (a, b) if a == b => a,
            (T::Array(a), T::Array(b)) => T::Array(Box::new(stack(|| self.together(*a, *b)))),
            (T::Array(a), b) => T::Array(Box::new(self.together(*a, b))),
            (a, T::Array(b)) => T::Array(Box::new(self.together(a, *b))),
            (T::Struct(mut fields), other) | (other, T::Struct(mut fields)) => {
                let is_value = |field: &&mut Field| field.name == self.options.value_tag;
                let Some(value) = fields.iter_mut().find(is_value) else { return T::String };
                value.data_type = self.together(take_type(value), other);
                T::Struct(fields)
            }
            (a, b) => scalars_together(&a, &b),
        }
    }
}

fn take_type(field: &mut Field) -> DataType {
    replace(&mut field.data_type, T::Null)
}

/// Runs a step of a recursion that is as deep as a document on a stack that is large enough.
fn stack<V>(step: impl FnOnce() -> V) -> V {
    stacker::maybe_grow(64 << 10, 1 << 20, step)
}

impl Columns {
    /// The columns, ordered by their names.
    fn fields(mut self) -> Vec<Field> {
        let columns = take(&mut self.0).into_values();
        let mut fields: Vec<Field> =
            columns.map(|(name, data_type)| Field::new(name, data_type, true)).collect();
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        fields
    }
}

/// The common type of two different scalar types.
fn scalars_together(a: &DataType, b: &DataType) -> DataType {
    let decimal = |t: &DataType| match t {
        T::Long => Some((20, 0)),
        T::Decimal(precision, scale) => Some((*precision, *scale)),
        _ => None,
    };
    let is_time = |t: &DataType| matches!(t, T::Date | T::Timestamp | T::TimestampNtz);
    match (a, b) {
        (T::TimestampNtz, T::Date) | (T::Date, T::TimestampNtz) => T::TimestampNtz,
        _ if is_time(a) && is_time(b) => T::Timestamp,
        _ => match (decimal(a), decimal(b)) {
            (Some((p, s)), Some((q, t))) => {
                let (scale, whole) = (s.max(t), (p - s).max(q - t));
                match usize::from(whole) + usize::from(scale) > DIGITS_MAX {
                    true => T::Double,
                    false => T::Decimal(whole + scale, scale),
                }
            }
            (None, Some(_)) if *a == T::Double => T::Double,
            (Some(_), None) if *b == T::Double => T::Double,
            _ => T::String,
        },
    }
}

/// A field of the schema: a column without values is STRING. An element without columns has no
/// field.
fn finished_field(field: Field) -> Option<Field> {
    Some(Field { data_type: stack(|| finished(field.data_type))?, ..field })
}

fn finished(data_type: DataType) -> Option<DataType> {
    match data_type {
        T::Null => Some(T::String),
        T::Array(of) => finished(*of).map(|of| T::Array(Box::new(of))),
        T::Struct(fields) => {
            let fields: Vec<Field> = fields.into_iter().filter_map(finished_field).collect();
            (!fields.is_empty()).then_some(T::Struct(fields))
        }
        other => Some(other),
    }
}
