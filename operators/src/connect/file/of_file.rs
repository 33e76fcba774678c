//! The columns whose values a file gives by where it lies: partition columns, and `_metadata`.

use super::listing::NULL_PARTITION;
use super::uri::uri;
use crate::table::datetime::Tz;
use crate::table::plan::metadata_field;
use crate::table::row::{Row, RowWriter};
use crate::table::text::Notation;
use crate::table::types::{Field, Schema};
use crate::table::value::Value;
use std::path::Path;

/// Their places in the row, and what they are in the present file.
#[derive(Clone, Debug, Default)]
pub struct OfFile {
    partitions: Vec<(usize, Field, Value)>,
    metadata: Option<(usize, Value)>,
    /// How the names of folders are read.
    notation: Notation,
}

impl OfFile {
    /// Those among the columns of a schema. Times in the names of folders are of a zone.
    pub fn new(schema: &Schema, partitions: &[Field], zone: Tz) -> Self {
        let notation = Notation { zone, ..Notation::default() };
        let mut of_file = Self { notation, ..Self::default() };
        for (i, field) in schema.fields.iter().enumerate() {
            if partitions.iter().any(|p| p.name.eq_ignore_ascii_case(&field.name)) {
                of_file.partitions.push((i, field.clone(), Value::Null));
            } else if *field == metadata_field() {
                of_file.metadata = Some((i, Value::Null));
            }
        }
        of_file
    }

    /// Whether a column is one of them.
    pub fn has(&self, index: usize) -> bool {
        self.partitions.iter().any(|(i, ..)| *i == index)
            || self.metadata.as_ref().is_some_and(|(i, _)| *i == index)
    }

    /// Begins a file, whose folders name values. One that is not of its column's type is NULL.
    pub fn begin(&mut self, path: &Path, partitions: &[(String, String)]) {
        for (_, field, value) in &mut self.partitions {
            let found = partitions.iter().find(|(name, _)| name.eq_ignore_ascii_case(&field.name));
            let mut row = Vec::new();
            let mut writer = RowWriter::new(&mut row, 1);
            if let Some((_, text)) = found.filter(|(_, text)| text != NULL_PARTITION) {
                self.notation.put(text, &field.data_type, &mut writer, 0);
            }
            *value = Row(&row).value(0, 1, &field.data_type);
        }
        if let Some((_, value)) = &mut self.metadata {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let about = std::fs::metadata(path).ok();
            let size = about.as_ref().map_or(0, |about| about.len() as i64);
            let changed = about.and_then(|about| about.modified().ok());
            let changed = changed.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            // Spark knows milliseconds.
            let changed_us = changed.map_or(0, |since| since.as_millis() as i64 * 1000);
            *value = Value::Struct(vec![
                Value::String(uri(path)),
                Value::String(name.unwrap_or_default()),
                Value::Long(size),
                Value::Long(0),
                Value::Long(size),
                Value::Long(changed_us),
            ]);
        }
    }

    /// Writes them into a row.
    #[inline]
    pub fn put(&self, writer: &mut RowWriter<'_, Vec<u8>>) {
        for (index, _, value) in &self.partitions {
            writer.value(*index, value);
        }
        if let Some((index, value)) = &self.metadata {
            writer.value(*index, value);
        }
    }
}
