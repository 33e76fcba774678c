//! Tries each option in the tables of `docs/src/file-options.md`.
#![cfg(all(feature = "sql", feature = "columnar", feature = "compression"))]

use millstream::session::Session;
use millstream::table::types::Schema;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../docs/src/file-options.md");
const FORMATS: [&str; 5] = ["text", "csv", "json", "parquet", "orc"];

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The cells of the rows of all tables whose header starts with these cells.
fn rows<'p>(head: &[&str]) -> Vec<Vec<&'p str>> {
    let (mut found, mut inside) = (Vec::new(), false);
    for line in PAGE.lines() {
        let Some(row) = line.strip_prefix('|') else {
            inside = false;
            continue;
        };
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        if inside && !cells[0].starts_with("---") {
            found.push(cells);
        } else if cells.starts_with(head) {
            inside = true;
        }
    }
    found
}

fn code(cell: &str) -> &str {
    cell.trim_matches('`')
}

/// The condition of the error when a format is read with an option; `None` if it succeeds.
fn read(format: &str, folder: &Path, option: &str, value: &str) -> Option<String> {
    let ddl = if format == "text" { "value STRING" } else { "k STRING, value STRING" };
    let reader = Session::new().read().format(format).schema(Schema::parse_ddl(ddl).unwrap());
    let reader = reader.option("path", folder.display()).option(option, value);
    reader.load().err().map(|error| error.condition.to_string())
}

/// The condition of the error when a format is written with an option; `None` if it succeeds.
fn write(format: &str, folder: &Path, option: &str, value: &str) -> Option<String> {
    let session = Session::new();
    let partitioned = format != "text" || option == "partitionBy";
    let ddl = if partitioned { "k STRING, value STRING" } else { "value STRING" };
    session.memory_stream("e", ddl).unwrap();
    let writer = session.view("e").unwrap().write_stream().format(format);
    let writer = writer.option("path", folder.join("out").display());
    let writer = writer.option("checkpointLocation", folder.join("checkpoint").display());
    writer.option(option, value).check().err().map(|error| error.condition.to_string())
}

fn folder(name: &str) -> Folder {
    let folder = std::env::temp_dir().join(format!("millstream-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    Folder(folder)
}

#[test]
fn the_reference_page_lists_exactly_the_existing_options() {
    let folder = folder("options");
    let mut wrong = Vec::new();
    let all = rows(&["option", "for example", "text", "csv", "json", "parquet", "orc"]);
    assert!(all.len() > 60, "{}", all.len());
    for cells in all {
        let (option, value) = (code(cells[0]), code(cells[1]));
        for (format, cell) in FORMATS.iter().zip(&cells[2..7]) {
            for (direction, said) in [
                ("r", read(format, &folder.0, option, value)),
                ("w", write(format, &folder.0, option, value)),
            ] {
                match said.as_deref() {
                    None if cell.contains(direction) => {}
                    Some("UNKNOWN_OPTION") if !cell.contains(direction) => {}
                    other => wrong.push(format!("{option} {format} {direction}: {other:?}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_default_on_the_page_is_accepted() {
    let folder = folder("defaults");
    let mut tried = 0;
    for cells in
        rows(&["option", "for example", "text", "csv", "json", "parquet", "orc", "default"])
    {
        let (option, default) = (code(cells[0]), cells[7]);
        if !default.starts_with('`') || default.matches('`').count() != 2 || !default.ends_with('`')
        {
            continue;
        }
        for (format, cell) in FORMATS.iter().zip(&cells[2..7]) {
            if cell.contains('r') {
                let said = read(format, &folder.0, option, code(default));
                assert_eq!(said, None, "{option} {format}");
            }
            if cell.contains('w') {
                let said = write(format, &folder.0, option, code(default));
                assert_eq!(said, None, "{option} {format}");
            }
            tried += 1;
        }
    }
    assert!(tried > 200, "{tried}");
}

#[test]
fn options_that_the_page_lists_as_refused_are_refused() {
    let folder = folder("refused");
    for cells in rows(&["option", "for example", "formats", "why"]) {
        let (option, value, why) = (code(cells[0]), code(cells[1]), cells[3]);
        assert!(!why.is_empty(), "{option}");
        for format in cells[2].split(',').map(str::trim) {
            assert_ne!(read(format, &folder.0, option, value), None, "{option} '{value}' {format}");
            assert_ne!(
                write(format, &folder.0, option, value),
                None,
                "{option} '{value}' {format}"
            );
        }
    }
}

#[test]
fn exactly_the_compressions_of_the_page_are_accepted() {
    let folder = folder("compressions");
    let all = rows(&["compression", "text", "csv", "json", "parquet", "orc"]);
    assert!(all.len() > 5, "{}", all.len());
    for cells in all {
        let codec = code(cells[0]);
        for (format, cell) in FORMATS.iter().zip(&cells[1..6]) {
            let refused = write(format, &folder.0, "compression", codec);
            assert_eq!(refused.is_none(), cell.contains('w'), "{codec} {format}: {refused:?}");
        }
    }
}
