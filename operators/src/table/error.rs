//! Planning errors: problems of a query that are found before the query starts.

use millstream_engine::error::EngineError;
use std::fmt;

/// A position in a job file. Lines and columns count from 1; 0 means unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// The line, from 1.
    pub line: u64,
    /// The column in the line, from 1.
    pub column: u64,
}

/// Why a query was rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct PlanError {
    /// Spark's error condition if there is one, otherwise a stable name of Millstream's.
    pub condition: String,
    /// The problem.
    pub reason: String,
    /// The suggested fix; empty if the reason implies it.
    pub fix: String,
    /// The position of the error.
    pub place: Place,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.condition)?;
        if self.place.line > 0 {
            write!(f, " at line {}, column {}", self.place.line, self.place.column)?;
        }
        write!(f, ": {}", self.reason)?;
        if !self.fix.is_empty() {
            write!(f, "\n  fix: {}", self.fix)?;
        }
        Ok(())
    }
}

impl PlanError {
    /// Creates an error without a position.
    pub fn new(
        condition: impl Into<String>,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            condition: condition.into(),
            reason: reason.into(),
            fix: fix.into(),
            place: Place::default(),
        }
    }

    /// The error of a feature that Millstream does not support yet.
    pub fn not_yet(what: impl fmt::Display) -> Self {
        Self::new(
            "NOT_YET_SUPPORTED",
            format!("{what} is not supported yet"),
            "See the table 'what works' in the README",
        )
    }

    /// Sets the position of the error, unless the error has one already.
    pub fn at(mut self, place: Place) -> Self {
        if self.place.line == 0 {
            self.place = place;
        }
        self
    }
}

impl From<PlanError> for EngineError {
    fn from(error: PlanError) -> Self {
        Self::operator(error.condition, error.reason, error.fix)
    }
}

/// A number of things, such as `1 column` or `2 columns`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// The result of planning.
pub type PlanResult<T> = Result<T, PlanError>;
