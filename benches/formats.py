#!/usr/bin/env python3
"""Rows per CPU second that each format of files is read and written at, with DuckDB on one thread beside it.

    pip install duckdb pyarrow
    benches/formats.py target/release/millstream [OTHER PROGRAM ...] [--rows 1000000] [--only REGEX]

A figure is user and system time of the whole process less that of the same job over one row, the
median of three rounds that alternate the programs. OTHER PROGRAM may be an older build. DuckDB's
figure is taken the same way, from a Python process that imports it. `-` is a job that the program refuses. Every program must give
the same answer as DuckDB where both read a file; the command ends with an error if one does not. The last
column is the first program's CPU time as a multiple of DuckDB's, marked where it is above 5.
"""

import argparse
import bz2
import gzip
import os
import pathlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile

import duckdb
import pyarrow.orc
import pyarrow.parquet

COLUMNS = "id BIGINT, n INT, price DOUBLE, cost DECIMAL(9,2), name STRING, note STRING"
TIMES = "id BIGINT, day DATE, seen TIMESTAMP"
NESTED = "id BIGINT, tags ARRAY<STRING>, place STRUCT<x: DOUBLE, y: DOUBLE, city: STRING>"
SUMS = "count(*) AS c, sum(id) AS i, sum(n) AS n, sum(cost) AS m, max(price) AS p, sum(length(name) + length(note)) AS l"
# One thread, and no progress bar among the results.
QUIET = "SET threads = 1; SET enable_progress_bar = false"
DUCK_TYPES = {"STRING": "VARCHAR", "INT": "INTEGER"}


def generate(folder, rows):
    """Writes the files of every case under `folder`; gives the folder of each kind."""
    flat = f"""SELECT i AS id, CAST(i % 1000 AS INTEGER) AS n, i / 7 AS price,
        CAST(i % 1000000 / 100.0 AS DECIMAL(9,2)) AS cost, 'name-' || (i % 5000) AS name,
        'a note of some length, the ' || i || 'th' AS note FROM range({rows}) t(i)"""
    plain = flat.replace("length, the", "length the")
    times = f"""SELECT i AS id, DATE '2020-01-01' + CAST(i % 2000 AS INTEGER) AS day,
        TIMESTAMP '2024-01-01' + INTERVAL (i) SECOND AS seen FROM range({rows}) t(i)"""
    nested = f"""SELECT i AS id, ['t' || (i % 10), 'u' || (i % 7)] AS tags,
        {{'x': i / 3, 'y': i / 9, 'city': 'city-' || (i % 300)}} AS place FROM range({rows}) t(i)"""
    db = duckdb.connect()
    db.execute("SET threads = 1")

    def copy(kind, query, name, options):
        (folder / kind).mkdir(parents=True)
        db.execute(f"COPY ({query}) TO '{folder / kind / name}' ({options})")

    copy("csv", plain, "a.csv", "FORMAT csv, HEADER false")
    copy("csv-quoted", flat, "a.csv", "FORMAT csv, HEADER false")
    copy("csv-all-quoted", flat, "a.csv", "FORMAT csv, HEADER false, FORCE_QUOTE *")
    copy("csv-header", flat, "a.csv", "FORMAT csv, HEADER true")
    copy("csv-times", times, "a.csv", "FORMAT csv, HEADER false")
    copy("json", flat, "a.json", "FORMAT json")
    copy("json-array", flat, "a.json", "FORMAT json, ARRAY true")
    copy("json-times", times, "a.json", "FORMAT json")
    copy("json-nested", nested, "a.json", "FORMAT json")
    copy("parquet", flat, "a.parquet", "FORMAT parquet")
    copy("parquet-times", times, "a.parquet", "FORMAT parquet")
    copy("parquet-nested", nested, "a.parquet", "FORMAT parquet")
    for kind in ("", "-nested"):
        table = pyarrow.parquet.read_table(folder / f"parquet{kind}" / "a.parquet")
        (folder / f"orc{kind}").mkdir()
        pyarrow.orc.write_table(table, str(folder / f"orc{kind}" / "a.orc"))
    (folder / "csv-gz").mkdir()
    with open(folder / "csv/a.csv", "rb") as read, gzip.open(folder / "csv-gz/a.csv.gz", "wb", 6) as write:
        shutil.copyfileobj(read, write)
    with open(folder / "csv/a.csv", "rb") as read:
        text = read.read()
    for kind, name, encoded in [
        ("csv-bz2", "a.csv.bz2", bz2.compress(text)),
        ("csv-latin1", "a.csv", text.replace(b"name-", "né-".encode("latin-1"))),
        ("csv-utf16", "a.csv", text.decode().encode("utf-16")),
        ("json-gz", "a.json.gz", gzip.compress((folder / "json/a.json").read_bytes(), 6)),
    ]:
        (folder / kind).mkdir()
        (folder / kind / name).write_bytes(encoded)
    copy("csv-zst", plain, "a.csv.zst", "FORMAT csv, HEADER false, COMPRESSION zstd")
    for codec in ("gzip", "zstd"):
        copy(f"parquet-{codec}", flat, "a.parquet", f"FORMAT parquet, COMPRESSION {codec}")
    lines = text.splitlines(keepends=True)
    (folder / "csv-many").mkdir()
    for i in range(FILES):
        part = b"".join(lines[i * len(lines) // FILES : (i + 1) * len(lines) // FILES])
        if part:
            (folder / f"csv-many/{i:04}.csv").write_bytes(part)
    copy("parquet-parts", flat.replace("i % 1000 AS INTEGER) AS n", "i % 50 AS INTEGER) AS n"), "parts", "FORMAT parquet, PARTITION_BY (n)")
    (folder / "text").mkdir()
    os.link(folder / "csv/a.csv", folder / "text/a.txt")


FILES = 500
# Name, folder, format, its options, schema (None: from the files), query, DuckDB's function.
READS = [
    ("text", "text", "text", "", None, "SELECT count(*) AS c, sum(length(value)) AS l FROM v", None),
    ("CSV", "csv", "csv", "", COLUMNS, f"SELECT {SUMS} FROM v", "read_csv"),
    ("CSV, a column in quotes", "csv-quoted", "csv", "", COLUMNS, f"SELECT {SUMS} FROM v", "read_csv"),
    ("CSV, all in quotes", "csv-all-quoted", "csv", "", COLUMNS, f"SELECT {SUMS} FROM v", "read_csv"),
    ("CSV, multiLine", "csv-quoted", "csv", ", multiLine 'true'", COLUMNS, f"SELECT {SUMS} FROM v", "read_csv"),
    ("CSV, dates and times", "csv-times", "csv", "", TIMES, "SELECT count(*) AS c, max(day) AS d, min(seen) AS a FROM v", "read_csv"),
    ("CSV, gzip", "csv-gz", "csv", "", COLUMNS, f"SELECT {SUMS} FROM v", "read_csv"),
    ("CSV, zstd", "csv-zst", "csv", "", COLUMNS, f"SELECT {SUMS} FROM v", "read_csv"),
    ("CSV, bzip2", "csv-bz2", "csv", "", COLUMNS, f"SELECT {SUMS} FROM v", None),
    ("CSV, encoding ISO-8859-1", "csv-latin1", "csv", ", encoding 'ISO-8859-1'", COLUMNS, f"SELECT {SUMS} FROM v", "read_csv:latin-1"),
    ("CSV, encoding UTF-16", "csv-utf16", "csv", ", encoding 'UTF-16'", COLUMNS, f"SELECT {SUMS} FROM v", "read_csv:utf-16"),
    ("CSV, in 500 files", "csv-many", "csv", "", COLUMNS, f"SELECT {SUMS} FROM v", "read_csv"),
    ("CSV, names from a header", "csv-header", "csv", ", header 'true'", None, "SELECT count(*) AS c, sum(length(name)) AS l FROM v", "read_csv"),
    ("CSV, inferSchema", "csv-header", "csv", ", header 'true', inferSchema 'true'", None, "SELECT count(*) AS c, sum(id) AS i, sum(length(name)) AS l FROM v", "read_csv"),
    ("JSON", "json", "json", "", COLUMNS, f"SELECT {SUMS} FROM v", "read_json"),
    ("JSON, dates and times", "json-times", "json", "", TIMES, "SELECT count(*) AS c, max(day) AS d, min(seen) AS a FROM v", "read_json"),
    ("JSON, nested", "json-nested", "json", "", NESTED, "SELECT count(*) AS c, sum(length(tags[0])) AS t, max(place.x) AS x, sum(length(place.city)) AS l FROM v", "read_json"),
    ("JSON, gzip", "json-gz", "json", "", COLUMNS, f"SELECT {SUMS} FROM v", "read_json"),
    ("JSON, multiLine", "json-array", "json", ", multiLine 'true'", COLUMNS, f"SELECT {SUMS} FROM v", "read_json"),
    ("JSON, schema inferred", "json", "json", "", None, "SELECT count(*) AS c, sum(id) AS i, sum(length(name)) AS l FROM v", "read_json"),
    ("Parquet", "parquet", "parquet", "", None, f"SELECT {SUMS} FROM v", "read_parquet"),
    ("Parquet, gzip", "parquet-gzip", "parquet", "", None, f"SELECT {SUMS} FROM v", "read_parquet"),
    ("Parquet, zstd", "parquet-zstd", "parquet", "", None, f"SELECT {SUMS} FROM v", "read_parquet"),
    ("Parquet, in 50 partition folders", "parquet-parts", "parquet", "", None, f"SELECT {SUMS} FROM v", "read_parquet"),
    # Not max(day) alone, which DuckDB takes from the file's statistics.
    ("Parquet, dates and times", "parquet-times", "parquet", "", None, "SELECT count(*) AS c, max(year(day)) AS d, sum(hour(seen)) AS a FROM v", "read_parquet"),
    ("Parquet, nested", "parquet-nested", "parquet", "", None, "SELECT count(*) AS c, sum(length(tags[0])) AS t, max(place.x) AS x, sum(length(place.city)) AS l FROM v", "read_parquet"),
    ("ORC", "orc", "orc", "", None, f"SELECT {SUMS} FROM v", None),
    ("ORC, nested", "orc-nested", "orc", "", None, "SELECT count(*) AS c, sum(length(tags[0])) AS t, max(place.x) AS x, sum(length(place.city)) AS l FROM v", None),
]
# Name, format, its options, columns, folder that is read.
WRITES = [
    ("none (sink noop)", "noop", "", "*", "parquet"),
    ("text", "text", "", "note AS value", "parquet"),
    ("CSV", "csv", "", "*", "parquet"),
    ("CSV, gzip", "csv", ", compression 'gzip'", "*", "parquet"),
    ("CSV, quoteAll", "csv", ", quoteAll 'true'", "*", "parquet"),
    ("CSV, dates and times", "csv", "", "*", "parquet-times"),
    ("JSON", "json", "", "*", "parquet"),
    ("JSON, dates and times", "json", "", "*", "parquet-times"),
    ("JSON, nested", "json", "", "*", "parquet-nested"),
    ("Parquet", "parquet", "", "*", "parquet"),
    ("Parquet, nested", "parquet", "", "*", "parquet-nested"),
    ("ORC", "orc", "", "id, n, price, name, note", "parquet"),
]


def cpu(command, **kwargs):
    """CPU seconds of a command, and its outcome."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


def reason(stderr):
    lines = [line for line in stderr.split("\n") if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "it failed")


def view(folder, kind, options, schema):
    columns = f" ({schema})" if schema else ""
    return f"SET spark.sql.session.timeZone = 'UTC'; CREATE TEMPORARY VIEW v{columns} USING {kind} OPTIONS (path '{folder}'{options});"


def read(program, folder, case):
    _, kind, form, options, schema, query, _ = case
    seconds, done = cpu([program, "sql", f"{view(folder / kind, form, options, schema)} {query}"])
    if done.returncode:
        return None, reason(done.stderr)
    rows = [line for line in done.stdout.split("\n") if line.startswith("|")]
    return seconds, [cell.strip() for cell in rows[1].strip("|").split("|")]


def read_by_duckdb(folder, case):
    _, kind, _, options, schema, query, function = case
    if function is None:
        return None, None
    files = [file for file in (folder / kind).rglob("*") if file.is_file()]
    found = files[0] if len(files) == 1 else folder / kind / "**" / f"*{files[0].suffix}"
    function, _, encoding = function.partition(":")
    given = f", encoding='{encoding}'" if encoding else ""
    if function != "read_parquet" and schema:
        types = {}
        for name, of in re.findall(r"(\w+) (ARRAY<STRING>|STRUCT<[^>]*>|[A-Z]+(?:\([0-9,]+\))?)", schema):
            of = {"ARRAY<STRING>": "VARCHAR[]"}.get(of, of)
            of = "STRUCT(x DOUBLE, y DOUBLE, city VARCHAR)" if of.startswith("STRUCT<") else of
            types[name] = DUCK_TYPES.get(of, of)
        given += f", columns={types}"
        if function == "read_csv":
            given += ", header=false"
    query = query.replace("tags[0]", "tags[1]").replace("FROM v", f"FROM {function}('{found}'{given})")
    script = f"import duckdb\nprint('|'.join(str(v) for v in duckdb.execute({QUIET!r}).execute({query!r}).fetchone()))"
    seconds, done = cpu([sys.executable, "-c", script])
    if done.returncode:
        sys.exit(done.stderr)
    return seconds, done.stdout.strip().split("|")


def write(program, folder, out, case):
    _, form, options, columns, kind = case
    shutil.rmtree(out, ignore_errors=True)
    job = (
        view(folder / kind, "parquet", "", {"parquet": COLUMNS, "parquet-times": TIMES, "parquet-nested": NESTED}[kind])
        + f"\nCREATE STREAMING TABLE o USING {form} OPTIONS (path '{out}/o', outputMode 'append', checkpointLocation '{out}/c',"
        f" trigger 'availableNow'{options}) AS SELECT {columns} FROM STREAM v;"
    )
    if form == "noop":
        job = job.replace(f"path '{out}/o', ", "")
    seconds, done = cpu([program, "run", "-"], input=job)
    return (None, reason(done.stderr)) if done.returncode else (seconds, None)


def write_by_duckdb(folder, out, case):
    _, form, options, columns, kind = case
    if form not in ("csv", "json", "parquet"):
        return None
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    given = {", compression 'gzip'": ", COMPRESSION gzip", ", quoteAll 'true'": ", FORCE_QUOTE *"}.get(options, "")
    source = f"read_parquet('{folder / kind / 'a.parquet'}')"
    copy = f"COPY (SELECT {columns} FROM {source}) TO '{out / 'a'}' (FORMAT {form}{given}{', HEADER false' if form == 'csv' else ''})"
    seconds, done = cpu([sys.executable, "-c", f"import duckdb\nduckdb.execute({QUIET!r}).execute({copy!r})"])
    if done.returncode:
        sys.exit(done.stderr)
    return seconds


def same(ours, theirs):
    def close(a, b):
        try:
            return abs(float(a) - float(b)) <= 1e-9 * abs(float(b))
        except ValueError:
            return a[:10] == b[:10]

    return len(ours) == len(theirs) and all(map(close, ours, theirs))


def figures(times, starts, rows):
    """Rows per CPU second, as text."""
    if not times:
        return "-"
    return f"{rows / spent(times, starts) / 1e6:.2f} M/s"


def spent(times, starts):
    """CPU seconds of the rows alone."""
    return max(statistics.median(times) - statistics.median(starts or [0]), 1e-9)


def multiple(ours, theirs):
    """The CPU time of the first as a multiple of the second's, as text."""
    if not ours[0] or not theirs[0]:
        return "-"
    times = spent(*ours) / spent(*theirs)
    return f"{'**' if times > 5 else ''}{times:.1f}{'**' if times > 5 else ''}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("programs", nargs="+")
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", default="")
    a = arguments.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="millstream-formats-"))
    wrong = []
    try:
        generate(work / "many", a.rows)
        generate(work / "one", 1)
        print(f"| read | {' | '.join(pathlib.Path(p).name for p in a.programs)} | DuckDB | CPU to DuckDB's |")
        print(f"|---|{'---:|' * (len(a.programs) + 2)}")
        for case in [c for c in READS if re.search(a.only, f"read {c[0]}")]:
            times, starts = ({p: [] for p in (*a.programs, "duckdb")} for _ in range(2))
            for _ in range(a.rounds):
                duck, answer = read_by_duckdb(work / "many", case)
                if duck is not None:
                    times["duckdb"].append(duck)
                    starts["duckdb"].append(read_by_duckdb(work / "one", case)[0])
                for program in a.programs:
                    seconds, got = read(program, work / "many", case)
                    if seconds is None:
                        print(f"{case[0]}: {program}: {got}", file=sys.stderr)
                        continue
                    times[program].append(seconds)
                    start, _ = read(program, work / "one", case)
                    starts[program].append(start or 0)
                    if answer is not None and not same(got, answer):
                        wrong.append(f"{case[0]}: {program}: {got}, DuckDB {answer}")
            row = [figures(times[p], starts[p], a.rows) for p in a.programs]
            ratio = multiple(*((times[p], starts[p]) for p in (a.programs[0], "duckdb")))
            print(f"| {case[0]} | {' | '.join(row)} | {figures(times['duckdb'], starts['duckdb'], a.rows)} | {ratio} |", flush=True)
        print(f"\n| write (Parquet read) | {' | '.join(pathlib.Path(p).name for p in a.programs)} | DuckDB | CPU to DuckDB's |")
        print(f"|---|{'---:|' * (len(a.programs) + 2)}")
        for case in [c for c in WRITES if re.search(a.only, f"write {c[0]}")]:
            times, starts = ({p: [] for p in (*a.programs, "duckdb")} for _ in range(2))
            for _ in range(a.rounds):
                duck = write_by_duckdb(work / "many", work / "out", case)
                if duck is not None:
                    times["duckdb"].append(duck)
                    starts["duckdb"].append(write_by_duckdb(work / "one", work / "out", case))
                for program in a.programs:
                    seconds, why = write(program, work / "many", work / "out", case)
                    if seconds is None:
                        print(f"{case[0]}: {program}: {why}", file=sys.stderr)
                        continue
                    times[program].append(seconds)
                    starts[program].append(write(program, work / "one", work / "out", case)[0] or 0)
            row = [figures(times[p], starts[p], a.rows) for p in a.programs]
            ratio = multiple(*((times[p], starts[p]) for p in (a.programs[0], "duckdb")))
            print(f"| {case[0]} | {' | '.join(row)} | {figures(times['duckdb'], starts['duckdb'], a.rows)} | {ratio} |", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for line in dict.fromkeys(wrong):
        print(f"WRONG: {line}", file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
