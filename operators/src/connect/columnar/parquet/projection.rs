//! Column pruning: finds the requested columns in a file, by name at every level of nesting,
//! ignoring case.
//!
//! Only requested scalar columns are decoded. A field that the file lacks is NULL. If a file has
//! none of a struct's requested fields, one of the struct's scalars is decoded to learn which
//! structs are NULL.

use super::rebase::Calendars;
use crate::connect::columnar::column::Column;
use crate::connect::columnar::parquet::scalar_column::{Convert, convert};
use crate::connect::columnar::parquet::schema::{Layout, Node, Shape};
use crate::table::types::{DataType, Field};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};

/// How a field's Arrow array is converted to a column.
pub enum Decode {
    /// The file lacks the field.
    Null,
    Scalar(Convert),
    /// For each requested field its index among the decoded fields of the struct, and its
    /// conversion.
    Struct(Vec<(usize, Self)>),
    List(Layout, Box<Self>),
    Map(Box<[Self; 2]>),
}

/// Resolves requested fields against the fields of a file.
pub struct Finder<'c> {
    calendars: &'c Calendars,
    /// For each scalar column of the file, whether it is decoded.
    pub is_read: Vec<bool>,
}

impl<'c> Finder<'c> {
    /// Creates a finder for a file with `leaves` scalar columns, none of them requested yet.
    pub fn new(calendars: &'c Calendars, leaves: usize) -> Self {
        Self { calendars, is_read: vec![false; leaves] }
    }

    /// Resolves the fields of a struct and marks their scalar columns. The indices count all fields
    /// that the struct has in the file; `settled` converts them.
    pub fn fields<'f>(
        &mut self,
        nodes: &[Node],
        wanted: impl Iterator<Item = (&'f str, &'f DataType)>,
        path: &str,
    ) -> Result<Vec<(usize, Decode)>, String> {
        let mut found = Vec::new();
        for (name, data_type) in wanted {
            found.push(match find(nodes, name)? {
                None => (0, Decode::Null),
                Some(index) => (index, self.field(&nodes[index], data_type, &dotted(path, name))?),
            });
        }
        Ok(found)
    }

    /// Converts indices among all fields to indices among the decoded fields. Call it only when all
    /// fields are resolved, because a field that is marked later changes the indices.
    fn settled(&self, nodes: &[Node], found: &mut [(usize, Decode)]) {
        for (index, _) in found.iter_mut().filter(|(_, decode)| !matches!(decode, Decode::Null)) {
            *index = nodes[..*index].iter().filter(|node| self.reads(node)).count();
        }
    }

    /// Resolves the wanted columns of a file. The indices count decoded columns only. Fails on a
    /// type mismatch or an ambiguous name; a column that the file lacks is NULL.
    pub fn columns<'f>(
        &mut self,
        nodes: &[Node],
        wanted: impl Iterator<Item = (&'f str, &'f DataType)>,
    ) -> Result<Vec<(usize, Decode)>, String> {
        let mut found = self.fields(nodes, wanted, "")?;
        self.settled(nodes, &mut found);
        Ok(found)
    }

    fn reads(&self, node: &Node) -> bool {
        self.is_read[node.leaves.clone()].contains(&true)
    }

    fn field(&mut self, node: &Node, to: &DataType, path: &str) -> Result<Decode, String> {
        let mismatch = || {
            format!(
                "[PARQUET_COLUMN_DATA_TYPE_MISMATCH] column `{path}` is {} in the file and cannot \
                 be read as {to}",
                node.describe()
            )
        };
        Ok(match (&node.shape, to) {
            (Shape::Scalar(scalar), _) => {
                let convert = convert(*scalar, to, self.calendars).ok_or_else(mismatch)?;
                self.is_read[node.leaves.start] = true;
                let path = path.to_string();
                let named = move |array: &ArrayRef| {
                    convert(array).map_err(|reason| format!("column `{path}`: {reason}"))
                };
                Decode::Scalar(Box::new(named))
            }
            (Shape::Struct(nodes), DataType::Struct(fields)) => {
                let wanted = fields.iter().map(|f: &Field| (f.name.as_str(), &f.data_type));
                let mut found = self.fields(nodes, wanted, path)?;
                if !self.reads(node)
                    && let Some(leaf) = cheapest(nodes)
                {
                    self.is_read[leaf] = true;
                }
                self.settled(nodes, &mut found);
                Decode::Struct(found)
            }
            (Shape::List(layout, element), DataType::Array(to)) => {
                Decode::List(*layout, Box::new(self.field(element, to, &dotted(path, "element"))?))
            }
            (Shape::Map(entry), DataType::Map(key, value)) => {
                let key = self.field(&entry[0], key, &dotted(path, "key"))?;
                let value = self.field(&entry[1], value, &dotted(path, "value"))?;
                Decode::Map(Box::new([key, value]))
            }
            _ => return Err(mismatch()),
        })
    }
}

fn dotted(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

/// The index of the field with a name, ignoring case. Fails if several fields match.
fn find(nodes: &[Node], name: &str) -> Result<Option<usize>, String> {
    let lower = name.to_lowercase();
    let is_it = |node: &&Node| node.name == name || node.name.to_lowercase() == lower;
    let mut all = nodes.iter().enumerate().filter(|(_, node)| is_it(node));
    let Some((index, _)) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        let names: Vec<&str> = nodes.iter().filter(is_it).map(|node| node.name.as_str()).collect();
        return Err(format!(
            "Found duplicate field(s) `{name}`: [{}] in case-insensitive mode. The names differ \
            only in case: write the file with other names",
            names.join(", ")
        ));
    }
    Ok(Some(index))
}

/// The scalar column that stands for a struct: one that is not repeated, if possible.
fn cheapest(nodes: &[Node]) -> Option<usize> {
    let scalar = nodes.iter().find(|node| matches!(node.shape, Shape::Scalar(_)));
    let below = || {
        nodes.iter().find_map(|node| match &node.shape {
            Shape::Struct(nodes) => cheapest(nodes),
            _ => None,
        })
    };
    let any = || nodes.first().map(|node| node.leaves.start);
    scalar.map(|node| node.leaves.start).or_else(below).or_else(any)
}

impl Decode {
    /// Converts a batch's array to a column.
    pub fn run(&self, array: &ArrayRef) -> Result<Column, String> {
        Ok(match self {
            Self::Null => Column::Null,
            Self::Scalar(convert) => convert(array)?,
            Self::Struct(fields) => {
                let group = array.as_struct();
                let column = |(index, decode): &(usize, Self)| match decode {
                    Self::Null => Ok(Column::Null),
                    decode => decode.run(group.column(*index)),
                };
                let fields = fields.iter().map(column).collect::<Result<_, _>>()?;
                Column::Struct { nulls: group.nulls().cloned(), fields }
            }
            Self::List(layout, element) => {
                let (list, nulls) = match layout {
                    Layout::Repeated => (array.as_list::<i32>(), array.nulls()),
                    _ => (array.as_struct().column(0).as_list::<i32>(), array.nulls()),
                };
                let values = match layout {
                    Layout::Three => list.values().as_struct().column(0),
                    _ => list.values(),
                };
                let element = Box::new(element.run(values)?);
                let offsets = list.offsets().clone();
                Column::List { nulls: nulls.cloned(), offsets, element }
            }
            Self::Map(entry) => {
                let list = array.as_struct().column(0).as_list::<i32>();
                let entries = list.values().as_struct();
                let entries = [entry[0].run(entries.column(0))?, entry[1].run(entries.column(1))?];
                Column::Map {
                    nulls: array.nulls().cloned(),
                    offsets: list.offsets().clone(),
                    entries: Box::new(entries),
                }
            }
        })
    }
}
