//! The requests of a registry over HTTP.

use super::{Failure, Registered, RegistryOptions};
use serde_json::Value as Json;
use std::collections::HashSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The time for a connection, and the time for a whole request.
const CONNECT_MAX: Duration = Duration::from_secs(5);
const REQUEST_MAX: Duration = Duration::from_secs(10);

/// The maximum size of a response, in bytes.
const RESPONSE_BYTES_MAX: u64 = 4 << 20;

/// The maximum number of schemas that a schema refers to, directly and indirectly.
const REFERENCES_MAX: usize = 256;

/// The maximum wait that a response may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// What the registry is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// The schema of an id.
    Id(u32),
    /// The latest schema of a subject.
    Latest(String),
}

/// The outcome of an attempt that gave no schema.
pub enum Attempt {
    /// The same request cannot succeed.
    Failed(Failure),
    /// A later attempt may succeed. The duration is the minimum wait that the response states.
    Retry(String, Option<Duration>),
}

/// The connections to a registry.
pub struct Connections {
    agent: ureq::Agent,
    options: RegistryOptions,
    /// For each address, whether it has answered as a registry does. It tells an outage from a wrong
    /// address.
    has_answered: Vec<AtomicBool>,
}

impl Connections {
    pub fn new(options: RegistryOptions) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_global(Some(REQUEST_MAX))
            .user_agent("millstream")
            .build();
        let has_answered = options.addresses.iter().map(|_| AtomicBool::new(false)).collect();
        Self { agent: config.into(), options, has_answered }
    }

    pub fn options(&self) -> &RegistryOptions {
        &self.options
    }

    /// The addresses, for messages.
    pub fn address(&self) -> String {
        self.options.addresses.join(", ")
    }

    /// Makes one attempt. `number` counts the attempts; each takes the next address.
    pub fn attempt(&self, request: &Request, number: usize) -> Result<Registered, Attempt> {
        let index = number % self.options.addresses.len();
        let (path, what) = match request {
            Request::Id(id) => (format!("/schemas/ids/{id}"), format!("schema {id}")),
            Request::Latest(subject) => (
                format!("/subjects/{}/versions/latest", encoded(subject)),
                format!("subject '{subject}'"),
            ),
        };
        let address = &self.options.addresses[index];
        let answer = self.get(index, &path, &what)?;
        let retry = || Attempt::Retry(format!("{address} gave no schema for {what}"), None);
        let id = match request {
            Request::Id(id) => *id,
            Request::Latest(_) => {
                let id = answer.get("id").and_then(Json::as_u64);
                id.and_then(|id| u32::try_from(id).ok()).ok_or_else(retry)?
            }
        };
        let text = answer.get("schema").and_then(Json::as_str).ok_or_else(retry)?.to_string();
        let language = answer.get("schemaType").and_then(Json::as_str).unwrap_or("AVRO");
        let mut references = References { texts: Vec::new(), seen: HashSet::new() };
        references.collect(self, index, &answer)?;
        // ORDERING: relaxed: the flag carries no other data.
        self.has_answered[index].store(true, Ordering::Relaxed);
        let language = language.to_string();
        Ok(Registered { id, language, text, references: references.texts })
    }

    /// Requests a path of the address with this index, and parses the response.
    fn get(&self, index: usize, path: &str, what: &str) -> Result<Json, Attempt> {
        let address = &self.options.addresses[index];
        let mut request = self
            .agent
            .get(format!("{address}{path}"))
            .header("Accept", "application/vnd.schemaregistry.v1+json, application/json");
        if let Some(authorization) = &self.options.authorization {
            request = request.header("Authorization", authorization);
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                let reason = format!("{address} is no usable address: {error}");
                return Err(Attempt::Failed(Failure::Refused(reason)));
            }
            Err(error) => return Err(Attempt::Retry(format!("{address}: {error}"), None)),
        };
        let status = response.status().as_u16();
        let wait = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let wait = wait.and_then(|text| text.trim().parse().ok());
        let wait = wait.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        let body = response.body_mut().with_config().limit(RESPONSE_BYTES_MAX).read_to_vec();
        let body = match body {
            Ok(body) => body,
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                let reason =
                    format!("{address} sent more than {RESPONSE_BYTES_MAX} bytes for {what}");
                return Err(Attempt::Failed(Failure::Refused(reason)));
            }
            Err(error) => return Err(Attempt::Retry(format!("{address}: {error}"), None)),
        };
        let json = serde_json::from_slice::<Json>(&body).ok();
        match (status, json) {
            (200, Some(json)) => Ok(json),
            // Such as a page of a proxy during maintenance.
            (200, None) => Err(Attempt::Retry(format!("{address} answered no JSON"), wait)),
            (404, json) => Err(self.not_found(index, what, json.as_ref())),
            (408 | 425 | 429 | 500.., _) => {
                Err(Attempt::Retry(format!("{address} answered with the status {status}"), wait))
            }
            (_, json) => {
                let message = json.as_ref().and_then(|json| json.get("message")?.as_str());
                let message = message.map(|text| format!(": {text}")).unwrap_or_default();
                let reason = format!("{address} refused {what} with the status {status}{message}");
                Err(Attempt::Failed(Failure::Refused(reason)))
            }
        }
    }

    /// The outcome of the status 404. A registry says with a code that it has no such schema. The
    /// status without the code says nothing about the schema: it comes from another server, such as
    /// a proxy while the registry restarts, or the address is wrong.
    fn not_found(&self, index: usize, what: &str, json: Option<&Json>) -> Attempt {
        let address = &self.options.addresses[index];
        let has_answered = &self.has_answered[index];
        let code = json.and_then(|json| json.get("error_code")?.as_u64());
        if code.is_some_and(|code| code.to_string().starts_with("404")) {
            // ORDERING: relaxed: the flag carries no other data.
            has_answered.store(true, Ordering::Relaxed);
            let reason = format!("the schema registry at {address} has no {what}");
            return Attempt::Failed(Failure::Unknown(reason));
        }
        let reason = format!(
            "{address} answered {what} with the status 404, and not as a schema registry does"
        );
        // ORDERING: relaxed: the flag carries no other data.
        match has_answered.load(Ordering::Relaxed) {
            true => Attempt::Retry(reason, None),
            false => Attempt::Failed(Failure::Refused(reason)),
        }
    }
}

/// Collects the schemas that a schema refers to.
struct References {
    texts: Vec<String>,
    /// Subjects and versions.
    seen: HashSet<(String, u64)>,
}

impl References {
    fn collect(
        &mut self,
        connections: &Connections,
        index: usize,
        answer: &Json,
    ) -> Result<(), Attempt> {
        let address = &connections.options.addresses[index];
        let list = answer.get("references").and_then(Json::as_array);
        for reference in list.into_iter().flatten() {
            let subject = reference.get("subject").and_then(Json::as_str);
            let version = reference.get("version").and_then(Json::as_u64);
            let (Some(subject), Some(version)) = (subject, version) else {
                return Err(Attempt::Retry(format!("{address} gave a broken reference"), None));
            };
            if !self.seen.insert((subject.to_string(), version)) {
                continue;
            }
            if self.seen.len() > REFERENCES_MAX {
                let reason = format!(
                    "a schema of {address} refers to more than {REFERENCES_MAX} other schemas"
                );
                return Err(Attempt::Failed(Failure::Refused(reason)));
            }
            let path = format!("/subjects/{}/versions/{version}", encoded(subject));
            let inner = connections.get(index, &path, &format!("subject '{subject}'"))?;
            self.collect(connections, index, &inner)?;
            match inner.get("schema").and_then(Json::as_str) {
                Some(text) => self.texts.push(text.to_string()),
                None => return Err(Attempt::Retry(format!("{address} gave no schema"), None)),
            }
        }
        Ok(())
    }
}

/// A subject as a part of a path.
fn encoded(subject: &str) -> String {
    let mut out = String::with_capacity(subject.len());
    for byte in subject.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}
