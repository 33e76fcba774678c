//! The common type of VARIANT values, for `schema_of_variant_agg`.

use super::encoding::take;
use crate::table::deep_recursion::on_stack;
use crate::table::expr::compile::{EvalError, failed};
use crate::table::types::{DataType, Field};
use crate::table::variant::{Shape, merge_types};

/// The maximum number of fields and elements of the type, at all levels. A long name counts as
/// several.
const PARTS_MAX: usize = 100_000;
/// The bytes of a name that count as a field.
const NAME_BYTES: usize = 64;

/// The common type of the values so far.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantShape {
    data_type: DataType,
    /// The number of fields and elements, at all levels.
    parts: usize,
}

impl Default for VariantShape {
    fn default() -> Self {
        Self { data_type: DataType::Null, parts: 0 }
    }
}

impl VariantShape {
    /// Adds the type of other values. An error if the common type has too many fields.
    pub fn add(&mut self, other: DataType) -> Result<(), Box<EvalError>> {
        if self.data_type == other {
            return Ok(());
        }
        let held = std::mem::replace(&mut self.data_type, DataType::Null);
        self.data_type = merge_types(held, other);
        self.parts = parts_of(&self.data_type);
        if self.parts <= PARTS_MAX {
            return Ok(());
        }
        failed(
            "COLLECTION_SIZE_LIMIT_EXCEEDED",
            format!("the type of the VARIANT values has more than {PARTS_MAX} fields"),
            "Use schema_of_variant_agg on a part: variant_get(v, '$.a')",
        )
    }

    /// Adds the values of another accumulator.
    pub fn merge(&mut self, other: &Self) -> Result<(), Box<EvalError>> {
        self.add(other.data_type.clone())
    }

    /// The text of the type, which is the result.
    pub fn text(&self) -> String {
        Shape(&self.data_type).to_string()
    }

    /// The heap memory in bytes, estimated from the number of parts.
    pub fn heap_bytes(&self) -> usize {
        self.parts * (size_of::<Field>() + NAME_BYTES)
    }

    /// Appends the type in the encoding of checkpoints.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode(&self.data_type, out);
    }

    /// Decodes a type from the front of `bytes`; `None` if they are damaged.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        self.data_type = decode(bytes)?;
        self.parts = parts_of(&self.data_type);
        Some(())
    }
}

/// The types without parts. The index of a type in this list is its byte in checkpoints.
const LEAVES: [DataType; 11] = [
    DataType::Null,
    DataType::Boolean,
    DataType::Long,
    DataType::Float,
    DataType::Double,
    DataType::String,
    DataType::Binary,
    DataType::Date,
    DataType::Timestamp,
    DataType::TimestampNtz,
    DataType::Variant,
];
const DECIMAL: u8 = 100;
const ARRAY: u8 = 101;
const OBJECT: u8 = 102;

fn encode(data_type: &DataType, out: &mut Vec<u8>) {
    match data_type {
        DataType::Decimal(digits, scale) => out.extend_from_slice(&[DECIMAL, *digits, *scale]),
        DataType::Array(element) => {
            out.push(ARRAY);
            on_stack(|| encode(element, out));
        }
        DataType::Struct(fields) => {
            out.push(OBJECT);
            out.extend_from_slice(&(fields.len() as u32).to_le_bytes());
            for field in fields {
                out.extend_from_slice(&(field.name.len() as u32).to_le_bytes());
                out.extend_from_slice(field.name.as_bytes());
                on_stack(|| encode(&field.data_type, out));
            }
        }
        leaf => {
            let index = LEAVES.iter().position(|known| known == leaf);
            debug_assert!(index.is_some(), "{leaf} is no type of a VARIANT value");
            out.push(index.unwrap_or(0) as u8);
        }
    }
}

fn decode(bytes: &mut &[u8]) -> Option<DataType> {
    let [kind] = take(bytes)?;
    Some(match kind {
        DECIMAL => {
            let [digits, scale] = take(bytes)?;
            DataType::Decimal(digits, scale)
        }
        ARRAY => DataType::Array(Box::new(on_stack(|| decode(bytes))?)),
        OBJECT => {
            let fields = (0..u32::from_le_bytes(take(bytes)?)).map(|_| {
                let length = u32::from_le_bytes(take(bytes)?) as usize;
                let (name, rest) = bytes.split_at_checked(length)?;
                *bytes = rest;
                let name = std::str::from_utf8(name).ok()?;
                Some(Field::new(name, on_stack(|| decode(bytes))?, true))
            });
            DataType::Struct(fields.collect::<Option<_>>()?)
        }
        leaf => LEAVES.get(usize::from(leaf))?.clone(),
    })
}

fn parts_of(data_type: &DataType) -> usize {
    match data_type {
        DataType::Array(element) => 1 + on_stack(|| parts_of(element)),
        DataType::Struct(fields) => {
            let part = |field: &Field| {
                1 + field.name.len() / NAME_BYTES + on_stack(|| parts_of(&field.data_type))
            };
            fields.iter().map(part).sum()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_a_bounded_number_of_fields_and_survives_a_checkpoint() {
        let field = |name: String| DataType::Struct(vec![Field::new(name, DataType::Long, true)]);
        let mut shape = VariantShape::default();
        for name in ["a", "OBJECT<", "b`c", ""] {
            shape.add(field(name.to_string())).unwrap();
        }
        let kinds = LEAVES.iter().cloned().chain([DataType::Decimal(38, 5)]);
        let kinds = kinds.map(|kind| DataType::Array(Box::new(kind))).enumerate();
        let kinds = kinds.map(|(at, kind)| Field::new(format!("kind {at:02}"), kind, true));
        shape.add(DataType::Struct(kinds.collect())).unwrap();
        let deep = |inner, _: u32| DataType::Array(Box::new(inner));
        let deep = (0..1_000).fold(DataType::Null, deep);
        shape.add(DataType::Struct(vec![Field::new("deep", deep, true)])).unwrap();
        let (mut bytes, mut restored) = (Vec::new(), VariantShape::default());
        shape.encode(&mut bytes);
        restored.decode(&mut bytes.as_slice()).unwrap();
        assert_eq!(restored, shape);
        assert!(restored.decode(&mut &bytes[..bytes.len() - 1]).is_none());
        let many = (0..=PARTS_MAX).map(|at| Field::new(format!("{at:06}"), DataType::Long, true));
        let error = shape.add(DataType::Struct(many.collect())).unwrap_err();
        assert_eq!(error.condition, "COLLECTION_SIZE_LIMIT_EXCEEDED");
    }
}
