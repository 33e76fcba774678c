//! Runs each command of the lessons `docs/src/replay-lesson.md` and `docs/src/sql-lesson.md`, and
//! compares its output with the lesson.
//!
//! A code block that follows "`NAME`:" is the content of a file. In a `console` block, lines that
//! start with `$ ` are commands, which go on after a backslash and within double quotes. The other
//! lines are their output. Durations, sizes, times and addresses differ between runs, so only their
//! positions are compared. Bars are not compared. The other words of a line must be equal.

mod common;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Time limit of a command. It ends a command that waits in vain for a message.
const COMMAND_TIME: Duration = Duration::from_secs(120);

/// The folder of the lesson, and the process groups of its background commands.
struct Scratch {
    folder: PathBuf,
    groups: Vec<u32>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After a failure of the test, a query may still be running.
        self.groups.iter().filter(|_| std::thread::panicking()).for_each(|group| kill(*group));
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// Ends all processes of a group.
fn kill(group: u32) {
    let group = format!("-{group}");
    drop(Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status());
}

/// The output of a command that leads its process group. If it does not end in time, all processes
/// of the group are ended.
fn output_in_time(child: Child) -> Output {
    let group = child.id();
    let (ended, has_ended) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let output = child.wait_with_output().unwrap();
        // There is no receiver after the time-out.
        let _ = ended.send(());
        output
    });
    if has_ended.recv_timeout(COMMAND_TIME).is_err() {
        kill(group);
    }
    waiting.join().unwrap()
}

/// A command of the lesson and its expected output.
#[derive(Debug, Default)]
struct Step {
    line: usize,
    command: String,
    shown: Vec<String>,
}

/// Whether a command goes on in the next line: after a backslash, and within double quotes.
fn goes_on(command: &str) -> bool {
    command.ends_with('\\') || command.matches('"').count() % 2 == 1
}

/// Writes the files of a page to a folder, and returns its commands.
fn read(page: &str, folder: &Path) -> Vec<Step> {
    let (mut steps, mut file, mut block) = (Vec::<Step>::new(), None, None);
    for (number, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), block) {
            (Some(kind), None) => {
                block = Some(kind);
                if let Some(name) = file.as_ref().filter(|_| kind != "console") {
                    std::fs::write(folder.join(name), "").unwrap();
                }
            }
            (Some(_), Some(_)) => (block, file) = (None, None),
            (None, Some("console")) => match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => {
                    let command = command.to_string();
                    steps.push(Step { line: number + 1, command, shown: Vec::new() });
                }
                (None, Some(step)) if goes_on(&step.command) => {
                    step.command.push('\n');
                    step.command.push_str(line);
                }
                (None, Some(step)) => step.shown.push(line.to_string()),
                (None, None) => panic!("line {}: no command", number + 1),
            },
            (None, Some(_)) => {
                if let Some(name) = &file {
                    let text = std::fs::read_to_string(folder.join(name)).unwrap();
                    std::fs::write(folder.join(name), text + line + "\n").unwrap();
                }
            }
            (None, None) => {
                let name = line.strip_suffix("`:").and_then(|line| line.rsplit('`').next());
                file = name.map(str::to_string).or(file.filter(|_| line.is_empty()));
            }
        }
    }
    steps
}

/// A line without the parts that differ between runs.
fn shape(line: &str) -> String {
    const UNITS: [&str; 9] = ["ns", "us", "ms", "s", "B", "KiB", "MiB", "KiB/s", "MiB/s"];
    let bare = |word: &str| word.trim_matches(|c: char| ",;:()".contains(c)).to_string();
    let words: Vec<_> = line.split_whitespace().map(bare).collect();
    let (mut shape, mut at) = (Vec::new(), 0);
    while let Some(word) = words.get(at) {
        at += 1;
        let is_number = word.replace(',', "").parse::<f64>().is_ok();
        let has_digits = word.bytes().filter(u8::is_ascii_digit).count() > 3;
        if is_number && words.get(at).is_some_and(|unit| UNITS.contains(&unit.as_str())) {
            (shape, at) = ([shape, vec!["#".to_string()]].concat(), at + 1);
        } else if has_digits && word.matches([':', '-']).count() >= 2 {
            // The word is a time.
            if shape.last().is_none_or(|last| last != "#") {
                shape.push("#".to_string());
            }
        } else if word.starts_with("127.0.0.1:") {
            shape.push("127.0.0.1:#".to_string());
        } else if !word.chars().all(|c| ('▁'..='█').contains(&c)) {
            shape.push(word.clone());
        }
    }
    shape.join(" ")
}

/// Runs the commands of a page of the documentation. `change` changes its text before. Returns the
/// number of commands.
fn run_lesson(page: &str, change: impl FnOnce(String) -> String) -> usize {
    let name = format!("millstream-lesson-{page}-{}", std::process::id());
    let mut scratch = Scratch { folder: std::env::temp_dir().join(name), groups: Vec::new() };
    drop(std::fs::remove_dir_all(&scratch.folder));
    std::fs::create_dir_all(&scratch.folder).unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src").join(page);
    let page = change(std::fs::read_to_string(page).unwrap());
    let steps = read(&page, &scratch.folder);
    let count = steps.len();
    let bin = Path::new(env!("CARGO_BIN_EXE_millstream")).parent().unwrap().to_path_buf();
    let path = std::env::join_paths(
        std::iter::once(bin).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let path = path.unwrap();
    // Cores that another test holds would cause a notice.
    let temporary = scratch.folder.join(".tmp");
    std::fs::create_dir(&temporary).unwrap();
    for step in steps {
        let script = format!("exec 2>&1\n{}", step.command);
        let mut command = Command::new("bash");
        command.current_dir(&scratch.folder).env("PATH", &path).args(["-c", &script]);
        command.env("TMPDIR", &temporary);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        if step.command.ends_with('&') {
            scratch.groups.push(child.id());
        }
        let output = output_in_time(child);
        let printed = String::from_utf8(output.stdout).unwrap();
        let printed_shape: Vec<_> = printed.lines().map(shape).filter(|l| !l.is_empty()).collect();
        let shown: Vec<_> =
            step.shown.iter().map(|line| shape(line)).filter(|line| !line.is_empty()).collect();
        assert!(
            printed_shape == shown,
            "line {} of the lesson: $ {}\nprints:\n{printed}\nand not:\n{}",
            step.line,
            step.command,
            step.shown.join("\n")
        );
    }
    count
}

#[test]
fn every_command_of_the_lesson_prints_what_the_lesson_shows() {
    // The port in the lesson may not be free on this machine, so it is replaced by a free one.
    let (reserved, port) = common::reserved_port();
    let reserved = Some(reserved).filter(|_| cfg!(target_os = "linux"));
    let count = run_lesson("replay-lesson.md", |page| page.replace("9999", &port.to_string()));
    assert!(count >= 10, "{count} commands");
    drop(reserved);
}

// The lesson reads Parquet and ORC.
#[cfg(feature = "columnar")]
#[test]
fn every_query_of_the_sql_lesson_prints_what_the_lesson_shows() {
    let count = run_lesson("sql-lesson.md", |page| page);
    assert!(count >= 15, "{count} commands");
}
