//! The rows of a file. A file that is damaged is an error that names it, whatever the decoder does
//! about it; at most one batch of rows is held, and of each column one page.

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

/// Rows that are decoded at once.
pub(super) const BATCH_ROWS: usize = 1024;

/// A wanted column: its slot in the row, its name, the type that it is read as.
pub type NeededColumn = (usize, String, DataType);

/// Batches of decoded rows: how many, and the wanted columns in their order.
pub(super) type Batches = Box<dyn Iterator<Item = Result<(usize, Vec<Column>), String>> + Send>;

/// Reads a file row by row.
pub struct ColumnInput {
    batches: Batches,
    /// Of each wanted column its slot in the row.
    slots: Vec<usize>,
    /// The columns of the present batch, as wanted.
    columns: Vec<Column>,
    rows: usize,
    next: usize,
    /// Rows before the next one.
    offset: u64,
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

thread_local! {
    /// Whether this thread is in a decoder whose panics are caught.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder. What makes it panic is a file that is damaged; the panic becomes an error, and
/// nothing is printed about it.
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
        Err(_) => Err(other("the file is damaged: its decoder gave up")),
    }
}

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Where the bytes are.
pub(super) enum From {
    File(File),
    Bytes(Bytes),
}

/// The columns of a file.
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
    /// Opens a file at a row. A wanted column that the file has not is NULL.
    pub fn open(
        options: &ReadOptions,
        path: &Path,
        wanted: &[NeededColumn],
        offset: u64,
    ) -> io::Result<Self> {
        Self::new(options, From::File(File::open(path)?), wanted, offset)
    }

    /// Opens a file that is in memory.
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

    /// The number of the next row.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Writes the next row's columns; false at the end of the file. `writer` is made when there is
    /// one.
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
