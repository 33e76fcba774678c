//! The addresses and credentials of a registry.

use crate::table::error::{PlanError, PlanResult};
use std::fmt;
use std::time::Duration;

/// The option with the addresses of the registry.
pub const ADDRESS: &str = "schema.registry.address";
/// The option with the subject whose latest schema is used.
pub const SUBJECT: &str = "schema.registry.subject";
const RETRY: &str = "schema.registry.retry.ms";
const USER_INFO: &str = "confluent.schema.registry.basic.auth.user.info";
const USER_SOURCE: &str = "confluent.schema.registry.basic.auth.credentials.source";
const TOKEN: &str = "confluent.schema.registry.bearer.auth.token";

/// The names of all options.
pub const OPTIONS: [&str; 6] = [ADDRESS, SUBJECT, RETRY, USER_INFO, USER_SOURCE, TOKEN];

/// The options whose value is a password. Nothing shows them.
pub const SECRETS: [&str; 2] = [USER_INFO, TOKEN];

/// How long requests are repeated unless the option says otherwise. Registries restart in less.
const RETRY_DEFAULT: Duration = Duration::from_secs(60);

/// Where the registry is, and how to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryOptions {
    /// The addresses without a final `/`. They are tried in turn.
    pub addresses: Vec<String>,
    /// The value of the header `Authorization`.
    pub authorization: Option<String>,
    /// How long a request is repeated while the registry does not answer.
    pub retry: Duration,
}

impl fmt::Debug for RegistryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the credentials.
        f.debug_struct("RegistryOptions").field("addresses", &self.addresses).finish()
    }
}

impl RegistryOptions {
    /// Reads the options of a function; `None` without an address. `get` finds the value of an
    /// option.
    pub fn read<'a>(name: &str, get: impl Fn(&str) -> Option<&'a str>) -> PlanResult<Option<Self>> {
        let Some(written) = get(ADDRESS) else {
            let unused = OPTIONS.into_iter().find(|option| get(option).is_some());
            return match unused {
                Some(option) => Err(PlanError::new(
                    "MISSING_OPTION",
                    format!("`{name}`: the option '{option}' needs the option '{ADDRESS}'"),
                    "For example: map('schema.registry.address', 'http://localhost:8081')",
                )),
                None => Ok(None),
            };
        };
        let addresses = written.split(',').map(|address| checked(name, address.trim()));
        let addresses = addresses.collect::<PlanResult<Vec<_>>>()?;
        let retry = match get(RETRY).map(|text| text.trim().parse()) {
            None => RETRY_DEFAULT,
            Some(Ok(ms)) => Duration::from_millis(ms),
            Some(Err(_)) => return Err(invalid(name, RETRY, "is no number of milliseconds")),
        };
        Ok(Some(Self { addresses, authorization: authorization(name, get)?, retry }))
    }
}

fn invalid(name: &str, option: &str, problem: &str) -> PlanError {
    // Without the value, which may contain credentials.
    let reason = format!("`{name}`: the option '{option}' {problem}");
    PlanError::new("INVALID_OPTION_VALUE", reason, "")
}

fn authorization<'a>(
    name: &str,
    get: impl Fn(&str) -> Option<&'a str>,
) -> PlanResult<Option<String>> {
    if get(USER_SOURCE).is_some_and(|source| !source.eq_ignore_ascii_case("USER_INFO")) {
        return Err(invalid(name, USER_SOURCE, "must be USER_INFO"));
    }
    let is_visible = |text: &&str| !text.bytes().any(|byte| byte.is_ascii_control());
    match (get(USER_INFO), get(TOKEN)) {
        (Some(_), Some(_)) => Err(invalid(name, TOKEN, "excludes a user and a password")),
        (Some(info), None) => match info.split_once(':') {
            Some(_) => Ok(Some(format!("Basic {}", base64_of(info.as_bytes())))),
            None => Err(invalid(name, USER_INFO, "must be 'user:password'")),
        },
        (None, Some(token)) if is_visible(&token) => Ok(Some(format!("Bearer {token}"))),
        (None, Some(_)) => Err(invalid(name, TOKEN, "has control characters")),
        (None, None) => Ok(None),
    }
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Checks one address, and drops a final `/`.
fn checked(name: &str, address: &str) -> PlanResult<String> {
    let rest = match address.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", rest)) if cfg!(feature = "schema-registry-tls") => rest,
        Some(("https", _)) if cfg!(feature = "schema-registry") => {
            return Err(PlanError::new(
                "UNSUPPORTED_OPTION",
                format!("`{name}`: this program cannot use https for a schema registry"),
                "Build it with the cargo feature `schema-registry-tls`",
            ));
        }
        Some(("https", rest)) => rest,
        _ => return Err(invalid(name, ADDRESS, "must begin with http:// or https://")),
    };
    if rest.is_empty() || rest.starts_with('/') || rest.contains([' ', '?', '#']) {
        return Err(invalid(name, ADDRESS, "is no address such as http://localhost:8081"));
    }
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        let problem = format!("must not contain the password; use the option '{USER_INFO}'");
        return Err(invalid(name, ADDRESS, &problem));
    }
    Ok(address.trim_end_matches('/').to_string())
}
