//! Copies of VARIANT values with a change at a path: `variant_insert`, `variant_set`,
//! `variant_delete`, `variant_array_append` and `variant_strip_nulls`.

use super::path::Step;
use super::{BuildError, Builder, Content, Parts, Path, SIZE_MAX, Variant};
use crate::table::deep_recursion::on_stack;

/// What happens at the end of a path.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// A new field is added, or an element before the one at the index.
    Insert(Variant<'a>),
    /// The value is replaced. If there is none, it is added, unless `creates` is false.
    Set {
        /// The new value.
        value: Variant<'a>,
        /// Whether a missing value is added.
        creates: bool,
    },
    /// An element is added to the array.
    Append(Variant<'a>),
    /// The field or the element is left out.
    Delete,
}

/// Why a value cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// A step leads into a value of another kind, such as a field of an array.
    OtherKind,
    /// The field to insert exists already.
    FieldExists(String),
    /// The changed value cannot be built.
    Build(BuildError),
}

impl From<BuildError> for ChangeError {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl<'a> Change<'a> {
    /// The value that is added where a path leads to nothing.
    fn added(self) -> Option<Variant<'a>> {
        match self {
            Self::Insert(value) | Self::Set { value, creates: true } => Some(value),
            _ => None,
        }
    }
}

impl Builder {
    /// Appends a copy of a value, changed where the path leads.
    pub fn changed(
        &mut self,
        value: Variant<'_>,
        path: &Path,
        change: Change<'_>,
    ) -> Result<(), ChangeError> {
        self.changed_at(value, path.steps(), change)
    }

    fn changed_at(
        &mut self,
        value: Variant<'_>,
        steps: &[Step],
        change: Change<'_>,
    ) -> Result<(), ChangeError> {
        match (steps, value.content(), change) {
            ([], Content::Array(elements), Change::Append(added)) => {
                let start = self.start();
                for element in elements.values() {
                    self.element(start);
                    self.variant(element)?;
                }
                self.element(start);
                self.variant(added)?;
                Ok(self.end_array(start)?)
            }
            ([Step::Field(name), rest @ ..], Content::Object(fields), _) => {
                self.changed_object(fields, name, rest, change)
            }
            ([Step::Element(index), rest @ ..], Content::Array(elements), _) => {
                self.changed_array(elements, *index, rest, change)
            }
            // What does not exist is deleted already.
            (_, _, Change::Delete) => Ok(self.variant(value)?),
            _ => Err(ChangeError::OtherKind),
        }
    }

    fn changed_object(
        &mut self,
        fields: Parts<'_>,
        name: &str,
        rest: &[Step],
        change: Change<'_>,
    ) -> Result<(), ChangeError> {
        let start = self.start();
        let mut is_found = false;
        for (field, value) in fields.fields() {
            if field != name.as_bytes() {
                self.field(start, field);
                self.variant(value)?;
                continue;
            }
            is_found = true;
            match (rest, change) {
                ([], Change::Insert(_)) => return Err(ChangeError::FieldExists(name.to_string())),
                ([], Change::Delete) => {}
                ([], Change::Set { value, .. }) => {
                    self.field(start, field);
                    self.variant(value)?;
                }
                _ => {
                    self.field(start, field);
                    on_stack(|| self.changed_at(value, rest, change))?;
                }
            }
        }
        if let (false, Some(value)) = (is_found, change.added()) {
            self.field(start, name.as_bytes());
            self.nested(rest, value)?;
        }
        Ok(self.end_object(start)?)
    }

    fn changed_array(
        &mut self,
        elements: Parts<'_>,
        index: usize,
        rest: &[Step],
        change: Change<'_>,
    ) -> Result<(), ChangeError> {
        let start = self.start();
        for (at, element) in elements.values().enumerate() {
            if at == index {
                match (rest, change) {
                    ([], Change::Delete) => continue,
                    ([], Change::Set { value, .. }) => {
                        self.element(start);
                        self.variant(value)?;
                        continue;
                    }
                    ([], Change::Insert(value)) => {
                        self.element(start);
                        self.variant(value)?;
                    }
                    _ => {
                        self.element(start);
                        on_stack(|| self.changed_at(element, rest, change))?;
                        continue;
                    }
                }
            }
            self.element(start);
            self.variant(element)?;
        }
        if let (true, Some(value)) = (index >= elements.len, change.added()) {
            self.nulls(start, index - elements.len)?;
            self.element(start);
            self.nested(rest, value)?;
        }
        Ok(self.end_array(start)?)
    }

    /// Appends a value below the objects and arrays that the steps name.
    fn nested(&mut self, steps: &[Step], value: Variant<'_>) -> Result<(), ChangeError> {
        match steps {
            [] => Ok(self.variant(value)?),
            [Step::Field(name), rest @ ..] => {
                let start = self.start();
                self.field(start, name.as_bytes());
                on_stack(|| self.nested(rest, value))?;
                Ok(self.end_object(start)?)
            }
            [Step::Element(index), rest @ ..] => {
                let start = self.start();
                self.nulls(start, *index)?;
                self.element(start);
                on_stack(|| self.nested(rest, value))?;
                Ok(self.end_array(start)?)
            }
        }
    }

    /// Appends elements that are JSON's null. More than a value can hold are refused before they
    /// take memory.
    fn nulls(&mut self, array: super::builder::Start, count: usize) -> Result<(), BuildError> {
        // A null takes a byte, and an offset of four bytes in a value of this size.
        const ELEMENT_BYTES: usize = 5;
        if count.saturating_add(self.open_parts()) > SIZE_MAX / ELEMENT_BYTES {
            return Err(BuildError::TooLarge);
        }
        for _ in 0..count {
            self.element(array);
            self.null();
        }
        Ok(())
    }

    /// Appends a copy of a value without the fields, and also without the elements if
    /// `in_arrays`, that are JSON's null.
    pub fn without_nulls(&mut self, value: Variant<'_>, in_arrays: bool) -> Result<(), BuildError> {
        let is_null = |value: &Variant<'_>| matches!(value.content(), Content::Null);
        match value.content() {
            Content::Object(fields) => {
                let start = self.start();
                for (name, value) in fields.fields().filter(|(_, value)| !is_null(value)) {
                    self.field(start, name);
                    on_stack(|| self.without_nulls(value, in_arrays))?;
                }
                self.end_object(start)
            }
            Content::Array(elements) => {
                let start = self.start();
                for value in elements.values().filter(|value| !(in_arrays && is_null(value))) {
                    self.element(start);
                    on_stack(|| self.without_nulls(value, in_arrays))?;
                }
                self.end_array(start)
            }
            _ => self.variant(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::is_sound;
    use super::*;

    fn changed(bytes: &[u8], path: &str, change: Change<'_>) -> Result<Vec<u8>, ChangeError> {
        let mut out = Vec::new();
        let path = Path::parse(path).unwrap();
        Builder::with(&mut out, |builder| builder.changed(Variant::new(bytes), &path, change))?;
        Ok(out)
    }

    #[test]
    fn a_path_makes_no_value_that_is_too_large_or_too_deep() {
        let mut empty = Vec::new();
        let build = |builder: &mut Builder| {
            let start = builder.start();
            builder.end_array(start)
        };
        Builder::with(&mut empty, build).unwrap();
        let (bytes, value) = (empty.clone(), empty.clone());
        let added = Change::Insert(Variant::new(&value));
        let too_large = ChangeError::Build(BuildError::TooLarge);
        for path in [
            "$[60000000]".to_string(),
            "$[9000000][9000000][9000000][9000000]".to_string(),
            format!("${}", "[0]".repeat(50_000)),
        ] {
            assert_eq!(changed(&bytes, &path, added), Err(too_large.clone()), "{}", path.len());
        }
        // The limit is also that of a value that grows by one level at a time.
        let mut deep = bytes.clone();
        let levels = (0..2 * super::super::LEVELS_MAX).take_while(|_| {
            let grown = changed(&bytes, "$[0]", Change::Insert(Variant::new(&deep)));
            grown.is_ok_and(|grown| {
                deep = grown;
                is_sound(&deep)
            })
        });
        assert_eq!(levels.count(), super::super::LEVELS_MAX - 1);
    }

    #[test]
    fn a_value_whose_parts_overlap_is_not_sound() {
        // An array of two elements that are both the array of the next level.
        let mut value = vec![0];
        for _ in 0..30 {
            let mut outer = vec![0b11, 2, 0, 0, value.len() as u8];
            outer.extend_from_slice(&value);
            value = outer;
        }
        let mut bytes = 3u32.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[1, 0, 0]);
        bytes.extend_from_slice(&value);
        assert!(!is_sound(&bytes));
    }
}
