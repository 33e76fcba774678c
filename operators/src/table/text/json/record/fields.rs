//! Types whose structs' fields are found by name, in the order in which records have them.

use crate::table::text::json::token::Head;
use crate::table::types::{DataType, Field};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// Fields of a struct beyond which their names are found by a hash.
const SCANNED_FIELDS: usize = 8;

/// A type, with the names of its structs' fields ready to be looked up.
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
    by_name: Option<HashMap<String, usize>>,
    /// The field that followed each in the records before; at 0 the first one, and behind it those
    /// that follow the fields of `list`.
    order: Vec<Follower>,
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub name: String,
    /// How its name stands in most texts; `None` where only the long way finds it.
    pub head: Option<Head>,
    /// Whether its value may be read the short way.
    pub has_fast_path: bool,
    pub shape: Shape,
    /// Whether anything reads the field.
    pub wanted: bool,
}

/// The index of a field that is expected: a mere guess, which threads may overwrite at will.
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
            // Of fields with one name the place decides which is meant.
            head: if are_distinct { Head::new(&field.name) } else { None },
            // An error in base 64 ends a string in its middle.
            has_fast_path: field.data_type != DataType::Binary,
            shape: Shape::new(&field.data_type),
            wanted: true,
        };
        Self {
            list: fields.iter().map(member).collect(),
            types: fields.iter().map(|field| field.data_type.clone()).collect(),
            by_name: (fields.len() > SCANNED_FIELDS).then_some(names),
            order: (0..=fields.len()).map(|i| Follower(AtomicU32::new(i as u32))).collect(),
        }
    }

    /// The field that is expected behind another, of which `behind` is the index and one more.
    #[inline]
    pub fn expected(&self, behind: usize) -> Option<(usize, &Member)> {
        let index = self.order[behind].get();
        self.list.get(index).map(|member| (index, member))
    }

    /// Remembers that a field followed another.
    #[inline]
    pub fn learn(&self, behind: usize, index: usize) {
        self.order[behind].set(index);
    }

    /// Finds a field by its name, where most writers have it first.
    #[inline]
    pub fn find(&self, name: &[u8], behind: usize) -> Option<usize> {
        if self.list.get(behind).is_some_and(|member| member.name.as_bytes() == name) {
            return Some(behind);
        }
        match &self.by_name {
            Some(by_name) => by_name.get(std::str::from_utf8(name).ok()?).copied(),
            None => self.list.iter().position(|member| member.name.as_bytes() == name),
        }
    }
}
