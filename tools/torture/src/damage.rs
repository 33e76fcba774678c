//! Damages the files of stopped queries and starts the queries again: every file of the checkpoint
//! and of the sink's log, except the lock, with a flipped byte, truncated, or removed. Also tests a
//! full disk and a read-only folder.
//!
//! A start with a damaged file passes if its error names the file, or if it continues and its
//! result is right. Anything else makes this command fail.

use clap::Args as ClapArgs;
use millstream::session::{Session, StreamingQuery, Trigger};
use millstream::table::types::Schema;
use std::fmt::Display;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(ClapArgs)]
pub struct Args {
    /// Working folder; by default a new temporary folder
    #[arg(long)]
    dir: Option<PathBuf>,
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// A query that can be run repeatedly. Each run returns the whole result so far.
struct Subject {
    name: &'static str,
    dir: PathBuf,
    run: Run,
}

/// Runs over all available input. Returns the whole result so far.
type Run = fn(&Path) -> Result<String, String>;

fn session() -> Result<Session, String> {
    let session = Session::new();
    session.set("millstream.pin", "false").map_err(text)?;
    Ok(session)
}

fn table(session: &Session) -> String {
    let rows = session.table("out").map(|table| table.rows()).unwrap_or_default();
    let mut rows: Vec<_> = rows.iter().map(|row| format!("{row:?}")).collect();
    rows.sort();
    rows.join(" ")
}

/// Counts the rows of files by key. The result is the whole table.
fn counted(dir: &Path) -> Result<String, String> {
    let session = session()?;
    let reader = session.read_stream().format("json").option("path", dir.join("in").display());
    let schema = Schema::parse_ddl("k BIGINT").map_err(text)?;
    let rows = reader.schema(schema).option("maxFilesPerTrigger", 1).load().map_err(text)?;
    let counts = rows.group_by([millstream::table::expr::col("k")]).count().map_err(text)?;
    let writer = counts.write_stream().output_mode("complete").format("memory");
    let writer = writer.query_name("out").trigger(Trigger::AvailableNow);
    let query = writer.option("checkpointLocation", dir.join("checkpoint").display());
    query.start().map_err(text)?.await_termination().map_err(text)?;
    Ok(table(&session))
}

/// Copies files through a file sink's log. The result is what readers of the log see.
fn copied(dir: &Path) -> Result<String, String> {
    let session = session()?;
    let reader = session.read_stream().format("text").option("path", dir.join("in").display());
    let rows = reader.option("maxFilesPerTrigger", 1).load().map_err(text)?;
    let writer = rows.write_stream().format("text").trigger(Trigger::AvailableNow);
    let writer = writer.option("path", dir.join("out").display());
    let query = writer.option("checkpointLocation", dir.join("checkpoint").display());
    query.start().map_err(text)?.await_termination().map_err(text)?;
    let storage = millstream_engine::env::storage::FileStorage;
    let files = millstream::connect::file::committed_files(&storage, &dir.join("out"));
    let mut lines = Vec::new();
    for path in files.map_err(text)?.unwrap_or_default() {
        let bytes =
            std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        lines.extend(bytes.lines().map(str::to_string));
    }
    lines.sort();
    Ok(lines.join(" "))
}

/// Counts the lines of a durable socket. Each run receives ten more lines.
fn received(dir: &Path) -> Result<String, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(text)?;
    let port = listener.local_addr().map_err(text)?.port();
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut peer, _) = listener.accept()?;
        peer.write_all(b"a\nb\na\na\nb\na\na\nb\na\na\n")?;
        peer.shutdown(std::net::Shutdown::Write)?;
        // Reads until the query closes the connection, so that no line is lost with it.
        peer.read_to_end(&mut Vec::new()).map(drop)
    });
    let session = session()?;
    let reader = session.read_stream().format("socket").option("host", "127.0.0.1");
    let reader = reader.option("port", port).option("durable", true).option("atEnd", "stop");
    reader.load().map_err(text)?.create_temp_view("lines");
    let counts = session.sql("SELECT value, count(*) AS c FROM lines GROUP BY value");
    let writer = counts.map_err(text)?.write_stream().output_mode("complete").format("memory");
    let writer = writer.query_name("out").trigger(Trigger::AvailableNow);
    let query = writer.option("checkpointLocation", dir.join("checkpoint").display()).start();
    let ended = query
        .map_err(text)
        .and_then(|query: StreamingQuery| query.await_termination().map_err(text));
    if ended.is_err() {
        // The sender may still wait for its first peer.
        drop(std::net::TcpStream::connect(("127.0.0.1", port)));
    }
    drop(sender.join());
    ended?;
    Ok(table(&session))
}

/// A kind of damage.
#[derive(Clone, Copy)]
enum Damage {
    Flip,
    Cut,
    Remove,
}

impl Damage {
    fn name(self) -> &'static str {
        match self {
            Self::Flip => "a byte flipped",
            Self::Cut => "cut in half",
            Self::Remove => "removed",
        }
    }

    fn apply(self, path: &Path) -> std::io::Result<()> {
        let mut bytes = std::fs::read(path)?;
        // The damage hits the middle of the content. The file may be longer than its content, with
        // zeros at the end.
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        match self {
            Self::Flip => bytes.get_mut(used / 2).into_iter().for_each(|byte| *byte ^= 1),
            Self::Cut => bytes.truncate(used / 2),
            Self::Remove => return std::fs::remove_file(path),
        }
        std::fs::write(path, bytes)
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        return std::fs::copy(from, to).map(drop);
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Adds every file below a folder, at any depth, to `out`.
fn files(folder: &Path, out: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, out)?;
        } else {
            out.push(path);
        }
    }
    Ok(())
}

/// Whether an error names a file. An error about a hidden file `.N.crc` must name the file `N` that
/// it belongs to.
fn names(error: &str, path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let shown = match name.strip_prefix('.').and_then(|name| name.strip_suffix(".crc")) {
        Some(name) => path.with_file_name(name),
        None => path.to_path_buf(),
    };
    error.contains(&shown.display().to_string())
}

fn outcome(subject: &Subject, damaged: Option<&Path>, right: &[String]) -> Result<String, String> {
    match (subject.run)(&subject.dir) {
        Ok(answer) if right.contains(&answer) => Ok("goes on, answer right".to_string()),
        Ok(answer) => Err(format!("WRONG ANSWER {answer}, not {}", right.join(" or "))),
        Err(error) => match damaged {
            Some(path) if !names(&error, path) => Err(format!("DOES NOT NAME THE FILE: {error}")),
            _ => {
                let name = damaged.and_then(|path| path.parent()?.parent().map(Path::to_path_buf));
                let short = name.map_or(error.clone(), |dir| {
                    error.replace(&format!("{}/", dir.display()), "…/")
                });
                Ok(format!("refused: {short}"))
            }
        },
    }
}

fn damage(subject: &Subject, failures: &mut u64) -> Result<(), String> {
    // The query runs three times, each time with new input.
    let input = subject.dir.join("in");
    std::fs::create_dir_all(&input).map_err(text)?;
    let mut right = String::new();
    let write = |n: u64| {
        let line = format!("{{\"k\": {}}}\n", n % 2);
        std::fs::write(input.join(n.to_string()), line).map_err(text)
    };
    for n in 0..3 {
        write(n)?;
        right = (subject.run)(&subject.dir)?;
    }
    write(3)?;
    let saved = subject.dir.with_extension("saved");
    copy(&subject.dir, &saved).map_err(text)?;
    let next = (subject.run)(&subject.dir)?;
    let right = [next, right];
    let mut all = Vec::new();
    for folder in ["checkpoint", "out/_spark_metadata"] {
        let folder = saved.join(folder);
        if folder.is_dir() {
            files(&folder, &mut all).map_err(text)?;
        }
    }
    all.sort();
    for path in all.iter().filter(|path| !path.ends_with("lock")) {
        let below = path.strip_prefix(&saved).map_err(text)?;
        for deed in [Damage::Flip, Damage::Cut, Damage::Remove] {
            std::fs::remove_dir_all(&subject.dir).map_err(text)?;
            copy(&saved, &subject.dir).map_err(text)?;
            let path = subject.dir.join(below);
            deed.apply(&path).map_err(text)?;
            let name = below.display().to_string();
            match outcome(subject, Some(&path), &right[..1]) {
                Ok(what) => println!("{:9} {name:38} {:14} {what}", subject.name, deed.name()),
                Err(what) => {
                    *failures += 1;
                    println!("{:9} {name:38} {:14} FAILED {what}", subject.name, deed.name());
                }
            }
        }
    }
    Ok(())
}

fn mount(args: &[&str], dir: &Path) -> bool {
    let status = Command::new("mount").args(args).arg(dir).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Tests a disk that fills up and a read-only folder, for the checkpoint and for the output.
fn disks(dir: &Path, failures: &mut u64) -> Result<(), String> {
    let folder = dir.join("disk");
    std::fs::create_dir_all(&folder).map_err(text)?;
    if !mount(&["-t", "tmpfs", "-o", "size=256k", "tmpfs"], &folder) {
        println!(
            "LEFT OUT: a full disk and a read-only folder, which need the right to mount a tmpfs"
        );
        return Ok(());
    }
    let subject = Subject { name: "copied", dir: folder.clone(), run: copied };
    let result = (|| {
        std::fs::create_dir_all(folder.join("in")).map_err(text)?;
        let line = format!("{}\n", "x".repeat(2000));
        for n in 0..60 {
            std::fs::write(folder.join("in").join(n.to_string()), &line).map_err(text)?;
        }
        let whole = vec![vec![line.trim(); 60].join(" ")];
        let mut say = |what: &str, outcome: Result<String, String>, must_fail: bool| {
            let failed = outcome.as_ref().map_or(true, |o| o.starts_with("refused") != must_fail);
            *failures += u64::from(failed);
            let shown = outcome.unwrap_or_else(|e| e.chars().take(200).collect());
            println!("{:9} {what:53} {}{shown}", "disk", if failed { "FAILED " } else { "" });
        };
        say("full (256 KiB)", outcome(&subject, None, &whole), true);
        if !mount(&["-o", "remount,size=16m"], &folder) {
            return Err("cannot make the disk larger".to_string());
        }
        say("with room again", outcome(&subject, None, &whole), false);
        std::fs::write(folder.join("in/60"), &line).map_err(text)?;
        if !mount(&["-o", "remount,ro"], &folder) {
            return Err("cannot make the disk read-only".to_string());
        }
        say("read-only", outcome(&subject, None, &whole), true);
        if !mount(&["-o", "remount,rw"], &folder) {
            return Err("cannot make the disk writable".to_string());
        }
        let whole = vec![vec![line.trim(); 61].join(" ")];
        say("writable again", outcome(&subject, None, &whole), false);
        Ok(())
    })();
    let unmounted = Command::new("umount").arg(&folder).status().map_err(text)?;
    if !unmounted.success() {
        return Err(format!("cannot unmount {}", folder.display()));
    }
    result
}

/// Runs all tests and prints the results as a table.
pub fn run(args: &Args) -> Result<(), String> {
    let dir = args.dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("millstream-damage-{}", std::process::id()))
    });
    let mut failures = 0;
    let subjects: [(&'static str, Run); 3] =
        [("counted", counted), ("copied", copied), ("received", received)];
    for (name, run) in subjects {
        damage(&Subject { name, dir: dir.join(name), run }, &mut failures)?;
    }
    disks(&dir, &mut failures)?;
    if failures > 0 {
        return Err(format!("{failures} of these starts were wrong; see {}", dir.display()));
    }
    if args.dir.is_none() {
        std::fs::remove_dir_all(&dir).map_err(text)?;
    }
    println!("every damage was named or did no harm");
    Ok(())
}
