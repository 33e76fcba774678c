//! Reads the rows of a columnar file, batch by batch. If a decoder panics on a damaged file, that
//! is an error like any other.

use super::column::Column;
use super::{ReadOptions, orc, parquet};
use crate::table::row::RowWriter;
use crate::table::types::{DataType, Schema};
use arrow_array::{Array, ArrayRef};
use bytes::Bytes;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

/// The number of rows per decoded batch.
pub(super) const BATCH_ROWS: usize = 1024;

/// A requested column: its slot in the row, its name, and the type to read it as.
pub type NeededColumn = (usize, String, DataType);

/// Decoded batches: the number of rows, and the requested columns in the order of the request.
pub(super) type Batches = Box<dyn Iterator<Item = Result<(usize, Vec<Column>), String>> + Send>;

/// Reads a columnar file row by row.
pub struct ColumnInput {
    batches: Batches,
    /// For each requested column its slot in the row.
    slots: Vec<usize>,
    /// The requested columns of the current batch.
    columns: Vec<Column>,
    rows: usize,
    next: usize,
    /// The index of the next row in the file.
    offset: u64,
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

thread_local! {
    /// Whether this thread runs a decoder whose panics are caught and not printed.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder. Damaged files make some decoders panic; such a panic becomes an error and is not
/// printed.
fn guarded<T>(decode: impl FnOnce() -> Result<T, String>) -> io::Result<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_GUARDED.get() {
                others(info);
            }
        }));
    });
    IS_GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(decode));
    IS_GUARDED.set(false);
    match result {
        Ok(result) => result.map_err(other),
        Err(_) => Err(other("the file is damaged: its decoder failed")),
    }
}

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The source of a file's bytes.
pub(super) enum From {
    File(File),
    Bytes(Bytes),
}

/// The inferred schema of a file.
pub fn schema_of(options: &ReadOptions, path: &Path) -> io::Result<Schema> {
    let from = From::File(File::open(path)?);
    guarded(|| match options {
        ReadOptions::Parquet(options) => parquet::read::schema_of(from, options),
        ReadOptions::Orc => orc::read::schema(from),
    })
}

fn orc_batches(from: From, wanted: &[NeededColumn], offset: u64) -> Result<Batches, String> {
    let mut reader = orc::read::Reader::open(from, wanted, offset)?;
    let types: Vec<DataType> = wanted.iter().map(|(_, _, data_type)| data_type.clone()).collect();
    Ok(Box::new(std::iter::from_fn(move || {
        let (rows, arrays) = match reader.next().transpose()? {
            Ok(batch) => batch,
            Err(reason) => return Some(Err(reason)),
        };
        let column = |(array, data_type): (&Option<ArrayRef>, &DataType)| match array {
            None => Ok(Column::Null),
            Some(array) => Column::of(array, data_type)
                .ok_or_else(|| format!("{} is read as {data_type}", array.data_type())),
        };
        let columns = arrays.iter().zip(&types).map(column).collect::<Result<_, _>>();
        Some(columns.map(|columns| (rows, columns)))
    })))
}

impl ColumnInput {
    /// Opens a file at row `offset`. A requested column that the file lacks is NULL.
    pub fn open(
        options: &ReadOptions,
        path: &Path,
        wanted: &[NeededColumn],
        offset: u64,
    ) -> io::Result<Self> {
        Self::new(options, From::File(File::open(path)?), wanted, offset)
    }

    /// Opens a file whose bytes are in memory.
    pub fn of_bytes(
        options: &ReadOptions,
        bytes: Vec<u8>,
        wanted: &[NeededColumn],
    ) -> io::Result<Self> {
        Self::new(options, From::Bytes(bytes.into()), wanted, 0)
    }

    fn new(
        options: &ReadOptions,
        from: From,
        wanted: &[NeededColumn],
        offset: u64,
    ) -> io::Result<Self> {
        let batches = guarded(|| match options {
            ReadOptions::Parquet(options) => parquet::read::open(from, wanted, options, offset),
            ReadOptions::Orc => orc_batches(from, wanted, offset),
        })?;
        let slots = wanted.iter().map(|(slot, ..)| *slot).collect();
        Ok(Self { batches, slots, columns: Vec::new(), rows: 0, next: 0, offset })
    }

    /// The index of the next row, counted from 0.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Writes the requested columns of the next row. Returns false at the end of the file, without
    /// calling `writer`.
    pub fn row<'w>(&mut self, writer: impl FnOnce() -> RowWriter<'w, Vec<u8>>) -> io::Result<bool> {
        while self.next == self.rows {
            let batches = &mut self.batches;
            let Some(batch) = guarded(|| batches.next().transpose())? else { return Ok(false) };
            (self.rows, self.columns) = batch;
            self.next = 0;
        }
        let mut writer = writer();
        for (slot, column) in self.slots.iter().zip(&self.columns) {
            column.put(self.next, &mut writer, *slot);
        }
        self.next += 1;
        self.offset += 1;
        Ok(true)
    }
}
