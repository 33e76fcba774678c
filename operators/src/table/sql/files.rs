//! Files that a query names in FROM without a view: ``csv.`path` ``, `'path.csv'` and
//! `read_files('path', format => 'csv')`. Without a list of columns the schema is inferred as for a
//! view, with the format's default options.

use super::expr::convert_with;
use super::subquery::constants;
use super::{Catalog, STREAM_MARK, syntax};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::compile::constant;
use crate::table::expr::resolve::{Scope, cast, resolve};
use crate::table::plan::{Options, Plan};
use crate::table::types::DataType;
use crate::table::value::Value;
use sqlparser::ast::{
    self, BinaryOperator, FunctionArg, FunctionArgExpr, FunctionArgOperator, ObjectName,
    TableFunctionArgs,
};

/// The formats of files.
const FORMATS: [&str; 5] = ["parquet", "orc", "csv", "json", "text"];
/// Formats of sources that have no files, so that a query cannot name their path.
const WITHOUT_FILES: [&str; 5] = ["kafka", "rate", "rate-micro-batch", "socket", "capture"];
/// The endings of file names, each with the format of such files.
const ENDINGS: [(&str, &str); 8] = [
    (".csv", "csv"),
    (".json", "json"),
    (".jsonl", "json"),
    (".ndjson", "json"),
    (".parquet", "parquet"),
    (".orc", "orc"),
    (".txt", "text"),
    (".text", "text"),
];
/// The endings of compressed files, which follow that of the format.
const COMPRESSED: [&str; 6] = [".gz", ".bz2", ".zst", ".lz4", ".snappy", ".deflate"];

/// Files that a query reads.
pub struct FilesInFrom {
    /// The name of the relation, for `explain`.
    pub name: String,
    /// The format, in lower case.
    pub format: String,
    /// The options of the source. `path` is one of them.
    pub options: Options,
    /// The columns in DDL. `None`: they are inferred from the files.
    pub schema: Option<String>,
}

/// The format of files with this path, by the ending of its name.
fn format_of(path: &str) -> Option<&'static str> {
    let lower = path.to_lowercase();
    let plain = COMPRESSED.iter().find_map(|ending| lower.strip_suffix(ending)).unwrap_or(&lower);
    ENDINGS.iter().find(|(ending, _)| plain.ends_with(ending)).map(|(_, format)| *format)
}

fn unknown_format(path: &str) -> PlanError {
    PlanError::new(
        "DATA_SOURCE_NOT_FOUND",
        format!("the name '{path}' does not tell the format of the files"),
        format!("Write csv.`{path}` or read_files('{path}', format => 'csv')"),
    )
}

/// The plan of files. Fails if the path is empty and if it does not exist.
fn planned(files: FilesInFrom, catalog: &dyn Catalog, here: Place) -> PlanResult<Plan> {
    let path = files.options.iter().find(|(key, _)| key == "path").map(|(_, path)| path.as_str());
    if path.is_none_or(|path| path.trim().is_empty()) {
        let reason = "the path of the files is empty";
        let fix = "Name a file, a folder or a pattern: csv.`data/*.csv`";
        return Err(PlanError::new("INVALID_EMPTY_LOCATION", reason, fix).at(here));
    }
    let unable = || PlanError::not_yet("a path in FROM, without a session,");
    catalog.files(files).unwrap_or_else(|| Err(unable())).map_err(|error| error.at(here))
}

/// The text of a constant: a string, a number or a boolean.
fn constant_text(written: &ast::Expr, catalog: &dyn Catalog, here: Place) -> PlanResult<String> {
    let wrong = |what: &str| {
        syntax(format!("`{written}` is {what}, and the value of an option is a text"), here)
    };
    let expr = convert_with(written, &constants(catalog))?;
    let resolved = match resolve(&expr, &Scope::default()) {
        Err(error) if error.condition.starts_with("UNRESOLVED_COLUMN") => {
            return Err(wrong("no constant"));
        }
        other => other?,
    };
    let text = cast(resolved, &DataType::String, false)?;
    match constant(&text, catalog.semantics()).map_err(|error| error.at(here))? {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(wrong("NULL")),
        None => Err(wrong("no constant")),
    }
}

/// The options of `WITH (header = true, 'sep' = ';')` after the name of files.
fn options_of(hints: &[ast::Expr], catalog: &dyn Catalog, here: Place) -> PlanResult<Options> {
    let option = |written: &ast::Expr| {
        let ast::Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = written else {
            let mut error = syntax(format!("`{written}` is no option"), here);
            error.fix = "Write WITH (header = true, sep = ';')".to_string();
            return Err(error);
        };
        let key = match &**left {
            ast::Expr::Identifier(name) => name.value.clone(),
            ast::Expr::CompoundIdentifier(parts) => {
                parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".")
            }
            text => constant_text(text, catalog, here)?,
        };
        Ok((key, constant_text(right, catalog, here)?))
    };
    hints.iter().map(option).collect()
}

/// The plan of files that a relation's name stands for; `None` if the name is that of a view or
/// table. `hints` are the options behind the name.
pub(super) fn named(
    name: &ObjectName,
    hints: &[ast::Expr],
    catalog: &dyn Catalog,
    here: Place,
) -> PlanResult<Option<Plan>> {
    let parts: Vec<_> = name.0.iter().filter_map(|part| part.as_ident()).collect();
    let (format, path) = match parts.as_slice() {
        [one] if one.quote_style == Some('\'') => {
            let path = one.value.strip_prefix(STREAM_MARK).unwrap_or(&one.value);
            let format = format_of(path).ok_or_else(|| unknown_format(path).at(here))?;
            (format.to_string(), path)
        }
        // A view of this name is found before a format.
        [format, path] if catalog.relation(&super::query::plain(name)).is_none() => {
            let format = format.value.strip_prefix(STREAM_MARK).unwrap_or(&format.value);
            let lower = format.to_ascii_lowercase();
            if WITHOUT_FILES.contains(&lower.as_str()) {
                return Err(PlanError::new(
                    "UNSUPPORTED_DATASOURCE_FOR_DIRECT_QUERY",
                    format!("the source {lower} has no files that a query could name"),
                    format!("Write CREATE TEMPORARY VIEW v USING {lower} OPTIONS (…); and FROM v"),
                )
                .at(here));
            }
            // An unquoted `x.csv` has the format as its last part.
            if !FORMATS.contains(&lower.as_str()) {
                return Ok(None);
            }
            (lower, path.value.as_str())
        }
        _ => return Ok(None),
    };
    let mut options = options_of(hints, catalog, here)?;
    if options.iter().any(|(key, _)| key.eq_ignore_ascii_case("path")) {
        let mut error = syntax("the option `path` stands beside the path of the files", here);
        error.fix = "Leave the option out".to_string();
        return Err(error);
    }
    options.push(("path".to_string(), path.to_string()));
    let name = format!("{format}.{path}");
    planned(FilesInFrom { name, format, options, schema: None }, catalog, here).map(Some)
}

/// Plans `read_files('path', format => 'csv', header => true, schema => 'a INT')`.
pub(super) fn read_files(
    args: &TableFunctionArgs,
    catalog: &dyn Catalog,
    here: Place,
) -> PlanResult<Plan> {
    let wrong = |condition: &str, reason: String| {
        let fix = "Write read_files('data/*.csv', format => 'csv', header => true)";
        PlanError::new(condition, reason, fix).at(here)
    };
    let mut given = Options::new();
    for (at, arg) in args.args.iter().enumerate() {
        let (key, value) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(path)) if at == 0 => {
                ("path".to_string(), path)
            }
            FunctionArg::Named {
                name,
                arg: FunctionArgExpr::Expr(value),
                operator: FunctionArgOperator::RightArrow,
            } => (name.value.clone(), value),
            other => {
                let reason = format!("`{other}` is not an argument of `read_files`");
                return Err(wrong("UNEXPECTED_POSITIONAL_ARGUMENT", reason));
            }
        };
        if given.iter().any(|(other, _)| other.eq_ignore_ascii_case(&key)) {
            let reason = format!("`read_files` has the argument `{key}` twice");
            let condition =
                "DUPLICATE_ROUTINE_PARAMETER_ASSIGNMENT.DOUBLE_NAMED_ARGUMENT_REFERENCE";
            return Err(wrong(condition, reason));
        }
        given.push((key, constant_text(value, catalog, here)?));
    }
    let mut taken = |key: &str| {
        let at = given.iter().position(|(other, _)| other.eq_ignore_ascii_case(key))?;
        Some(given.remove(at).1)
    };
    let (format, schema, path) = (taken("format"), taken("schema"), taken("path"));
    let Some(path) = path else {
        let reason = "`read_files` has no path".to_string();
        return Err(wrong("REQUIRED_PARAMETER_NOT_FOUND", reason));
    };
    let format = match format {
        Some(format) => format.to_ascii_lowercase(),
        None => format_of(&path).ok_or_else(|| unknown_format(&path).at(here))?.to_string(),
    };
    if !FORMATS.contains(&format.as_str()) {
        let reason = format!("'{format}' is not a format of files");
        let fix = format!("Formats: {}", FORMATS.join(", "));
        return Err(PlanError::new("DATA_SOURCE_NOT_FOUND", reason, fix).at(here));
    }
    given.push(("path".to_string(), path));
    let name = "read_files".to_string();
    planned(FilesInFrom { name, format, options: given, schema }, catalog, here)
}

/// The files that an unknown name of a relation may stand for, such as `x.csv` without quotes, as a
/// query should name them.
pub(super) fn meant(name: &str) -> Option<String> {
    format_of(name).map(|format| format!("{format}.`{name}`"))
}
