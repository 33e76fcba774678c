//! The logical plan: what SQL and the DataFrame API build, what `explain` prints, and what is
//! lowered to stages. It holds names, types and expressions; no closures and no connections.

use super::aggregates::AggregateCall;
use super::expr::Resolved;
use super::expr::resolve::{Scope, ScopeColumn};
use super::generate::Generator;
use super::types::{DataType, Field, Schema};
use super::value::Value;
use std::fmt::Write;

/// Options of a source or sink; names are case-insensitive and kept as written.
pub type Options = Vec<(String, String)>;

/// A streaming input.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// The name in the query.
    pub name: String,
    /// The source's format.
    pub format: String,
    /// The source's options.
    pub options: Options,
    /// Its columns.
    pub schema: Schema,
}

/// A sort key.
#[derive(Clone, Debug, PartialEq)]
pub struct SortKey {
    /// By what.
    pub expr: Resolved,
    /// Largest first.
    pub descending: bool,
    /// NULLs before all others.
    pub nulls_first: bool,
}

/// A query over unbounded tables.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// A source.
    Scan(Scan),
    /// Computed columns.
    Project(Box<Plan>, Vec<(Resolved, String)>),
    /// The rows for which the condition is true.
    Filter(Box<Plan>, Resolved),
    /// The input's columns and those of a generator, a row for each of its elements.
    Generate(Box<Plan>, Generator),
    /// Keys and running aggregates.
    Aggregate(Box<Plan>, Vec<(Resolved, String)>, Vec<AggregateCall>),
    /// All rows of all inputs, which have the same types.
    Union(Vec<Plan>),
    /// In order.
    Sort(Box<Plan>, Vec<SortKey>),
    /// The first rows.
    Limit(Box<Plan>, u64),
    /// The same under a name.
    Alias(Box<Plan>, String),
    /// The same, the columns from one on under a name.
    AliasFrom(Box<Plan>, usize, String),
    /// Rows that are written in the query.
    Values(Schema, Vec<Vec<Value>>),
}

impl Plan {
    /// The plan's inputs.
    pub fn inputs(&self) -> Vec<&Plan> {
        match self {
            Self::Scan(_) | Self::Values(..) => Vec::new(),
            Self::Project(input, _)
            | Self::Filter(input, _)
            | Self::Generate(input, _)
            | Self::Aggregate(input, ..)
            | Self::Sort(input, _)
            | Self::Limit(input, _)
            | Self::Alias(input, _)
            | Self::AliasFrom(input, ..) => vec![input],
            Self::Union(inputs) => inputs.iter().collect(),
        }
    }

    /// The sources, in the order in which they are opened.
    pub fn scans(&self) -> Vec<&Scan> {
        match self {
            Self::Scan(scan) => vec![scan],
            _ => self.inputs().into_iter().flat_map(Plan::scans).collect(),
        }
    }

    /// The columns that an expression over this plan may name.
    pub fn scope(&self) -> Scope {
        let column = |name: &str, data_type: &DataType, nullable| ScopeColumn {
            qualifier: None,
            name: name.to_string(),
            data_type: data_type.clone(),
            nullable,
        };
        let columns = match self {
            Self::Scan(scan) => {
                let fields = scan.schema.fields.iter();
                let mut columns: Vec<_> =
                    fields.map(|f| column(&f.name, &f.data_type, f.nullable)).collect();
                for column in &mut columns {
                    column.qualifier = Some(scan.name.clone());
                }
                columns
            }
            Self::Project(_, exprs) => {
                exprs.iter().map(|(e, name)| column(name, &e.data_type, e.nullable)).collect()
            }
            Self::Filter(input, _) | Self::Sort(input, _) | Self::Limit(input, _) => {
                input.scope().columns
            }
            Self::Generate(input, generator) => {
                let mut columns = input.scope().columns;
                let made = generator.columns();
                columns.extend(made.iter().map(|(name, t, nullable)| column(name, t, *nullable)));
                columns
            }
            Self::Aggregate(_, keys, calls) => {
                let keys = keys.iter().map(|(e, name)| column(name, &e.data_type, e.nullable));
                let calls =
                    calls.iter().map(|c| column(&c.name, &c.data_type, c.function.is_nullable()));
                keys.chain(calls).collect()
            }
            Self::Union(inputs) => {
                let mut columns = inputs.first().map_or(Vec::new(), |input| input.scope().columns);
                for other in inputs.iter().skip(1) {
                    for (column, more) in columns.iter_mut().zip(other.scope().columns) {
                        column.nullable |= more.nullable;
                    }
                }
                for column in &mut columns {
                    column.qualifier = None;
                }
                columns
            }
            Self::Values(schema, _) => {
                let fields = schema.fields.iter();
                fields.map(|f| column(&f.name, &f.data_type, f.nullable)).collect()
            }
            Self::AliasFrom(input, from, name) => {
                let mut columns = input.scope().columns;
                for column in columns.iter_mut().skip(*from) {
                    column.qualifier = Some(name.clone());
                }
                columns
            }
            Self::Alias(input, name) => {
                let mut columns = input.scope().columns;
                for column in &mut columns {
                    column.qualifier = Some(name.clone());
                }
                columns
            }
        };
        Scope::new(columns)
    }

    /// The output columns.
    pub fn schema(&self) -> Schema {
        let columns = self.scope().columns.into_iter();
        Schema::new(columns.map(|c| Field::new(c.name, c.data_type, c.nullable)).collect())
    }

    /// Number of output columns.
    pub fn width(&self) -> usize {
        self.scope().columns.len()
    }

    /// Whether any part of the plan aggregates.
    pub fn has_aggregate(&self) -> bool {
        matches!(self, Self::Aggregate(..)) || self.inputs().iter().any(|p| p.has_aggregate())
    }

    /// The plan as a tree, for `explain`.
    pub fn tree(&self) -> String {
        let mut out = String::new();
        self.write_tree(&mut out, 0);
        out
    }

    fn write_tree(&self, out: &mut String, depth: usize) {
        let named = |exprs: &[(Resolved, String)]| {
            let one = |(e, name): &(Resolved, String)| {
                let text = e.to_string();
                if text == *name { text } else { format!("{text} AS {name}") }
            };
            exprs.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let line = match self {
            Self::Scan(scan) => {
                let columns: Vec<_> = scan.schema.fields.iter().map(|f| f.name.as_str()).collect();
                format!("Scan {} USING {} [{}]", scan.name, scan.format, columns.join(", "))
            }
            Self::Project(_, exprs) => format!("Project [{}]", named(exprs)),
            Self::Filter(_, condition) => format!("Filter {condition}"),
            Self::Generate(_, g) => {
                let outer = if g.outer && !g.name.ends_with("_outer") { " OUTER" } else { "" };
                format!("Generate{outer} {}({}) AS {}", g.name, g.array, g.names.join(", "))
            }
            Self::Aggregate(_, keys, calls) => {
                let calls: Vec<_> = calls.iter().map(|c| c.name.as_str()).collect();
                format!("Aggregate keys [{}], functions [{}]", named(keys), calls.join(", "))
            }
            Self::Union(_) => "Union".to_string(),
            Self::Sort(_, keys) => {
                let one =
                    |k: &SortKey| format!("{}{}", k.expr, if k.descending { " DESC" } else { "" });
                format!("Sort [{}]", keys.iter().map(one).collect::<Vec<_>>().join(", "))
            }
            Self::Limit(_, n) => format!("Limit {n}"),
            Self::Alias(_, name) | Self::AliasFrom(_, _, name) => format!("Alias {name}"),
            Self::Values(_, rows) => format!("Values, {} rows", rows.len()),
        };
        let lead =
            if depth == 0 { String::new() } else { format!("{}+- ", "   ".repeat(depth - 1)) };
        // Writing to a string does not fail.
        let _ = writeln!(out, "{lead}{line}");
        for input in self.inputs() {
            input.write_tree(out, depth + 1);
        }
    }
}
