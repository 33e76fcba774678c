//! The options of reading and writing XML.

use crate::table::datetime::Tz;
use crate::table::datetime::pattern::Direction;
use crate::table::error::{PlanError, PlanResult};
use crate::table::text::notation::Notation;
use crate::table::text::xml::values::Values;
use crate::table::value::BinaryStyle;

/// The value of an option, `None` if it is not set.
type Get<'g> = &'g mut dyn FnMut(&'static str) -> Option<String>;

/// The options of reading XML and of schema inference.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    pub(super) values: Values,
    /// The start of a column's name that is an attribute.
    pub(super) attribute_prefix: String,
    /// The column for the text of an element that has attributes or children.
    pub(super) value_tag: String,
    /// The column for elements that no other column has.
    pub(super) wildcard: String,
    pub(super) has_attributes: bool,
    pub(super) ignores_namespace: bool,
    pub(super) infers: bool,
    pub(super) prefers_decimal: bool,
    pub(super) prefers_date: bool,
}

impl ReadOptions {
    /// Sets the style of BINARY values.
    pub fn set_binary(&mut self, style: BinaryStyle) {
        self.values.binary = style;
    }

    /// Reads the options.
    pub fn read(get: Get<'_>, session_zone: Tz) -> PlanResult<Self> {
        let names = Names::read(get)?;
        if get("rowValidationXSDPath").is_some() {
            return Err(PlanError::not_yet("the option 'rowValidationXSDPath': XML schemas"));
        }
        let prefers_date = flag(get, "preferDate", true)?;
        let notation = Notation::with_options(get, Direction::Read, session_zone)?;
        let trims = flag(get, "ignoreSurroundingSpaces", true)?;
        Ok(Self {
            values: Values::new(notation, prefers_date, trims, get("nullValue"))?,
            attribute_prefix: names.attribute_prefix,
            value_tag: names.value_tag,
            wildcard: get("wildcardColName").unwrap_or_else(|| "xs_any".to_string()),
            has_attributes: !flag(get, "excludeAttribute", false)?,
            ignores_namespace: flag(get, "ignoreNamespace", false)?,
            infers: flag(get, "inferSchema", true)?,
            prefers_decimal: flag(get, "prefersDecimal", false)?,
            prefers_date,
        })
    }

    /// The name of a tag or an attribute in the schema.
    pub(super) fn local<'n>(&self, name: &'n str) -> &'n str {
        match self.ignores_namespace {
            true => name.rsplit(':').next().unwrap_or(name),
            false => name,
        }
    }
}

/// The options of writing XML.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    pub(super) row_tag: String,
    pub(super) attribute_prefix: String,
    pub(super) value_tag: String,
    pub(super) element_name: String,
    pub(super) indent: String,
    pub(super) null: Option<String>,
    pub(super) checks_names: bool,
    pub(super) notation: Notation,
}

impl WriteOptions {
    /// Reads the options.
    pub fn read(get: Get<'_>, session_zone: Tz) -> PlanResult<Self> {
        let names = Names::read(get)?;
        if names.attribute_prefix.is_empty() {
            return Err(invalid("attributePrefix", "must not be empty"));
        }
        Ok(Self {
            row_tag: names.row_tag,
            attribute_prefix: names.attribute_prefix,
            value_tag: names.value_tag,
            element_name: get("arrayElementName").unwrap_or_else(|| "item".to_string()),
            indent: get("indent").unwrap_or_else(|| "    ".to_string()),
            null: get("nullValue"),
            checks_names: flag(get, "validateName", true)?,
            notation: Notation::with_options(get, Direction::Write, session_zone)?,
        })
    }

    /// Sets the style of BINARY values.
    pub fn set_binary(&mut self, style: BinaryStyle) {
        self.notation.binary = style;
    }
}

/// The options that name tags, which reading and writing have in common.
struct Names {
    row_tag: String,
    attribute_prefix: String,
    value_tag: String,
}

impl Names {
    fn read(get: Get<'_>) -> PlanResult<Self> {
        let tag = |name, value: &str| match value.starts_with('<') || value.ends_with('>') {
            true => Err(invalid(name, "must not have angle brackets")),
            false => Ok(()),
        };
        let row_tag = get("rowTag").unwrap_or_else(|| "ROW".to_string());
        if row_tag.is_empty() {
            return Err(invalid("rowTag", "must not be empty"));
        }
        tag("rowTag", &row_tag)?;
        for name in ["rootTag", "declaration"] {
            tag(name, &get(name).unwrap_or_default())?;
        }
        let ratio = get("samplingRatio").map(|text| text.trim().parse::<f64>());
        if ratio.is_some_and(|ratio| !ratio.is_ok_and(|ratio| ratio > 0.0)) {
            return Err(invalid("samplingRatio", "must be a number greater than 0"));
        }
        let attribute_prefix = get("attributePrefix").unwrap_or_else(|| "_".to_string());
        let value_tag = get("valueTag").unwrap_or_else(|| "_VALUE".to_string());
        if value_tag.is_empty() || value_tag == attribute_prefix {
            return Err(invalid("valueTag", "must not be empty or equal to 'attributePrefix'"));
        }
        Ok(Self { row_tag, attribute_prefix, value_tag })
    }
}

fn invalid(name: &str, problem: &str) -> PlanError {
    PlanError::new("INVALID_OPTION_VALUE", format!("the option '{name}' {problem}"), "")
}

fn flag(get: Get<'_>, name: &'static str, default: bool) -> PlanResult<bool> {
    match get(name) {
        None => Ok(default),
        Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
        Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
        Some(value) => Err(invalid(name, &format!("is true or false, not '{value}'"))),
    }
}
