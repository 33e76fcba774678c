//! Writes the rows of a query over bounded tables to a sink.

use crate::session::dataframe::DataFrame;
use crate::session::stream_writer::StreamWriter;
use crate::session::streaming_query::QueryError;
use crate::table::error::{PlanError, PlanResult};

/// Configures where the rows of a query over bounded tables are written. Call `save` to run the
/// query. The format is `kafka`.
#[must_use = "nothing is written before `save`"]
pub struct BatchWriter {
    writer: StreamWriter,
    format: String,
    save_mode: String,
}

impl BatchWriter {
    pub(crate) fn new(frame: DataFrame) -> Self {
        Self {
            writer: StreamWriter::new(frame),
            format: String::new(),
            save_mode: "errorifexists".to_string(),
        }
    }

    /// Sets the sink's format.
    pub fn format(mut self, format: &str) -> Self {
        self.writer = self.writer.format(format);
        self.format = format.to_string();
        self
    }

    /// Sets an option of the sink.
    pub fn option(mut self, key: &str, value: impl ToString) -> Self {
        self.writer = self.writer.option(key, value);
        self
    }

    /// Sets the save mode: `errorifexists` (default) or `append`. A topic has no other modes, and
    /// records are appended in both.
    pub fn mode(mut self, save_mode: &str) -> Self {
        self.save_mode = save_mode.to_string();
        self
    }

    fn check(&self) -> PlanResult<()> {
        if !self.format.eq_ignore_ascii_case("kafka") {
            return Err(PlanError::new(
                "UNSUPPORTED_BATCH_SINK",
                format!("a batch query cannot be written in the format '{}'", self.format),
                "Write to kafka, or use write_stream with the trigger available-now",
            ));
        }
        match self.save_mode.to_ascii_lowercase().as_str() {
            "append" | "error" | "errorifexists" | "default" => Ok(()),
            "overwrite" | "ignore" => Err(PlanError::new(
                // Spark has no better condition name for this error.
                "_LEGACY_ERROR_TEMP_3081",
                format!("sink kafka: the save mode '{}' is not possible", self.save_mode),
                "Use append or errorifexists: records are always appended to a topic",
            )),
            other => Err(PlanError::new(
                "INVALID_SAVE_MODE",
                format!("there is no save mode '{other}'"),
                "Use append or errorifexists",
            )),
        }
    }

    /// Runs the query, and returns when the sink has written all rows.
    pub fn save(self) -> Result<(), QueryError> {
        self.check()?;
        self.writer.save_batch()
    }
}
