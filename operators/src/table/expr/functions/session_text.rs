//! Functions without arguments that return a text about the session: its user, its catalog and its
//! version. A call is resolved to a literal.

use super::registry::{Function, Typed, cells};
use crate::table::types::DataType;

macro_rules! session_text {
    ($($name:literal, $help:literal, $since:literal, $example:literal, $result:literal;)*) => {
        pub(super) static FUNCTIONS: &[Function] = &[$(
            cells(
                $name,
                concat!($name, "(): ", $help),
                (0, 0),
                |_, _| Ok(Typed::new(Vec::new(), DataType::String, false)),
                |_, _, _| unreachable!("it is resolved to a literal"),
            )
            .usage($since, $example, $result),
        )*];
    };
}

session_text! {
    "current_catalog", "the name of the catalog", "3.1.0", "current_catalog()", "spark_catalog";
    "current_database", "the name of the database", "1.6.0", "current_database()", "default";
    "current_schema", "the same as `current_database`", "3.4.0", "current_schema()", "default";
    "current_user", "the environment variable USER, LOGNAME or USERNAME, else `unknown`", "3.2.0", "length(current_user()) > 0", "true";
    "session_user", "the same as `current_user`", "4.0.0", "session_user() = current_user()", "true";
    "user", "the same as `current_user`", "3.4.0", "user() = current_user()", "true";
    "version", "the version of Millstream", "3.0.0", "version() LIKE '_%._%'", "true";
}

/// The text that a function returns; `None` for other functions. The name is in lower case.
pub(super) fn of(name: &str) -> Option<String> {
    Some(match name {
        "current_catalog" => "spark_catalog".to_string(),
        "current_database" | "current_schema" => "default".to_string(),
        "current_user" | "session_user" | "user" => {
            let named =
                ["USER", "LOGNAME", "USERNAME"].iter().find_map(|key| std::env::var(key).ok());
            named.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_string())
        }
        "version" => env!("CARGO_PKG_VERSION").to_string(),
        _ => return None,
    })
}
