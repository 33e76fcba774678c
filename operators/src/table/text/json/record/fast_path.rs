//! The fast path for JSON records. It applies if the next field is the predicted field and its
//! value is a simple value of the field's type, or an array of such values. It writes the same
//! bytes as the general path, or leaves the row unchanged and lets the general path continue.

use crate::table::row::{Bytes, RowWriter};
use crate::table::text::json::record::fields::{Member, Shape};
use crate::table::text::json::record::{Fault, JsonReadOptions, Pass};
use crate::table::text::json::token::{FastValue, Token};
use crate::table::text::notation::integer;
use crate::table::types::DataType;
use smallvec::SmallVec;

impl Pass<'_, '_> {
    /// Consumes the name of a field if that name is next. Returns whether it is.
    #[inline]
    pub(super) fn comes_next(&mut self, member: &Member) -> bool {
        member.head.as_ref().is_some_and(|head| self.tokens.try_skip_head(head))
    }

    /// Reads the value of a field after the fast path has consumed its name. Returns the token at
    /// which the general path must continue; `None` if the value was read, or skipped because the
    /// field is not needed.
    #[inline]
    pub(super) fn fast_member<B: Bytes>(
        &mut self,
        member: &Member,
        at: usize,
        writer: &mut RowWriter<'_, B>,
    ) -> Result<Option<Token>, Fault> {
        let quick = if member.has_fast_path { self.tokens.fast_value() } else { None };
        match (quick, &member.shape) {
            (Some(_), _) if !member.wanted => Ok(None),
            (Some(quick), Shape::Scalar(data_type)) => {
                let repeated = !writer.is_null(at);
                let done = put(self.reading, quick, data_type, at, writer);
                self.garbage |= done && repeated;
                Ok((!done).then(|| quick.token()))
            }
            (Some(quick), _) => Ok(Some(quick.token())),
            (None, Shape::Array(element)) if member.wanted => {
                if let Shape::Scalar(element) = &**element
                    && !matches!(element, DataType::Variant | DataType::CalendarInterval)
                    && self.fast_array(element, at, writer)
                {
                    return Ok(None);
                }
                Ok(Some(self.tokens.finish_head()?))
            }
            (None, _) => Ok(Some(self.tokens.finish_head()?)),
        }
    }

    /// Reads an array of simple values into its slot. Returns false, with nothing changed, if the
    /// general path must read the array.
    fn fast_array<B: Bytes>(
        &mut self,
        element: &DataType,
        at: usize,
        writer: &mut RowWriter<'_, B>,
    ) -> bool {
        let Some(place) = self.tokens.open_array() else { return false };
        let mut items: SmallVec<[Item<'_>; 16]> = SmallVec::new();
        while !self.tokens.close_array() {
            let separated = items.is_empty() || self.tokens.skip_comma();
            let quick = if separated { self.tokens.fast_value() } else { None };
            match quick.and_then(|quick| item(quick, element)) {
                Some(item) => items.push(item),
                None => {
                    self.tokens.rewind(place);
                    return false;
                }
            }
        }
        self.garbage |= !writer.is_null(at);
        writer.nested_array(at, items.len(), |array| {
            for (index, item) in items.iter().enumerate() {
                match item {
                    Item::Null => {}
                    Item::Word(word) => array.long(index, *word),
                    Item::Text(text) => array.bytes(index, text),
                }
            }
        });
        true
    }
}

/// An array element, in the form in which a slot stores it.
enum Item<'j> {
    Null,
    Word(i64),
    Text(&'j [u8]),
}

/// Converts a simple value to an array element. `None` if the general path must convert it.
#[inline]
fn item<'j>(quick: FastValue<'j>, element: &DataType) -> Option<Item<'j>> {
    Some(match (quick, element) {
        (FastValue::Null, _) => Item::Null,
        (FastValue::Text(text), DataType::String) => Item::Text(text),
        (FastValue::Number(plain), DataType::Int | DataType::Long) => {
            Item::Word(integer(plain.long()?, element)?)
        }
        (FastValue::Number(plain), DataType::Double) => {
            Item::Word(plain.double()?.to_bits() as i64)
        }
        (FastValue::Boolean(value), DataType::Boolean) => Item::Word(i64::from(value)),
        _ => return None,
    })
}

/// Writes a simple value into its slot. Returns false, with nothing changed, if the general path
/// must write it.
#[inline]
fn put<B: Bytes>(
    reading: &JsonReadOptions,
    quick: FastValue<'_>,
    data_type: &DataType,
    at: usize,
    writer: &mut RowWriter<'_, B>,
) -> bool {
    use DataType as T;
    match (quick, data_type) {
        (FastValue::Text(text), T::String) => writer.bytes(at, text),
        (FastValue::Text(text), T::Date | T::Timestamp) => {
            let text = std::str::from_utf8(text).ok();
            match text.and_then(|text| reading.notation.long(text, data_type)) {
                Some(value) => writer.long(at, value),
                None => return false,
            }
        }
        (FastValue::Number(plain), T::Int | T::Long | T::Short) => {
            match plain.long().and_then(|value| integer(value, data_type)) {
                Some(value) => writer.long(at, value),
                None => return false,
            }
        }
        (FastValue::Number(plain), T::Double) => match plain.double() {
            Some(value) => writer.double(at, value),
            None => return false,
        },
        (FastValue::Number(plain), T::Decimal(precision, scale)) => {
            match plain.decimal(*precision, *scale) {
                Some(value) => writer.decimal(at, value),
                None => return false,
            }
        }
        (FastValue::Boolean(value), T::Boolean) => writer.bool(at, value),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::text::json::Source;
    use crate::table::text::json::record::RecordReader;
    use crate::table::text::json::record::fields::Fields;
    use crate::table::text::json::record::tests::reader;
    use proptest::prelude::*;

    /// Generates a member of an object, which may be malformed.
    fn member() -> impl Strategy<Value = String> {
        let value = prop_oneof![
            3 => "-?[0-9]{1,20}",
            3 => "-?[0-9]{1,17}[.][0-9]{1,9}",
            1 => "-?[0-9]{0,3}[.e][0-9]{0,3}",
            4 => "\"[a-cé \"\\\\]{0,9}\"",
            1 => "\"2024-0[1-3]-[0-3][0-9]( 0[0-9]:00:0[0-9])?\"",
            2 => "true|false|null|tru|nullx|NaN|'a'|",
            3 => r#"\[(("[a-c]{0,3}"|[0-9]{1,3}|null|1\.5|\{\}), ?){0,3}("b"|7|null|"\\n")?\]"#,
            2 => r#"\{("s":("x"|1|01|\{)?,)?("n":[0-9]{1,3})?\}?"#,
        ];
        let space = || proptest::sample::select(vec!["", "", "", " ", "\n"]);
        let name = proptest::sample::select(
            ["i", "l", "d", "m", "s", "b", "x", "t", "e", "a", "n", "o", "other", "\\u0069"]
                .to_vec(),
        );
        (name, space(), space(), value)
            .prop_map(|(name, before, behind, value)| format!("{before}\"{name}\":{behind}{value}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// The fast path writes the same bytes as the general path.
        #[test]
        fn the_fast_path_gives_the_rows_of_the_general_path(
            records in proptest::collection::vec(
                proptest::collection::vec(member(), 0..8).prop_map(|all| all.join(",")), 1..4),
            chars: bool,
            end in proptest::sample::select(vec!["}", "}", "}", " }", "", "]", "}x"]),
        ) {
            let ddl = "i INT, l BIGINT, d DOUBLE, m DECIMAL(9,2), s STRING, b BOOLEAN, x BINARY, \
                t TIMESTAMP, e DATE, a ARRAY<STRING>, n ARRAY<INT>, o STRUCT<s: STRING, n: INT>";
            let source = if chars { Source::Chars } else { Source::Bytes };
            let (_, quick) = reader(ddl, source);
            let mut long = quick.clone();
            let Shape::Struct(fields) = &mut long.shape else { unreachable!() };
            without_heads(fields);
            for record in &records {
                let text = format!("{{{record}{end}");
                let read = |reader: &RecordReader| {
                    let mut out = Vec::new();
                    let mut writer = RowWriter::new(&mut out, 12);
                    (reader.read(text.as_bytes(), true, &mut writer), out)
                };
                prop_assert_eq!(read(&quick), read(&long), "{}", text);
            }
        }
    }

    fn without_heads(fields: &mut Fields) {
        for member in &mut fields.list {
            member.head = None;
            if let Shape::Struct(fields) = &mut member.shape {
                without_heads(fields);
            }
        }
    }
}
