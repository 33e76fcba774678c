//! Reads the rows of an ORC file, stripe by stripe.
//!
//! Columns are matched by name, ignoring case. Files of old Hive versions name all columns `_col0`,
//! `_col1`, …; their columns are matched by position.

use super::column::{Clock, Column, StripeContext};
use super::footer::{self, Footer, Type};
use super::stream::ByteSource;
use crate::connect::columnar::orc::schema_evolution::is_readable;
use crate::connect::columnar::read::{BATCH_ROWS, From};
use crate::table::datetime::Tz;
use crate::table::types::{DataType, Schema};
use arrow_array::ArrayRef;
use std::sync::{Arc, OnceLock};

/// The number of rows in a batch and its requested columns, in the order of the request. `None` is
/// a column that the file lacks.
pub type Batch = (usize, Vec<Option<ArrayRef>>);

/// Reads the rows of a file.
pub struct Reader {
    file: ByteSource,
    footer: Option<Footer>,
    /// Each requested column: the SQL type to read it as, and its type in the file. `None` is a
    /// column that the file lacks.
    wanted: Vec<(DataType, Option<Type>)>,
    /// The index of the next stripe.
    next: usize,
    /// The column decoders of the current stripe.
    columns: Vec<Option<Column>>,
    /// The rows of the current stripe that are not read yet.
    left: u64,
    /// The rows that are still to be skipped before the first result.
    skip: u64,
}

fn byte_source(from: From) -> ByteSource {
    match from {
        From::File(file) => ByteSource::File(Arc::new(file)),
        From::Bytes(bytes) => ByteSource::Memory(bytes),
    }
}

/// The schema of a file, as Spark infers it.
pub fn schema(from: From) -> Result<Schema, String> {
    match footer::read(&byte_source(from))? {
        Some(footer) => footer.root.schema(),
        None => Ok(Schema::default()),
    }
}

/// Looks up a time zone. The names of UTC that are listed here map to `Tz::UTC`, for which
/// timestamps need no conversion.
fn named(name: &str) -> Option<Tz> {
    match name.trim_start_matches(':') {
        "UTC" | "GMT" | "UCT" | "Z" | "Zulu" | "Universal" | "Greenwich" | "GMT0" | "Etc/UTC"
        | "Etc/GMT" | "Etc/UCT" | "Etc/Zulu" | "Etc/Universal" | "Etc/Greenwich" | "Etc/GMT0" => {
            Some(Tz::UTC)
        }
        name => Tz::named(name),
    }
}

/// The time zone in which timestamps are read and written: the machine's, as in the Java
/// implementation. It is UTC if neither `TZ` nor the link `/etc/localtime` names a known zone.
pub fn machine_zone() -> Tz {
    static ZONE: OnceLock<Tz> = OnceLock::new();
    *ZONE.get_or_init(|| {
        if let Some(zone) = std::env::var("TZ").ok().filter(|name| !name.is_empty()) {
            return named(&zone).unwrap_or(Tz::UTC);
        }
        let link = std::fs::read_link("/etc/localtime").unwrap_or_default();
        let link = link.to_string_lossy();
        link.split_once("zoneinfo/").and_then(|(_, name)| named(name)).unwrap_or(Tz::UTC)
    })
}

impl Reader {
    /// Opens a file at row `offset`. `wanted` lists the requested columns.
    pub fn open(
        from: From,
        wanted: &[(usize, String, DataType)],
        offset: u64,
    ) -> Result<Self, String> {
        let file = byte_source(from);
        let footer = footer::read(&file)?;
        let mut found = Vec::new();
        for (place, name, data_type) in wanted {
            let of = footer.as_ref().map(|footer| find(&footer.root, *place, name)).transpose()?;
            let of = of.flatten();
            if let Some(of) = of
                && !is_readable(of, data_type)
            {
                return Err(format!(
                    "column `{name}` is {} in the file and cannot be read as {data_type}",
                    of.name()
                ));
            }
            found.push((data_type.clone(), of.cloned()));
        }
        let columns = Vec::new();
        Ok(Self { file, footer, wanted: found, next: 0, columns, left: 0, skip: offset })
    }

    /// Decodes the next batch. Returns `None` at the end of the file.
    pub fn next(&mut self) -> Result<Option<Batch>, String> {
        loop {
            if self.left == 0 && !self.stripe()? {
                return Ok(None);
            }
            let rows = self.left.min(BATCH_ROWS as u64);
            let rows = if self.skip > 0 { rows.min(self.skip) } else { rows };
            let columns = self.columns.iter_mut();
            let read = |column: &mut Option<Column>| {
                column.as_mut().map(|column| column.read(rows as usize, None)).transpose()
            };
            let batch = columns.map(read).collect::<Result<Vec<_>, _>>()?;
            self.left -= rows;
            if self.skip == 0 {
                return Ok(Some((rows as usize, batch)));
            }
            self.skip -= rows;
        }
    }

    /// Moves to the next stripe that has rows to read. Returns false at the end of the file.
    fn stripe(&mut self) -> Result<bool, String> {
        let Some(footer) = &self.footer else { return Ok(false) };
        while let Some(stripe) = footer.stripes.get(self.next) {
            self.next += 1;
            if self.skip >= stripe.rows {
                self.skip -= stripe.rows;
                continue;
            }
            let end = stripe.footer(&self.file, footer.compression)?;
            let reader = machine_zone();
            let writer = match end.zone.as_deref() {
                None => reader,
                Some(name) => named(name).ok_or_else(|| {
                    format!("its times are in the time zone `{name}`, which is unknown")
                })?,
            };
            let clock = Clock { hybrid: footer.hybrid_calendar, writer, reader };
            let context = StripeContext {
                file: &self.file,
                compression: footer.compression,
                footer: &end,
                clock,
            };
            let column = |(wanted, of): &(DataType, Option<Type>)| {
                of.as_ref().map(|of| context.column(of, wanted)).transpose()
            };
            self.columns = self.wanted.iter().map(column).collect::<Result<_, _>>()?;
            self.left = stripe.rows;
            return Ok(true);
        }
        Ok(false)
    }
}

/// Finds the file's column for a column of the schema.
fn find<'t>(root: &'t Type, place: usize, name: &str) -> Result<Option<&'t Type>, String> {
    let columns = &root.children;
    if columns.iter().all(|(own, _)| own.starts_with("_col")) {
        return Ok(columns.get(place).map(|(_, of)| of));
    }
    let lower = name.to_lowercase();
    let mut found = columns.iter().filter(|(own, _)| own.to_lowercase() == lower);
    let first = found.next();
    if found.next().is_some() {
        return Err(format!("several of its columns are named `{name}`, differing only in case"));
    }
    Ok(first.map(|(_, of)| of))
}
