//! The interactive shell: a line editor with history and completion around a session, whose tables,
//! views and settings last from statement to statement.
//!
//! A statement runs on this thread. Ctrl-C cancels it through the session from the thread of the
//! signal handler; while a line is edited, Ctrl-C is a key that discards the line.

use crate::failure::Failure;
use crate::functions;
use crate::progress;
use crate::sql::completion::Assistant;
use crate::sql::result::{Format, ResultPrinter};
use crate::sql::signals::on_ctrl_c;
use crate::stdout::say;
use clap::ValueEnum;
use millstream::session::Session;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

/// The commands of the shell, with a line of help.
pub(super) const COMMANDS: &[(&str, &str)] = &[
    ("\\?", "this help (also: help)"),
    ("\\d", "the tables and views of the session"),
    ("\\d NAME", "the columns of a table or view"),
    ("\\f NAME", "a function: signature, example (also: help NAME)"),
    ("\\format F", "the format of results: table, json, csv or markdown"),
    ("\\timing", "switches the time of each statement on or off"),
    ("\\q", "leaves the shell (also: exit, quit, Ctrl-D)"),
];

const WELCOME: &str = "Statements end with ';'. \\? shows help, Ctrl-D leaves.";

/// What the shell does after an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Read,
    Leave,
}

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// The error is printed.
    Failed,
    Leave,
}

struct Shell {
    session: Session,
    printer: ResultPrinter,
    timing: bool,
    quiet: bool,
    /// 0 while no statement runs, otherwise one more than the signals that it has got.
    signals: Arc<AtomicU8>,
}

/// Reads inputs until the user leaves.
pub(super) fn run(session: Session, printer: ResultPrinter, quiet: bool) -> Result<(), Failure> {
    let failed = |error: ReadlineError| Failure::Failed(format!("the terminal: {error}"));
    let config = Config::builder().completion_type(CompletionType::List).build();
    let mut editor = Editor::<Assistant, FileHistory>::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Assistant::new(session.clone())));
    let history = history_file();
    if let Some(file) = &history {
        // The file does not exist before the first entry.
        drop(editor.load_history(file));
    }
    let signals = Arc::new(AtomicU8::new(0));
    let mut shell = Shell { session, printer, timing: true, quiet, signals };
    shell.catch_signals()?;
    eprintln!("{WELCOME}");
    loop {
        let input = match editor.readline("millstream> ") {
            Ok(input) => input,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if input.trim().is_empty() {
            continue;
        }
        // A history that cannot be written is no reason to end the shell.
        drop(editor.add_history_entry(input.trim_end()));
        if let Some(file) = &history {
            drop(editor.append_history(file));
        }
        if shell.take(&input) == Next::Leave {
            return Ok(());
        }
    }
}

/// The file of the history in the user's state folder, which is created. `None` if there is no such
/// folder.
fn history_file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let state = folder("XDG_STATE_HOME").filter(|folder| folder.is_absolute());
    let state = state.or_else(|| folder("HOME").map(|home| home.join(".local/state")))?;
    let own = state.join("millstream");
    std::fs::create_dir_all(&own).ok()?;
    Some(own.join("sql_history"))
}

/// A part of an input that is carried out by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'i> {
    /// A command of the shell with its argument.
    Command(&'i str),
    Statement(&'i str),
}

/// Splits an input into its steps, and says whether the last one has ended. A command ends with the
/// input too.
pub(super) fn steps<'i>(session: &Session, input: &'i str) -> (Vec<Step<'i>>, bool) {
    let (mut steps, mut left) = (Vec::new(), input);
    loop {
        let split = session.split_statements(left);
        let rest = (!split.is_rest_blank).then_some(split.rest);
        let mut behind_command = None;
        for text in split.ended.into_iter().chain(rest) {
            // Text of a split is a part of what was split.
            let start = text.as_ptr() as usize - left.as_ptr() as usize;
            if let Some((command, behind)) = command(&left[start..]) {
                steps.push(Step::Command(command));
                behind_command = Some(behind);
                break;
            }
            steps.push(Step::Statement(text));
        }
        // A quote in a command does not continue behind its semicolon, so the input is split anew.
        let Some(behind) = behind_command else { return (steps, rest.is_none()) };
        left = behind;
    }
}

/// The command of the shell with which an input begins, and the input after the semicolon that ends
/// the command; `None` if the input begins with SQL.
fn command(input: &str) -> Option<(&str, &str)> {
    let (text, rest) = input.split_once(';').unwrap_or((input, ""));
    let mut words = text.split_whitespace();
    let is_named = |word: &str, names: &[&str]| names.iter().any(|n| word.eq_ignore_ascii_case(n));
    let is_command = match (words.next(), words.next(), words.next()) {
        (Some(word), ..) if word.starts_with('\\') => true,
        (Some(word), None, None) => is_named(word, &["help", "exit", "quit"]),
        (Some(word), Some(_), None) => is_named(word, &["help"]),
        _ => false,
    };
    is_command.then(|| (text.trim(), rest))
}

impl Shell {
    /// Makes Ctrl-C cancel the running statement. The third one ends the process, in case the
    /// statement does not heed it. While no statement runs, the signal of Ctrl-C is ignored: the key
    /// does not send it then, except in the moment after a statement has ended.
    fn catch_signals(&self) -> Result<(), Failure> {
        let (session, signals) = (self.session.clone(), self.signals.clone());
        on_ctrl_c(move || {
            let more = |signals: u8| (signals > 0).then(|| signals.saturating_add(1));
            // ORDERING: relaxed: nothing else depends on the number.
            match signals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
                Ok(1 | 2) => session.cancel_script(),
                Ok(_) => std::process::exit(130),
                Err(_) => {}
            }
        })
    }

    /// Carries out the commands and statements of an input, up to the first that fails.
    fn take(&mut self, input: &str) -> Next {
        for step in steps(&self.session, input).0 {
            let outcome = match step {
                Step::Command(command) => self.command(command),
                Step::Statement(statement) => self.execute(statement),
            };
            match outcome {
                Outcome::Done => {}
                Outcome::Failed => break,
                Outcome::Leave => return Next::Leave,
            }
        }
        Next::Read
    }

    /// Runs a statement and prints its result and its time.
    fn execute(&self, statement: &str) -> Outcome {
        let (start, mut shown) = (Instant::now(), None);
        let watch = progress::Watch::start(self.quiet, {
            let session = self.session.clone();
            move || session.statement_records()
        });
        // The script begins before signals are counted: a signal that comes before its statement
        // runs cancels it too.
        let script = self.session.begin_script();
        // ORDERING: relaxed: a signal locks the session to cancel the script, which begins under
        // the same lock.
        self.signals.store(1, Ordering::Relaxed);
        let outcome = script.run(statement, &mut |frame| {
            shown = Some(self.printer.print(&frame)?);
            Ok(())
        });
        // ORDERING: relaxed: a signal that is still counted finds no script to cancel.
        self.signals.store(0, Ordering::Relaxed);
        drop(watch);
        if let Err(error) = &outcome {
            progress::notice(&format!("error: {error}"));
        }
        if self.timing {
            let seconds = start.elapsed().as_secs_f64();
            let what = match shown {
                _ if outcome.is_err() => "failed".to_string(),
                Some(1) => "1 row".to_string(),
                Some(rows) => format!("{rows} rows"),
                None => "done".to_string(),
            };
            progress::notice(&format!("{what} in {seconds:.3} s"));
        }
        if outcome.is_ok() { Outcome::Done } else { Outcome::Failed }
    }

    fn command(&mut self, input: &str) -> Outcome {
        let failed = |reason: &str| {
            progress::notice(&format!("error: {reason}"));
            Outcome::Failed
        };
        let mut words = input.split_whitespace();
        let (name, argument) = (words.next().unwrap_or_default(), words.next());
        if words.next().is_some() {
            return failed(&format!("{name} takes one argument at most; \\? shows help"));
        }
        match (name.to_ascii_lowercase().as_str(), argument) {
            ("\\q" | "exit" | "quit", _) => return Outcome::Leave,
            ("\\?" | "\\h" | "help", None) => help(),
            ("\\f" | "\\h" | "help", Some(function)) => {
                if let Err(reason) = functions::describe(function) {
                    return failed(&reason.to_string());
                }
            }
            ("\\d", None) => return self.execute("SHOW TABLES"),
            ("\\d", Some(table)) => return self.execute(&format!("DESCRIBE {table}")),
            ("\\timing", None) => {
                self.timing = !self.timing;
                progress::notice(if self.timing { "timing is on" } else { "timing is off" });
            }
            ("\\format", Some(format)) => match Format::from_str(format, true) {
                Ok(format) => {
                    self.printer.format = format;
                    self.printer.prepare(&self.session);
                    progress::notice(&format!("the format is {}", argument.unwrap_or_default()));
                }
                Err(_) => return failed("the formats are table, json, csv and markdown"),
            },
            _ => return failed(&format!("there is no command {input}; \\? lists them")),
        }
        Outcome::Done
    }
}

fn help() {
    say!("SQL statements end with ';' and may have several lines. Tables, views and settings last");
    say!(
        "until the shell ends. Ctrl-C cancels a statement, or discards the line that is edited.\n"
    );
    for (name, what) in COMMANDS {
        say!("  {name:<12}{what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_shell_are_commands_and_sql_is_not() {
        for input in ["\\?", "\\d people", "help", "HELP upper;", "exit;", "quit", "\\x y z"] {
            assert!(command(input).is_some(), "{input}");
        }
        for input in ["SELECT 1", "help me please", "exit now", "", "SELECT help FROM t"] {
            assert!(command(input).is_none(), "{input}");
        }
        assert_eq!(command("\\d t; SELECT 1; SELECT 2"), Some(("\\d t", " SELECT 1; SELECT 2")));
    }

    #[test]
    fn an_input_has_commands_and_statements_in_any_order() {
        let found = steps(&Session::new(), "\\d it's; SELECT ';'; \\timing; help upper ; SELECT 2");
        let [d, timing, help] = ["\\d it's", "\\timing", "help upper"].map(Step::Command);
        let [first, last] = ["SELECT ';'", " SELECT 2"].map(Step::Statement);
        assert_eq!(found, (vec![d, first, timing, help, last], false));
    }

    #[test]
    fn a_quote_in_a_command_ends_with_the_command_behind_a_statement_too() {
        let input = "SELECT 1; \\d it's; SELECT 'a;b'; \\d \"x; SELECT 2; SELECT 3;";
        let found = steps(&Session::new(), input);
        let one = Step::Statement("SELECT 1");
        let [ab, two, three] = ["SELECT 'a;b'", "SELECT 2", "SELECT 3"].map(Step::Statement);
        let [its, x] = ["\\d it's", "\\d \"x"].map(Step::Command);
        assert_eq!(found, (vec![one, its, ab, x, two, three], true));
    }

    fn shell() -> Shell {
        let printer = ResultPrinter { format: Format::Csv, rows: None, truncate: false };
        let (session, signals) = (Session::new(), Arc::default());
        Shell { session, printer, timing: true, quiet: true, signals }
    }

    #[test]
    fn a_command_behind_a_statement_is_carried_out() {
        let mut shell = shell();
        assert_eq!(shell.take("CREATE TABLE a (n INT); \\timing; \\d a"), Next::Read);
        assert!(!shell.timing);
        assert_eq!(shell.take("CREATE TABLE b (n INT); exit"), Next::Leave);
        assert_eq!(shell.session.relations().len(), 2);
    }

    #[test]
    fn nothing_is_carried_out_after_a_step_that_failed() {
        let mut shell = shell();
        for failing in ["\\nosuch", "\\timing 1 2", "\\f nosuch", "\\format nosuch", "\\d nosuch"] {
            assert_eq!(shell.take(&format!("{failing}; CREATE TABLE a (n INT)")), Next::Read);
            assert!(shell.session.relations().is_empty(), "{failing}");
        }
        shell.take("SELECT nosuch; \\timing");
        assert!(shell.timing);
    }

    #[test]
    fn what_follows_a_command_in_the_same_input_is_carried_out() {
        let mut shell = shell();
        assert_eq!(
            shell.take("\\timing; CREATE TABLE a (n INT); CREATE TABLE b (n INT)"),
            Next::Read
        );
        assert!(!shell.timing);
        assert_eq!(shell.session.relations().len(), 2);
        assert_eq!(shell.take("\\timing; \\q; DROP TABLE a;"), Next::Leave);
        assert!(shell.timing && shell.session.relations().len() == 2);
    }
}
