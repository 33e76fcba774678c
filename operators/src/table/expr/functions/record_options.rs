//! The constant map of options of `from_avro`, `to_avro`, `from_protobuf` and `to_protobuf`.

use super::json::options_of;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::{Node, Resolved};
use crate::table::schema_registry::{OPTIONS as REGISTRY_OPTIONS, SUBJECT};
use crate::table::types::DataType;
use crate::table::value::Value;

use DataType as T;

/// The id of the reader's schema. Resolution adds this option, so that later steps use the schema
/// that determined the type, also if the subject has got a newer one since.
pub const SCHEMA_ID: &str = "schema.registry.schema.id";

/// The option with the schema that the reader wants.
pub const READER_SCHEMA: &str = "avroSchema";

/// The options of a call, by their names in any case.
pub struct Options<'n> {
    /// The function.
    pub name: &'n str,
    entries: Vec<(String, String)>,
}

impl<'n> Options<'n> {
    /// Reads the argument; NULL stands for no options. Fails for a name that no list has.
    pub fn read(name: &'n str, arg: Option<&Resolved>, known: &[&[&str]]) -> PlanResult<Self> {
        let entries = options_of(arg.filter(|arg| !arg.is_null_constant()))?;
        let is_known = |key: &str| {
            known.iter().copied().flatten().any(|known| known.eq_ignore_ascii_case(key))
        };
        match entries.iter().find(|(key, _)| !is_known(key)) {
            Some((key, _)) => {
                Err(PlanError::not_yet(format_args!("the option '{key}' of `{name}`")))
            }
            None => Ok(Self { name, entries }),
        }
    }

    /// The value of an option. Of several with the same name the last one counts.
    pub fn get(&self, wanted: &str) -> Option<&str> {
        let found = self.entries.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    }

    /// Adds an option.
    pub fn push(&mut self, key: &str, value: String) {
        self.entries.push((key.to_string(), value));
    }

    /// The options as a constant map.
    pub fn literal(self) -> Resolved {
        let entries = self.entries.into_iter();
        let entries = entries.map(|(key, value)| (Value::String(key), Value::String(value)));
        let data_type = T::Map(Box::new(T::String), Box::new(T::String));
        Resolved::literal(Value::Map(entries.collect()), data_type)
    }
}

/// An expression as a checkpoint stores it, to recognise the operator that uses it: without what may
/// change while its type does not, which is stored too. That is the way to a schema registry, the
/// version of a schema, and the file of descriptors.
pub fn for_checkpoint(expr: &Resolved) -> Resolved {
    without_connections(expr.clone())
}

fn without_connections(expr: Resolved) -> Resolved {
    let mut expr = expr.map_children(&mut without_connections);
    let Node::Call(name, args) = &mut expr.node else { return expr };
    let is_protobuf = matches!(*name, "from_protobuf" | "to_protobuf");
    if !is_protobuf && !matches!(*name, "from_avro" | "to_avro") {
        return expr;
    }
    let may_change = |key: &str| {
        let is_connection = |option: &&str| {
            option.eq_ignore_ascii_case(key) && !option.eq_ignore_ascii_case(SUBJECT)
        };
        [SCHEMA_ID, READER_SCHEMA].iter().any(|o| o.eq_ignore_ascii_case(key))
            || REGISTRY_OPTIONS.iter().any(is_connection)
    };
    for (index, arg) in args.iter_mut().enumerate() {
        match &mut arg.node {
            Node::Literal(Value::Map(entries)) => {
                entries.retain(|(key, _)| !matches!(key, Value::String(key) if may_change(key)))
            }
            Node::Literal(descriptors) if is_protobuf && index == 2 => *descriptors = Value::Null,
            _ => {}
        }
    }
    expr
}
