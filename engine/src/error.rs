//! The errors of the runtime. Each has a stable condition name.

/// Why a query failed, or why a call was refused.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// An error with a condition of its own, for example of an operator, source, sink or
    /// checkpoint.
    #[error("{condition}: {reason}{}{}", place(.position), advice(.fix))]
    Operator {
        /// Stable name of the condition.
        condition: String,
        /// The place in the query or in its input; empty if unknown.
        position: String,
        /// A description of what is wrong.
        reason: String,
        /// The suggested fix; empty if there is none.
        fix: String,
    },
    /// An operator, a source, a sink or the driver panicked. The query ends; the process continues.
    #[error(
        "OPERATOR_PANICKED: {tasklet}: {message}. This is a bug in the operator or in a function it calls"
    )]
    Panic {
        /// The tasklet that panicked; `epochs` for the driver.
        tasklet: String,
        /// The panic's message.
        message: String,
    },
    /// The operating system refused a request of the runtime.
    #[error("RUNTIME_IO: {what}: {reason}")]
    Runtime {
        /// The request that was refused.
        what: &'static str,
        /// The system's error message.
        reason: String,
    },
    /// A simulated run did not end within the limit of steps.
    #[error("SIMULATION_STUCK: no end after {steps} steps with seed {seed}")]
    Stuck {
        /// The seed that reproduces the run.
        seed: u64,
        /// The number of steps taken.
        steps: u64,
    },
}

fn place(position: &str) -> String {
    if position.is_empty() { String::new() } else { format!(" (at {position})") }
}

fn advice(fix: &str) -> String {
    if fix.is_empty() { String::new() } else { format!(". {fix}") }
}

impl EngineError {
    /// Creates an operator's error without a position.
    pub fn operator(
        condition: impl Into<String>,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::Operator {
            condition: condition.into(),
            position: String::new(),
            reason: reason.into(),
            fix: fix.into(),
        }
    }

    /// Sets the position of an operator's error. Other errors are returned unchanged.
    pub fn at(self, place: impl Into<String>) -> Self {
        match self {
            Self::Operator { condition, reason, fix, .. } => {
                Self::Operator { condition, position: place.into(), reason, fix }
            }
            other => other,
        }
    }

    /// Creates the error of a failed system call of the runtime.
    pub fn runtime(what: &'static str, error: std::io::Error) -> Self {
        Self::Runtime { what, reason: error.to_string() }
    }

    /// The stable name of the condition.
    pub fn condition(&self) -> &str {
        match self {
            Self::Operator { condition, .. } => condition,
            Self::Panic { .. } => "OPERATOR_PANICKED",
            Self::Runtime { .. } => "RUNTIME_IO",
            Self::Stuck { .. } => "SIMULATION_STUCK",
        }
    }
}
