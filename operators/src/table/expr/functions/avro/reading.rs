//! The arguments of `from_avro`: the schemas, the options, and the registry that has the writers'
//! schemas.

use crate::table::avro::{Schema, SchemaError, sql_type};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::functions::bad_record::{BadRecords, ERROR_COLUMN};
use crate::table::expr::functions::record_options::{Options, READER_SCHEMA, SCHEMA_ID};
use crate::table::expr::functions::registry::{constant_text, unexpected};
use crate::table::expr::{Node, Resolved};
use crate::table::schema_registry::{
    ADDRESS, Failure, OPTIONS as REGISTRY_OPTIONS, Registered, Registry, RegistryOptions, SUBJECT,
};
use crate::table::types::DataType;
use crate::table::value::Value;
use std::sync::Arc;

use DataType as T;

/// What happens when a writer uses a newer schema than the reader.
const EVOLUTION: &str = "avroSchemaEvolutionMode";

/// The option names of `from_avro`, as Spark and Databricks spell them. `avroSchemaUrl` is refused;
/// `recordName` and those after it have no effect.
pub const OPTIONS: [&str; 12] = [
    "mode",
    READER_SCHEMA,
    "avroSchemaUrl",
    ERROR_COLUMN,
    EVOLUTION,
    SCHEMA_ID,
    "recordName",
    "recordNamespace",
    "ignoreExtension",
    "compression",
    "datetimeRebaseMode",
    "positionalFieldMatching",
];

/// The option names of `to_avro`, in addition to those of the registry.
pub const WRITER_OPTIONS: [&str; 1] = [SCHEMA_ID];

/// The schemas that the data was written with.
pub enum Writer {
    /// One schema for all records, which have no header.
    Given(Arc<Schema>),
    /// The schema of the id in the header of each record.
    Registered {
        registry: Arc<Registry>,
        /// In the evolution mode `restart`, the subject of the reader's schema and its id.
        restarts_for: Option<(String, u32)>,
    },
}

/// The parsed arguments of `from_avro`: schemas, result type and mode.
pub struct Reading {
    pub writer: Writer,
    pub reader: Arc<Schema>,
    /// The SQL type of the result.
    pub data_type: DataType,
    pub bad_records: BadRecords,
}

/// Replaces the arguments `'subject', 'address'` of `from_avro` and `to_avro` by options, and looks
/// up the schema of a subject. The arguments of a call without a registry stay as they are. `known`
/// has the option names of the function.
pub fn resolve_registry(name: &str, args: &mut Vec<Resolved>, known: &[&str]) -> PlanResult<()> {
    let known = &[known, &REGISTRY_OPTIONS];
    let mut subject = None;
    let mut options = match args.get(2) {
        Some(third) if third.data_type == T::String => {
            let text = |index: usize| match constant_text(name, &args[index])? {
                Some(text) => Ok(text),
                None => Err(unexpected(name, "a constant text", &args[index])),
            };
            let mut options = Options::read(name, args.get(3), known)?;
            options.push(ADDRESS, text(2)?);
            options.push(SUBJECT, text(1)?);
            subject = Some(text(1)?);
            options
        }
        Some(_) if args.len() > 3 => {
            return Err(unexpected(name, "the address of a schema registry", &args[2]));
        }
        third => Options::read(name, third, known)?,
    };
    let is_without_schema = args.get(1).is_none_or(is_null);
    if subject.is_none() && is_without_schema && options.get(READER_SCHEMA).is_none() {
        subject = options.get(SUBJECT).map(str::to_string);
    }
    let Some(settings) = RegistryOptions::read(name, |key| options.get(key))? else {
        return Ok(());
    };
    let registry = Registry::shared(name, &settings)?;
    if let Some(subject) = &subject
        && options.get(SCHEMA_ID).is_none()
        && (options.get(READER_SCHEMA).is_none() || is_restarting(name, &options)?)
    {
        let latest = registry.latest(subject).map_err(|failure| refused(name, &failure))?;
        options.push(SCHEMA_ID, latest.id.to_string());
    }
    let schema = match subject {
        Some(_) => Resolved::literal(Value::Null, T::String),
        None => args[1].clone(),
    };
    args.truncate(1);
    args.extend([schema, options.literal()]);
    Ok(())
}

fn is_null(arg: &Resolved) -> bool {
    matches!(arg.node, Node::Literal(Value::Null))
}

/// Whether a newer schema of the subject ends the query.
fn is_restarting(name: &str, options: &Options<'_>) -> PlanResult<bool> {
    match options.get(EVOLUTION) {
        None => Ok(false),
        Some(mode) if mode.eq_ignore_ascii_case("none") => Ok(false),
        Some(mode) if mode.eq_ignore_ascii_case("restart") && options.get(SUBJECT).is_some() => {
            Ok(true)
        }
        Some(mode) => Err(PlanError::new(
            "INVALID_OPTION_VALUE",
            format!("`{name}`: the option '{EVOLUTION}' is '{mode}'"),
            "none, or with a subject restart",
        )),
    }
}

/// The schema that `resolve_registry` has looked up, and the registry; `None` for a call without a
/// subject.
pub fn looked_up(
    name: &str,
    options: &Options<'_>,
) -> PlanResult<Option<(Arc<Registry>, Arc<Registered>)>> {
    let settings = RegistryOptions::read(name, |key| options.get(key))?;
    let id = options.get(SCHEMA_ID).and_then(|id| id.parse().ok());
    let (Some(settings), Some(id)) = (settings, id) else { return Ok(None) };
    let registry = Registry::shared(name, &settings)?;
    let found = registry.by_id(id).map_err(|failure| refused(name, &failure))?;
    Ok(Some((registry, found)))
}

/// Parses a schema of the registry.
pub fn parse_registered(found: &Registered) -> Result<Arc<Schema>, SchemaError> {
    if !found.language.eq_ignore_ascii_case("AVRO") {
        let (id, language) = (found.id, &found.language);
        return Err(SchemaError(format!("the schema {id} is not Avro but {language}")));
    }
    Schema::parse_referring(&found.text, &found.references)
}

/// The condition of a schema that the registry does not have, when no record is to blame.
pub const REGISTRY_FAILED: &str = "SCHEMA_REGISTRY_FAILED";

#[cold]
pub fn refused(name: &str, failure: &Failure) -> PlanError {
    let condition = failure.condition().unwrap_or(REGISTRY_FAILED);
    PlanError::new(condition, format!("`{name}`: {}", failure.reason()), failure.fix())
}

impl Reading {
    /// Parses the arguments after the data.
    pub fn of(name: &str, schema: &Resolved, options: Option<&Resolved>) -> PlanResult<Self> {
        let options = Options::read(name, options, &[&OPTIONS, &REGISTRY_OPTIONS])?;
        if options.get("avroSchemaUrl").is_some() {
            return Err(PlanError::not_yet(format_args!("the option 'avroSchemaUrl' of `{name}`")));
        }
        let wanted = options.get(READER_SCHEMA).map(Schema::parse).transpose();
        let wanted = wanted.map_err(|error| unusable(name, &error))?;
        let (writer, reader) = match RegistryOptions::read(name, |key| options.get(key))? {
            Some(settings) => registered(name, schema, &options, &settings, wanted)?,
            None => {
                let given = parsed(name, schema)?;
                (Writer::Given(given.clone()), wanted.unwrap_or(given))
            }
        };
        let mut data_type = sql_type(&reader).map_err(|error| unusable(name, &error))?.data_type;
        let bad_records = BadRecords::read(&options, &mut data_type)?;
        Ok(Self { writer, reader, data_type, bad_records })
    }
}

/// The writer and the reader's schema of a call with a registry. The reader's schema is that of the
/// option `avroSchema`, the argument, or the subject's latest one.
fn registered(
    name: &str,
    schema: &Resolved,
    options: &Options<'_>,
    settings: &RegistryOptions,
    wanted: Option<Arc<Schema>>,
) -> PlanResult<(Writer, Arc<Schema>)> {
    let registry = Registry::shared(name, settings)?;
    let latest = looked_up(name, options)?.map(|(_, found)| found);
    let reader = match (wanted, &latest) {
        (Some(wanted), _) => wanted,
        (None, Some(found)) => parse_registered(found).map_err(|error| unusable(name, &error))?,
        (None, None) => parsed(name, schema)?,
    };
    let restarts_for = match (is_restarting(name, options)?, options.get(SUBJECT), latest) {
        (true, Some(subject), Some(found)) => Some((subject.to_string(), found.id)),
        _ => None,
    };
    Ok((Writer::Registered { registry, restarts_for }, reader))
}

/// Parses the schema in an argument. Fails unless it is a constant text that is a schema.
pub fn parsed(name: &str, arg: &Resolved) -> PlanResult<Arc<Schema>> {
    let is_text = matches!(arg.data_type, T::String);
    let text = if is_text { constant_text(name, arg).ok().flatten() } else { None };
    let Some(text) = text else {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.TYPE_CHECK_FAILURE_WITH_HINT",
            format!("the schema of `{name}` must be a constant text, but is `{arg}`"),
            "Write the schema as JSON",
        ));
    };
    Schema::parse(&text).map_err(|error| unusable(name, &error))
}

/// The fix for a schema that is not usable.
pub const CORRECT_THE_SCHEMA: &str = "Correct the Avro schema";

#[cold]
pub fn unusable(name: &str, error: &SchemaError) -> PlanError {
    PlanError::new("INVALID_SCHEMA", format!("`{name}`: {error}"), CORRECT_THE_SCHEMA)
}
