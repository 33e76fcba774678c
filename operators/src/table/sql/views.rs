//! The views of a WITH clause.

use super::query::{plan, renamed};
use super::{Catalog, LiteralSettings, Watermark, place, refused};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::compile::Semantics;
use crate::table::expr::user_function::{UserAggregate, UserFunction};
use crate::table::plan::Plan;
use sqlparser::ast;
use std::collections::HashMap;
use std::sync::Arc;

/// The views of a WITH clause. They take precedence over the views of the session.
pub(super) struct Views<'c> {
    /// The views by lower-case name. The value has the name as the user wrote it.
    views: HashMap<String, (String, Plan)>,
    outer: &'c dyn Catalog,
}

impl<'c> Views<'c> {
    pub fn new(outer: &'c dyn Catalog) -> Self {
        Self { views: HashMap::new(), outer }
    }

    /// Adds a relation under a name in lower case.
    pub(super) fn insert(&mut self, name: &str, plan: Plan) {
        self.views.insert(name.to_string(), (name.to_string(), plan));
    }

    /// Plans a view, which may refer to views before it in the clause.
    pub fn add(&mut self, cte: &ast::Cte) -> PlanResult<()> {
        refused::check_cte(cte, self)?;
        let name = cte.alias.name.value.clone();
        if self.views.contains_key(&name.to_ascii_lowercase()) {
            return Err(PlanError::new(
                "DUPLICATED_CTE_NAMES",
                format!("`WITH` defines `{name}` twice"),
                "Give them different names",
            )
            .at(place(cte.alias.name.span.start)));
        }
        let made = renamed(plan(&cte.query, self)?, &cte.alias)?;
        // Each read of the view must return the same rows, so its random functions get fixed seeds.
        self.views.insert(name.to_ascii_lowercase(), (name, made.with_seeds()));
        Ok(())
    }
}

impl Catalog for Views<'_> {
    fn relation(&self, name: &str) -> Option<Plan> {
        let found = self.views.get(&name.to_ascii_lowercase());
        found.map(|(_, plan)| plan.clone()).or_else(|| self.outer.relation(name))
    }
    fn names(&self) -> Vec<String> {
        self.views.values().map(|(name, _)| name.clone()).chain(self.outer.names()).collect()
    }
    fn function(&self, name: &str) -> Option<Arc<UserFunction>> {
        self.outer.function(name)
    }
    fn aggregate(&self, name: &str) -> Option<Arc<UserAggregate>> {
        self.outer.aggregate(name)
    }
    fn watermark(&self, number: usize) -> Option<&Watermark> {
        self.outer.watermark(number)
    }
    fn clause(&self, word: &str, from: Place) -> Place {
        self.outer.clause(word, from)
    }
    fn may_name_files(&self) -> bool {
        self.outer.may_name_files()
    }
    fn semantics(&self) -> Semantics {
        self.outer.semantics()
    }
    fn literals(&self) -> LiteralSettings {
        self.outer.literals()
    }
    fn has_asof_join(&self) -> bool {
        self.outer.has_asof_join()
    }
}
