//! Views of a query: those of a WITH clause, and the inputs of a query whose text the planner
//! generates.

use super::files::FilesInFrom;
use super::query::{plan, renamed};
use super::{Catalog, LiteralSettings, Watermark, memo, place, plan_tokens, refused, tokenize};
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
    /// Whether the query's text is generated: then the names in it are those of these views and of
    /// built-in functions, whatever views and functions the user has defined.
    is_generated: bool,
}

impl<'c> Views<'c> {
    pub fn new(outer: &'c dyn Catalog) -> Self {
        Self { views: HashMap::new(), outer, is_generated: false }
    }

    /// The inputs of a query whose text the planner generates, under the settings of `outer`.
    pub fn of_generated(outer: &'c dyn Catalog) -> Self {
        Self { is_generated: true, ..Self::new(outer) }
    }

    /// Plans a generated query, which stands for the text that the user wrote at `here`. Errors get
    /// this position.
    pub fn plan_generated(&self, sql: &str, here: Place) -> PlanResult<Plan> {
        let tokens = tokenize(sql, LiteralSettings::default());
        let planned = tokens.and_then(|tokens| memo::without(|| plan_tokens(tokens, self)));
        planned.map_err(|error| PlanError { place: here, ..error })
    }

    /// The catalog of the user's names; `None` if the query's text is generated.
    fn of_user(&self) -> Option<&'c dyn Catalog> {
        (!self.is_generated).then_some(self.outer)
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
        found.map(|(_, plan)| plan.clone()).or_else(|| self.of_user()?.relation(name))
    }
    fn names(&self) -> Vec<String> {
        let of_user = self.of_user().map(Catalog::names).unwrap_or_default();
        self.views.values().map(|(name, _)| name.clone()).chain(of_user).collect()
    }
    fn function(&self, name: &str) -> Option<Arc<UserFunction>> {
        self.of_user()?.function(name)
    }
    fn aggregate(&self, name: &str) -> Option<Arc<UserAggregate>> {
        self.of_user()?.aggregate(name)
    }
    fn files(&self, files: FilesInFrom) -> Option<PlanResult<Plan>> {
        self.of_user()?.files(files)
    }
    fn watermark(&self, number: usize) -> Option<&Watermark> {
        self.of_user()?.watermark(number)
    }
    fn clause(&self, word: &str, from: Place) -> Place {
        self.of_user().map_or(from, |outer| outer.clause(word, from))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::expr::user_function::UserFunction;
    use crate::table::types::{DataType, Schema};

    /// A catalog with a view `v` and a function `upper`.
    struct OfUser;

    impl Catalog for OfUser {
        fn relation(&self, name: &str) -> Option<Plan> {
            (name == "v").then(|| Plan::Values(Schema::default(), vec![Vec::new()]))
        }
        fn names(&self) -> Vec<String> {
            vec!["v".to_string()]
        }
        fn function(&self, name: &str) -> Option<Arc<UserFunction>> {
            let made = UserFunction::new("upper", [DataType::String], DataType::Long, |_, _| {
                Err(String::new())
            });
            (name == "upper").then(|| Arc::new(made))
        }
    }

    #[test]
    fn a_generated_query_sees_no_names_of_the_user() {
        let here = Place { line: 7, column: 9 };
        let generated = Views::of_generated(&OfUser);
        let plan = generated.plan_generated("SELECT upper('a') AS a", here).unwrap();
        assert_eq!(plan.schema().fields[0].data_type, DataType::String);
        let error = generated.plan_generated("SELECT 1\nFROM v", here).unwrap_err();
        assert_eq!((error.condition.as_str(), error.place), ("TABLE_OR_VIEW_NOT_FOUND", here));
        let written = Views::new(&OfUser);
        assert!(super::super::parse_query("SELECT 1 FROM v", &written).is_ok());
    }
}
