//! The connection to a Kafka cluster. Options have the names of the Java client, which Spark's
//! users know; they are translated to those of librdkafka.

use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
use millstream_engine::error::EngineError;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
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
#[derive(Clone, Debug)]
pub struct Client {
    what: &'static str,
    role: Role,
    servers: String,
    /// Options under librdkafka's names.
    options: Options,
    /// Time limit of a request that is not a fetch.
    pub(super) timeout: Duration,
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
const RENAMED: [(&str, &str); 9] = [
    ("fetch.max.wait.ms", "fetch.wait.max.ms"),
    ("receive.buffer.bytes", "socket.receive.buffer.bytes"),
    ("send.buffer.bytes", "socket.send.buffer.bytes"),
    ("connections.max.idle.ms", "connections.max.idle.ms"),
    ("delivery.timeout.ms", "message.timeout.ms"),
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
    let module = config.split_whitespace().next().unwrap_or_default();
    let is_known = [".PlainLoginModule", ".ScramLoginModule"].iter().any(|m| module.ends_with(m));
    if !is_known {
        return Err(refused(
            "has another login module than PlainLoginModule and ScramLoginModule",
            "Use the options of librdkafka, such as kafka.sasl.username",
        ));
    }
    let part = |name: &str| {
        let (_, rest) = config.split_once(&format!(" {name}=\""))?;
        let mut value = String::new();
        let mut letters = rest.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '"' => return Some(value),
                '\\' => value.push(letters.next()?),
                letter => value.push(letter),
            }
        }
        None
    };
    match (part("username"), part("password")) {
        (Some(user), Some(password)) => Ok([user, password]),
        _ => Err(refused(
            "has no username or no password",
            "PlainLoginModule required username=\"…\" password=\"…\";",
        )),
    }
}

/// Fails for a protocol or a mechanism that the client library was built without.
fn refuse_missing_security(what: &str, key: &str, value: &str) -> PlanResult<()> {
    let value = value.trim().to_ascii_uppercase();
    let needs_tls = match key {
        "security.protocol" => matches!(value.as_str(), "SSL" | "SASL_SSL"),
        "sasl.mechanism" | "sasl.mechanisms" => {
            value.starts_with("SCRAM-") || value == "OAUTHBEARER"
        }
        _ => false,
    };
    let refused = |reason: &str, fix: &str| {
        let reason = format!("{what}: Kafka option '{key}' is '{value}': {reason}");
        Err(PlanError::new("UNSUPPORTED_OPTION", reason, fix))
    };
    if needs_tls && !cfg!(feature = "kafka-tls") {
        return refused(
            "this program was built without TLS for Kafka",
            "Build it with the cargo feature `kafka-tls`",
        );
    }
    if key.starts_with("sasl.mechanism") && value == "GSSAPI" {
        return refused(
            "this program was built without Kerberos",
            "PLAIN, or with the cargo feature `kafka-tls` SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER",
        );
    }
    Ok(())
}

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
        client.config().create_native_config().map_err(|error| client.refused(&error))?;
        Ok(client)
    }

    fn refused(&self, error: &KafkaError) -> PlanError {
        let (reason, fix) = match error {
            KafkaError::ClientConfig(_, reason, key, value) => (
                format!("{}: Kafka option '{key}' is '{value}': {reason}", self.what),
                "Options after `kafka.` are those of Java's client or of librdkafka",
            ),
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

    /// Wraps an error of the cluster. `doing` says what failed.
    pub(super) fn failed(&self, doing: &str, error: &KafkaError) -> EngineError {
        let fix = match error.rdkafka_error_code() {
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
        let module = "org.apache.kafka.common.security.scram.ScramLoginModule required";
        let login = |rest: &str| login_of_jaas("test", &format!("{module}{rest}"));
        let found = login(r#" username="a b" password="x\"y=;z";"#).unwrap();
        assert_eq!(found, ["a b", "x\"y=;z"]);
        for bad in [" username=\"secret\";", " username=\"secret", ""] {
            let error = login(bad).unwrap_err().to_string();
            assert!(error.contains("UNSUPPORTED_OPTION") && !error.contains("secret"), "{error}");
        }
        let kerberos = "com.sun.security.auth.module.Krb5LoginModule required keyTab=\"k\";";
        assert!(login_of_jaas("test", kerberos).is_err());
    }
}
