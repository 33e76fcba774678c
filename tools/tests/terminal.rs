//! What the command line does on a terminal, a pseudo-terminal here: the shell of `millstream sql`,
//! and progress.
#![cfg(target_os = "linux")]

mod common;

use common::Scratch;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time limit for an expected output. It ends a test that waits in vain.
const LIMIT: Duration = Duration::from_secs(60);

/// A shell whose terminal is a test.
struct Terminal {
    shell: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What the shell has printed since the last text that was expected.
    printed: String,
}

impl Terminal {
    /// Starts a shell that keeps its history in a folder.
    fn shell(scratch: &Scratch, args: &[&str]) -> Self {
        let mut terminal = Self::start(scratch, &[&["sql"], args].concat());
        terminal.expect("millstream>");
        terminal
    }

    /// Starts a command.
    fn start(scratch: &Scratch, args: &[&str]) -> Self {
        Self::start_with(scratch, args, None)
    }

    /// Starts a command whose standard output is a file, or the terminal.
    fn start_with(scratch: &Scratch, args: &[&str], out: Option<File>) -> Self {
        // A command that another test starts meanwhile would inherit this terminal and keep it open.
        static STARTING: Mutex<()> = Mutex::new(());
        let starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let size = Winsize { ws_row: 40, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        fcntl(&pty.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        let end = || File::from(pty.slave.try_clone().unwrap());
        // A session of its own makes the terminal send Ctrl-C to the shell.
        let mut command = Command::new("setsid");
        // Tests that run under `nohup` ignore SIGHUP, and a command inherits that.
        command.args(["--ctty", "--wait", "env", "--default-signal=INT,TERM,HUP"]);
        command.arg(env!("CARGO_BIN_EXE_millstream")).args(args);
        command.env("XDG_STATE_HOME", &scratch.0).env("TERM", "xterm");
        let shell =
            command.stdin(end()).stdout(out.unwrap_or_else(end)).stderr(end()).spawn().unwrap();
        drop(pty.slave);
        drop(starting);
        let keyboard = File::from(pty.master);
        let mut reader = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Reading fails when the shell has closed its end.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { shell, keyboard, screen, printed: String::new() }
    }

    /// Sends a signal to the command, which is a child of `setsid`, or is what `setsid` became.
    fn signal(&self, name: &str) {
        let own = self.shell.id().to_string();
        let children = format!("/proc/{own}/task/{own}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let id = children.split_whitespace().next().unwrap_or(&own);
        assert!(Command::new("kill").args([&format!("-{name}"), id]).status().unwrap().success());
    }

    fn send(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the shell prints a text. Returns what it printed before.
    fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.printed.find(text) {
                let rest = self.printed.split_off(at + text.len());
                return std::mem::replace(&mut self.printed, rest);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.printed.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{text} is not printed, but:\n{}", self.printed),
            }
        }
    }

    /// Enters lines and waits for the prompt after the text that they make the shell print.
    fn enter(&mut self, lines: &str, text: &str) -> String {
        self.send(&format!("{lines}\r"));
        let before = self.expect(text);
        self.expect("millstream>");
        before
    }

    /// The exit code, after the shell was made to leave.
    fn code(mut self) -> Option<i32> {
        let deadline = Instant::now() + LIMIT;
        while self.screen.recv_timeout(LIMIT) != Err(RecvTimeoutError::Disconnected) {
            assert!(Instant::now() < deadline, "the shell has not left");
        }
        self.shell.wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // After a failure the command may still be running.
        if std::thread::panicking() {
            self.signal("KILL");
        }
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn tables_last_between_statements_that_may_have_several_lines() {
    let scratch = Scratch::new("shell-tables");
    let mut shell = Terminal::shell(&scratch, &[]);
    shell.enter("CREATE TABLE t (n INT);", "done in");
    shell.enter("INSERT INTO t VALUES (1),\r(2);", "done in");
    let total = shell.enter("SELECT sum(n) AS total FROM t;", "1 row in");
    assert!(total.contains("|total|") && total.contains("|3    |"), "{total}");
    // The first failure ends an input, and not the shell.
    let failed = shell.enter("SELECT 1 / 0 AS bad; SELECT 7 AS never;", "failed in");
    assert!(failed.contains("DIVIDE_BY_ZERO") && !failed.contains("|never|"), "{failed}");
    let described = shell.enter("\\d t", "1 row in");
    assert!(described.contains("|n ") && described.contains("|int"), "{described}");
    shell.enter("\\format json", "the format is json");
    shell.enter("SELECT n FROM t ORDER BY n;", "{\"n\":1}\r\n{\"n\":2}\r\n");
    shell.enter("help upper", "MILLSTREAM");
    shell.send("\x04");
    assert_eq!(shell.code(), Some(0));
}

#[test]
fn ctrl_c_ends_the_statement_and_not_the_shell() {
    let scratch = Scratch::new("shell-ctrl-c");
    let mut shell = Terminal::shell(&scratch, &[]);
    // A signal while no statement runs does not end the shell. It may arrive in the next statement.
    shell.signal("INT");
    shell.enter("SELECT 1 AS one;", " in ");
    shell.send("SELECT count(*) FROM range(10000000000);\r");
    // The statement runs: its progress is shown.
    shell.expect("running, ");
    shell.send("\x03");
    shell.expect("OPERATION_CANCELED");
    shell.expect("millstream>");
    // At the prompt, Ctrl-C discards the line.
    shell.send("SELECT nonsense \x03");
    shell.expect("millstream>");
    let one = shell.enter("SELECT 1 AS one;", "1 row in");
    assert!(one.contains("|one|"), "{one}");
    shell.send("\\q\r");
    assert_eq!(shell.code(), Some(0));
}

#[test]
fn sigterm_and_sighup_end_a_shell_that_waits_for_input() {
    let scratch = Scratch::new("shell-signals");
    for name in ["TERM", "HUP"] {
        let shell = Terminal::shell(&scratch, &[]);
        shell.signal(name);
        assert_ne!(shell.code(), Some(0), "SIG{name}");
    }
}

/// A prompt would be part of the file.
#[test]
fn with_standard_output_in_a_file_the_terminal_is_read_as_a_script() {
    let scratch = Scratch::new("shell-output");
    let out = File::create(scratch.file("out")).unwrap();
    let mut script = Terminal::start_with(&scratch, &["sql", "--format", "csv"], Some(out));
    script.expect("enter statements");
    script.expect("Ctrl-D");
    script.expect("\n");
    script.send("SELECT 1 AS one;\r\x04");
    assert_eq!(script.code(), Some(0));
    assert_eq!(scratch.read("out"), "one\n1\n");
}

#[test]
fn words_are_completed_and_the_history_lasts() {
    let scratch = Scratch::new("shell-history");
    let mut shell = Terminal::shell(&scratch, &[]);
    shell.send("SELECT uppe\t");
    shell.expect("upper");
    let done = shell.enter("('ab') AS u;", "1 row in");
    assert!(done.contains("|AB |"), "{done}");
    shell.send("exit\r");
    assert_eq!(shell.code(), Some(0));
    assert!(scratch.read("millstream/sql_history").contains("SELECT upper('ab') AS u;"));
    let mut shell = Terminal::shell(&scratch, &["--format", "csv"]);
    // Up twice: before `exit` is the query.
    shell.send("\x1b[A\x1b[A");
    shell.expect("SELECT upper('ab') AS u;");
    shell.send("\r");
    shell.expect("u\r\nAB\r\n");
    // Before the prompt, the terminal itself would take Ctrl-D.
    shell.expect("millstream>");
    shell.send("\x04");
    assert_eq!(shell.code(), Some(0));
}

#[test]
fn a_long_run_shows_its_progress_on_a_terminal() {
    let scratch = Scratch::new("shell-run");
    scratch.write(
        "job.sql",
        "CREATE TEMPORARY VIEW r USING rate OPTIONS (rowsPerSecond 100);\n\
         CREATE STREAMING TABLE t USING noop AS SELECT * FROM STREAM r;\n",
    );
    let mut run = Terminal::start(&scratch, &["run", &scratch.path("job.sql")]);
    run.expect(" records, ");
    run.expect("/s, ");
    run.send("\x03");
    run.expect("records in");
    assert_eq!(run.code(), Some(0));
}

#[test]
fn reports_on_a_terminal_are_printed_while_the_progress_line_is_hidden() {
    let scratch = Scratch::new("shell-reports");
    scratch.write(
        "job.sql",
        "CREATE TEMPORARY VIEW r USING rate OPTIONS (rowsPerSecond 100);\n\
         CREATE STREAMING TABLE t USING noop AS SELECT * FROM STREAM r;\n",
    );
    let job = scratch.path("job.sql");
    let mut run = Terminal::start(&scratch, &["run", &job, "--progress", "-"]);
    run.expect("/s, ");
    let before = run.expect("{\"");
    assert!(before.ends_with("\x1b[2K{\""), "{before:?}");
    run.send("\x03");
    run.expect("records in");
    assert_eq!(run.code(), Some(0));
}
