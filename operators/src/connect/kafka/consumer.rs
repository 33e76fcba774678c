//! Reads records of assigned partitions from librdkafka's queue, in batches.
//!
//! The crate's own consumer allocates per record and does not report in which topic a partition has
//! ended. The queue is therefore read through the C interface.

use rdkafka::bindings as c;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The maximum number of records that one call takes from librdkafka's queue.
const BATCH: usize = 256;

/// A record or a partition event, in librdkafka's memory. Must be dropped before its consumer,
/// because closing the consumer waits for it.
pub struct Message(NonNull<c::rd_kafka_message_t>);

// SAFETY: a message has one owner, and librdkafka's functions may be called for it from any thread.
unsafe impl Send for Message {}

/// The meaning of a record's timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampKind {
    /// The time at which the producer created the record.
    Create,
    /// The time at which the broker received the record.
    LogAppend,
    /// The record has no time.
    None,
}

impl Message {
    fn raw(&self) -> &c::rd_kafka_message_t {
        // SAFETY: the pointer is valid until `drop`, and nothing writes to the message.
        unsafe { self.0.as_ref() }
    }

    /// Identifies the topic and the partition during the consumer's life.
    #[inline]
    pub fn partition_key(&self) -> (usize, i32) {
        (self.raw().rkt as usize, self.raw().partition)
    }

    /// The topic's name; empty for an event without a topic.
    pub fn topic(&self) -> &str {
        let topic = self.raw().rkt;
        if topic.is_null() {
            return "";
        }
        // SAFETY: the topic lives as long as its messages, and its name ends with a NUL.
        let name = unsafe { CStr::from_ptr(c::rd_kafka_topic_name(topic)) };
        name.to_str().unwrap_or_default()
    }

    /// The event that the message reports. `None` for a record.
    #[inline]
    pub fn error(&self) -> Option<RDKafkaErrorCode> {
        let error = self.raw().err;
        (error != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| error.into())
    }

    /// The text of the event.
    pub fn error_text(&self) -> String {
        // SAFETY: the text lives as long as the message and ends with a NUL.
        let text = unsafe { c::rd_kafka_message_errstr(self.raw()) };
        if text.is_null() {
            return String::new();
        }
        // SAFETY: the pointer is not null, and the text lives as long as the message and ends with
        // a NUL.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// The offset of the record. For an end-of-partition event, the offset at which the partition
    /// ends.
    #[inline]
    pub fn offset(&self) -> i64 {
        self.raw().offset
    }

    /// The record's key, or `None` for a null key.
    #[inline]
    pub fn key(&self) -> Option<&[u8]> {
        Self::bytes(self.raw().key, self.raw().key_len)
    }

    /// The record's value, or `None` for a null value.
    #[inline]
    pub fn value(&self) -> Option<&[u8]> {
        Self::bytes(self.raw().payload, self.raw().len)
    }

    #[inline]
    fn bytes<'m>(start: *const c_void, len: usize) -> Option<&'m [u8]> {
        // SAFETY: librdkafka gives a pointer to `len` bytes that live as long as the message. The
        // callers bind the lifetime to it.
        (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast::<u8>(), len) })
    }

    /// The timestamp in milliseconds since 1970, and its meaning.
    #[inline]
    pub fn timestamp(&self) -> (i64, TimestampKind) {
        let mut kind = c::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid, and `kind` is written before the call returns.
        let ms = unsafe { c::rd_kafka_message_timestamp(self.raw(), &mut kind) };
        use c::rd_kafka_timestamp_type_t as Kind;
        let kind = match kind {
            Kind::RD_KAFKA_TIMESTAMP_CREATE_TIME => TimestampKind::Create,
            Kind::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => TimestampKind::LogAppend,
            Kind::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => TimestampKind::None,
        };
        (ms, kind)
    }

    /// Calls `each` with each header, in order; the value is `None` if the header has none. Returns
    /// the number of headers, 0 for a message without headers.
    pub fn headers(&self, mut each: impl FnMut(&str, Option<&[u8]>)) -> usize {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is valid and keeps ownership of the headers.
        let found = unsafe { c::rd_kafka_message_headers(self.raw(), &mut headers) };
        if found != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return 0;
        }
        for index in 0.. {
            let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the headers are valid as long as the message. An index beyond the last is
            // an error, which is checked before the pointers are read.
            let found = unsafe {
                c::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut len)
            };
            if found != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return index;
            }
            // SAFETY: the name ends with a NUL and lives as long as the headers.
            let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
            each(&name, Self::bytes(value, len));
        }
        0
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: the message is owned and is not used again.
        unsafe { c::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

type Callback = Box<dyn Fn() + Send + Sync>;

/// A consumer without a consumer group. It reads the partitions that are assigned to it.
pub struct Consumer {
    client: Arc<BaseConsumer>,
    queue: NonNull<c::rd_kafka_queue_t>,
    /// Called by a thread of librdkafka when the empty queue gets a message. Boxed twice: the
    /// C side holds a thin pointer to the inner box.
    callback: Option<Box<Callback>>,
    /// Whether the queue may have a message. While it has none, `take` needs no lock.
    may_have: Arc<AtomicBool>,
    /// Whether partitions are assigned, so that another assignment stops them first.
    is_assigned: bool,
}

// SAFETY: librdkafka's queues and clients may be used from any thread.
unsafe impl Send for Consumer {}

unsafe extern "C" fn call(_client: *mut c::rd_kafka_t, callback: *mut c_void) {
    // SAFETY: the pointer is that of `Consumer::callback`, which lives until the event is disabled.
    let callback = unsafe { &*callback.cast::<Callback>() };
    callback();
}

impl Consumer {
    /// Creates a consumer.
    pub fn new(config: &ClientConfig) -> KafkaResult<Self> {
        let client: BaseConsumer = config.create()?;
        // SAFETY: the client is valid; the queue is released in `drop`.
        let queue = unsafe { c::rd_kafka_queue_get_consumer(client.client().native_ptr()) };
        let queue = NonNull::new(queue)
            .ok_or_else(|| KafkaError::ClientCreation("the client has no queue".to_string()))?;
        Ok(Self {
            client: Arc::new(client),
            queue,
            callback: None,
            may_have: Arc::new(AtomicBool::new(true)),
            is_assigned: false,
        })
    }

    /// The underlying client, for metadata requests.
    pub fn client(&self) -> &Arc<BaseConsumer> {
        &self.client
    }

    /// Sets the callback that a librdkafka thread calls when the empty queue gets a message.
    pub fn on_message(&mut self, callback: impl Fn() + Send + Sync + 'static) {
        let may_have = self.may_have.clone();
        let callback: Box<Callback> = Box::new(Box::new(move || {
            // ORDERING: release: pairs with the swap in `take`, so that the message that caused this
            // call is found.
            may_have.store(true, Ordering::Release);
            callback();
        }));
        let pointer = ptr::from_ref::<Callback>(&callback).cast_mut().cast::<c_void>();
        // SAFETY: the callback outlives the event: `drop` disables it first, and a new one is set
        // before the old one is dropped.
        unsafe { c::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), Some(call), pointer) };
        self.callback = Some(callback);
    }

    /// Takes up to a batch of messages from the queue without waiting. Returns their number.
    pub fn take(&mut self, into: &mut impl Extend<Message>) -> usize {
        // ORDERING: acquire: see `on_message`. A message that arrives after the swap sets the flag
        // again.
        if !self.may_have.load(Ordering::Relaxed) || !self.may_have.swap(false, Ordering::Acquire) {
            return 0;
        }
        let mut batch = [ptr::null_mut(); BATCH];
        // SAFETY: the queue is valid, and `batch` has room for the number given.
        let count = unsafe {
            c::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, batch.as_mut_ptr(), BATCH)
        };
        let count = usize::try_from(count).unwrap_or(0);
        if count > 0 {
            // The queue is known to be empty only after a call that found nothing.
            self.may_have.store(true, Ordering::Relaxed);
        }
        into.extend(batch[..count].iter().filter_map(|raw| NonNull::new(*raw)).map(Message));
        count
    }

    /// Replaces the assignment: reads exactly these partitions from these offsets.
    ///
    /// librdkafka before 2.16 ends the process if a partition is removed a second time before the
    /// first removal is complete (confluentinc/librdkafka#5573). A removal is a request to the main
    /// thread of librdkafka and its answer to the same thread. So after a replacement this waits for
    /// two more requests, which that thread handles in order.
    pub fn assign<'t>(
        &mut self,
        partitions: impl IntoIterator<Item = (&'t str, i32, i64)>,
    ) -> KafkaResult<()> {
        self.client.assign(&list(partitions)?)?;
        if std::mem::replace(&mut self.is_assigned, true) {
            for _ in 0..2 {
                self.client.assignment()?;
            }
        }
        Ok(())
    }

    /// Adds partitions to the assignment.
    pub fn assign_more<'t>(
        &mut self,
        partitions: impl IntoIterator<Item = (&'t str, i32, i64)>,
    ) -> KafkaResult<()> {
        self.is_assigned = true;
        self.client.incremental_assign(&list(partitions)?)
    }

    /// Pauses the fetching of a partition, or resumes it after the last message taken.
    pub fn set_paused(&self, topic: &str, partition: i32, paused: bool) -> KafkaResult<()> {
        let mut one = TopicPartitionList::new();
        one.add_partition(topic, partition);
        if paused { self.client.pause(&one) } else { self.client.resume(&one) }
    }
}

fn list<'t>(
    partitions: impl IntoIterator<Item = (&'t str, i32, i64)>,
) -> KafkaResult<TopicPartitionList> {
    let mut all = TopicPartitionList::new();
    for (topic, partition, offset) in partitions {
        all.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    }
    Ok(all)
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // SAFETY: the queue is valid until it is released here; the event is disabled before the
        // callback is dropped, and librdkafka calls no callback after that.
        unsafe {
            c::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            c::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}
