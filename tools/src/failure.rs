//! Failures of a command: the message and the exit code.

/// The error message and the exit code of a failed command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The job, an input or the command line is wrong (exit code 2).
    Wrong(String),
    /// The command failed while running (exit code 1).
    Failed(String),
    /// A test could not be decided on this machine (exit code 3).
    Invalid(String),
}

impl From<millstream::session::QueryError> for Failure {
    fn from(error: millstream::session::QueryError) -> Self {
        match &error {
            millstream::session::QueryError::Plan(_) => Self::Wrong(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<millstream::EngineError> for Failure {
    fn from(error: millstream::EngineError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
