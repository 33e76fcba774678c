//! A position in a source, as the checkpoint stores it.

use crate::error::EngineError;

/// A position in a source. Its text is defined by the source (Spark's JSON where Spark has one).
/// The empty text is the position before all data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offset(pub String);

impl Offset {
    /// The position as a number. An error if the text is not a number.
    pub fn number(&self) -> Result<u64, EngineError> {
        self.0.parse().map_err(|_| {
            EngineError::operator(
                "INVALID_OFFSET",
                format!("'{}' is not an offset of this source", self.0),
                "The checkpoint was written by another source: start over with an empty one",
            )
        })
    }
}
