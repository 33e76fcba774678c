//! Checkpoints written by earlier versions: the current version continues each of them and emits
//! exactly the missing results. `fixtures/checkpoints/README.md` describes how they are made.
#![cfg(feature = "sql")]

mod folder;

use folder::Folder;
use millstream::session::{Overrides, Session};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The folder in the paths that the fixtures contain.
const RECORDED_ROOT: &str = "/tmp/millstream-fixture";
/// One folder per version that wrote fixtures.
const PROGRAMS: [&str; 2] = ["2026-11-27", "2026-11-28"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints")
}

/// CRC-32 as in zip files.
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1));
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

/// Copies a fixture. In text files the recorded folder is replaced and the checksum recomputed.
fn copy(from: &Path, to: &Path, root: &str) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            copy(&path, &to.join(name), root);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let bytes = match String::from_utf8(bytes) {
            Ok(text) if text.contains(RECORDED_ROOT) => {
                let text = text.replace(RECORDED_ROOT, root);
                match text.rsplit_once("crc32 ") {
                    Some((entry, _)) => format!("{entry}crc32 {:08x}\n", crc32(entry.as_bytes())),
                    None => text,
                }
                .into_bytes()
            }
            Ok(text) => text.into_bytes(),
            Err(binary) => binary.into_bytes(),
        };
        // Checksum files of the sink's log are left out, because they do not match changed entries.
        if !name.to_string_lossy().ends_with(".crc") {
            fs::write(to.join(name), bytes).unwrap();
        }
    }
}

#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs a job until it has read every file. Returns the output of its console sink.
fn run(job: &str, folder: &Path) -> String {
    let text = fs::read_to_string(fixtures().join(format!("jobs/{job}.sql"))).unwrap();
    let text = text.replace("{folder}", &folder.display().to_string());
    let (session, console) = (Session::new(), Console::default());
    let copy = console.clone();
    session.set_console(move || Box::new(copy.clone()));
    let query = session.job(&text, &Overrides::default()).unwrap().remove(0).start().unwrap();
    if text.contains("availableNow") {
        match query.await_termination_timeout(Duration::from_secs(60)) {
            Some(outcome) => outcome.unwrap(),
            None => panic!("{job} does not end"),
        }
    } else {
        query.process_all_available().unwrap();
        query.stop().unwrap();
    }
    let bytes = console.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// The rows that a file sink has committed, sorted.
fn committed_rows(folder: &Path) -> Vec<String> {
    let reader = Session::new().read();
    let frame = reader.format("text").option("path", folder.join("out").display()).load().unwrap();
    let mut rows: Vec<_> = frame.collect().unwrap().iter().map(|r| format!("{:?}", r[0])).collect();
    rows.iter_mut().for_each(|row| *row = row.replace("String(\"", "").replace("\")", ""));
    rows.sort();
    rows
}

/// The rows that a console sink printed, in their order.
fn printed_rows(console: &str) -> Vec<String> {
    let cells = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).filter(|c| !c.is_empty()).collect();
        cells.join(",")
    };
    let rows = console.lines().filter(|line| line.starts_with('|')).map(cells);
    rows.filter(|row| !row.starts_with("k,")).collect()
}

/// Continues a job from a fixture with the remaining input.
fn continued(program: &str, job: &str) -> Vec<String> {
    let root = Folder::new(&format!("fixture-{program}-{job}"));
    let folder = root.0.join(job);
    copy(&fixtures().join(program).join(job), &folder, &root.0.display().to_string());
    let mut printed = Vec::new();
    for file in ["1.csv", "2.csv", "3.csv"] {
        let rows = fs::read(fixtures().join("input").join(file)).unwrap();
        root.write(&format!("{job}/in/{file}"), &rows);
        // The checkpoint knows the first file, so a run over it emits nothing.
        let console = printed_rows(&run(job, &folder));
        assert!(file != "1.csv" || console.is_empty(), "{program} {job}: {console:?}");
        printed.extend(console);
    }
    if folder.join("out").exists() { committed_rows(&folder) } else { printed }
}

fn check(job: &str, expected: &[&str]) {
    for program in PROGRAMS {
        assert_eq!(continued(program, job), expected, "{job} of {program}");
    }
}

#[test]
fn a_file_sink_has_each_row_once() {
    check("copy", &["a,1", "a,3", "a,3", "a,3", "a,4", "b,2", "b,5", "c,9", "z,0"]);
}

#[test]
fn tumbling_windows_continue() {
    check("window", &["0,a,2,5", "0,b,1,2", "0,c,1,9", "10,a,3,9", "30,b,1,5"]);
}

#[test]
fn tumbling_windows_continue_in_continuous_mode() {
    check("window-continuous", &["0,a,2,5", "0,b,1,2", "0,c,1,9", "10,a,3,9", "30,b,1,5"]);
}

#[test]
fn sliding_windows_continue() {
    let closed_before = ["-5,a,1,1", "-5,b,1,2"];
    let closed_after =
        ["0,a,2,4", "0,b,1,2", "0,c,1,9", "10,a,3,3", "25,b,1,5", "30,b,1,5", "5,a,4,4"];
    check("sliding", &[&closed_before[..], &closed_after[..]].concat());
}

#[test]
fn session_windows_continue_from_an_old_checkpoint() {
    check("session", &["1,7,a,1", "2,8,c,1", "31,37,b,1", "4,10,b,1", "9,18,a,4"]);
}

/// In output mode update a row is emitted again when an equal row arrives, as in Spark.
#[test]
fn distinct_rows_continue() {
    check("distinct", &["a,4", "c,9", "a,3", "b,5", "z,0"]);
}

#[test]
fn counts_continue_in_continuous_mode() {
    check("count-continuous", &["a,4,11,4", "c,1,9,9", "a,5,14,4", "b,2,7,5", "z,1,0,0"]);
}
