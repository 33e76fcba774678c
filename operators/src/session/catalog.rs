//! The names that a query of a session can refer to.

use super::static_tables::MEMORY_TABLE;
use super::{Inner, Session, StreamReader};
use crate::table::error::PlanResult;
use crate::table::expr::compile::Semantics;
use crate::table::expr::user_function::{UserAggregate, UserFunction};
use crate::table::plan::shared_sources::SourceId;
use crate::table::plan::{Options, Plan, Scan};
use crate::table::sql::Catalog;
use crate::table::sql::files::FilesInFrom;
use crate::table::sql::literals::LiteralSettings;
use std::sync::Arc;

impl Catalog for Inner {
    fn relation(&self, name: &str) -> Option<Plan> {
        if let Some((_, plan)) = self.views.get(&name.to_ascii_lowercase()) {
            return Some(Plan::clone(plan));
        }
        let (name, table) = self.memory_table(name)?;
        Some(Plan::Scan(Scan {
            id: SourceId::default(),
            name: name.clone(),
            streaming: false,
            format: MEMORY_TABLE.to_string(),
            options: Options::new(),
            inferred: false,
            is_file_source: false,
            schema: table.schema().clone(),
        }))
    }
    fn names(&self) -> Vec<String> {
        self.views.values().map(|(name, _)| name).chain(self.tables.keys()).cloned().collect()
    }
    fn function(&self, name: &str) -> Option<Arc<UserFunction>> {
        self.functions.get(&name.to_ascii_lowercase()).cloned()
    }
    fn aggregate(&self, name: &str) -> Option<Arc<UserAggregate>> {
        self.aggregates.get(&name.to_ascii_lowercase()).cloned()
    }
    fn user_functions(&self) -> Vec<String> {
        self.functions.keys().chain(self.aggregates.keys()).cloned().collect()
    }
    fn semantics(&self) -> Semantics {
        self.settings.semantics
    }
    fn literals(&self) -> LiteralSettings {
        self.settings.literals
    }
    fn has_asof_join(&self) -> bool {
        self.settings.asof_join
    }
}

/// The catalog of a session for the planning of a statement. The session is locked for each name
/// alone, because files that a query names may be read to infer their schema, and another thread
/// must be able to cancel the statement meanwhile.
pub(super) struct SessionCatalog<'s>(pub &'s Session);

impl Catalog for SessionCatalog<'_> {
    fn relation(&self, name: &str) -> Option<Plan> {
        self.0.lock().relation(name)
    }
    fn names(&self) -> Vec<String> {
        self.0.lock().names()
    }
    fn function(&self, name: &str) -> Option<Arc<UserFunction>> {
        self.0.lock().function(name)
    }
    fn aggregate(&self, name: &str) -> Option<Arc<UserAggregate>> {
        self.0.lock().aggregate(name)
    }
    fn user_functions(&self) -> Vec<String> {
        self.0.lock().user_functions()
    }
    fn files(&self, files: FilesInFrom) -> Option<PlanResult<Plan>> {
        let FilesInFrom { name, format, options, schema } = files;
        let schema = match schema.map(|ddl| self.0.schema(&ddl)).transpose() {
            Ok(schema) => schema,
            Err(error) => return Some(Err(error)),
        };
        let session = self.0.clone();
        let reader =
            StreamReader { session, streaming: false, is_view: true, format, options, schema };
        Some(reader.load_as(&name).map(|frame| Arc::unwrap_or_clone(frame.plan)))
    }
    fn semantics(&self) -> Semantics {
        self.0.lock().semantics()
    }
    fn literals(&self) -> LiteralSettings {
        self.0.lock().literals()
    }
    fn has_asof_join(&self) -> bool {
        self.0.lock().has_asof_join()
    }
}
