//! What the shell's line editor needs to know of SQL: whether an input is complete, and how a word
//! may go on.

use crate::sql::shell;
use millstream::session::Session;
use millstream::table::function_docs;
use millstream::table::sql::keywords;
use rustyline::Context;
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use std::collections::BTreeSet;

/// A keyword of Millstream that Spark does not have.
const OWN_KEYWORD: &str = "SKEW";

/// The line editor's knowledge of SQL and of the session.
pub(super) struct Assistant {
    session: Session,
    functions: Vec<String>,
}

impl Assistant {
    pub fn new(session: Session) -> Self {
        let functions = function_docs::all().into_iter().filter(|doc| !doc.is_operator());
        Self { session, functions: functions.map(|doc| doc.name).collect() }
    }

    /// The words that begin with the part of a word before the cursor, and where that part begins.
    fn words(&self, line: &str, cursor: usize) -> (usize, Vec<String>) {
        let before = &line[..cursor];
        let part = before.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_').len();
        let (begin, typed) = (&before[..part], before[part..].to_lowercase());
        if begin.trim_start() == "\\" {
            let commands = shell::COMMANDS.iter().map(|(name, _)| name.trim_start_matches('\\'));
            let commands = commands.filter_map(|name| name.split(' ').next());
            let found = commands.filter(|name| !name.is_empty() && name.starts_with(&typed));
            return (part, found.map(str::to_string).collect());
        }
        let relations = self.session.relations();
        let mut found = BTreeSet::new();
        let mut add = |word: &str| {
            if word.to_lowercase().starts_with(&typed) {
                found.insert(word.to_string());
            }
        };
        let named = |(name, _): &&(String, Vec<String>)| mentions(line, name);
        let has_named = relations.iter().any(|relation| named(&relation));
        let shown = relations.iter().filter(|relation| !has_named || named(relation));
        shown.flat_map(|(_, columns)| columns).for_each(|column| add(column));
        // A word after a point is a column.
        if !begin.ends_with('.') {
            relations.iter().for_each(|(name, _)| add(name));
            self.functions.iter().for_each(|name| add(name));
            let is_small = before[part..].chars().any(char::is_lowercase);
            for keyword in keywords().chain([OWN_KEYWORD]) {
                add(&if is_small { keyword.to_lowercase() } else { keyword.to_string() });
            }
        }
        (part, found.into_iter().collect())
    }

    /// Whether the shell can take an input as it is: it ends with a command, with a statement that
    /// has ended, or it is blank.
    fn is_complete(&self, input: &str) -> bool {
        shell::steps(&self.session, input).1
    }
}

/// Whether a text contains a name as a word, in any case.
fn mentions(text: &str, name: &str) -> bool {
    let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.into_iter().any(|word| word.eq_ignore_ascii_case(name))
}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.words(line, cursor))
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        Ok(match self.is_complete(context.input()) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

impl Hinter for Assistant {
    type Hint = String;
}

impl Highlighter for Assistant {}

impl rustyline::Helper for Assistant {}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let session = Session::new();
        session.script("CREATE TABLE people (name STRING, age INT)", &mut |_| Ok(())).unwrap();
        session.script("CREATE TABLE places (city STRING)", &mut |_| Ok(())).unwrap();
        Assistant::new(session).words(text, text.len()).1
    }

    #[test]
    fn keywords_functions_tables_and_columns_complete_a_word() {
        assert_eq!(words("SELECT upp"), ["upper"]);
        assert_eq!(words("selec"), ["select"]);
        assert_eq!(words("SELEC"), ["SELECT"]);
        assert_eq!(words("SELECT * FROM peo"), ["people"]);
        assert_eq!(words("SELECT cit"), ["city"]);
        assert_eq!(words("\\forma"), ["format"]);
        assert_eq!(words("CREATE STREAMI"), ["STREAMING"]);
        assert_eq!(words("ALTER TABLE t TBLPROP"), ["TBLPROPERTIES"]);
    }

    #[test]
    fn the_columns_of_the_tables_that_are_named_come_alone() {
        assert_eq!(words("SELECT name FROM people p WHERE p."), ["age", "name"]);
        assert!(words("SELECT * FROM people WHERE cit").is_empty());
    }

    #[test]
    fn an_input_is_complete_when_its_last_statement_has_ended() {
        let assistant = Assistant::new(Session::new());
        for input in [
            "SELECT 1;",
            "SELECT 1; -- done",
            "\\d",
            "\\d t; SELECT 1;",
            "\\d t; \\q",
            "SELECT 1; \\d",
            "SELECT 1; exit",
            "help",
            "exit",
            "",
            ";",
            "-- only this",
        ] {
            assert!(assistant.is_complete(input), "{input}");
        }
        for input in ["SELECT 1", "SELECT 1; SELECT", "SELECT ';", "/* open", "\\d t; SELECT 1"] {
            assert!(!assistant.is_complete(input), "{input}");
        }
    }
}
