#!/usr/bin/env python3
"""Messages that Google's library has written, and the rows that they are by Spark's rules, for
`operators/tests/protobuf.rs`.

    pip install protobuf grpcio-tools
    tools/protobuf/cases.py          # writes operators/tests/protobuf/

The connector `spark-protobuf` is not on Maven Central for the version of the reference, so the rows
are computed here from the messages of Google's library, by the rules of Spark's documentation. A case
is one line of JSON: the message type, the message in hexadecimal, the options, and the row as
`to_json` writes it, with NULL for fields that are missing.
"""

import base64
import json
import pathlib
import tempfile

import grpc_tools
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, text_format
from grpc_tools import protoc

HERE = pathlib.Path(__file__).resolve().parent
TARGET = HERE.parents[1] / "operators" / "tests" / "protobuf"

WRAPPERS = {
    "google.protobuf." + name
    for name in "BoolValue Int32Value UInt32Value Int64Value UInt64Value FloatValue DoubleValue "
    "StringValue BytesValue".split()
}

CASES = [
    ("test.Scalars", ""),
    (
        "test.Scalars",
        'bool: true int32: -1 int64: -2 uint32: 4294967295 uint64: 18446744073709551615 '
        'sint32: -2147483648 sint64: -9223372036854775808 fixed32: 4294967294 '
        'fixed64: 18446744073709551614 sfixed32: -7 sfixed64: -8 float: 1.5 double: -2.25 '
        'string: "h\\303\\251" bytes: "\\000\\377" color: BLUE maybe: 0 text: ""',
    ),
    ("test.Scalars", "int32: 2147483647 int64: 9223372036854775807 double: -0.0 color: GREEN"),
    ("test.Nested", ""),
    (
        "test.Nested",
        'first { x: 1 } second { y: 2 } points { x: 3 } points {} points { x: 4 y: 5 } '
        'named { key: "a" value { x: 6 } } named { key: "" value {} } '
        'texts { key: -1 value: "minus" } texts { key: 0 value: "" } '
        'colors { key: true value: BLUE } colors { key: false value: RED } word: "w" '
        "packed: 1 packed: -1 packed: 300 unpacked: 7 unpacked: 0 "
        'words: "" words: "b" paints: BLUE paints: RED doubles: 0.5 doubles: -1 flags: true flags: false',
    ),
    ("test.Nested", "place { x: 1 }"),
    ("test.Nested", "number: 0"),
    ("test.Known", ""),
    (
        "test.Known",
        "at { seconds: 1700000000 nanos: 123456789 } took { seconds: -5 nanos: -500000000 } "
        "times { seconds: -1 nanos: 999999999 } times {}",
    ),
    ("test.Known", 'any { [type.googleapis.com/test.Point] { x: 3 y: -4 } }'),
    (
        "test.Known",
        'any { [type.googleapis.com/test.Scalars] { int64: 5 color: GREEN bytes: "ab" text: "x" } }',
    ),
    ("test.Wrapped", ""),
    (
        "test.Wrapped",
        "bool {} int32 {} uint32 {} int64 {} uint64 {} float {} double {} string {} bytes {}",
    ),
    (
        "test.Wrapped",
        "bool { value: true } int32 { value: -5 } uint32 { value: 4000000000 } int64 { value: -6 } "
        "uint64 { value: 18000000000000000000 } float { value: 0.5 } double { value: 2 } "
        'string { value: "s" } bytes { value: "b" }',
    ),
    ("test.Person", 'name: "a" friend { name: "b" friend { name: "c" friend { name: "d" } } }'),
    ("test.Person", 'name: "a" children { name: "b" children { name: "c" } } children { friend { name: "e" } }'),
    ("test.HasEmpty", 'empty {} name: "n"'),
    ("test.Outer.Inner", "id: 9"),
    ("old.Old", "id: 0"),
    (
        "old.Old",
        'id: 7 name: "" count: 0 size: LARGE ratio: 0 change: 5 data: "" numbers: 1 numbers: 2 '
        'Part { of: 3 Piece { word: "x" } Piece {} } other: SMALL sizes: LARGE sizes: SMALL flag: false',
    ),
]

OPTIONS = {
    "test.Scalars": [
        {},
        {"emit.default.values": "true"},
        {"enums.as.ints": "true"},
        {"upcast.unsigned.ints": "true"},
        {"emit.default.values": "true", "upcast.unsigned.ints": "TRUE", "enums.as.ints": "true"},
    ],
    "test.Nested": [{}, {"emit.default.values": "true"}, {"enums.as.ints": "true"}],
    "test.Known": [{}, {"convert.any.fields.to.json": "true"}, {"convert.any.fields.to.json": "true", "enums.as.ints": "true"}],
    "test.Wrapped": [
        {},
        {"unwrap.primitive.wrapper.types": "true"},
        {"unwrap.primitive.wrapper.types": "true", "emit.default.values": "true"},
        {"unwrap.primitive.wrapper.types": "true", "upcast.unsigned.ints": "true"},
    ],
    "test.Person": [{"recursive.fields.max.depth": str(depth)} for depth in (1, 2, 3, 10)],
    "test.HasEmpty": [{}, {"retain.empty.message.types": "true"}],
    "old.Old": [{}, {"emit.default.values": "true"}, {"enums.as.ints": "true"}],
}


class Mapping:
    """The rules of Spark's `ProtobufDeserializer`."""

    def __init__(self, options, pool):
        self.pool = pool
        self.emits = options.get("emit.default.values", "").lower() == "true"
        self.ints = options.get("enums.as.ints", "").lower() == "true"
        self.upcasts = options.get("upcast.unsigned.ints", "").lower() == "true"
        self.unwraps = options.get("unwrap.primitive.wrapper.types", "").lower() == "true"
        self.any_json = options.get("convert.any.fields.to.json", "").lower() == "true"
        self.retains = options.get("retain.empty.message.types", "").lower() == "true"
        self.depth = int(options.get("recursive.fields.max.depth", "-1"))

    def row(self, message, path=None):
        path = path or [message.DESCRIPTOR.full_name]
        out = {}
        for field in message.DESCRIPTOR.fields:
            if self.is_left_out(field, path):
                continue
            is_map = field.message_type and field.message_type.GetOptions().map_entry
            if is_map:
                value_field = field.message_type.fields_by_name["value"]
                entries = getattr(message, field.name)
                out[field.name] = {
                    self.key(key): self.value(value_field, entries[key], path) for key in entries
                }
            elif field.is_repeated:
                values = getattr(message, field.name)
                out[field.name] = [self.value(field, value, path) for value in values]
            elif field.has_presence and message.HasField(field.name):
                out[field.name] = self.value(field, getattr(message, field.name), path)
            elif field.has_default_value:
                out[field.name] = self.value(field, field.default_value, path)
            elif not field.has_presence and (self.emits or self.is_set(message, field)):
                out[field.name] = self.value(field, getattr(message, field.name), path)
            else:
                out[field.name] = None
        return out

    @staticmethod
    def is_set(message, field):
        return any(found.number == field.number for found, _ in message.ListFields())

    @staticmethod
    def key(key):
        return str(key).lower() if isinstance(key, bool) else str(key)

    def is_left_out(self, field, path):
        kind = field.message_type
        if not kind or kind.GetOptions().map_entry:
            return False
        if not kind.fields and not self.retains:
            return True
        return kind.full_name in path and path.count(kind.full_name) >= self.depth

    def value(self, field, value, path):
        kind = field.type
        if kind == field.TYPE_ENUM:
            return value if self.ints else field.enum_type.values_by_number[value].name
        if kind == field.TYPE_BYTES:
            return base64.b64encode(value).decode()
        if kind in (field.TYPE_UINT32, field.TYPE_FIXED32):
            is_signed = kind == field.TYPE_FIXED32 or not self.upcasts
            return value - 2**32 if is_signed and value >= 2**31 else value
        if kind in (field.TYPE_UINT64, field.TYPE_FIXED64):
            is_signed = kind == field.TYPE_FIXED64 or not self.upcasts
            return value - 2**64 if is_signed and value >= 2**63 else value
        if kind not in (field.TYPE_MESSAGE, field.TYPE_GROUP):
            return value
        name = value.DESCRIPTOR.full_name
        if name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
            # In microseconds; the test compares it with a cast.
            micros = value.seconds * 10**6 + int(value.nanos / 1000)
            return {"micros": micros, "is_time": name.endswith("Timestamp")}
        if name == "google.protobuf.Any" and self.any_json:
            if not value.type_url:
                return "{}"
            return json_format.MessageToJson(
                value,
                indent=None,
                preserving_proto_field_name=True,
                use_integers_for_enums=self.ints,
                descriptor_pool=self.pool,
            )
        if name in WRAPPERS and self.unwraps:
            inner = value.DESCRIPTOR.fields_by_name["value"]
            if not self.emits and not self.is_set(value, inner):
                return None
            return self.value(inner, value.value, path)
        if not value.DESCRIPTOR.fields:
            return {"__dummy_field_in_empty_struct": None}
        return self.row(value, [*path, name])


def main():
    TARGET.mkdir(parents=True, exist_ok=True)
    include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    for name in ("all", "old"):
        arguments = ["protoc", f"-I{HERE}", f"-I{include}", "--include_imports"]
        out = f"--descriptor_set_out={TARGET / (name + '.desc')}"
        assert protoc.main([*arguments, out, f"{HERE / (name + '.proto')}"]) == 0
    pool = descriptor_pool.DescriptorPool()
    for name in ("all", "old"):
        files = descriptor_pb2.FileDescriptorSet.FromString((TARGET / f"{name}.desc").read_bytes())
        for file in files.file:
            pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    lines = []
    for name, text in CASES:
        kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
        message = text_format.Parse(text, kind(), descriptor_pool=pool)
        written = message.SerializeToString(deterministic=True)
        for options in OPTIONS.get(name, [{}]):
            row = Mapping(options, pool).row(kind.FromString(written))
            case = {"message": name, "hex": written.hex(), "options": options, "row": row}
            lines.append(json.dumps(case))
    (TARGET / "cases.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
