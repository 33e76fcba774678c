#!/usr/bin/env python3
"""Families of functions over awkward arguments, every combination, in Apache Spark and in
`millstream sql`.

    pip install pyspark==4.3.0                                        # and Java 17
    tools/spark/families.py target/release/millstream
    tools/spark/families.py target/release/millstream --only '^dates' --ansi false --zone UTC

Prints what differs, at most --show a family, and the totals. The exit code is 1 if fewer than
99.5% are equal (what Millstream says that it lacks counts for neither side), or one crashed or hung.

    tools/spark/families.py --record 120 > operators/tests/spark/families.jsonl

writes Spark's answers to 120 expressions of each family, drawn by lot, for a test that needs no
Spark.
"""

import argparse
import collections
import datetime
import itertools
import json
import random
import re
import sys

import peers

RECORDED_ZONES = ["America/New_York", "UTC"]


def quote(text):
    """A string literal."""
    for char, escape in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
        text = text.replace(char, escape)
    return f"'{text}'"


def quoted(*texts):
    return [quote(text) for text in texts]


def cross(template, *arguments):
    """The template with every combination of the arguments."""
    return [template.format(*chosen) for chosen in itertools.product(*arguments)]


def calls(names, *arguments):
    """Every one of the functions with every combination of the arguments."""
    places = ", ".join(f"{{{k + 1}}}" for k in range(len(arguments)))
    return cross("{0}(" + places + ")", names.split(), *arguments)


NUMBER_TEXTS = quoted(
    *["", " ", "1", " 7 ", "+3", "-0", "5.", ".25", "2e4", "2E-3", "3d", "3f", "4L", "0x1A"],
    *["1_0", "1,5", "４", "NaN", "inf", "-Infinity", "true", "F", "yes", "n", "6\t", "\n6"],
    *["127", "-129", "32768", "2147483648", "-9223372036854775809", "9.99", "-0.5", "1e39"],
    *["1e309", "4.9e-325", "--2", "2-", "null", "0007.50", "1.999999999999999999999"],
)
DATE_TEXTS = quoted(
    *["2023-12-31", "2024-02-30", "2023-1-2", "2023-11", "1999", "+1999-05-05", "-0044-03-15"],
    *["12345-06-07", "2023-06-07T", " 2023-06-07 ", "2023-06-07q", "2023/6/7", "20230607"],
    *["2023-06-07 8", "2023-06-07 8:9", "2023-06-07 8:9:10.1", "2023-06-07T08:09:10.123456789"],
    *["2023-06-07 08:09:10Z", "2023-06-07 08:09:10-03:30", "2023-06-07 08:09:10 Asia/Tokyo"],
    *["2023-06-07 08:09:10GMT+2", "2022-03-13 02:15:00", "2022-11-06 01:15:00", "8:09"],
    *["T08:09:10", "2023-06-07 24:00", "2023-06-07 08:60", "epoch", "tomorrow", "1582-10-12"],
)
TIMES = [
    "TIMESTAMP'2023-12-31 23:59:59.999999'",
    "TIMESTAMP'2022-11-06 01:15:00'",
    "TIMESTAMP'1883-11-18 12:00:00'",
    "TIMESTAMP'1969-12-31 23:59:59.5'",
    "TIMESTAMP'2150-07-01 12:00:00'",
    "TIMESTAMP_NTZ'2022-03-13 02:15:00'",
    "DATE'2020-12-31'",
    "DATE'0004-02-29'",
]
PATTERNS = quoted(
    *["y-MM-dd", "yyyyMMdd HHmmss", "dd.MM.yy", "EEE dd MMM yyyy", "h:mm:ss a", "H", "kk", "K"],
    *["SSSSSS", "D", "DDD", "QQ", "qqq", "MMMMM", "LLLL", "e", "w", "W", "F", "G yyyy", "z"],
    *["zzzz", "VV", "O", "OOOO", "X", "XXX", "xx", "Z", "ZZZZZ", "'at' HH", "yyyy[-MM]", "n"],
    *["A", "B", "YYYY", "ccc", "u", "yyyyyyy", "SSSSSSSSSS", "{", "#", "y''y"],
)
ZONES = quoted(
    *["UTC", "Z", "+05:30", "-3", "+1:2", "+01:02:03", "UTC+1", "GMT-03:00", "UT+2", "PST", "EST"],
    *["Asia/Kolkata", "Australia/Lord_Howe", "europe/paris", "GMT+25", "", "Mars/Base", "+19:00"],
)
UNITS = quoted(
    *["year", "YY", "quarter", "mon", "week", "dd", "hour", "minute", "second", "millisecond"],
    *["microsecond", "century"],
)
NUMBERS = [
    *["0", "1", "-1", "2.5", "-2.5", "0.005", "98765.4321", "1.5D", "-0.5D", "0.3D", "7e21D"],
    *["-0.0D", "CAST('NaN' AS DOUBLE)", "CAST('-Infinity' AS DOUBLE)", "CAST(0.1 AS FLOAT)"],
    *["CAST(16777217 AS FLOAT)", "9223372036854775807L", "CAST(-128 AS TINYINT)", "NULL"],
    *["CAST('99999999999999999999999999999999999999' AS DECIMAL(38,0))"],
    *["CAST('0.00000000000000000000000000000000000001' AS DECIMAL(38,38))", "1e-7BD", "1e3BD"],
]
TEXTS = quoted("", "b", "aXbX", "é😀z", "x,y,,z", "  in  ", "日本") + ["NULL"]
SMALL = ["0", "1", "-1", "3", "-3", "99", "NULL"]
BINARY = ["X''", "X'00FF'", "X'C3A9'", "X'E28C'", "X'F09F98'", "X'61C062'", "CAST(NULL AS BINARY)"]
FORMATS = quoted(
    *["%d", "%07d", "%-6d|", "%+,d", "%x", "%o", "%c", "%s", "%-8s|", "%.1s", "%S", "%b", "%h"],
    *["%e", "%.2f", "%12.1f", "%g", "%a", "%%", "%2$s", "%1$s%<s", "%q", "%", "%-d", "%,x", "%n"],
)
FORMATTED = [
    *["7", "-7", "12345678L", "2.5D", "-0.0D", "1.25BD", "'w'", "NULL", "false"],
    *["CAST('Infinity' AS DOUBLE)", "array(1, 2)", "DATE'2023-06-07'", "CAST(1 AS TINYINT)"],
]
DOCUMENTS = quoted(
    '{"k":1,"n":{"l":[1,{"m":"v"},null]},"sp ace":2,"t":"a\\"b","z":1.50}',
    *["[10,[20,30]]", '"text"', "true", '{"k":', "", " {} ", '{"k":{"k":[]}}', "{'k':1}"],
)
PATHS = quoted(
    *["$", "$.k", "$.n.l", "$.n.l[1].m", "$.n.l[*]", "$.n.l[7]", "$['sp ace']", "$.sp ace", "$.t"],
    *["$.z", "$[0]", "$[1][0]", "$[*][*]", "$..m", "$.*", "k", "", "$.k.k", "$.", "$[-1]", "$[x]"],
)
LISTS = [
    "array(3, 1, 2)",
    "array(1, NULL)",
    "CAST(array() AS ARRAY<INT>)",
    "CAST(NULL AS ARRAY<INT>)",
]
REGEXES = quoted(
    *["a*", "", "(a)(b)?", "[a-c&&[^b]]", "(?i)B", "\\w+", "\\bX", "x|", "(?<=X)b", "(.)\\1", "("],
    *["a{2", "[[:alpha:]]+", "\\p{Lu}", "\\R", "(?m)$", "\\Z", "a++", "\\h", "[^]"],
)
DATE_OPERATORS = cross(
    "{0} {1} INTERVAL {2}",
    TIMES,
    "+-",
    [
        "'1' MONTH",
        "'1 2' DAY TO HOUR",
        "'36' HOUR",
        "'-1' YEAR",
        "'0.000001' SECOND",
        "1 DAY 2 HOURS",
    ],
)
CASTS = (
    "BOOLEAN TINYINT SMALLINT INT BIGINT FLOAT DOUBLE DECIMAL(7,2) DECIMAL(38,18) STRING BINARY"
    " DATE TIMESTAMP TIMESTAMP_NTZ"
).split()

FAMILIES = {
    "casts of text": cross("CAST({0} AS {1})", NUMBER_TEXTS + DATE_TEXTS, CASTS),
    "try_cast of text": cross("try_cast({0} AS {1})", NUMBER_TEXTS + DATE_TEXTS, CASTS),
    "casts of numbers": cross("CAST({0} AS {1})", NUMBERS, CASTS),
    "casts of times": cross("CAST({0} AS {1})", TIMES, CASTS),
    "arithmetic": cross(
        "{0} {1} {2}", NUMBERS, ["+", "-", "*", "/", "%", "DIV", "<", "<=>"], NUMBERS
    ),
    "try_ arithmetic": calls("try_add try_subtract try_multiply try_divide", NUMBERS, NUMBERS),
    "numbers": calls(
        "abs ceil floor round bround rint sign negative sqrt cbrt hex bin factorial typeof",
        NUMBERS,
    )
    + calls("round bround ceil floor format_number pmod nanvl greatest", NUMBERS, SMALL),
    "date_format": calls("date_format", TIMES, PATTERNS),
    "reading dates": calls(
        "to_timestamp to_date unix_timestamp try_to_timestamp", DATE_TEXTS, PATTERNS
    ),
    "zones": calls("from_utc_timestamp to_utc_timestamp", TIMES[:4], ZONES),
    "units of time": calls("date_trunc", UNITS, TIMES) + calls("trunc", TIMES, UNITS),
    "parts of dates": calls(
        "year quarter month weekofyear dayofweek weekday dayofyear hour minute second last_day"
        " unix_date unix_micros dayname monthname",
        TIMES,
    ),
    "dates": calls("date_add date_sub add_months", TIMES, SMALL)
    + calls("months_between datediff", TIMES, TIMES)
    + cross("timestampdiff({0}, {1}, {2})", ["MONTH", "WEEK", "DAY", "HOUR"], TIMES[:5], TIMES[:5])
    + DATE_OPERATORS,
    "text": calls(
        "upper lower initcap reverse length octet_length bit_length ascii soundex trim sentences"
        " base64 unbase64 hex md5",
        TEXTS,
    )
    + calls("left right substring", TEXTS, SMALL)
    + calls("instr levenshtein contains startswith endswith find_in_set btrim nullif", TEXTS, TEXTS)
    + calls("substring lpad rpad", TEXTS, SMALL, ["2"])
    + calls("split split_part substring_index", TEXTS, ["','"], SMALL),
    "binary": calls(
        "length octet_length reverse hex base64 md5 sha1 crc32 typeof upper trim string", BINARY
    )
    + calls("left right substring", BINARY, SMALL)
    + calls("concat contains", BINARY, BINARY)
    + calls("lpad rpad", BINARY, SMALL, BINARY[:3])
    + calls("decode", BINARY, quoted("UTF-8", "US-ASCII", "UTF-16", "ISO-8859-1", "nope"))
    + calls("encode", TEXTS, quoted("UTF-8", "US-ASCII", "UTF-16LE", "ISO-8859-1", "nope")),
    "printf": calls("format_string", FORMATS, FORMATTED)
    + calls("format_string", FORMATS, ["1"], FORMATTED),
    "JSON paths": calls("get_json_object", DOCUMENTS, PATHS),
    "JSON": calls(
        "from_json",
        DOCUMENTS,
        quoted(
            "k INT", "n STRUCT<l: ARRAY<STRING>>", "ARRAY<INT>", "z STRING", "MAP<STRING, STRING>"
        ),
    )
    + calls("json_array_length json_object_keys", DOCUMENTS),
    "lists": calls(
        "element_at try_element_at get array_position array_remove array_contains array_append"
        " array_prepend",
        LISTS,
        SMALL,
    )
    + calls("slice", LISTS, SMALL, SMALL)
    + calls("sort_array array_distinct array_max array_min size reverse", LISTS)
    + calls("array_union array_except array_intersect arrays_overlap concat", LISTS, LISTS),
    "sequences": calls("sequence", SMALL, SMALL, SMALL)
    + cross(
        "sequence({0}, {1}, INTERVAL {2})",
        ["DATE'2023-01-31'", "TIMESTAMP'2022-11-05 12:00:00'", "TIMESTAMP'2022-03-12 02:30:00'"],
        ["DATE'2023-06-01'", "TIMESTAMP'2022-11-08 00:00:00'"],
        ["'1' MONTH", "'1' DAY", "'18' HOUR", "'-1' DAY", "'0' DAY"],
    ),
    "regular expressions": cross("({0} RLIKE {1})", TEXTS, REGEXES)
    + calls("regexp_count regexp_substr regexp_instr split", TEXTS, REGEXES)
    + calls("regexp_extract_all regexp_extract", TEXTS, REGEXES, ["0", "1"])
    + calls("regexp_replace", TEXTS, REGEXES, quoted("-", "<$0>", "$1", "\\$")),
    "LIKE": cross(
        "({0} {2} {1})",
        TEXTS,
        quoted("", "%", "_", "%X%", "\\%", "a\\_%", "a\\b", "\\"),
        ["LIKE", "ILIKE"],
    ),
    "types that do not go together": cross(
        "({0} {1} {2})",
        ["1", "'1'", "true", "DATE'2023-06-07'"]
        + ["TIMESTAMP'2023-06-07 00:00:00'", "X'31'", "array(1)", "map(1, 2)", "1.5BD", "NULL"],
        ["+", "||", "=", "<", "AND", "IN (1) OR 1 ="],
        ["2", "'2'", "false", "DATE'2023-06-08'", "X'32'", "array(2)", "INTERVAL '1' DAY", "NULL"],
    ),
    "hashes": calls("hash xxhash64", NUMBERS + TEXTS + TIMES + BINARY + LISTS),
}


def compare(spark, millstream, name, expressions, show):
    """The verdicts of a family, counted; the first differences are printed."""
    counts, shown = collections.Counter(), 0
    for expression in expressions:
        query = peers.as_hex(expression)
        answers = spark.value(query), millstream.value(query)
        found = peers.verdict(*answers, expression)
        counts[found] += 1
        if found not in ("equal", "missing") and shown < show:
            shown += 1
            said, ours = (peers.from_hex(answer)[1] for answer in answers)
            print(f"  [{found}] {expression}  Spark {said!r}  Millstream {ours!r}")
    said = ", ".join(f"{count} {found}" for found, count in counts.most_common())
    print(f"{name}: {said}", flush=True)
    return counts


def record(spark, families, count):
    """Prints Spark's answers to some expressions of each family, each in a mode and a zone.

    An answer that goes by the clock ('tomorrow', a time without a day) is left out: it is another
    one a day later.
    """
    lot = random.Random(4)
    today = datetime.date.today()
    near = [str(today + datetime.timedelta(days)) for days in (-1, 0, 1)]
    for expressions in families:
        chosen = lot.sample(expressions, min(count, len(expressions)))
        modes = [(lot.random() < 0.7, lot.choice(RECORDED_ZONES)) for _ in chosen]
        for expression, (ansi, zone) in sorted(zip(chosen, modes), key=lambda one: one[1]):
            spark.set(ansi, zone)
            kind, said = peers.from_hex(spark.value(peers.as_hex(expression)))
            if kind == "value" and any(day in said for day in near):
                continue
            if kind == "error" and (said == "?" or said.startswith("_LEGACY")):
                said = None  # some error, whatever its name
            line = {"sql": expression, "ansi": ansi, "zone": zone, kind: said}
            print(json.dumps(line, ensure_ascii=False))


def main():
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("program", nargs="?", help="the millstream to compare")
    options.add_argument("--record", type=int, help="print Spark's answers to so many a family")
    options.add_argument("--only", default="", help="families whose name matches")
    options.add_argument("--ansi", default="true", choices=["true", "false"])
    options.add_argument("--zone", default="America/New_York", help="the session's time zone")
    options.add_argument("--show", type=int, default=6, help="differences to print for a family")
    args = options.parse_args()
    ansi = args.ansi == "true"
    spark, total = peers.Spark(), collections.Counter()
    if args.record:
        chosen = [list_ for name, list_ in FAMILIES.items() if re.search(args.only, name)]
        record(spark, chosen, args.record)
        return 0
    if args.program is None:
        options.error("a program to compare, or --record")
    spark.set(ansi, args.zone)
    millstream = peers.Millstream(args.program, ansi, args.zone)
    for name, expressions in FAMILIES.items():
        if re.search(args.only, name):
            total += compare(spark, millstream, name, expressions, args.show)
    return peers.report(total, 99.5)


if __name__ == "__main__":
    sys.exit(main())
