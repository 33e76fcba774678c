//! File metadata columns: partition columns and `_metadata`, whose values are the same for all
//! records of a file.

use crate::connect::file::partition_values::value_of;
use crate::connect::file::uri::uri;
use crate::table::datetime::Tz;
use crate::table::plan::metadata_field;
use crate::table::row::RowWriter;
use crate::table::types::{Field, Schema};
use crate::table::value::Value;
use millstream_engine::error::EngineError;
use std::path::Path;

/// File metadata columns: their indices in the row and their values for the current file.
#[derive(Clone, Debug)]
pub struct FileColumns {
    partitions: Vec<(usize, Field, Value)>,
    metadata: Option<(usize, Value)>,
    /// The time zone of timestamps in folder names.
    zone: Tz,
}

impl FileColumns {
    /// Finds the metadata columns of a schema. `zone` is the time zone of timestamps in folder
    /// names.
    pub fn new(schema: &Schema, partitions: &[Field], zone: Tz) -> Self {
        let mut of_file = Self { partitions: Vec::new(), metadata: None, zone };
        for (i, field) in schema.fields.iter().enumerate() {
            if partitions.iter().any(|p| p.name.eq_ignore_ascii_case(&field.name)) {
                of_file.partitions.push((i, field.clone(), Value::Null));
            } else if *field == metadata_field() {
                of_file.metadata = Some((i, Value::Null));
            }
        }
        of_file
    }

    /// Whether the column at `index` is a metadata column.
    pub fn has(&self, index: usize) -> bool {
        self.partitions.iter().any(|(i, ..)| *i == index)
            || self.metadata.as_ref().is_some_and(|(i, _)| *i == index)
    }

    /// Sets the values for a new file. Fails if a folder's value does not parse as its column's
    /// type. A column without a folder is NULL. Size and time that cannot be read are 0.
    pub fn begin(
        &mut self,
        path: &Path,
        partitions: &[(String, String)],
    ) -> Result<(), EngineError> {
        for (_, field, value) in &mut self.partitions {
            let found = partitions.iter().find(|(name, _)| name.eq_ignore_ascii_case(&field.name));
            *value = match found {
                None => Value::Null,
                Some((_, text)) => value_of(text, &field.data_type, self.zone)
                    .map_err(|()| invalid_value(path, field, text))?,
            };
        }
        if let Some((_, value)) = &mut self.metadata {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let about = std::fs::metadata(path).ok();
            let size = about.as_ref().map_or(0, |about| about.len() as i64);
            let changed = about.and_then(|about| about.modified().ok());
            let changed = changed.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            // As in Spark, the modification time has millisecond precision.
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
        Ok(())
    }

    /// Writes the metadata columns into a row.
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

fn invalid_value(path: &Path, field: &Field, text: &str) -> EngineError {
    EngineError::operator(
        "INVALID_PARTITION_VALUE",
        format!(
            "partition column `{}` is {}, but a folder of {} has the value '{text}'",
            field.name,
            field.data_type,
            path.display()
        ),
        "Give the column another type, STRING for example, or leave it out of the schema",
    )
}

/// Where the schema of a file source comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaOrigin {
    /// Given by the user: partition columns follow the others, with the user's types.
    User,
    /// Inferred from files: a partition column that the files contain too keeps its position, with
    /// the type of the folder values.
    Files,
    /// Taken from the plan, whose columns are in order already.
    Plan,
}

/// Adds the partition columns to a schema, at Spark's positions.
pub fn with_partitions(schema: Schema, partitions: &[Field], origin: SchemaOrigin) -> Schema {
    let is = |a: &Field, b: &Field| a.name.eq_ignore_ascii_case(&b.name);
    let mut fields = schema.fields;
    match origin {
        SchemaOrigin::Plan => {}
        SchemaOrigin::User => {
            let given = fields.clone();
            fields.retain(|field| !partitions.iter().any(|partition| is(partition, field)));
            let typed = |partition: &Field| {
                given.iter().find(|field| is(field, partition)).unwrap_or(partition).clone()
            };
            fields.extend(partitions.iter().map(typed));
        }
        SchemaOrigin::Files => {
            for field in &mut fields {
                if let Some(partition) = partitions.iter().find(|partition| is(partition, field)) {
                    field.data_type = partition.data_type.clone();
                }
            }
            for partition in partitions {
                if !fields.iter().any(|field| is(field, partition)) {
                    fields.push(partition.clone());
                }
            }
        }
    }
    Schema::new(fields)
}
