//! Options and settings of reading Parquet files.

use super::rebase::Mode;
use crate::connect::columnar::parquet::schema::Inference;
use crate::connect::options::OptionReader;
use crate::table::error::PlanResult;

/// How Parquet files are read.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    /// The calendar of dates and INT64 times in files that do not say which they have.
    pub datetime: Mode,
    /// The same of INT96 times.
    pub int96: Mode,
    /// How types are inferred where a file leaves a choice.
    pub inference: Inference,
}

impl Default for ReadOptions {
    fn default() -> Self {
        let inference =
            Inference { binary_as_string: false, wall_clocks: true, nanos_as_long: false };
        Self { datetime: Mode::Corrected, int96: Mode::Corrected, inference }
    }
}

impl ReadOptions {
    /// Reads the options, and the session's settings.
    pub fn read(reader: &mut OptionReader<'_>) -> PlanResult<Self> {
        let settings = reader.settings();
        let flag = |name: &str, default: bool| {
            settings.get(name).map_or(default, |value| value.eq_ignore_ascii_case("true"))
        };
        Ok(Self {
            datetime: Mode::of(reader.choice("datetimeRebaseMode", &Mode::WORDS)?),
            int96: Mode::of(reader.choice("int96RebaseMode", &Mode::WORDS)?),
            inference: Inference {
                binary_as_string: flag("spark.sql.parquet.binaryAsString", false),
                wall_clocks: flag("spark.sql.parquet.inferTimestampNTZ.enabled", true),
                nanos_as_long: flag("spark.sql.legacy.parquet.nanosAsLong", false),
            },
        })
    }
}
