//! Detects changes of the tables of a query. The modification times, sizes and paths of files are
//! compared, on Unix also their inode numbers and change times. For results in memory the number of
//! changes is compared, for topics the ends of their partitions.

#[cfg(feature = "kafka")]
use crate::connect::kafka::{options::KafkaSourceConfig, source::TopicEnds};
use crate::session::dataframe::DataFrame;
use crate::session::static_tables::{self, MEMORY_TABLE};
use crate::session::stream_writer::file_config;
use crate::session::{QueryError, Session};
use crate::table::expr::{Node, Resolved};
use crate::table::plan::live_table::{LiveTable, TableReader};
use crate::table::plan::{Plan, Scan};
use crate::table::value::Value;
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::error::EngineError;
#[cfg(feature = "kafka")]
use std::collections::HashMap;
use std::sync::Arc;
#[cfg(feature = "kafka")]
use std::sync::Mutex;

/// A table that is computed by a plan over bounded inputs.
struct PlannedTable {
    session: Session,
    plan: Arc<Plan>,
    scans: Vec<Scan>,
    /// Clients for the Kafka topics among the inputs, by index in `scans`, created at the first
    /// check.
    #[cfg(feature = "kafka")]
    topics: Mutex<HashMap<usize, Arc<TopicEnds>>>,
}

#[cfg(feature = "kafka")]
impl PlannedTable {
    fn topic(&self, index: usize) -> Result<Arc<TopicEnds>, EngineError> {
        let mut topics = self.topics.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(topic) = topics.get(&index) {
            return Ok(topic.clone());
        }
        let config = KafkaSourceConfig::read(&self.scans[index].options, false);
        let topic = Arc::new(TopicEnds::new(&config?)?);
        topics.insert(index, topic.clone());
        Ok(topic)
    }
}

/// Collects the inputs of a plan, including those of its subqueries.
fn inputs(plan: &Plan, scans: &mut Vec<Scan>) {
    fn of_expr(expr: &Resolved, scans: &mut Vec<Scan>) {
        if let Node::Scalar(plan) = &expr.node {
            inputs(plan, scans);
        }
        expr.children().into_iter().for_each(|child| of_expr(child, scans));
    }
    if let Plan::Scan(scan) = plan {
        scans.push(scan.clone());
    }
    plan.exprs().for_each(|expr| of_expr(expr, scans));
    plan.inputs().into_iter().for_each(|input| inputs(input, scans));
}

/// Returns how to reload the table of a plan. `None` if the plan reads only constants, which do not
/// change.
pub(super) fn live_table(session: &Session, plan: &Arc<Plan>) -> Option<LiveTable> {
    let mut scans = Vec::new();
    inputs(plan, &mut scans);
    if scans.is_empty() {
        return None;
    }
    let (session, plan) = (session.clone(), plan.clone());
    Some(LiveTable::new(Arc::new(PlannedTable {
        session,
        plan,
        scans,
        #[cfg(feature = "kafka")]
        topics: Mutex::default(),
    })))
}

impl TableReader for PlannedTable {
    fn version(&self) -> Result<u64, EngineError> {
        let mut versions = Vec::with_capacity(self.scans.len() * 8);
        #[cfg_attr(not(feature = "kafka"), allow(clippy::unused_enumerate_index))]
        for (_index, scan) in self.scans.iter().enumerate() {
            let version = match scan.format.as_str() {
                #[cfg(feature = "kafka")]
                "kafka" => self.topic(_index)?.version()?,
                MEMORY_TABLE => {
                    let inner = self.session.lock();
                    // A dropped table has a version too: reading its rows then fails.
                    inner.memory_table(&scan.name).map_or(0, |(_, table)| table.version())
                }
                _ => {
                    let formats = self.session.lock().settings.formats.clone();
                    file_config(scan, &formats)?.version()?
                }
            };
            versions.extend_from_slice(&version.to_le_bytes());
        }
        Ok(hash_bytes(&versions))
    }

    fn rows(&self) -> Result<Vec<Vec<Value>>, EngineError> {
        let rows = match &*self.plan {
            Plan::Scan(scan) if scan.format == MEMORY_TABLE => {
                static_tables::memory_rows(&self.session, scan).map_err(QueryError::from)
            }
            _ => DataFrame::new(self.session.clone(), self.plan.clone()).collect(),
        };
        Ok(rows?)
    }
}
