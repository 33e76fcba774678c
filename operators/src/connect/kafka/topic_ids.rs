//! The ids of topics. A topic that is deleted and created again under its name has another id, and
//! offsets of the old topic are meaningless in the new one.
//!
//! The ids are stored next to the offsets of the first start, in a separate file, because the
//! offsets have Spark's format.

use millstream_engine::checkpoint::log_entry;
use millstream_engine::env::storage::Storage;
use millstream_engine::error::EngineError;
use rdkafka::bindings as c;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::slice;
use std::time::{Duration, Instant};

/// The id of each topic, in base64.
pub type TopicIds = BTreeMap<String, String>;

/// Frees an object of librdkafka.
struct Owned<T>(NonNull<T>, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> KafkaResult<Self> {
        let none = || KafkaError::AdminOpCreation("the client is out of memory".to_string());
        NonNull::new(pointer).map(|pointer| Self(pointer, free)).ok_or_else(none)
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer is owned and is not used again.
        unsafe { (self.1)(self.0.as_ptr()) }
    }
}

/// Asks the cluster for the ids of topics. Topics that the cluster does not know are missing from
/// the result. It is empty if the cluster does not support topic ids.
pub fn ask(consumer: &BaseConsumer, topics: &[&str], timeout: Duration) -> KafkaResult<TopicIds> {
    let deadline = Instant::now() + timeout;
    let names: Vec<CString> = topics.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    if pointers.is_empty() {
        return Ok(TopicIds::new());
    }
    // Any broker knows the ids. Without a broker number the request would go to the controller.
    let metadata = consumer.client().fetch_metadata(topics.first().copied(), timeout)?;
    let broker = metadata.orig_broker_id();
    let client = consumer.client().native_ptr();
    let left = deadline.saturating_duration_since(Instant::now());
    // librdkafka refuses a time limit of 0.
    let timeout_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: the client is valid, the names live until the request is made, and `Owned` frees each
    // returned object once. The result lives as long as the event.
    unsafe {
        let topics =
            c::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let topics = Owned::new(topics, c::rd_kafka_TopicCollection_destroy)?;
        let kind = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = c::rd_kafka_AdminOptions_new(client, kind);
        let options = Owned::new(options, c::rd_kafka_AdminOptions_destroy)?;
        // Both calls fail only for a number that is out of range. The defaults then apply.
        let (options_ptr, no_text) = (options.0.as_ptr(), ptr::null_mut());
        c::rd_kafka_AdminOptions_set_request_timeout(options_ptr, timeout_ms, no_text, 0);
        c::rd_kafka_AdminOptions_set_broker(options_ptr, broker, no_text, 0);
        let queue = Owned::new(c::rd_kafka_queue_new(client), c::rd_kafka_queue_destroy)?;
        c::rd_kafka_DescribeTopics(client, topics.0.as_ptr(), options.0.as_ptr(), queue.0.as_ptr());
        let event = c::rd_kafka_queue_poll(queue.0.as_ptr(), timeout_ms);
        if event.is_null() {
            return Err(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut));
        }
        let event = Owned::new(event, c::rd_kafka_event_destroy)?;
        match c::rd_kafka_event_error(event.0.as_ptr()).into() {
            RDKafkaErrorCode::NoError => Ok(read(event.0.as_ptr())),
            RDKafkaErrorCode::UnsupportedFeature => Ok(TopicIds::new()),
            // Unlike `AdminOp`, `Global` shows its code to the caller, which repeats the request.
            error => Err(KafkaError::Global(error)),
        }
    }
}

/// # Safety
/// `event` must be the answer to a request for descriptions of topics.
unsafe fn read(event: *mut c::rd_kafka_event_t) -> TopicIds {
    let mut ids = TopicIds::new();
    // SAFETY: the pointers live as long as the event, the array has `count` elements, and texts
    // end with a NUL.
    unsafe {
        let result = c::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return ids;
        }
        let mut count = 0;
        let topics = c::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() {
            return ids;
        }
        for topic in slice::from_raw_parts(topics, count) {
            let error = c::rd_kafka_error_code(c::rd_kafka_TopicDescription_error(*topic));
            let id = c::rd_kafka_TopicDescription_topic_id(*topic);
            if RDKafkaErrorCode::from(error) != RDKafkaErrorCode::NoError || id.is_null() {
                continue;
            }
            let id = c::rd_kafka_Uuid_base64str(id);
            if id.is_null() {
                continue;
            }
            let text = |text| CStr::from_ptr(text).to_string_lossy().into_owned();
            ids.insert(text(c::rd_kafka_TopicDescription_name(*topic)), text(id));
        }
    }
    ids
}

/// The ids that a query knows, and their file in its checkpoint.
#[derive(Default)]
pub struct KnownIds {
    path: Option<PathBuf>,
    ids: Option<TopicIds>,
}

impl KnownIds {
    /// Creates the ids of a source, which are stored in `folder`. Without a folder they are kept
    /// for this run only.
    pub fn new(folder: Option<&Path>) -> Self {
        Self { path: folder.map(|folder| folder.join("topic-ids")), ids: None }
    }

    fn load(&self, storage: &dyn Storage) -> Result<TopicIds, EngineError> {
        let Some(path) = &self.path else { return Ok(TopicIds::new()) };
        match log_entry::read(storage, path) {
            Ok(lines) => {
                let ids = lines.first().and_then(|line| serde_json::from_str(line).ok());
                ids.ok_or_else(|| log_entry::damaged(path, "it holds no topic ids"))
            }
            Err(error) if error.condition() == "CHECKPOINT_FILE_MISSING" => Ok(TopicIds::new()),
            Err(error) => Err(error),
        }
    }

    /// The topics that were created again: their id is not the known one.
    pub fn changed(
        &mut self,
        storage: &dyn Storage,
        now: &TopicIds,
    ) -> Result<Vec<String>, EngineError> {
        let known = match self.ids.take() {
            Some(known) => known,
            None => self.load(storage)?,
        };
        let other =
            |(topic, id): &(&String, &String)| known.get(*topic).is_some_and(|known| known != *id);
        let again = now.iter().filter(other).map(|(topic, _)| topic.clone()).collect();
        self.ids = Some(known);
        Ok(again)
    }

    /// Stores the ids that the cluster has now. Call this after the loss of a topic's records has
    /// been reported: from then on the new topic is the known one, also after a restart.
    pub fn update(&mut self, storage: &dyn Storage, now: TopicIds) -> Result<(), EngineError> {
        let known = match self.ids.take() {
            Some(known) => known,
            None => self.load(storage)?,
        };
        let mut all = known.clone();
        all.extend(now);
        if all != known
            && let Some(path) = &self.path
        {
            if let Some(folder) = path.parent() {
                let made = storage.create_folder(folder);
                made.map_err(|error| log_entry::write_failed(folder, &error))?;
            }
            let line = serde_json::to_string(&all).unwrap_or_else(|_| unreachable!("plain data"));
            log_entry::write(storage, path, [line.as_str()])?;
        }
        self.ids = Some(all);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::env::{Env, SimEnv};

    fn ids(of: &[(&str, &str)]) -> TopicIds {
        of.iter().map(|(topic, id)| (topic.to_string(), id.to_string())).collect()
    }

    #[test]
    fn a_recreated_topic_is_detected_by_its_id_also_between_two_runs() {
        let env = SimEnv::new(1);
        let storage = env.storage();
        let folder = Path::new("/c/sources/0");
        let mut known = KnownIds::new(Some(folder));
        // Reports the changed topics, and stores the ids, as a query that continues does.
        let update = |known: &mut KnownIds, now: &[(&str, &str)]| {
            let changed = known.changed(storage, &ids(now)).unwrap();
            known.update(storage, ids(now)).unwrap();
            changed
        };
        let none: [&str; 0] = [];
        assert_eq!(update(&mut known, &[("a", "1"), ("b", "1")]), none);
        assert_eq!(update(&mut known, &[("a", "1"), ("c", "1")]), none);
        let mut known = KnownIds::new(Some(folder));
        assert_eq!(known.changed(storage, &ids(&[("b", "2")])).unwrap(), ["b"]);
        // The query failed, and starts again.
        let mut known = KnownIds::new(Some(folder));
        assert_eq!(update(&mut known, &[("a", "1"), ("b", "2")]), ["b"]);
        assert_eq!(update(&mut known, &[("b", "2")]), none, "reported once");
        assert_eq!(update(&mut known, &[]), none, "a cluster without ids");
        assert_eq!(update(&mut known, &[("a", "2")]), ["a"]);
    }
}
