//! The constant map of options of `from_avro`, `to_avro`, `from_protobuf` and `to_protobuf`.

use super::json::options_of;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::types::DataType;
use crate::table::value::Value;

use DataType as T;

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

    pub fn get(&self, wanted: &str) -> Option<&str> {
        let found = self.entries.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    }

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
