//! Reads the columns of a Parquet file. The crate `parquet` decodes the stored values;
//! [`schema`](crate::connect::columnar::parquet::schema) interprets their types.

use super::footer::needed;
use super::options::ReadOptions;
use super::projection::Finder;
use super::rebase::Calendars;
use crate::connect::columnar::parquet::declared_sizes;
use crate::connect::columnar::parquet::schema::{Node, plain};
use crate::connect::columnar::parquet::spark_schema::spark_schema;
use crate::connect::columnar::read::{BATCH_ROWS, Batches, From, NeededColumn, text};
use crate::table::types::{Field, Schema};
use arrow_array::RecordBatch;
use arrow_schema::{DataType as Arrow, Field as ArrowField, FieldRef, TimeUnit};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_schema};
use parquet::file::metadata::{
    FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::reader::ChunkReader;
use parquet::schema::types::SchemaDescriptor;
use std::sync::Arc;

/// A decoded footer with the interpreted schema.
struct Footer {
    fields: Vec<Node>,
    /// The metadata, whose schema has no annotations.
    metadata: ParquetMetaData,
}

impl Footer {
    fn of(file: &impl ChunkReader) -> Result<Self, String> {
        let bytes = needed(&declared_sizes::footer(file)?).ok_or("its footer ends too early")?;
        let metadata = ParquetMetaDataReader::decode_metadata(&bytes).map_err(text)?;
        let fields = Node::fields_of(metadata.file_metadata().schema());
        Ok(Self { fields, metadata: repaired(metadata)? })
    }

    fn notes(&self) -> &[KeyValue] {
        self.metadata.file_metadata().key_value_metadata().map_or(&[], Vec::as_slice)
    }
}

/// Replaces the schema by the one without annotations and repairs what some writers get wrong: a
/// missing row count, and a dictionary page offset of 0 or not before the data. Row groups without
/// rows are removed.
fn repaired(metadata: ParquetMetaData) -> Result<ParquetMetaData, String> {
    let mut builder = metadata.into_builder();
    let groups = builder.take_row_groups().into_iter().map(repaired_group);
    let mut groups = groups.collect::<Result<Vec<_>, _>>()?;
    // Some writers record page offsets that do not exist for row groups without rows.
    groups.retain(|group| group.num_rows() != 0);
    let metadata = builder.build();
    let file = metadata.file_metadata();
    let schema = plain(file.schema()).map_err(text)?;
    let rows = groups.iter().try_fold(0i64, |sum, group| sum.checked_add(group.num_rows()));
    let file = FileMetaData::new(
        file.version(),
        rows.ok_or("its footer declares more rows than a 64-bit number can hold")?,
        file.created_by().map(str::to_string),
        file.key_value_metadata().cloned(),
        Arc::new(SchemaDescriptor::new(Arc::new(schema))),
        None,
    );
    Ok(ParquetMetaData::new(file, groups))
}

fn repaired_group(group: RowGroupMetaData) -> Result<RowGroupMetaData, String> {
    let is_sound = |column: &parquet::file::metadata::ColumnChunkMetaData| {
        let data = column.data_page_offset();
        column.dictionary_page_offset().is_none_or(|at| at > 0 && (at < data || data <= 0))
    };
    let rows = rows_of(&group);
    if rows == group.num_rows() && group.columns().iter().all(is_sound) {
        return Ok(group);
    }
    let column = |column: &parquet::file::metadata::ColumnChunkMetaData| {
        let sound = is_sound(column);
        let builder = column.clone().into_builder();
        if sound { builder } else { builder.set_dictionary_page_offset(None) }.build()
    };
    let columns = group.columns().iter().map(column).collect::<Result<_, _>>().map_err(text)?;
    let builder = group.into_builder().set_num_rows(rows).set_column_metadata(columns);
    builder.build().map_err(text)
}

/// The number of rows in a row group. If the footer omits the number, the value count of a column
/// without repetition is used, or of the first column if there is none.
fn rows_of(group: &RowGroupMetaData) -> i64 {
    if group.num_rows() != 0 {
        return group.num_rows();
    }
    let flat = |column: &&parquet::file::metadata::ColumnChunkMetaData| {
        column.column_descr().max_rep_level() == 0
    };
    let column = group.columns().iter().find(flat).or(group.columns().first());
    column.map_or(0, |column| column.num_values())
}

/// The schema of a file, inferred as Spark does.
pub fn schema_of(from: From, options: &ReadOptions) -> Result<Schema, String> {
    let footer = match from {
        From::File(file) => Footer::of(&file),
        From::Bytes(bytes) => Footer::of(&bytes),
    }?;
    if let Some(schema) = spark_schema(footer.notes()) {
        return Ok(schema);
    }
    let field = |node: &Node| match node.data_type(&options.inference) {
        Ok(data_type) => Ok(Field::new(node.name.clone(), data_type, true)),
        Err(reason) => Err(format!(
            "[PARQUET_TYPE_ILLEGAL] column `{}` is {reason}. Declare a schema without it",
            node.name
        )),
    };
    Ok(Schema::new(footer.fields.iter().map(field).collect::<Result<_, _>>()?))
}

/// Opens a file at row `offset` and decodes the requested columns.
pub fn open(
    from: From,
    wanted: &[NeededColumn],
    options: &ReadOptions,
    offset: u64,
) -> Result<Batches, String> {
    match from {
        From::File(file) => batches(file, wanted, options, offset),
        From::Bytes(bytes) => batches(bytes, wanted, options, offset),
    }
}

fn batches(
    file: impl ChunkReader + 'static,
    wanted: &[NeededColumn],
    options: &ReadOptions,
    offset: u64,
) -> Result<Batches, String> {
    let footer = Footer::of(&file)?;
    let calendars = Calendars::of_file(footer.notes(), options.datetime, options.int96);
    let schema = footer.metadata.file_metadata().schema_descr_ptr();
    let mut finder = Finder::new(&calendars, schema.num_columns());
    let wanted = wanted.iter().map(|(_, name, data_type)| (name.as_str(), data_type));
    let found = finder.columns(&footer.fields, wanted)?;
    declared_sizes::pages(&file, &footer.metadata, &finder.is_read)?;
    let leaves = finder.is_read.iter().enumerate().filter(|(_, is_read)| **is_read);
    let mask = ProjectionMask::leaves(&schema, leaves.map(|(leaf, _)| leaf));
    // Ignores the Arrow schema that another writer may have embedded.
    let arrow = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let arrow = arrow.with_schema(Arc::new(in_micros(&schema)?));
    let metadata = ArrowReaderMetadata::try_new(Arc::new(footer.metadata), arrow).map_err(text)?;
    let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS);
    if offset > 0 {
        builder = builder.with_offset(usize::try_from(offset).map_err(text)?);
    }
    let reader = builder.build().map_err(text)?;
    Ok(Box::new(reader.map(move |batch| {
        let batch: RecordBatch = batch.map_err(text)?;
        let column = |(index, decode): &(usize, super::projection::Decode)| match decode {
            super::projection::Decode::Null => Ok(crate::connect::columnar::column::Column::Null),
            decode => decode.run(batch.column(*index)),
        };
        let columns = found.iter().map(column).collect::<Result<_, _>>()?;
        Ok((batch.num_rows(), columns))
    })))
}

/// Converts the schema to Arrow types. INT96 is decoded as microseconds, because nanoseconds
/// overflow in the year 2262.
fn in_micros(schema: &SchemaDescriptor) -> Result<arrow_schema::Schema, String> {
    let read = parquet_to_arrow_schema(schema, None).map_err(text)?;
    let fields: Vec<FieldRef> = read.fields().iter().map(field_in_micros).collect();
    Ok(arrow_schema::Schema::new(fields))
}

fn field_in_micros(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        Arrow::Timestamp(TimeUnit::Nanosecond, None) => {
            Arrow::Timestamp(TimeUnit::Microsecond, None)
        }
        Arrow::List(element) => Arrow::List(field_in_micros(element)),
        Arrow::Struct(fields) => Arrow::Struct(fields.iter().map(field_in_micros).collect()),
        _ => return field.clone(),
    };
    Arc::new(ArrowField::new(field.name(), data_type, field.is_nullable()))
}
