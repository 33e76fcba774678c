#!/usr/bin/env python3
"""What Apache Spark makes of `from_avro`, `to_avro` and `schema_of_avro`, for
`operators/tests/spark/avro.jsonl`.

    pip install pyspark==4.2.0                                        # and Java 17 and Maven
    tools/spark/avro.py > operators/tests/spark/avro.jsonl

One line of JSON an expression: the SQL, and its type and text, or the condition of the error.
Elements of arrays and values of maps are NULL somewhere in what is written without a schema:
Spark's types say whether they can be, and Millstream's do not.
"""

import json
import re

import peers
from pyspark.sql import SparkSession


def quote(schema):
    """A literal of the schema's JSON; a text that begins with a brace is taken as it is."""
    is_text = isinstance(schema, str) and schema.startswith("{")
    text = schema if is_text else json.dumps(schema)
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def record(*fields, name="R"):
    return {
        "type": "record",
        "name": name,
        "fields": [
            {"name": f[0], "type": f[1], **(f[2] if len(f) > 2 else {})} for f in fields
        ],
    }


def logical(base, name, **more):
    return {"type": base, "logicalType": name, **more}


def fixed(size, **more):
    return {"type": "fixed", "name": "F", "size": size, **more}


ENUM = {"type": "enum", "name": "E", "symbols": ["RED", "GREEN"]}
SHORTER = {"type": "enum", "name": "E", "symbols": ["GREEN"], "default": "GREEN"}
POINT = record(("x", "int"), ("y", ["null", "double"]), name="Point")
NESTED = record(("id", "long"), ("at", POINT), ("tags", {"type": "array", "items": "string"}))

# The schema and messages in hexadecimal: good ones, short ones, long ones, wrong ones.
READ = [
    ("null", ["", "00"]),
    ("boolean", ["00", "01", "02", ""]),
    ("int", ["00", "01", "02", "7F", "FEFFFFFF0F", "FFFFFFFF0F", "80", "808080808001", ""]),
    ("long", ["00", "FEFFFFFFFFFFFFFFFF01", "FFFFFFFFFFFFFFFFFF01", "80", "8080808080808080808001"]),
    ("float", ["0000803F", "0000C07F", "000080FF", "000000"]),
    ("double", ["000000000000F03F", "000000000000F0FF", "00"]),
    ("bytes", ["00", "04CAFE", "0400", "01", "FF"]),
    ("string", ["00", "06616263", "04C3A9", "0861", "01"]),
    (ENUM, ["00", "02", "04", "01"]),
    (fixed(2), ["CAFE", "CA", "CAFEBABE"]),
    (logical("int", "date"), ["00", "B0C702", "01"]),
    (logical("long", "timestamp-millis"), ["00", "80D0DBC3F462", "01"]),
    # Milliseconds that are no microseconds: 2^60, and the smallest number.
    (logical("long", "timestamp-millis"), ["808080808080808020", "FFFFFFFFFFFFFFFFFF01"]),
    (logical("long", "local-timestamp-millis"), ["808080808080808020"]),
    (logical("long", "timestamp-micros"), ["00", "8080DBC3F4D2DE05", "01"]),
    (logical("long", "local-timestamp-millis"), ["00", "80D0DBC3F462"]),
    (logical("long", "local-timestamp-micros"), ["00", "01"]),
    (logical("long", "timestamp-nanos"), ["04"]),
    (logical("int", "time-millis"), ["04"]),
    (logical("long", "time-micros"), ["04"]),
    (logical("string", "uuid"), ["0261"]),
    (logical("bytes", "decimal", precision=5, scale=2), ["023039", "0400FF", "02FF", "00"][1:3]),
    (logical("bytes", "decimal", precision=38, scale=0), ["047FFF", "048000"]),
    (fixed(4, logicalType="decimal", precision=9, scale=3), ["00003039", "FFFFCFC7"]),
    # Spark cannot read a NULL or a union of several types that is not within a record.
    (["null", "string"], ["020261", "04", "02"]),
    (["string", "null"], ["000261"]),
    (["int", "long"], ["0002", "0204"]),
    (["string"], ["000261"]),
    (record(("u", ["null", "string"])), ["00", "020261", "04", "02"]),
    (record(("u", ["null", "float", "double"])), ["00", "020000803F", "04000000000000F03F"]),
    (record(("u", ["null", "int", "string"])), ["00", "0202", "040261", "06"]),
    (record(("u", ["int", "string", "boolean"])), ["0002", "020261", "0401"]),
    (record(("u", ["int", logical("long", "timestamp-millis")])), ["0002", "0206"]),
    (record(("u", [logical("int", "date"), "long"])), ["0002", "0206"]),
    (record(("u", ["null", logical("long", "timestamp-micros"), "int"])), ["00", "0206", "0402"]),
    (record(("u", ["int", "null", "string"])), ["0002", "02", "040261"]),
    ({"type": "array", "items": "int"}, ["00", "04020400", "0302040200", "0202020400", "04", "0402"]),
    ({"type": "array", "items": ["null", "int"]}, ["040002020200"[:10] + "00"]),
    ({"type": "array", "items": "null"}, ["0400", "00"]),
    ({"type": "array", "items": {"type": "array", "items": "long"}}, ["0402020004060800" + "00"]),
    ({"type": "map", "values": "int"}, ["00", "0202610200", "01060261020"[:10] + "00"]),
    (POINT, ["0200", "0202000000000000F03F", "02", ""]),
    (NESTED, ["02020004026102620" + "0", "0202020000000000000840" + "00"]),
    (record(("a", ENUM), ("b", "E"), ("c", fixed(1)), ("d", "F")), ["00020102"]),
    (record(("a", "int"), ("b", {"type": "map", "values": POINT})), ["02" + "0202610200" + "00"]),
]

# The writer's schema, the reader's, and messages.
EVOLVED = [
    (record(("a", "int")), record(("a", "long")), ["02"]),
    (record(("a", "int")), record(("a", "double")), ["02"]),
    (record(("a", "long")), record(("a", "float")), ["02"]),
    (record(("a", "long")), record(("a", "int")), ["02"]),
    (record(("a", "int"), ("b", "string")), record(("b", "string")), ["020261"]),
    (record(("a", "int")), record(("a", "int"), ("b", "string", {"default": "x"})), ["02"]),
    (record(("a", "int")), record(("a", "int"), ("b", "string")), ["02"]),
    (
        record(("a", "int")),
        record(("a", "int"), ("b", ["null", "string"], {"default": None})),
        ["02"],
    ),
    (record(("a", "int")), record(("z", "int", {"aliases": ["a"]})), ["02"]),
    # An alias of one field that is the name of another.
    (
        record(("a", "int")),
        record(("a", "int", {"default": 1}), ("b", "int", {"aliases": ["a"], "default": 7})),
        ["04"],
    ),
    (record(("a", "int")), record(("a", "int"), ("b", "int", {"aliases": ["a"]})), ["04"]),
    (
        record(("a", "int"), ("b", "int")),
        record(("a", "int", {"default": 1}), ("b", "int", {"aliases": ["a"], "default": 7})),
        ["0406"],
    ),
    (
        record(("a", "int")),
        record(("b", "int", {"aliases": ["a"], "default": 1}), ("c", "int", {"aliases": ["a"], "default": 2})),
        ["04"],
    ),
    (record(("a", "string")), record(("a", "bytes")), ["0261"]),
    (record(("a", "bytes")), record(("a", "string")), ["0261"]),
    (record(("a", "int")), record(("a", ["null", "int"])), ["02"]),
    (record(("a", ["null", "int"])), record(("a", "int")), ["0202", "00"]),
    (record(("a", ["null", "int"])), record(("a", ["null", "long"])), ["0202", "00"]),
    (record(("a", "int")), record(("a", ["null", "string", "long"])), ["02"]),
    (record(("a", ENUM)), record(("a", SHORTER)), ["02", "00"]),
    (
        record(("a", "int")),
        record(("a", "int"), ("b", {"type": "array", "items": "int"}, {"default": [1, 2]})),
        ["02"],
    ),
    (record(("a", "int")), record(("a", "int"), ("p", POINT, {"default": {"x": 1, "y": None}})), ["02"]),
]

STRUCTS = [
    "named_struct('a', 1, 'b', 'x')",
    "named_struct('a', CAST(NULL AS INT), 'b', CAST(NULL AS STRING))",
    "named_struct('a', CAST(1 AS BIGINT), 'b', CAST('x' AS BINARY))",
    "named_struct('b', 'x', 'A', 1)",
    "named_struct('a', 1)",
    "named_struct('a', 1, 'b', 'x', 'c', true)",
]
TARGETS = [
    None,
    record(("a", "int"), ("b", "string")),
    record(("a", ["null", "int"]), ("b", ["null", "string"])),
    record(("a", ["int", "null"]), ("b", ["string", "null"])),
    record(("a", "long"), ("b", "bytes")),
    record(("a", "int"), ("b", {"type": "enum", "name": "E", "symbols": ["w", "x"]})),
]
VALUES = [
    "1", "-1", "CAST(7 AS TINYINT)", "CAST(7 AS SMALLINT)", "300L", "9223372036854775807L",
    "1.5D", "CAST(1.5 AS FLOAT)", "'abc'", "''", "X'CAFE'", "true", "CAST(NULL AS INT)", "NULL",
    "DATE'2020-01-02'", "TIMESTAMP'2020-01-02 03:04:05.678901'",
    "TIMESTAMP_NTZ'2020-01-02 03:04:05.678901'", "12.34BD", "-12.34BD",
    "CAST(1 AS DECIMAL(38,0))", "CAST(-1 AS DECIMAL(20,5))", "array(1, NULL)",
    "array('a', NULL, 'b')", "map('k', CAST(NULL AS INT))", "map('a', 1, 'b', CAST(NULL AS INT))",
    "INTERVAL '1-2' YEAR TO MONTH", "INTERVAL '1 02:03:04' DAY TO SECOND",
    "named_struct('a', named_struct('b', 1))",
]
CONVERTED = [
    ("1", "long"), ("1L", "int"), ("1", ["int", "null"]), ("1", ["string", "int"]), ("'x'", ENUM),
    ("'RED'", ENUM), ("'GREEN'", ["null", ENUM]), ("X'CAFE'", fixed(2)), ("X'CAFE'", fixed(3)),
    ("CAST(NULL AS INT)", "int"), ("'a'", "bytes"), ("X'61'", "string"),
    ("TIMESTAMP'2020-01-02 03:04:05.678901'", "long"),
    ("TIMESTAMP'2020-01-02 03:04:05.678901'", logical("long", "timestamp-millis")),
    ("TIMESTAMP'2020-01-02 03:04:05.678901'", logical("long", "timestamp-micros")),
    ("TIMESTAMP'1960-01-02 03:04:05.678901'", logical("long", "timestamp-millis")),
    ("TIMESTAMP_NTZ'2020-01-02 03:04:05.678901'", logical("long", "local-timestamp-millis")),
    ("DATE'2020-01-02'", logical("int", "date")), ("DATE'2020-01-02'", "int"),
    ("12.34BD", logical("bytes", "decimal", precision=4, scale=2)),
    ("-12.34BD", logical("bytes", "decimal", precision=4, scale=2)),
    ("12.34BD", logical("bytes", "decimal", precision=5, scale=2)),
    ("12.34BD", fixed(4, logicalType="decimal", precision=4, scale=2)),
    ("array(1, 2)", {"type": "array", "items": "int"}),
    ("array(1, NULL)", {"type": "array", "items": ["null", "int"]}),
    ("map('a', 1)", {"type": "map", "values": "int"}),
    ("named_struct('member0', 1, 'member1', CAST(NULL AS STRING))", ["null", "int", "string"]),
    ("named_struct('member0', CAST(NULL AS INT), 'member1', 'x')", ["int", "string"]),
    ("1.5D", "float"), ("1", "{\"type\": \"nothing\"}"), ("1", "{"),
]


def expressions():
    for schema, messages in READ:
        yield f"schema_of_avro({quote(schema)})"
        for message in messages:
            for options in ("", ", map('mode', 'PERMISSIVE')"):
                yield f"from_avro(X'{message}', {quote(schema)}{options})"
    for writer, reader, messages in EVOLVED:
        for message in messages:
            options = f"map('avroSchema', {quote(reader)})"
            yield f"from_avro(X'{message}', {quote(writer)}, {options})"
    for value in STRUCTS:
        for target in TARGETS:
            yield f"to_avro({value})" if target is None else f"to_avro({value}, {quote(target)})"
    for value in VALUES:
        yield f"to_avro({value})"
    for value, schema in CONVERTED:
        yield f"to_avro({value}, {quote(schema)})"
    yield "from_avro(CAST(NULL AS BINARY), '\"int\"')"
    yield "from_avro(X'02', NULL)"
    yield "from_avro('02', '\"int\"')"
    yield "from_avro(1, '\"int\"')"
    yield "from_avro(X'02', '\"int\"', map('mode', 'DROPMALFORMED'))"
    yield "from_avro(X'02', '\"int\"', map('mode', 'FAILFAST'))"
    yield "from_avro(X'02', 'int')"
    yield "from_avro(X'02', upper('x'))"
    yield "to_avro()"
    recursive = record(("next", ["null", "R"]))
    yield f"from_avro(X'00', {quote(recursive)})"


def main():
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "America/New_York")
        .config("spark.jars", str(peers.jar("spark-avro")))
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("OFF")
    for sql in expressions():
        line = {"sql": sql}
        try:
            frame = spark.sql(f"SELECT {sql} AS x")
            line["type"] = frame.schema[0].dataType.simpleString()
            is_binary = line["type"] == "binary"
            shown = "hex(x)" if is_binary else "CAST(x AS STRING)"
            line["text"] = frame.selectExpr(f"{shown} AS x").collect()[0][0]
        except Exception as error:  # Spark's, or the gateway's own
            condition = getattr(error, "getCondition", lambda: None)()
            if not condition:
                found = re.search(r"\[([A-Z_0-9.]+)\]", str(error))
                condition = found[1] if found else "?"
            line.pop("type", None)
            line["error"] = condition
        print(json.dumps(line))


if __name__ == "__main__":
    main()
