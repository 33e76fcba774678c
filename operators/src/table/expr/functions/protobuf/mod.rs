//! The SQL functions `from_protobuf` and `to_protobuf`.

#[cfg(feature = "protobuf")]
mod conversion;
#[cfg(not(feature = "protobuf"))]
mod disabled;
#[cfg(feature = "protobuf")]
mod options;

#[cfg(feature = "protobuf")]
use conversion::{compile_from_protobuf, compile_to_protobuf, from_protobuf, to_protobuf};
#[cfg(not(feature = "protobuf"))]
use disabled::{compile_from_protobuf, compile_to_protobuf, from_protobuf, to_protobuf};

use super::registry::{Function, called};

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "from_protobuf",
        "from_protobuf(binary, 'message type', 'file of descriptors' or its bytes[, map('mode', 'PERMISSIVE', …)]): the struct that a Protobuf message holds",
        (2, 4),
        from_protobuf,
        compile_from_protobuf,
    )
        .usage(
            "4.0.0",
            "from_protobuf(X'0803', 'M', X'0A140A016D220F0A014D120A0A026964180120012805')",
            "{3}",
        ),
    called(
        "to_protobuf",
        "to_protobuf(struct, 'message type', 'file of descriptors' or its bytes): a struct as a Protobuf message",
        (2, 4),
        to_protobuf,
        compile_to_protobuf,
    )
        .usage(
            "4.0.0",
            "hex(to_protobuf(named_struct('id', 3), 'M', X'0A140A016D220F0A014D120A0A026964180120012805'))",
            "0803",
        ),
];
