//! Generators: functions that turn one row into several, such as `explode`.
//!
//! Every generator is resolved to an array or map, and emits a row for each element: `inline` and
//! `stack` are resolved to an array of structs, `json_tuple` to an array with a single struct.

use crate::table::error::{PlanError, PlanResult, counted};
use crate::table::expr::resolve::{Scope, resolve};
use crate::table::expr::{Expr, Resolved, functions, lower};
use crate::table::function_docs::{Usage, usage};
use crate::table::types::{DataType, Field};
use crate::table::value::Value;

/// The columns that a generator produces from an element of its array or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneratorOutput {
    /// The element itself.
    Element,
    /// For a map: key and value.
    Entry,
    /// For a struct: its fields.
    Fields,
}

/// A resolved generator, which produces rows from the elements of an array or map.
#[derive(Clone, Debug, PartialEq)]
pub struct Generator {
    /// The array for whose elements rows are emitted. For [`GeneratorOutput::Entry`] it is a map.
    pub array: Resolved,
    /// The columns produced from each element.
    pub output: GeneratorOutput,
    /// Whether the first new column is the element's position, counted from 0.
    pub with_position: bool,
    /// Whether a row of NULLs is produced if there are no elements (OUTER).
    pub outer: bool,
    /// The names of the new columns.
    pub names: Vec<String>,
    /// The name of the function in lower case.
    pub name: String,
}

/// The name of a generator, with its description for users.
pub struct GeneratorEntry {
    /// The name in lower case.
    pub name: &'static str,
    /// The help text, in one line: the signature and the description.
    pub help: &'static str,
    /// An example, and the version that introduced the function.
    pub usage: Usage,
}

/// The generators.
pub const GENERATORS: &[GeneratorEntry] = &[
    GeneratorEntry {
        name: "explode",
        help: "explode(array or map): a row for each element",
        usage: usage("1.0.0", "explode(array(10, 20))", "10\n20"),
    },
    GeneratorEntry {
        name: "explode_outer",
        help: "explode_outer(array or map): a row of NULLs if there is no element",
        usage: usage("1.0.0", "explode_outer(array())", "NULL"),
    },
    GeneratorEntry {
        name: "posexplode",
        help: "posexplode(array or map): a row for each element and its position, from 0",
        usage: usage("2.0.0", "posexplode(array(10, 20))", "0, 10\n1, 20"),
    },
    GeneratorEntry {
        name: "posexplode_outer",
        help: "posexplode_outer(array or map): as `posexplode`, but a row of NULLs if there is no element",
        usage: usage("2.0.0", "posexplode_outer(array())", "NULL, NULL"),
    },
    GeneratorEntry {
        name: "inline",
        help: "inline(array of structs): a row for each struct, a column for each field",
        usage: usage("2.0.0", "inline(array(struct(1, 'a'), struct(2, 'b')))", "1, a\n2, b"),
    },
    GeneratorEntry {
        name: "inline_outer",
        help: "inline_outer(array of structs): as `inline`, but a row of NULLs if there is no element",
        usage: usage("2.0.0", "inline_outer(array(struct(1, 'a')))", "1, a"),
    },
    GeneratorEntry {
        name: "variant_explode",
        help: "variant_explode(variant): in FROM, a row for each element or field: its position, name and value",
        usage: usage(
            "4.0.0",
            "* FROM variant_explode(parse_json('{\"b\":1,\"a\":2}'))",
            "0, a, 2\n1, b, 1",
        ),
    },
    GeneratorEntry {
        name: "variant_explode_outer",
        help: "variant_explode_outer(variant): as `variant_explode`, but a row of NULLs if there is nothing",
        usage: usage("4.0.0", "* FROM variant_explode_outer(parse_json('1'))", "NULL, NULL, NULL"),
    },
    GeneratorEntry {
        name: "json_tuple",
        help: "json_tuple(text, 'a', 'b', …): a column for each name",
        usage: usage("1.6.0", r#"json_tuple('{"a":1,"b":2}', 'a', 'b')"#, "1, 2"),
    },
    GeneratorEntry {
        name: "stack",
        help: "stack(rows, a, b, c, d, …): so many rows of the values",
        usage: usage("2.0.0", "stack(2, 1, 2, 3)", "1, 2\n3, NULL"),
    },
];

/// Whether a function in lower case is a generator that is only called in FROM.
pub fn is_table_only(name: &str) -> bool {
    matches!(name, "variant_explode" | "variant_explode_outer")
}

/// Whether an expression is a call of a generator.
pub fn is_generator(expr: &Expr) -> bool {
    let Expr::Call { name, .. } = expr else { return false };
    let lower = lower(name);
    GENERATORS.iter().any(|entry| entry.name == lower)
}

impl Generator {
    /// Resolves a call. `aliases` are the names of the new columns; if empty, default names are
    /// used.
    pub fn new(call: &Expr, scope: &Scope, outer: bool, aliases: &[String]) -> PlanResult<Self> {
        Self::resolve(call, scope, outer, aliases).map_err(|error| error.at(call.place()))
    }

    fn resolve(call: &Expr, scope: &Scope, outer: bool, aliases: &[String]) -> PlanResult<Self> {
        let Expr::Call { name, args, .. } = call else {
            return Err(PlanError::not_yet(format_args!("the generator `{call}`")));
        };
        let lower = name.to_ascii_lowercase();
        let resolved =
            args.iter().map(|arg| resolve(arg, scope)).collect::<PlanResult<Vec<_>>>()?;
        let base = lower.strip_suffix("_outer").unwrap_or(&lower);
        let array = array_of(base, &lower, resolved)?;
        let (output, mut names) = output_of(base, &lower, &array)?;
        let with_position = base == "posexplode";
        if with_position {
            names.insert(0, "pos".to_string());
        }
        if !aliases.is_empty() {
            if aliases.len() != names.len() {
                return Err(PlanError::new(
                    "UDTF_ALIAS_NUMBER_MISMATCH",
                    format!(
                        "`{lower}` gives {}, but {} are named",
                        counted(names.len(), "column"),
                        aliases.len()
                    ),
                    "Name each: explode(m) AS (k, v)",
                ));
            }
            names = aliases.to_vec();
        }
        let outer = outer || lower.ends_with("_outer");
        Ok(Self { array, output, with_position, outer, names, name: lower })
    }

    /// The new columns that the generator adds to those of the input.
    pub fn columns(&self) -> Vec<Field> {
        let mut types = Vec::new();
        if self.with_position {
            types.push((DataType::Int, self.outer));
        }
        match (&self.array.data_type, self.output) {
            (DataType::Array(element), GeneratorOutput::Element) => {
                types.push(((**element).clone(), true))
            }
            (DataType::Map(key, value), _) => {
                types.push(((**key).clone(), self.outer));
                types.push(((**value).clone(), true));
            }
            (DataType::Array(element), _) => {
                if let DataType::Struct(fields) = &**element {
                    types.extend(fields.iter().map(|f| (f.data_type.clone(), true)));
                }
            }
            _ => {}
        }
        let named = self.names.iter().cloned().zip(types);
        named.map(|(name, (data_type, nullable))| Field::new(name, data_type, nullable)).collect()
    }
}

/// Resolves the arguments to the array or map for whose elements rows are emitted. `base` is the
/// function without `_outer`. A wrong number of arguments is an error.
fn array_of(base: &str, name: &str, args: Vec<Resolved>) -> PlanResult<Resolved> {
    let count = args.len();
    match (base, args.as_slice()) {
        ("json_tuple", [_, _, ..]) => {
            let fields = functions::json_tuple(args)?;
            functions::resolve("array", vec![functions::resolve("struct", fields)?])
        }
        ("stack", [_, _, ..]) => stack(args),
        ("variant_explode", [_]) => {
            let arg = args.into_iter().next().unwrap_or_else(|| unreachable!("it was counted"));
            functions::variant_entries(name, arg)
        }
        ("explode" | "posexplode" | "inline", [_]) => {
            Ok(args.into_iter().next().unwrap_or_else(|| unreachable!("it was counted")))
        }
        // For these functions Spark reports the missing parameter by name.
        ("explode" | "posexplode" | "inline" | "variant_explode", []) => Err(PlanError::new(
            "REQUIRED_PARAMETER_NOT_FOUND",
            format!("`{name}` has no argument"),
            "explode(array), inline(array of structs)",
        )),
        _ => Err(PlanError::new(
            "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
            format!("`{name}` has {}", counted(count, "argument")),
            "explode(array), json_tuple(text, 'a', 'b'), stack(2, a, b, c, d)",
        )),
    }
}

/// How an element is converted to columns, and the default names of the columns. Fails if the
/// argument is not the array or map that the function needs.
fn output_of(
    base: &str,
    name: &str,
    array: &Resolved,
) -> PlanResult<(GeneratorOutput, Vec<String>)> {
    let wrong = |wanted: &str| {
        PlanError::new(
            "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
            format!("`{name}` needs {wanted}, but `{array}` is {}", array.data_type),
            "split(text, ' ') makes an array of a text",
        )
    };
    let element = match (base, &array.data_type) {
        ("explode" | "posexplode", DataType::Array(_)) => {
            return Ok((GeneratorOutput::Element, vec!["col".to_string()]));
        }
        ("explode" | "posexplode", DataType::Map(..)) => {
            return Ok((GeneratorOutput::Entry, vec!["key".to_string(), "value".to_string()]));
        }
        ("explode" | "posexplode", _) => return Err(wrong("an array or a map")),
        (_, DataType::Array(element)) => &**element,
        _ => return Err(wrong("an array of structs")),
    };
    let DataType::Struct(fields) = element else { return Err(wrong("an array of structs")) };
    let prefix = match base {
        "json_tuple" => Some("c"),
        "stack" => Some("col"),
        _ => None,
    };
    let name = |(i, f): (usize, &Field)| match prefix {
        Some(prefix) => format!("{prefix}{i}"),
        None => f.name.clone(),
    };
    Ok((GeneratorOutput::Fields, fields.iter().enumerate().map(name).collect()))
}

/// Resolves `stack(rows, a, b, c, d)` to an array with the given number of rows. The values are
/// distributed over the rows in order.
fn stack(args: Vec<Resolved>) -> PlanResult<Resolved> {
    use crate::table::expr::Node;
    use crate::table::expr::compile::{Semantics, fold};
    let mut args = args.into_iter();
    let count = args.next();
    let condition = match &count {
        Some(count) if !matches!(count.data_type, DataType::Int) => "UNEXPECTED_INPUT_TYPE",
        Some(count) if count.is_foldable() => "VALUE_OUT_OF_RANGE",
        _ => "NON_FOLDABLE_INPUT",
    };
    let whole = condition != "UNEXPECTED_INPUT_TYPE";
    let rows = match count.map(|count| fold(count, Semantics::default()).node) {
        Some(Node::Literal(Value::Long(count))) if whole && (1..=1 << 16).contains(&count) => {
            count as usize
        }
        _ => {
            return Err(PlanError::new(
                format!("DATATYPE_MISMATCH.{condition}"),
                "the number of rows of `stack` must be a constant from 1",
                "stack(2, a, b, c, d)",
            ));
        }
    };
    let mut values: Vec<Resolved> = args.collect();
    let width = values.len().div_ceil(rows);
    values.resize(width * rows, Resolved::literal(Value::Null, DataType::Null));
    let types = (0..width).map(|column| stack_type(&values, column, width));
    let types = types.collect::<PlanResult<Vec<_>>>()?;
    let mut structs = Vec::new();
    let mut values = values.into_iter();
    for _ in 0..rows {
        let mut fields = Vec::new();
        for ((i, value), data_type) in values.by_ref().take(width).enumerate().zip(&types) {
            fields.push(Resolved::literal(Value::String(format!("col{i}")), DataType::String));
            fields.push(value.coerce(data_type));
        }
        structs.push(functions::resolve("named_struct", fields)?);
    }
    functions::resolve("array", structs)
}

/// The type of a column of `stack`: that of its first value other than NULL. As in Spark, the other
/// values must have the same type; they are not cast.
fn stack_type(values: &[Resolved], column: usize, width: usize) -> PlanResult<DataType> {
    let of_column = || values.iter().skip(column).step_by(width);
    let typed = || of_column().filter(|value| value.data_type != DataType::Null);
    let Some(first) = typed().next() else { return Ok(DataType::Null) };
    match typed().find(|value| value.data_type != first.data_type) {
        Some(other) => Err(PlanError::new(
            "DATATYPE_MISMATCH.STACK_COLUMN_DIFF_TYPES",
            format!(
                "column {column} of `stack` has `{first}`, which is {}, and `{other}`, which is {}",
                first.data_type, other.data_type
            ),
            "Cast the values of a column to one type",
        )),
        None => Ok(first.data_type.clone()),
    }
}
