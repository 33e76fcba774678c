//! Checks a query and prepares its start.

use crate::connect::file::local_path;
use crate::session::stream_writer::query_sink::SinkSpec;
use crate::session::stream_writer::query_sources::file_config;
use crate::session::stream_writer::{QUERY_OPTIONS, StreamWriter};
use crate::session::trigger::parse_trigger;
use crate::session::{is_files, static_tables};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::resolve::did_you_mean;
use crate::table::plan::analyzer::{OutputMode, check_output_mode};
use crate::table::plan::join;
use crate::table::plan::limits::on_large_stack;
use crate::table::plan::{Options, Scan};
use millstream_engine::epoch::trigger::Trigger;
use std::path::PathBuf;

pub(in crate::session::stream_writer) struct Prepared {
    pub mode: OutputMode,
    pub trigger: Trigger,
    pub name: Option<String>,
    pub sink: SinkSpec,
    pub checkpoint: Option<PathBuf>,
}

impl StreamWriter {
    /// Checks the query as far as possible without opening its sources and its sink. Returns the
    /// trigger that would be used.
    pub fn check(&self) -> PlanResult<Trigger> {
        on_large_stack(|| self.checked())
    }

    pub(in crate::session::stream_writer) fn checked(&self) -> PlanResult<Trigger> {
        let prepared = self.prepare()?;
        self.check_columns_read(&prepared)?;
        Ok(prepared.trigger)
    }

    /// Rejects a query that reads no columns of a file except the corrupt record column. The
    /// columns it reads are known only after lowering, which is done here without opening a source.
    fn check_columns_read(&self, prepared: &Prepared) -> PlanResult<()> {
        let settings = self.settings();
        let formats = &settings.formats;
        let config_of = |scan: &Scan| file_config(scan, formats).ok();
        let keeps_bad = |scan: &&Scan| {
            is_files(&scan.format)
                && config_of(scan).is_some_and(|config| config.keeps_bad_records())
        };
        if !self.frame.plan.scans().into_iter().any(|scan| keeps_bad(&scan)) {
            return Ok(());
        }
        let mut wrong = None;
        let mut look = |scan: &Scan, needed: &[bool]| {
            if let Some(Err(error)) =
                config_of(scan).map(|mut config| config.set_needed_columns(needed))
            {
                wrong.get_or_insert(error);
            }
        };
        // Other errors of lowering are reported when the query starts.
        drop(self.layout(prepared, &settings, &mut look));
        wrong.map_or(Ok(()), Err)
    }

    pub(in crate::session::stream_writer) fn prepare(&self) -> PlanResult<Prepared> {
        let mode = self.mode.as_deref().or(self.query_option("outputMode"));
        let mode = mode.map_or(Ok(OutputMode::Append), OutputMode::parse)?;
        join::check(&self.frame.plan)?;
        check_output_mode(&static_tables::with_empty_tables(&self.frame.plan), mode)?;
        join::check_optimized(&self.frame.plan)?;
        let infers = self.settings().schema_inference;
        let unsure = |scan: &&&Scan| scan.streaming && scan.inferred && !infers;
        if let Some(scan) = self.frame.plan.scans().iter().find(unsure) {
            return Err(PlanError::new(
                "STREAMING_FILE_SCHEMA_MISSING",
                format!("source {}: a schema must be given", scan.format),
                "Write CREATE TEMPORARY VIEW v (a INT, b STRING) USING …, or infer it from the \
                current files: SET spark.sql.streaming.schemaInference = true",
            ));
        }
        if !self.frame.plan.is_streaming() {
            return Err(PlanError::new(
                "WRITE_STREAM_NOT_ALLOWED",
                "the query reads no stream",
                "Read one: FROM STREAM view; a query over tables is run by `millstream sql`",
            ));
        }
        let trigger = match (self.trigger, self.query_option("trigger")) {
            (Some(trigger), _) => trigger,
            (None, Some(text)) => parse_trigger(text)?,
            (None, None) => Trigger::Continuous { interval_ns: 1_000_000_000 },
        };
        if !trigger.is_continuous() {
            join::check_batches(&self.frame.plan)?;
        }
        let checkpoint = match self.query_option("checkpointLocation") {
            Some("") => {
                return Err(PlanError::new(
                    "INVALID_OPTION_VALUE",
                    "option 'checkpointLocation' is empty",
                    "Name a folder, or leave the option out",
                ));
            }
            Some(folder) => Some(PathBuf::from(local_path("checkpointLocation", folder)?)),
            None => None,
        };
        let own = |key: &str| QUERY_OPTIONS.iter().any(|name| name.eq_ignore_ascii_case(key));
        let options: Options = self.options.iter().filter(|(key, _)| !own(key)).cloned().collect();
        let name = self.name().map(str::to_string);
        let sink =
            self.sink(&options, name.as_deref()).map_err(|error| own_meant(error, &options))?;
        if let (SinkSpec::Files(_), OutputMode::Update | OutputMode::Complete) = (&sink, mode) {
            return Err(PlanError::new(
                "STREAMING_OUTPUT_MODE.UNSUPPORTED_DATASOURCE",
                format!("files cannot be written in output mode {}", mode.name()),
                "Use append; for results that change, foreachBatch or another sink",
            ));
        }
        if matches!(sink, SinkSpec::Files(_)) && checkpoint.is_none() && !self.explained {
            return Err(PlanError::new(
                "CHECKPOINT_LOCATION_MISSING",
                "a sink that writes files needs option 'checkpointLocation'",
                "Name a folder that no other query uses, or `run --checkpoint DIR`",
            ));
        }
        #[cfg(feature = "kafka")]
        if let SinkSpec::Kafka(config) = &sink {
            config.check_transactions(trigger, checkpoint.is_some() || self.explained)?;
        }
        if let (SinkSpec::ForeachBatch, true) = (&sink, trigger.is_continuous()) {
            return Err(PlanError::new(
                "FOREACH_BATCH_IN_CONTINUOUS_MODE",
                "'foreachBatch' is not supported with continuous trigger",
                "Use a micro-batch trigger such as asap: only there a batch is repeated with the \
                same rows; or use foreach",
            ));
        }
        Ok(Prepared { mode, trigger, name, sink, checkpoint })
    }
}

/// Improves the error for an unknown option by suggesting a similar option of the query, unless it
/// suggests one of the sink. Other errors are returned unchanged.
fn own_meant(mut error: PlanError, options: &Options) -> PlanError {
    let known = |key: &&String| error.reason.ends_with(&format!("'{key}'"));
    let unknown = options.iter().map(|(key, _)| key).find(known);
    if let ("UNKNOWN_OPTION", Some(key)) = (error.condition.as_str(), unknown) {
        let own = did_you_mean(key, QUERY_OPTIONS);
        // Only one suggestion is made; the sink's own option takes precedence.
        if !error.fix.starts_with("Did you mean") {
            error.fix = format!("{own}{}", error.fix);
        }
    }
    error
}
