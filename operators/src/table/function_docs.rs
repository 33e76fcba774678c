//! The descriptions of the SQL functions for users: scalar functions and operators, aggregates,
//! window functions and generators. Each function is described in the table that defines it.

use crate::table::expr::functions;
use crate::table::expr::resolve::nearest;
use crate::table::plan::aggregate_function;
use crate::table::plan::generator::GENERATORS;
use crate::table::plan::window_function::WINDOW_FUNCTIONS;

/// An example of a function, and the version that introduced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The version of Spark since which the function exists.
    pub since: &'static str,
    /// A query without its leading SELECT.
    pub example: &'static str,
    /// The rows of the example, a line for each, with `, ` between columns.
    pub result: &'static str,
}

impl Usage {
    /// The usage of a function that users cannot call.
    pub(crate) const NONE: Self = usage("", "", "");
}

/// Describes the usage of a function.
pub(crate) const fn usage(
    since: &'static str,
    example: &'static str,
    result: &'static str,
) -> Usage {
    Usage { since, example, result }
}

/// The kind of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FunctionKind {
    /// A function or operator of the values of a row.
    Scalar,
    /// A function of the values of a group.
    Aggregate,
    /// A function that makes several rows of one.
    Generator,
    /// A function of the rows around a row, with `OVER`.
    Window,
}

/// The description of a function.
#[derive(Clone, Debug)]
pub struct FunctionDoc {
    /// The name in lower case.
    pub name: String,
    /// The kind of the function.
    pub kind: FunctionKind,
    /// The help text, in one line: the signature, `: `, and the description.
    pub help: String,
    /// An example, and the version that introduced the function.
    pub usage: Usage,
}

impl FunctionDoc {
    pub(crate) fn new(name: &str, kind: FunctionKind, help: &str, usage: Usage) -> Self {
        Self { name: name.to_string(), kind, help: help.to_string(), usage }
    }

    /// Whether this is an operator: its name is not a word.
    pub fn is_operator(&self) -> bool {
        !self.name.chars().all(|c| c.is_alphanumeric() || c == '_')
    }

    /// How the function is called.
    pub fn signature(&self) -> &str {
        self.help.split_once(": ").map_or(&self.help, |(signature, _)| signature)
    }

    /// What the function returns.
    pub fn description(&self) -> &str {
        self.help.split_once(": ").map_or("", |(_, description)| description)
    }
}

/// The descriptions of all functions that a query can call, ordered by name and kind.
pub fn all() -> Vec<FunctionDoc> {
    let aggregates = aggregate_function::NAMES.iter().map(|entry| {
        FunctionDoc::new(entry.name, FunctionKind::Aggregate, entry.help, entry.usage)
    });
    let generators = GENERATORS.iter().map(|entry| {
        FunctionDoc::new(entry.name, FunctionKind::Generator, entry.help, entry.usage)
    });
    let windows = WINDOW_FUNCTIONS
        .iter()
        .map(|entry| FunctionDoc::new(entry.name, FunctionKind::Window, entry.help, entry.usage));
    let scalars = functions::documented().into_iter();
    let mut docs: Vec<_> = scalars.chain(aggregates).chain(generators).chain(windows).collect();
    docs.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
    docs
}

/// The descriptions of the functions with a name, in any case: several if an aggregate and a scalar
/// function share it.
pub fn named(name: &str) -> Vec<FunctionDoc> {
    all().into_iter().filter(|doc| doc.name.eq_ignore_ascii_case(name)).collect()
}

/// The names of the functions that are nearest to an unknown one: at most three, nearest first. The
/// list is empty if none is similar.
pub fn near(name: &str) -> Vec<String> {
    let docs = all();
    let names = docs.iter().filter(|doc| !doc.is_operator()).map(|doc| doc.name.as_str());
    let mut near = nearest(name, names);
    near.retain(|(off, _)| *off <= 2 || off * 3 <= name.len());
    near.dedup();
    near.into_iter().take(3).map(|(_, name)| name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_a_signature_a_description_and_an_example() {
        for doc in all() {
            let Usage { since, example, result } = doc.usage;
            assert!(!doc.signature().is_empty() && !doc.description().is_empty(), "{doc:?}");
            assert!(!doc.help.contains('\n'), "{doc:?}");
            assert!(!since.is_empty() && !example.is_empty() && !result.is_empty(), "{doc:?}");
        }
    }

    #[test]
    fn the_brackets_of_a_signature_are_closed() {
        for doc in all() {
            for (open, close) in [('(', ')'), ('[', ']')] {
                let depth = doc.signature().chars().try_fold(0_usize, |depth, c| match c {
                    c if c == open => Some(depth + 1),
                    c if c == close => depth.checked_sub(1),
                    _ => Some(depth),
                });
                assert_eq!(depth, Some(0), "{doc:?}");
            }
        }
    }

    #[test]
    fn the_example_of_a_function_calls_it_by_its_name() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        for doc in all() {
            let example = doc.usage.example.to_lowercase();
            let is_called = match doc.name.chars().all(is_word) {
                true => example.split(|c| !is_word(c)).any(|word| word == doc.name),
                false => example.split_whitespace().any(|word| word == doc.name),
            };
            assert!(is_called, "{doc:?}");
        }
    }

    #[test]
    fn the_nearest_names_of_an_unknown_function_are_found() {
        assert_eq!(near("uper")[0], "upper");
        assert_eq!(near("explod")[0], "explode");
        assert_eq!(near("kuurtosis")[0], "kurtosis");
        assert!(near("no_such_function_at_all").is_empty());
    }
}
