//! The decoders of records whose header states the id of their schema: one for each id.

use crate::table::avro::{Decoder, Schema};
use crate::table::expr::compile::{EvalError, failed};
use crate::table::expr::functions::avro::reading::{REGISTRY_FAILED, parse_registered};
use crate::table::schema_registry::{Failure, Header, Registry};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The maximum number of decoders. A topic rarely has more than a few schemas.
const DECODERS_MAX: usize = 256;

/// The maximum number of remembered ids whose records cannot be read. They never drop a decoder.
const UNREADABLE_MAX: usize = 256;

/// How long an id stays unknown before the registry is asked for it again.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);

/// Why records of an id cannot be read.
struct Unreadable {
    reason: String,
    /// When the registry had no schema of the id; `None` if the schema is not usable.
    unknown_since: Option<Instant>,
}

/// The decoders by the id of the writer's schema. Looking up a known id takes no lock.
pub struct RegisteredDecoders {
    registry: Arc<Registry>,
    reader: Arc<Schema>,
    /// In the evolution mode `restart`, the subject of the reader's schema and its id.
    restarts_for: Option<(String, u32)>,
    /// See [`Decoder::with_extra_fields`].
    extra_fields: usize,
    decoders: Recent<Decoder>,
    unreadable: Recent<Unreadable>,
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
        let decoders = Recent::new(DECODERS_MAX);
        let unreadable = Recent::new(UNREADABLE_MAX);
        Self { registry, reader, restarts_for, extra_fields, decoders, unreadable }
    }

    /// The decoder of a record, and the record without its header. The first record of an id waits
    /// for the registry.
    pub fn of<'r>(&mut self, record: &'r [u8]) -> Result<(&Decoder, &'r [u8]), NoDecoder<'_>> {
        let (id, data) = Header::split(record).map_err(NoDecoder::BadRecord)?;
        let found = self.decoders.find(id);
        let slot = match found {
            Some(slot) => slot,
            None => match self.learn(id).map_err(NoDecoder::Fatal)? {
                Ok(slot) => slot,
                Err(slot) => {
                    return Err(NoDecoder::BadRecord(&self.unreadable.at(slot).reason));
                }
            },
        };
        Ok((self.decoders.at(slot), data))
    }

    /// Asks the registry for a schema, unless its records are known to be unreadable. Returns the
    /// slot of the decoder, or that of the reason why there is none. Fails if the registry does not
    /// answer, which says nothing about the record.
    #[cold]
    fn learn(&mut self, id: u32) -> Result<Result<usize, usize>, Box<EvalError>> {
        if let Some(slot) = self.unreadable.find(id) {
            let since = self.unreadable.at(slot).unknown_since;
            if since.is_none_or(|since| since.elapsed() < UNKNOWN_FOR) {
                return Ok(Err(slot));
            }
        }
        self.check_evolution(id)?;
        let unreadable = match self.registry.by_id(id) {
            Ok(found) => {
                let decoder =
                    parse_registered(&found).and_then(|writer| Decoder::new(&writer, &self.reader));
                match decoder {
                    Ok(decoder) => {
                        let decoder = decoder.with_extra_fields(self.extra_fields);
                        return Ok(Ok(self.decoders.insert(id, decoder)));
                    }
                    Err(error) => {
                        Unreadable { reason: format!("schema {id}: {error}"), unknown_since: None }
                    }
                }
            }
            Err(Failure::Unknown(reason)) => {
                Unreadable { reason, unknown_since: Some(Instant::now()) }
            }
            Err(failure) => return fatal(&failure),
        };
        Ok(Err(self.unreadable.insert(id, unreadable)))
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
fn fatal<T>(failure: &Failure) -> Result<T, Box<EvalError>> {
    let condition = failure.condition().unwrap_or(REGISTRY_FAILED);
    failed(condition, failure.reason(), failure.fix())
}

/// A bounded number of values by id. The oldest one is dropped first.
struct Recent<T> {
    max: usize,
    values: Vec<(u32, T)>,
    slots: HashMap<u32, usize>,
    /// The slot that was found last: most records have the id of the record before.
    last: usize,
    /// The slot of the oldest value, once there are `max`.
    oldest: usize,
}

impl<T> Recent<T> {
    fn new(max: usize) -> Self {
        Self { max, values: Vec::new(), slots: HashMap::new(), last: 0, oldest: 0 }
    }

    /// The slot of an id.
    #[inline]
    fn find(&mut self, id: u32) -> Option<usize> {
        if self.values.get(self.last).is_none_or(|(found, _)| *found != id) {
            self.last = *self.slots.get(&id)?;
        }
        Some(self.last)
    }

    fn at(&self, slot: usize) -> &T {
        &self.values[slot].1
    }

    /// Inserts or replaces the value of an id. Returns its slot.
    fn insert(&mut self, id: u32, value: T) -> usize {
        let slot = match self.slots.get(&id) {
            Some(slot) => *slot,
            None if self.values.len() < self.max => {
                self.values.push((id, value));
                let slot = self.values.len() - 1;
                self.slots.insert(id, slot);
                return slot;
            }
            None => {
                let slot = self.oldest;
                self.oldest = (slot + 1) % self.max;
                self.slots.remove(&self.values[slot].0);
                self.slots.insert(id, slot);
                slot
            }
        };
        self.values[slot] = (id, value);
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_value_is_dropped_first() {
        let mut recent = Recent::new(3);
        for id in [5, 6, 7, 6, 8, 9] {
            let slot = recent.insert(id, id * 10);
            assert_eq!(*recent.at(slot), id * 10);
            assert_eq!(recent.find(id), Some(slot));
        }
        let found = [5, 6, 7, 8, 9].map(|id| recent.find(id).map(|slot| *recent.at(slot)));
        assert_eq!(found, [None, None, Some(70), Some(80), Some(90)]);
    }

    #[cfg(feature = "schema-registry")]
    #[test]
    fn unknown_ids_drop_no_decoder() {
        use crate::table::schema_registry::{RegistryOptions, fake};
        let server = fake::FakeRegistry::start();
        server.register("s", 1, "\"int\"");
        let options = RegistryOptions {
            addresses: vec![server.address.clone()],
            authorization: None,
            retry: Duration::from_secs(60),
        };
        let registry = Registry::shared("test", &options).unwrap();
        let reader = Schema::parse("\"int\"").unwrap();
        let mut decoders = RegisteredDecoders::new(registry, reader, None, 0);
        let record = |id: u32| [&[0][..], &id.to_be_bytes(), &[2]].concat();
        assert!(decoders.of(&record(1)).is_ok());
        for id in 0..DECODERS_MAX as u32 + 1 {
            assert!(matches!(decoders.of(&record(1000 + id)), Err(NoDecoder::BadRecord(_))));
        }
        assert_eq!(decoders.decoders.find(1), Some(0), "the decoder is still there");
    }

    /// A schema may be registered after its first records were read.
    #[cfg(feature = "schema-registry")]
    #[test]
    fn an_unknown_id_is_asked_for_again_after_a_while() {
        use crate::table::schema_registry::{RegistryOptions, fake};
        let server = fake::FakeRegistry::start();
        let options = RegistryOptions {
            addresses: vec![server.address.clone()],
            authorization: None,
            retry: Duration::from_secs(60),
        };
        let registry = Registry::shared("test", &options).unwrap();
        let reader = Schema::parse("\"int\"").unwrap();
        let mut decoders = RegisteredDecoders::new(registry, reader, None, 0);
        let record = [0, 0, 0, 0, 7, 2];
        for _ in 0..3 {
            assert!(matches!(decoders.of(&record), Err(NoDecoder::BadRecord(_))));
        }
        server.register("s", 7, "\"int\"");
        assert!(matches!(decoders.of(&record), Err(NoDecoder::BadRecord(_))), "too early");
        assert_eq!(server.requests(), ["/schemas/ids/7"]);
        let slot = decoders.unreadable.find(7).unwrap();
        let since = &mut decoders.unreadable.values[slot].1.unknown_since;
        *since = since.unwrap().checked_sub(UNKNOWN_FOR);
        assert!(since.is_some(), "this machine has run for longer than that");
        assert!(decoders.of(&record).is_ok());
    }
}
