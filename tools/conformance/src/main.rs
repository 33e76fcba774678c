//! Runs conformance cases: `conformance DIR...`, each a case file or a folder of them.
//!
//! Prints a line for each case that fails and each that is skipped, and ends with
//! `N passed, M failed, K skipped`. A case is skipped only for something that is not built yet,
//! which the line names. Every case runs in micro-batch mode. Then its final answer there is
//! compared with that of continuous mode: `N agree in both modes, M differ`.

mod case;
mod compare;

use case::{Case, Outcome};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn collect(path: &Path, out: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if path.is_dir() {
        let mut entries =
            std::fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
        entries.sort();
        return entries.iter().try_for_each(|entry| collect(entry, out));
    }
    if path.extension().is_some_and(|extension| extension == "json") {
        out.push(path.to_path_buf());
    }
    Ok(())
}

fn main() -> ExitCode {
    let dirs: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if dirs.is_empty() || dirs.iter().any(|dir| dir.as_os_str() == "--help") {
        eprintln!(
            "usage: conformance DIR...\n\nExample: cargo run --release -p conformance -- cases/stateless"
        );
        return ExitCode::from(2);
    }
    let mut files = Vec::new();
    for dir in &dirs {
        if let Err(error) = std::fs::metadata(dir).and_then(|_| collect(dir, &mut files)) {
            eprintln!("error: {}: {error}", dir.display());
            return ExitCode::from(2);
        }
    }
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let (mut agree, mut differ) = (0, 0);
    for file in &files {
        let name = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let case = Case::read(file);
        match case.as_ref().map_or_else(|why| Outcome::Failed(why.clone()), Case::run) {
            Outcome::Passed => {
                passed += 1;
                match case.ok().and_then(|case| case.same_in_both_modes()) {
                    None => {}
                    Some(Ok(())) => agree += 1,
                    Some(Err(why)) => {
                        differ += 1;
                        println!("DIFFERS {name}: {why}");
                    }
                }
            }
            Outcome::Failed(why) => {
                failed += 1;
                println!("FAILED {name}: {why}");
            }
            Outcome::Skipped(why) => {
                skipped += 1;
                println!("skipped {name}: {why}");
            }
        }
    }
    println!("{agree} agree in both modes, {differ} differ");
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 && differ == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
