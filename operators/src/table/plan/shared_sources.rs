//! The sources of a plan, and the number of branches that read each of them.
//!
//! A stream that is loaded once is a single source, however often the plan reads it. For example, a
//! plan may use a view twice, or a DataFrame and its clone. The source reads each row once and
//! sends it to every reader. Two streams that are loaded separately with equal options are two
//! sources, as in Spark. Each reader of a table reads the table itself.

use crate::table::expr::{Node, Resolved};
use crate::table::plan::{Plan, Scan};
use crate::table::types::Field;
use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

/// The identity of a source, which distinguishes sources with equal descriptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceId(u64);

impl SourceId {
    /// Creates an ID that is unique within this process, and differs from the default ID.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // ORDERING: relaxed, because only the uniqueness of the numbers matters.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Scan {
    /// Whether both scans read the same source.
    pub fn shares_source(&self, other: &Scan) -> bool {
        self.streaming && other.streaming && self.id == other.id
    }
}

/// The sources of a plan, in the order of their first use.
pub fn sources(plan: &Plan) -> Vec<&Scan> {
    let mut sources: Vec<&Scan> = Vec::new();
    for scan in plan.scans() {
        // Only streams are shared; every reader of a table has its own source.
        let found = match scan.streaming {
            true => sources.iter_mut().find(|source| source.shares_source(scan)),
            false => None,
        };
        match found {
            Some(source) if width(source) < width(scan) => *source = scan,
            Some(_) => {}
            None => sources.push(scan),
        }
    }
    sources
}

/// The number of branches of a plan that read the source of a scan.
pub fn readers(plan: &Plan, scan: &Scan) -> usize {
    plan.scans().into_iter().filter(|other| other.shares_source(scan)).count()
}

fn width(scan: &Scan) -> usize {
    scan.schema.fields.len()
}

/// Makes all readers of a stream read the same columns. If one reader needs the file metadata
/// column, which comes last, the other readers read it too and drop it.
pub fn with_equal_readers(plan: &Plan) -> Cow<'_, Plan> {
    let sources = sources(plan);
    let is_narrow = |scan: &&Scan| {
        let is_wider = |source: &&Scan| source.shares_source(scan) && width(source) > width(scan);
        scan.streaming && sources.iter().any(is_wider)
    };
    if !plan.scans().iter().any(is_narrow) {
        return Cow::Borrowed(plan);
    }
    let sources: Vec<Scan> = sources.into_iter().cloned().collect();
    Cow::Owned(widened(plan.clone(), &sources))
}

fn widened(plan: Plan, sources: &[Scan]) -> Plan {
    let Plan::Scan(scan) = plan else {
        let of = &mut |input| Ok::<_, Infallible>(widened(input, sources));
        return match plan.map_inputs(of) {
            Ok(plan) => plan,
        };
    };
    let source = sources.iter().find(|source| source.shares_source(&scan));
    let Some(source) = source.filter(|source| width(source) > width(&scan)) else {
        return Plan::Scan(scan);
    };
    let column = |(i, field): (usize, &Field)| {
        let node = Node::Column(i, field.name.clone());
        let (data_type, nullable) = (field.data_type.clone(), field.nullable);
        (Resolved { node, data_type, nullable }, field.name.clone())
    };
    let columns = scan.schema.fields.iter().enumerate().map(column);
    Plan::Project(Box::new(Plan::Scan(source.clone())), columns.collect())
}
