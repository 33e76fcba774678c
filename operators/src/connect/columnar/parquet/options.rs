//! Options and session settings for reading Parquet files.

use super::rebase::Mode;
use crate::connect::columnar::parquet::schema::Inference;
use crate::connect::options::OptionReader;
use crate::table::error::PlanResult;

/// The read options of Parquet.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    /// The calendar of dates and INT64 timestamps in files that do not name one.
    pub datetime: Mode,
    /// The calendar of INT96 timestamps in files that do not name one.
    pub int96: Mode,
    /// Rules for inferring types where Parquet's types are ambiguous.
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
    /// Parses a source's options. The rules for inferring types are settings of the session.
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
