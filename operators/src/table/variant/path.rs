//! The paths of `variant_get`: `$.name`, `$['name']`, `$["name"]` and `$[index]`, one after the
//! other.

/// A path into a VARIANT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(Vec<Step>);

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A field of an object.
    Field(String),
    /// An element of an array, counted from 0.
    Element(usize),
}

/// The error of a text that is not a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPath;

impl Path {
    /// Parses a path.
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        let mut rest = text.strip_prefix('$').ok_or(InvalidPath)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, behind) = first_step(rest).ok_or(InvalidPath)?;
            steps.push(step);
            rest = behind;
        }
        Ok(Self(steps))
    }

    /// Whether the path leads to the whole value.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }
}

/// The first step of a text, and what is behind it.
fn first_step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        return (!name.is_empty()).then(|| (Step::Field(name.to_string()), behind));
    }
    let rest = text.strip_prefix('[')?;
    for quote in ['\'', '"'] {
        if let Some(rest) = rest.strip_prefix(quote) {
            let (name, behind) = rest.split_once(quote)?;
            return Some((Step::Field(name.to_string()), behind.strip_prefix(']')?));
        }
    }
    let (digits, behind) = rest.split_once(']')?;
    let is_index = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    // As in Spark, an index has 31 bits.
    let index = digits.parse::<i32>().ok().filter(|_| is_index)?;
    Some((Step::Element(usize::try_from(index).ok()?), behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_spark_reads_them() {
        let field = |name: &str| Step::Field(name.to_string());
        for (text, steps) in [
            ("$", vec![]),
            ("$.a b.c", vec![field("a b"), field("c")]),
            ("$[0]['a.b'][\"c'd\"]", vec![Step::Element(0), field("a.b"), field("c'd")]),
            ("$['']", vec![field("")]),
            ("$.a]", vec![field("a]")]),
        ] {
            assert_eq!(Path::parse(text), Ok(Path(steps)), "{text}");
        }
        for text in ["", "a", "$.", "$a", "$[", "$[]", "$[-1]", "$['a]", "$[9999999999]", " $"] {
            assert_eq!(Path::parse(text), Err(InvalidPath), "{text}");
        }
    }
}
