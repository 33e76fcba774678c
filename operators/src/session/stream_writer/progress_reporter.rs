//! Makes the progress reports of a query.

use crate::connect::source_counters::SourceCounters;
use crate::connect::source_report::SourceReport;
use crate::session::progress::Progress;
use millstream_engine::epoch::committed_epoch::CommittedEpoch;
use millstream_engine::measure::latency::EpochLatency;

/// The fields that the progress reports of a query share, and what it keeps between them.
pub(in crate::session::stream_writer) struct ProgressReporter {
    pub id: String,
    pub run_id: String,
    pub name: String,
    pub sources: Vec<String>,
    pub counters: Vec<SourceCounters>,
    pub sink: String,
    pub operators: Vec<String>,
    pub timed: bool,
    pub last_ns: u64,
}

impl ProgressReporter {
    fn source_reports(&self, committed: &CommittedEpoch) -> Vec<Option<SourceReport>> {
        let ends = committed.offsets.iter();
        let reports = self.counters.iter().zip(ends).map(|(counters, end)| {
            counters.progress.as_ref().map(|progress| progress.report(&end.0))
        });
        reports.collect()
    }

    pub(in crate::session::stream_writer) fn of(
        &mut self,
        committed: &CommittedEpoch,
        EpochLatency { rows, latency, slowest }: EpochLatency,
        now_ns: u64,
    ) -> Progress {
        let interval_ns = now_ns.saturating_sub(std::mem::replace(&mut self.last_ns, now_ns));
        Progress {
            id: self.id.clone(),
            run_id: self.run_id.clone(),
            name: self.name.clone(),
            committed: committed.clone(),
            rows_emitted: rows,
            latency,
            slowest,
            interval_ns,
            sources: self.sources.clone(),
            connections: self.counters.iter().map(SourceCounters::connections).collect(),
            reports: self.source_reports(committed),
            sink: self.sink.clone(),
            operators: self.operators.clone(),
            timed: self.timed,
        }
    }
}
