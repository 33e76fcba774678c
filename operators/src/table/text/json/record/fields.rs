//! Schemas prepared for JSON: lookup of fields by name, and a prediction of the next field.

use crate::table::text::json::token::Head;
use crate::table::types::{DataType, Field};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// The largest number of fields of a struct that are searched linearly; larger structs use a hash
/// table.
const SCANNED_FIELDS: usize = 8;

/// A data type in which each struct is prepared for the lookup of its fields.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Scalar(DataType),
    Struct(Fields),
    Array(Box<Shape>),
    Map(Box<Shape>),
}

#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub list: Vec<Member>,
    pub types: Vec<DataType>,
    /// The index of each name; `None` if there are few fields, which are searched linearly.
    by_name: Option<HashMap<String, usize>>,
    /// Whether no two fields have the same name. Otherwise the last field of a name gets the value
    /// and the others stay NULL, as in Spark.
    are_distinct: bool,
    /// The predicted next field after each field, learned from earlier records. Entry 0 predicts
    /// the first field, and entry i + 1 predicts the field after `list[i]`.
    order: Vec<Follower>,
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub name: String,
    /// The field's name with quotes and colon, for the fast path; `None` if only the general path
    /// can match the name.
    pub head: Option<Head>,
    /// Whether the fast path may read the field's value.
    pub has_fast_path: bool,
    pub shape: Shape,
    /// Whether the query needs the field.
    pub wanted: bool,
}

/// The predicted index of a field. Threads may overwrite it without synchronisation, because a
/// wrong prediction only costs time.
#[derive(Debug)]
struct Follower(AtomicU32);

impl Follower {
    #[inline]
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed) as usize
    }

    #[inline]
    fn set(&self, index: usize) {
        self.0.store(u32::try_from(index).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

impl Clone for Follower {
    fn clone(&self) -> Self {
        Self(AtomicU32::new(self.0.load(Ordering::Relaxed)))
    }
}

impl Shape {
    /// Whether the value is a VARIANT, for which JSON's null is a value.
    #[inline]
    pub fn is_variant(&self) -> bool {
        matches!(self, Self::Scalar(DataType::Variant))
    }

    pub fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Struct(fields) => Self::Struct(Fields::new(fields)),
            DataType::Array(element) => Self::Array(Box::new(Self::new(element))),
            DataType::Map(key, of) if **key == DataType::String => {
                Self::Map(Box::new(Self::new(of)))
            }
            other => Self::Scalar(other.clone()),
        }
    }
}

impl Fields {
    pub fn new(fields: &[Field]) -> Self {
        let names: HashMap<String, usize> =
            fields.iter().enumerate().map(|(i, field)| (field.name.clone(), i)).collect();
        let are_distinct = names.len() == fields.len();
        let member = |field: &Field| Member {
            name: field.name.clone(),
            // The fast path would accept the first of several fields with the same name.
            head: if are_distinct { Head::new(&field.name) } else { None },
            // An error in base 64 stops the tokenizer inside the string, which the fast path cannot
            // reproduce.
            has_fast_path: !matches!(
                field.data_type,
                DataType::Binary | DataType::Variant | DataType::CalendarInterval
            ),
            shape: Shape::new(&field.data_type),
            wanted: true,
        };
        Self {
            list: fields.iter().map(member).collect(),
            types: fields.iter().map(|field| field.data_type.clone()).collect(),
            by_name: (fields.len() > SCANNED_FIELDS).then_some(names),
            are_distinct,
            order: (0..=fields.len()).map(|i| Follower(AtomicU32::new(i as u32))).collect(),
        }
    }

    /// The predicted field after another field. `behind` is the index of the other field plus one,
    /// or 0 for the start of the object.
    #[inline]
    pub fn expected(&self, behind: usize) -> Option<(usize, &Member)> {
        let index = self.order[behind].get();
        self.list.get(index).map(|member| (index, member))
    }

    /// Records that the field at `index` followed the position `behind`, for later predictions.
    #[inline]
    pub fn learn(&self, behind: usize, index: usize) {
        self.order[behind].set(index);
    }

    /// Finds a field by its name: the last one, if several fields have the name. If all names are
    /// distinct, the field at `behind`, the next one of the schema, is tried first, because most
    /// writers preserve the order of fields.
    #[inline]
    pub fn find(&self, name: &[u8], behind: usize) -> Option<usize> {
        let is_named = |member: &Member| member.name.as_bytes() == name;
        if self.are_distinct && self.list.get(behind).is_some_and(is_named) {
            return Some(behind);
        }
        match &self.by_name {
            Some(by_name) => by_name.get(std::str::from_utf8(name).ok()?).copied(),
            None => self.list.iter().rposition(is_named),
        }
    }
}
