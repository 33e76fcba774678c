#!/usr/bin/env python3
"""Measures what planning costs by the length and the depth of a query's text.

    benches/planning.py target/release/millstream [--only OR] [--sizes 1000,100000] [--depths 1000]

Each kind of text is generated at several sizes and given to `millstream sql`. The table has wall
time, CPU time of all threads and peak memory of the process, the run of the query over at most one
row included. Long kinds
grow by the number of terms, deep ones by levels within each other; beyond the bound of levels the
answer is an error, which is shown by its condition.
"""
import argparse
import os
import subprocess
import tempfile
import threading
import time

ROW = "WITH r AS (SELECT 5 AS id) "


def joined(separator, item):
    return lambda n: separator.join(item(i) for i in range(n))


def wrapped(before, core, after):
    return lambda n: before * n + core + after * n


LONG = {
    "AND": lambda n: ROW + "SELECT count(*) FROM r WHERE " + joined(" AND ", lambda i: f"id <> {i+9}")(n),
    "OR": lambda n: ROW + "SELECT count(*) FROM r WHERE " + joined(" OR ", lambda i: f"id = {i}")(n),
    "+": lambda n: ROW + "SELECT " + " + ".join(["id"] * n) + " AS s FROM r",
    "+-": lambda n: ROW + "SELECT id" + " + id - 1" * (n // 2) + " AS s FROM r",
    "double": lambda n: ROW + "SELECT id" + " * 1.5D" * n + " AS s FROM r",
    "||": lambda n: ROW + "SELECT length(" + " || ".join(["id"] * n) + ") AS s FROM r",
    "CASE": lambda n: ROW + "SELECT CASE " + joined(" ", lambda i: f"WHEN id = {i} THEN {i}")(n) + " END AS c FROM r",
    "IN": lambda n: ROW + "SELECT count(*) FROM r WHERE id IN (" + joined(",", str)(n) + ")",
    "columns": lambda n: ROW + "SELECT " + joined(",", lambda i: f"id + {i} AS c{i}")(n) + " FROM r",
    "columns of columns": lambda n: ROW + "SELECT " + joined(",", lambda i: f"c{i}")(n)
    + " FROM (SELECT " + joined(",", lambda i: f"id + {i} AS c{i}")(n) + " FROM r)",
    "groups": lambda n: ROW + "SELECT " + joined(",", lambda i: f"sum(id + {i}) AS c{i}")(n) + " FROM r",
    "UNION ALL": lambda n: joined(" UNION ALL ", lambda i: f"SELECT {i} AS x")(n),
    "arguments": lambda n: ROW + "SELECT coalesce(" + joined(",", lambda i: "id")(n) + ") AS c FROM r",
    "array": lambda n: ROW + "SELECT size(array(" + joined(",", str)(n) + ")) AS c FROM r",
    "VALUES": lambda n: "SELECT count(*) FROM VALUES " + joined(",", lambda i: f"({i},'x')")(n) + " AS t(x, y)",
    "CTEs": lambda n: "WITH " + joined(",", lambda i: f"c{i} AS (SELECT {i} AS x)")(n) + f" SELECT * FROM c{n-1}",
    "string": lambda n: "SELECT length('" + "x" * 10 * n + "') AS c",
    "views": lambda n: joined("; ", lambda i: f"CREATE TEMPORARY VIEW v{i} AS SELECT {i} AS x")(n) + f"; SELECT * FROM v{n-1}",
    "SETs": lambda n: "SET spark.sql.ansi.enabled = true;" * n + "SELECT 1 AS x",
    "queries": lambda n: "SELECT 1 AS x;" * n,
}
DEEP = {
    "parentheses": lambda n: "SELECT " + wrapped("(", "1", ")")(n) + " AS x",
    "functions": lambda n: ROW + "SELECT " + wrapped("abs(", "id", ")")(n) + " AS x FROM r",
    "nested CASE": lambda n: ROW + "SELECT " + wrapped("CASE WHEN id > 1 THEN ", "id", " END")(n) + " AS x FROM r",
    "subqueries": lambda n: ROW + "SELECT * FROM " + wrapped("(SELECT * FROM ", "r", ")")(n),
    "scalar subqueries": lambda n: "SELECT " + wrapped("(SELECT ", "1", ")")(n) + " AS x",
    "types": lambda n: "SELECT CAST(NULL AS " + wrapped("STRUCT<a: ", "INT", ">")(n) + ") IS NULL AS x",
    "signs": lambda n: ROW + "SELECT " + "- " * n + "id AS x FROM r",
    "NOT": lambda n: ROW + "SELECT " + "NOT " * n + "(id = 1) AS x FROM r",
    "arrays": lambda n: "SELECT size(" + wrapped("array(", "1", ")")(n) + ") AS x",
    "operators to the right": lambda n: ROW + "SELECT " + wrapped("id + (", "id", ")")(n) + " AS x FROM r",
    "CTE chain": lambda n: "WITH c0 AS (SELECT 1 AS x)" + "".join(f", c{i+1} AS (SELECT * FROM c{i})" for i in range(n)) + f" SELECT * FROM c{n}",
}


def measure(binary, text, seconds):
    """Wall time, CPU time, peak memory in MB and the outcome of one query."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "query.sql")
        with open(path, "w") as file:
            file.write(text)
        with open(path) as stdin, open(os.path.join(folder, "err"), "w+") as errors:
            started = time.time()
            process = subprocess.Popen([binary, "sql", "-"], stdin=stdin, stdout=subprocess.DEVNULL, stderr=errors)
            timer = threading.Timer(seconds, process.kill)
            timer.start()
            _, status, usage = os.wait4(process.pid, 0)
            took = time.time() - started
            timer.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
            errors.seek(0)
            first = errors.readline().strip()
    outcome = "" if process.returncode == 0 else f"{process.returncode}: {first[:60]}"
    return took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, outcome


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="the program `millstream`")
    parser.add_argument("--sizes", default="10,1000,10000,100000", help="terms of the long kinds")
    parser.add_argument("--depths", default="10,100,1000,10000", help="levels of the deep kinds")
    parser.add_argument("--only", action="append", help="one kind, by name; may be repeated")
    parser.add_argument("--seconds", type=float, default=60, help="after which a query is ended")
    asked = parser.parse_args()
    print(f"{'kind':24}{'size':>8}{'seconds':>9}{'CPU s':>8}{'MB':>8}  error")
    for kinds, sizes in ((LONG, asked.sizes), (DEEP, asked.depths)):
        for kind, text in kinds.items():
            if asked.only and kind not in asked.only:
                continue
            for size in map(int, sizes.split(",")):
                took, used, memory, outcome = measure(asked.binary, text(size), asked.seconds)
                print(f"{kind:24}{size:8}{took:9.2f}{used:8.2f}{memory:8.0f}  {outcome}", flush=True)


if __name__ == "__main__":
    main()
