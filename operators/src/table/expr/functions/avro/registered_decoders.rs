//! The decoders of records whose header states the id of their schema: one for each id.

use crate::table::avro::{Decoder, Schema};
use crate::table::expr::compile::{EvalError, failed};
use crate::table::expr::functions::avro::reading::parse_registered;
use crate::table::schema_registry::{Failure, Header, Registry};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The maximum number of decoders. A topic rarely has more than a few schemas.
const DECODERS_MAX: usize = 256;

/// How long an id stays unknown before the registry is asked for it again.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);

/// What is known of an id.
enum Known {
    Decoder(Decoder),
    /// Records of this id cannot be read, for the given reason.
    Unreadable(String),
    /// The registry had no schema of this id at the given time.
    Unknown(String, Instant),
}

/// The decoders by the id of the writer's schema. Looking up a known id takes no lock.
pub struct RegisteredDecoders {
    registry: Arc<Registry>,
    reader: Arc<Schema>,
    /// In the evolution mode `restart`, the subject of the reader's schema and its id.
    restarts_for: Option<(String, u32)>,
    /// See [`Decoder::with_extra_fields`].
    extra_fields: usize,
    known: HashMap<u32, Known>,
    /// The ids in the order in which they were found; the oldest is dropped first.
    order: VecDeque<u32>,
}

/// Why a record has no decoder: it is bad, or the query must end.
pub enum NoDecoder<'a> {
    BadRecord(&'a str),
    Fatal(Box<EvalError>),
}

impl RegisteredDecoders {
    pub fn new(
        registry: Arc<Registry>,
        reader: Arc<Schema>,
        restarts_for: Option<(String, u32)>,
        extra_fields: usize,
    ) -> Self {
        let (known, order) = (HashMap::new(), VecDeque::new());
        Self { registry, reader, restarts_for, extra_fields, known, order }
    }

    /// The decoder of a record, and the record without its header. The first record of an id waits
    /// for the registry.
    pub fn of<'r>(&mut self, record: &'r [u8]) -> Result<(&Decoder, &'r [u8]), NoDecoder<'_>> {
        let (id, data) = Header::split(record).map_err(NoDecoder::BadRecord)?;
        let is_known = match self.known.get(&id) {
            Some(Known::Unknown(_, since)) => since.elapsed() < UNKNOWN_FOR,
            Some(_) => true,
            None => false,
        };
        if !is_known {
            self.learn(id).map_err(NoDecoder::Fatal)?;
        }
        match self.known.get(&id) {
            Some(Known::Decoder(decoder)) => Ok((decoder, data)),
            Some(Known::Unreadable(reason) | Known::Unknown(reason, _)) => {
                Err(NoDecoder::BadRecord(reason))
            }
            None => Err(NoDecoder::BadRecord("the schema is not known")),
        }
    }

    /// Asks the registry for a schema. Fails if it does not answer, which says nothing about the
    /// record.
    #[cold]
    fn learn(&mut self, id: u32) -> Result<(), Box<EvalError>> {
        self.check_evolution(id)?;
        let known = match self.registry.by_id(id) {
            Ok(found) => {
                let decoder =
                    parse_registered(&found).and_then(|writer| Decoder::new(&writer, &self.reader));
                match decoder {
                    Ok(decoder) => Known::Decoder(decoder.with_extra_fields(self.extra_fields)),
                    Err(error) => Known::Unreadable(format!("schema {id}: {error}")),
                }
            }
            Err(Failure::Unknown(reason)) => Known::Unknown(reason, Instant::now()),
            Err(failure) => return fatal(&failure),
        };
        if self.known.insert(id, known).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > DECODERS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        Ok(())
    }

    /// In the evolution mode `restart`, fails if the subject has got another schema.
    fn check_evolution(&self, id: u32) -> Result<(), Box<EvalError>> {
        let Some((subject, reader)) = &self.restarts_for else { return Ok(()) };
        if id == *reader {
            return Ok(());
        }
        match self.registry.latest(subject) {
            Ok(latest) if latest.id != *reader => failed(
                "AVRO_SCHEMA_CHANGED",
                format!(
                    "the subject '{subject}' has the schema {}; the query began with {reader}",
                    latest.id
                ),
                "Restart the query: it reads with the new schema from its checkpoint on",
            ),
            Ok(_) | Err(Failure::Unknown(_)) => Ok(()),
            Err(failure) => fatal(&failure),
        }
    }
}

#[cold]
fn fatal(failure: &Failure) -> Result<(), Box<EvalError>> {
    let condition = failure.condition().unwrap_or("SCHEMA_REGISTRY_FAILED");
    failed(condition, failure.reason(), failure.fix())
}
