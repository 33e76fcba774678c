//! The connection to a Kafka cluster. Options have the names of the Java client, which Spark's
//! users know; they are translated to those of librdkafka.

use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
use millstream_engine::error::EngineError;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

/// The role of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads records.
    Consumer,
    /// Writes records.
    Producer,
}

/// The parsed options of a client.
#[derive(Clone)]
pub struct Client {
    what: &'static str,
    role: Role,
    servers: String,
    /// Options under librdkafka's names.
    options: Options,
    /// Time limit of a request that is not a fetch.
    pub(super) timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the options, which contain passwords.
        f.debug_struct("Client").field("role", &self.role).field("servers", &self.servers).finish()
    }
}

/// Whether an error is temporary: a broker restarts, or a partition moves to another broker.
pub(super) fn is_transient(error: RDKafkaErrorCode) -> bool {
    matches!(
        error,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::NetworkException
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::BrokerNotAvailable
            | RDKafkaErrorCode::ReplicaNotAvailable
            | RDKafkaErrorCode::FencedLeaderEpoch
            | RDKafkaErrorCode::UnknownLeaderEpoch
            | RDKafkaErrorCode::OffsetNotAvailable
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::NotCoordinator
    )
}

/// The pause before a request is repeated.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Makes a request, at least once, and repeats it while it fails with a temporary error, until
/// `patience` has elapsed. Returns the last error.
pub(super) fn retried<T>(
    patience: Duration,
    request: impl Fn(Duration) -> KafkaResult<T>,
) -> KafkaResult<T> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now()).max(ASK_AGAIN);
        let failed = match request(left) {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        let passes = match &failed {
            KafkaError::Transaction(error) => error.is_retriable(),
            other => other.rdkafka_error_code().is_some_and(is_transient),
        };
        if !passes || Instant::now() + ASK_AGAIN >= until {
            return Err(failed);
        }
        thread::sleep(ASK_AGAIN);
    }
}

/// Time limit of a request that is not a fetch, as in Java's client.
const API_TIMEOUT: Duration = Duration::from_secs(60);

/// Options of Java's client and their names in librdkafka.
const RENAMED: [(&str, &str); 10] = [
    ("fetch.max.wait.ms", "fetch.wait.max.ms"),
    ("receive.buffer.bytes", "socket.receive.buffer.bytes"),
    ("send.buffer.bytes", "socket.send.buffer.bytes"),
    ("connections.max.idle.ms", "connections.max.idle.ms"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("max.request.size", "message.max.bytes"),
    ("ssl.truststore.certificates", "ssl.ca.pem"),
    ("ssl.keystore.key", "ssl.key.pem"),
    ("ssl.keystore.certificate.chain", "ssl.certificate.pem"),
    ("sasl.kerberos.service.name", "sasl.kerberos.service.name"),
];

/// Options of Java's consumer that have no effect here. The source reads whatever number of records
/// the broker sends, and it is never a member of a consumer group.
const WITHOUT_EFFECT: [&str; 6] = [
    "max.poll.records",
    "max.poll.interval.ms",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "group.instance.id",
    "partition.assignment.strategy",
];

/// The user and the password of a login module of Java's client, such as `…PlainLoginModule required
/// username="u" password="p";`.
fn login_of_jaas(what: &str, config: &str) -> PlanResult<[String; 2]> {
    // Without the value, which contains the password.
    let refused = |reason: &str, fix: &str| {
        let reason = format!("{what}: Kafka option 'sasl.jaas.config' {reason}");
        PlanError::new("UNSUPPORTED_OPTION", reason, fix)
    };
    const FORM: &str = "PlainLoginModule required username=\"…\" password=\"…\";";
    let next_word = |text: &mut &str| {
        let trimmed = text.trim_start();
        let end = trimmed.find(|c: char| c.is_whitespace() || c == ';').unwrap_or(trimmed.len());
        let (word, rest) = trimmed.split_at(end);
        *text = rest;
        word.to_string()
    };
    let mut rest = config;
    let module = next_word(&mut rest);
    let is_known = [".PlainLoginModule", ".ScramLoginModule"].iter().any(|m| module.ends_with(m));
    if !is_known {
        return Err(refused(
            "has another login module than PlainLoginModule and ScramLoginModule",
            "Use the options of librdkafka, such as kafka.sasl.username",
        ));
    }
    const FLAGS: [&str; 4] = ["required", "requisite", "sufficient", "optional"];
    let flag = next_word(&mut rest);
    if !FLAGS.iter().any(|known| known.eq_ignore_ascii_case(&flag)) {
        return Err(refused("has not the word 'required' after the login module", FORM));
    }
    let (mut user, mut password) = (None, None);
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(';') {
            match after.trim().is_empty() {
                true => break,
                false => return Err(refused("has text after the final ';'", FORM)),
            }
        }
        let Some((name, after)) = rest.split_once('=') else {
            return Err(refused("does not end with ';' after its last value", FORM));
        };
        let Some((value, after)) = quoted(after.trim_start()) else {
            return Err(refused("has a value that is not in double quotes", FORM));
        };
        rest = after;
        match name.trim_end() {
            "username" => user = Some(value),
            "password" => password = Some(value),
            // Without the name: a quote that is missing makes it a part of the password.
            _ => return Err(refused("has another name than username and password", FORM)),
        }
    }
    match (user, password) {
        (Some(user), Some(password)) => Ok([user, password]),
        _ => Err(refused("has no username or no password", FORM)),
    }
}

/// The text in the double quotes at the beginning, in which `\` escapes a character, and the text
/// after them.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut letters = text.strip_prefix('"')?.chars();
    let mut value = String::new();
    loop {
        match letters.next()? {
            '"' => return Some((value, letters.as_str())),
            '\\' => value.push(letters.next()?),
            letter => value.push(letter),
        }
    }
}

/// Whether the value of an option is a password, a key or a token, or may contain one. Errors do not
/// show it.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "secret", "jaas", "key.pem", "keystore.key", "token"]
        .iter()
        .any(|part| key.contains(part))
}

/// Fails for a protocol or a mechanism that this program does not have.
fn refuse_missing_security(what: &str, key: &str, value: &str) -> PlanResult<()> {
    let value = value.trim().to_ascii_uppercase();
    let refused = |option: String, reason: &str, fix: &str| {
        let reason = format!("{what}: Kafka option {option}: {reason}");
        Err(PlanError::new("UNSUPPORTED_OPTION", reason, fix))
    };
    let is_mechanism = matches!(key, "sasl.mechanism" | "sasl.mechanisms");
    let shown = || format!("'{key}' is '{value}'");
    if !cfg!(feature = "kafka-tls") {
        let needs_tls = is_mechanism && value.starts_with("SCRAM-")
            || key == "security.protocol" && matches!(value.as_str(), "SSL" | "SASL_SSL");
        // Without the value, which may be a password.
        let option = match key.starts_with("ssl.") {
            true => Some(format!("'{key}'")),
            false => needs_tls.then(shown),
        };
        if let Some(option) = option {
            let reason = "this program was built without TLS for Kafka";
            return refused(option, reason, "Build it with the cargo feature `kafka-tls`");
        }
    }
    let reason = match value.as_str() {
        "GSSAPI" => "this program was built without Kerberos",
        "OAUTHBEARER" => "this program has no way to get a token",
        _ => return Ok(()),
    };
    if is_mechanism { refused(shown(), reason, MECHANISMS) } else { Ok(()) }
}

/// The mechanisms of SASL.
const MECHANISMS: &str =
    "PLAIN, or with the cargo feature `kafka-tls` SCRAM-SHA-256 or SCRAM-SHA-512";

impl Client {
    /// Parses the options for a client. Their names must not have the prefix `kafka.`. Fails
    /// without servers, and for names and values that the client library refuses.
    pub fn read(what: &'static str, role: Role, options: Options) -> PlanResult<Self> {
        let mut servers = None;
        let mut timeout = API_TIMEOUT;
        let mut made = Options::new();
        for (key, value) in options {
            match key.as_str() {
                "bootstrap.servers" | "metadata.broker.list" => servers = Some(value),
                "default.api.timeout.ms" | "max.block.ms" => {
                    let ms: u64 = value.trim().parse().map_err(|_| {
                        let reason = format!("{what}: Kafka option '{key}' is '{value}'");
                        PlanError::new("INVALID_OPTION_VALUE", reason, "Give milliseconds")
                    })?;
                    timeout = Duration::from_millis(ms.max(1));
                }
                "sasl.jaas.config" => {
                    let [user, password] = login_of_jaas(what, &value)?;
                    made.push(("sasl.username".to_string(), user));
                    made.push(("sasl.password".to_string(), password));
                }
                "request.timeout.ms" if role == Role::Consumer => {
                    made.push(("socket.timeout.ms".to_string(), value));
                }
                key if role == Role::Consumer && WITHOUT_EFFECT.contains(&key) => {}
                _ => {
                    refuse_missing_security(what, &key, &value)?;
                    let renamed = RENAMED.iter().find(|(java, _)| *java == key);
                    made.push((renamed.map_or(key, |(_, own)| own.to_string()), value));
                }
            }
        }
        let servers = servers.filter(|servers| !servers.trim().is_empty()).ok_or_else(|| {
            let condition = match role {
                Role::Consumer => "MISSING_OPTION",
                Role::Producer => "MISSING_KAFKA_OPTION",
            };
            let reason = format!("{what}: option 'kafka.bootstrap.servers' is missing");
            PlanError::new(condition, reason, "For example: kafka.bootstrap.servers 'host:9092'")
        })?;
        let client = Self { what, role, servers, options: made, timeout };
        client.check_mechanism()?;
        client.config().create_native_config().map_err(|error| client.refused(&error))?;
        Ok(client)
    }

    /// Fails for a protocol with SASL that has no mechanism. The default would be Kerberos.
    fn check_mechanism(&self) -> PlanResult<()> {
        let protocol = self.option("security.protocol").unwrap_or_default();
        let has_sasl = protocol.trim().to_ascii_uppercase().starts_with("SASL_");
        let mechanism = self.option("sasl.mechanism").or_else(|| self.option("sasl.mechanisms"));
        if !has_sasl || mechanism.is_some() {
            return Ok(());
        }
        let reason = format!(
            "{}: Kafka option 'security.protocol' is '{protocol}', which needs the option 'sasl.mechanism'; this program was built without Kerberos, its default",
            self.what
        );
        Err(PlanError::new("MISSING_OPTION", reason, MECHANISMS))
    }

    fn refused(&self, error: &KafkaError) -> PlanError {
        const FIX: &str = "Options after `kafka.` are those of Java's client or of librdkafka";
        let (reason, fix) = match error {
            KafkaError::ClientConfig(_, reason, key, value) if is_secret(key) => {
                let reason = match value.is_empty() {
                    true => reason.clone(),
                    false => reason.replace(value.as_str(), "…"),
                };
                (format!("{}: Kafka option '{key}': {reason}", self.what), FIX)
            }
            KafkaError::ClientConfig(_, reason, key, value) => {
                (format!("{}: Kafka option '{key}' is '{value}': {reason}", self.what), FIX)
            }
            other => (format!("{}: {other}", self.what), ""),
        };
        PlanError::new("INVALID_OPTION_VALUE", reason, fix)
    }

    /// The configuration for librdkafka. Defaults that add latency are turned off; the user's
    /// options override everything.
    pub(super) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        config.set("client.id", "millstream");
        config.set("socket.nagle.disable", "true");
        match self.role {
            Role::Consumer => {
                config.set("enable.auto.commit", "false");
                config.set("enable.auto.offset.store", "false");
                config.set("auto.offset.reset", "error");
                config.set("enable.partition.eof", "true");
                config.set("isolation.level", "read_uncommitted");
                config.set("fetch.min.bytes", "1");
                // The retry interval after the local queue was full.
                config.set("fetch.queue.backoff.ms", "10");
            }
            Role::Producer => {
                config.set("linger.ms", "0");
                config.set("enable.idempotence", "true");
                // Selects the same partition as the Java client for records with a key.
                config.set("partitioner", "murmur2_random");
            }
        }
        for (key, value) in &self.options {
            config.set(key, value);
        }
        config
    }

    /// The part of the configuration that says how to connect, for a client of another role.
    pub(super) fn connection(&self) -> ClientConfig {
        const PREFIXES: [&str; 8] =
            ["security.", "sasl.", "ssl.", "socket.", "broker.", "client.", "metadata.", "debug"];
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        config.set("client.id", "millstream");
        for (key, value) in &self.options {
            if PREFIXES.iter().any(|prefix| key.starts_with(prefix)) {
                config.set(key, value);
            }
        }
        config
    }

    /// The value of an option under librdkafka's name.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        let found = self.options.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether connections are encrypted or authenticated.
    fn has_security(&self) -> bool {
        let protocol = self.option("security.protocol").unwrap_or("plaintext");
        !protocol.trim().eq_ignore_ascii_case("plaintext")
    }

    /// Wraps an error of the cluster. `doing` says what failed.
    pub(super) fn failed(&self, doing: &str, error: &KafkaError) -> EngineError {
        let fix = match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) if self.has_security() => {
                "Check that the broker runs and is reachable under kafka.bootstrap.servers, and the \
                 options kafka.ssl.… and kafka.sasl.…: the log of the client has the broker's reason"
            }
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => "Check that the broker runs and is reachable under kafka.bootstrap.servers",
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::SaslAuthenticationFailed,
            ) => "Ask the owner of the cluster for the permission",
            _ => "",
        };
        let reason = format!("{}: cannot {doing} at {}: {error}", self.what, self.servers);
        EngineError::operator("KAFKA_FAILED", reason, fix)
    }

    /// The bootstrap servers from the options.
    pub fn servers(&self) -> &str {
        &self.servers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_of_java_is_a_user_and_a_password() {
        let module = "org.apache.kafka.common.security.scram.ScramLoginModule";
        let login = |rest: &str| login_of_jaas("test", &format!("{module}{rest}"));
        let found = login(r#" required username="a b" password="x\"y=;z";"#).unwrap();
        assert_eq!(found, ["a b", "x\"y=;z"]);
        // Java's users write it on several lines.
        let found = login("\r\n\trequired\n\tusername=\"u\"\n\tpassword = \"p\"\n;\n");
        assert_eq!(found.unwrap_or_default(), ["u", "p"]);
        for bad in [
            "",
            " required username=\"secret\";",
            " required username=\"secret",
            " required username=\"secret\" password=\"secret\"",
            " required username=\"secret\" password=\"secret\" tokenauth=\"true\";",
            " required username=\"secret\" password=\"a\"secret=\"b\";",
            " required username=secret password=\"secret\";",
            " required username=\"secret\" password=\"secret\"; Other required;",
            " username=\"secret\" password=\"secret\";",
        ] {
            let error = login(bad).unwrap_err().to_string();
            assert!(error.contains("UNSUPPORTED_OPTION") && !error.contains("secret"), "{error}");
        }
        let kerberos = "com.sun.security.auth.module.Krb5LoginModule required keyTab=\"k\";";
        assert!(login_of_jaas("test", kerberos).is_err());
    }

    fn refusal(options: &[(&str, &str)]) -> String {
        let servers = ("bootstrap.servers", "127.0.0.1:1");
        let options = [&[servers], options].concat().into_iter();
        let options = options.map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Client::read("test", Role::Producer, options).expect_err("refused").to_string()
    }

    #[test]
    fn a_refused_option_does_not_show_a_password() {
        for key in ["ssl.truststore.password", "sasl.jaas.secret", "sasl.oauthbearer.tokens"] {
            let error = refusal(&[(key, "s3cret")]);
            assert!(error.contains(key) && !error.contains("s3cret"), "{error}");
        }
        assert!(refusal(&[("acks", "s3cret")]).contains("'s3cret'"));
        let options = vec![
            ("bootstrap.servers".to_string(), "127.0.0.1:1".to_string()),
            ("sasl.password".to_string(), "s3cret".to_string()),
        ];
        let client = Client::read("test", Role::Consumer, options).unwrap();
        assert!(!format!("{client:?}").contains("s3cret"));
    }

    #[test]
    fn mechanisms_that_are_missing_are_refused() {
        for mechanism in ["GSSAPI", "OAUTHBEARER"] {
            for key in ["sasl.mechanism", "sasl.mechanisms"] {
                let error = refusal(&[("security.protocol", "SASL_PLAINTEXT"), (key, mechanism)]);
                let is_named = error.contains("UNSUPPORTED_OPTION");
                assert!(is_named && error.contains(mechanism), "{error}");
            }
        }
        let error = refusal(&[("security.protocol", "sasl_plaintext")]);
        assert!(error.contains("MISSING_OPTION") && error.contains("'sasl.mechanism'"), "{error}");
    }
}
