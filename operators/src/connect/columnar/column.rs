//! A decoded column as Arrow arrays, converted once per batch to the representation of row slots.
//! Writing a row then needs no dispatch on the SQL type.
//!
//! Integral types, dates and timestamps are plain numbers, whatever their width in the array. Text
//! bytes need not be UTF-8: rows keep the bytes of the file, as in Spark.

use crate::table::row::RowWriter;
use crate::table::types::DataType;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, StringArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::DataType as Arrow;

/// The values of one column of a batch.
#[derive(Clone, Debug)]
pub enum Column {
    /// NULL in every row. Also used for a column that the file lacks.
    Null,
    Bool(BooleanArray),
    Byte(Int8Array),
    Short(Int16Array),
    Int(Int32Array),
    Long(Int64Array),
    Float(Float32Array),
    Double(Float64Array),
    Decimal(Decimal128Array),
    Binary(BinaryArray),
    Text(StringArray),
    Fixed(FixedSizeBinaryArray),
    List {
        nulls: Option<NullBuffer>,
        offsets: OffsetBuffer<i32>,
        element: Box<Self>,
    },
    Map {
        nulls: Option<NullBuffer>,
        offsets: OffsetBuffer<i32>,
        entries: Box<[Self; 2]>,
    },
    Struct {
        nulls: Option<NullBuffer>,
        fields: Vec<Self>,
    },
}

impl Column {
    /// Wraps an array that was decoded for `data_type`. Returns `None` if its structure differs or
    /// its Arrow type is not supported.
    pub fn of(array: &ArrayRef, data_type: &DataType) -> Option<Self> {
        let nulls = || array.nulls().cloned();
        Some(match data_type {
            DataType::Null => Self::Null,
            DataType::Array(element) => {
                let list = array.as_list_opt::<i32>()?;
                let element = Box::new(Self::of(list.values(), element)?);
                Self::List { nulls: nulls(), offsets: list.offsets().clone(), element }
            }
            DataType::Map(key, value) => {
                let map = array.as_map_opt()?;
                let entries = [Self::of(map.keys(), key)?, Self::of(map.values(), value)?];
                let offsets = map.offsets().clone();
                Self::Map { nulls: nulls(), offsets, entries: Box::new(entries) }
            }
            DataType::Struct(fields) => {
                let columns = array.as_struct_opt()?.columns();
                if columns.len() != fields.len() {
                    return None;
                }
                let fields = columns.iter().zip(fields).map(|(c, f)| Self::of(c, &f.data_type));
                Self::Struct { nulls: nulls(), fields: fields.collect::<Option<_>>()? }
            }
            _ => match array.data_type() {
                Arrow::Null => Self::Null,
                Arrow::Boolean => Self::Bool(array.as_boolean_opt()?.clone()),
                Arrow::Int8 => Self::Byte(array.as_primitive_opt::<Int8Type>()?.clone()),
                Arrow::Int16 => Self::Short(array.as_primitive_opt::<Int16Type>()?.clone()),
                Arrow::Int32 => Self::Int(array.as_primitive_opt::<Int32Type>()?.clone()),
                Arrow::Int64 => Self::Long(array.as_primitive_opt::<Int64Type>()?.clone()),
                Arrow::Float32 => Self::Float(array.as_primitive_opt::<Float32Type>()?.clone()),
                Arrow::Float64 => Self::Double(array.as_primitive_opt::<Float64Type>()?.clone()),
                Arrow::Decimal128(..) => {
                    Self::Decimal(array.as_primitive_opt::<Decimal128Type>()?.clone())
                }
                Arrow::Date32 => {
                    let days = array.as_primitive_opt::<arrow_array::types::Date32Type>()?;
                    Self::Int(days.reinterpret_cast())
                }
                Arrow::Timestamp(..) => {
                    use arrow_array::types::TimestampMicrosecondType;
                    let micros = array.as_primitive_opt::<TimestampMicrosecondType>()?;
                    Self::Long(micros.reinterpret_cast())
                }
                Arrow::Utf8 => Self::Text(array.as_string_opt::<i32>()?.clone()),
                Arrow::Binary => Self::Binary(array.as_binary_opt::<i32>()?.clone()),
                Arrow::FixedSizeBinary(_) => Self::Fixed(array.as_fixed_size_binary_opt()?.clone()),
                _ => return None,
            },
        })
    }

    /// Whether the value at index `row` is NULL.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(array) => array.is_null(row),
            Self::Byte(array) => array.is_null(row),
            Self::Short(array) => array.is_null(row),
            Self::Int(array) => array.is_null(row),
            Self::Long(array) => array.is_null(row),
            Self::Float(array) => array.is_null(row),
            Self::Double(array) => array.is_null(row),
            Self::Decimal(array) => array.is_null(row),
            Self::Binary(array) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::Fixed(array) => array.is_null(row),
            Self::List { nulls, .. } | Self::Map { nulls, .. } | Self::Struct { nulls, .. } => {
                nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
            }
        }
    }

    /// Writes the value at index `row` into a slot. The slot must be NULL before the call, because
    /// a NULL is not written.
    #[inline]
    pub fn put(&self, row: usize, writer: &mut RowWriter<'_, Vec<u8>>, slot: usize) {
        if self.is_null(row) {
            return;
        }
        match self {
            Self::Null => {}
            Self::Bool(array) => writer.bool(slot, array.value(row)),
            Self::Byte(array) => writer.long(slot, array.value(row).into()),
            Self::Short(array) => writer.long(slot, array.value(row).into()),
            Self::Int(array) => writer.long(slot, array.value(row).into()),
            Self::Long(array) => writer.long(slot, array.value(row)),
            Self::Float(array) => writer.double(slot, array.value(row).into()),
            Self::Double(array) => writer.double(slot, array.value(row)),
            Self::Decimal(array) => writer.decimal(slot, array.value(row)),
            Self::Binary(array) => writer.bytes(slot, array.value(row)),
            Self::Text(array) => writer.bytes(slot, array.value(row).as_bytes()),
            Self::Fixed(array) => writer.bytes(slot, array.value(row)),
            nested => nested.put_nested(row, writer, slot),
        }
    }

    fn put_nested(&self, row: usize, writer: &mut RowWriter<'_, Vec<u8>>, slot: usize) {
        match self {
            Self::List { offsets, element, .. } => {
                let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
                writer.tail(slot, |out| element.put_all(from, to, out));
            }
            Self::Map { offsets, entries, .. } => {
                let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
                writer.tail(slot, |out| {
                    let start = out.len();
                    out.extend_from_slice(&[0; 8]);
                    entries[0].put_all(from, to, out);
                    let keys_bytes = (out.len() - start - 8) as u64;
                    out[start..start + 8].copy_from_slice(&keys_bytes.to_le_bytes());
                    entries[1].put_all(from, to, out);
                });
            }
            Self::Struct { fields, .. } => writer.nested(slot, fields.len(), |inner| {
                for (i, field) in fields.iter().enumerate() {
                    field.put(row, inner, i);
                }
            }),
            _ => {}
        }
    }

    /// Appends the values `from..to` to `out`, encoded as one SQL array.
    fn put_all(&self, from: usize, to: usize, out: &mut Vec<u8>) {
        let mut elements = RowWriter::array(out, to - from);
        for (i, row) in (from..to).enumerate() {
            self.put(row, &mut elements, i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::row::Row;
    use crate::table::types::Field;
    use crate::table::value::Value;
    use std::sync::Arc;

    #[test]
    fn nested_values_are_written_as_a_value_tree_would_be() {
        let strings: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("ccc")]));
        let numbers: ArrayRef = Arc::new(Int16Array::from(vec![Some(7), Some(8), None]));
        let element = Column::Struct {
            nulls: Some(NullBuffer::from(vec![true, false, true])),
            fields: vec![
                Column::of(&strings, &DataType::String).unwrap(),
                Column::of(&numbers, &DataType::Short).unwrap(),
                Column::Null,
            ],
        };
        let map = Column::Map {
            nulls: None,
            offsets: OffsetBuffer::new(vec![0, 2, 3].into()),
            entries: Box::new([Column::of(&strings, &DataType::String).unwrap(), element.clone()]),
        };
        let list = Column::List {
            nulls: Some(NullBuffer::from(vec![true, false])),
            offsets: OffsetBuffer::new(vec![0, 3, 3].into()),
            element: Box::new(element),
        };
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let of = DataType::Struct(vec![
            field("s", DataType::String),
            field("n", DataType::Short),
            field("z", DataType::Date),
        ]);
        let types = [
            DataType::Array(Box::new(of.clone())),
            DataType::Map(Box::new(DataType::String), Box::new(of)),
        ];
        let text = |s: &str| Value::String(s.to_string());
        let first = Value::Struct(vec![text("a"), Value::Long(7), Value::Null]);
        let third = Value::Struct(vec![text("ccc"), Value::Null, Value::Null]);
        let expected = [
            Value::Array(vec![first.clone(), Value::Null, third]),
            Value::Map(vec![(text("a"), first), (Value::Null, Value::Null)]),
        ];
        let (mut bytes, mut wanted) = (Vec::new(), Vec::new());
        let mut writer = RowWriter::new(&mut bytes, 2);
        list.put(0, &mut writer, 0);
        map.put(0, &mut writer, 1);
        let mut writer = RowWriter::new(&mut wanted, 2);
        expected.iter().enumerate().for_each(|(i, value)| writer.value(i, value));
        assert_eq!(bytes, wanted);
        for (i, data_type) in types.iter().enumerate() {
            assert_eq!(Row(&bytes).value(i, 2, data_type), expected[i]);
        }
        let mut bytes = Vec::new();
        list.put(1, &mut RowWriter::new(&mut bytes, 1), 0);
        assert_eq!(Row(&bytes).value(0, 1, &types[0]), Value::Null);
    }
}
