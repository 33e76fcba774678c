#!/usr/bin/env python3
"""Runs Spark's own SQL test suite on `millstream sql` and compares with its golden answers.

    tools/spark/suite.py target/release/millstream [--only REGEX] [--show VERDICT] [--json FILE]

The queries and answers (Apache-2.0) are in the tests jar of spark-sql, which Maven Central serves.
The jar is fetched into target/spark-suite once, by Maven; nothing of it is kept in the repository.
Without Maven or the jar the program prints `LEFT OUT` and ends with 0.

Each statement is run in a process of its own, behind the statements of its file that set up views
and settings. The verdicts:

    equal      the same rows, or the same error condition
    condition  both refuse, under different conditions
    refused    Spark answers, Millstream refuses
    accepted   Spark refuses, Millstream answers
    wrong      both answer, with different rows
    crash, hung

Rows are compared without order; nested values by their leaves. `suite-differences.txt` lists, by
file and number, the statements that differ on purpose, each with its reason. The exit code is 1 if
any other statement is wrong, accepted, crashed or hung, or if a listed one no longer differs, unless
its reason begins with `varies: `.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DIFFERENCES = HERE / "suite-differences.txt"
# The beginning of the reason of a statement whose answer is not defined.
VARIES = "varies: "
ARTIFACT = "org.apache.spark:spark-sql_2.13:4.2.0:jar:tests"
SECONDS_A_STATEMENT = 20

# Files that are about what Millstream is not: stored catalogues, scripting, session variables,
# collations, sketch libraries, legacy parsers, decision-support benchmarks, copies of a file
# with each expression wrapped in a user-defined function.
OUT_OF_SCOPE = re.compile(
    r"^(udf/|scripting|collations|tuplesketch|thetasketch|hll|kll|st-|describe|show|explain|tpc"
    r"|charvarchar|view-|identifier|execute-immediate|sql-path|sql-session|session-var|sql-udf"
    r"|udtf|time$|time-|xml|pipe|change-column|alter|cache|parameterless"
    r"|postgreSQL/create_view|postgreSQL/interval|.*legacy|.*resolution|variant|subexp|keywords"
    r"|listagg-coll|transform|current_database|cte-recursion|geo|named-function|sql-on"
    r"|table-valued|double-quoted|ignored|random|nonansi/random)"
)

# Statements that later ones of their file build on.
SETUP = re.compile(
    r"^\s*(create\s+(or\s+replace\s+)?(global\s+)?temp(orary)?\s+view"
    r"|create\s+(or\s+replace\s+)?view|create\s+table|insert|set\s|reset|declare|drop|truncate"
    r"|with\b[^;]*\binsert\s+into|create\s+temporary\s+function)",
    re.IGNORECASE,
)

# Tables that Spark's runner makes before any file.
TABLES = {
    "testdata": "SELECT CAST(id AS INT) AS key, CAST(id AS STRING) AS value"
    " FROM (SELECT explode(sequence(1, 100)) AS id)",
    "arraydata": "SELECT * FROM VALUES (array(1, 2, 3), array(array(1, 2, 3))),"
    " (array(2, 3, 4), array(array(2, 3, 4))) AS t(arraycol, nestedarraycol)",
    "mapdata": "SELECT * FROM VALUES"
    " (map(1, 'a1', 2, 'b1', 3, 'c1', 4, 'd1', 5, 'e1')),"
    " (map(1, 'a2', 2, 'b2', 3, 'c2', 4, 'd2')), (map(1, 'a3', 2, 'b3', 3, 'c3')),"
    " (map(1, 'a4', 2, 'b4')), (map(1, 'a5')) AS t(mapcol)",
}


def fetch():
    """The folder of the suite, fetched if it is not there; None if it cannot be had."""
    folder = ROOT / "target" / "spark-suite"
    suite = folder / "sql-tests"
    if suite.is_dir():
        return suite
    group, name, version, _, _ = ARTIFACT.split(":")
    jar = pathlib.Path.home() / ".m2/repository" / group.replace(".", "/") / name / version
    jar = jar / f"{name}-{version}-tests.jar"
    command = ["mvn", "-B", "-q", "dependency:get", f"-Dartifact={ARTIFACT}", "-Dtransitive=false"]
    try:
        if not jar.is_file():
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(jar) as packed:
            names = [name for name in packed.namelist() if name.startswith("sql-tests/")]
            packed.extractall(folder, names)
    except (OSError, subprocess.SubprocessError, zipfile.BadZipFile) as why:
        print(f"LEFT OUT: Spark's SQL test suite: {why}")
        return None
    return suite


def golden(path):
    """The statements of a golden file: [{sql, schema, out}]."""
    text = path.read_text(encoding="utf-8")
    parts = re.split(r"^-- !query( schema| output)?\n", text, flags=re.MULTILINE)[1:]
    statements, current = [], {}
    for kind, body in zip(parts[::2], parts[1::2]):
        if kind is None:
            current = {"sql": body.strip()}
        elif kind == " schema":
            current["schema"] = body.strip()
        else:
            # A block ends with an empty line, which is not a row of an empty string.
            current["out"] = re.sub(r"\n{1,3}\Z", "", body)
            statements.append(current)
    return statements


def settings(suite, name):
    """What the input file asks to be set for all of its statements."""
    found = ["SET spark.sql.session.timeZone = 'America/Los_Angeles'"]
    if name.startswith("nonansi/"):  # as Spark runs this folder
        found.append("SET spark.sql.ansi.enabled = false")
    if name.startswith("timestampNTZ/"):  # likewise
        found.append("SET spark.sql.timestampType = TIMESTAMP_NTZ")
    path = suite / "inputs" / f"{name}.sql"
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("--SET "):
                for pair in re.split(r",(?=\s*spark)", line[6:].strip()):
                    key, value = pair.split("=", 1)
                    found.append(f"SET {key.strip()} = '{value.strip()}'")
    return found


# --- Comparing rows -----------------------------------------------------------------------------

UNIT_SECONDS = {"DAY": 86400, "HOUR": 3600, "MINUTE": 60, "SECOND": 1}


def interval(text):
    """An interval in any of its spellings, as months or seconds."""
    match = re.fullmatch(r"INTERVAL '([^']*)' (YEAR|MONTH|DAY|HOUR|MINUTE|SECOND)(?: TO (\w+))?", text)
    if match:
        value, unit, _ = match.groups()
        sign = -1 if value.startswith("-") else 1
        value = value.lstrip("-+")
        if unit in ("YEAR", "MONTH"):
            years, months = (value.split("-") + ["0"])[:2] if unit == "YEAR" else ("0", value)
            return f"{sign * (int(years) * 12 + int(months))} months"
        units = list(UNIT_SECONDS)
        try:
            parts = zip(re.split(r"[ :]", value), units[units.index(unit) :])
            seconds = sum(float(part) * UNIT_SECONDS[unit] for part, unit in parts)
        except ValueError:
            return text
        return f"{sign * seconds:.6f} s"
    match = re.fullmatch(r"(-?\d+) days", text)
    if match:
        return f"{int(match[1]) * 86400:.6f} s"
    match = re.fullmatch(r"(-?)(\d+)-(\d+)", text)
    if match:
        months = int(match[2]) * 12 + int(match[3])
        return f"{-months if match[1] else months} months"
    match = re.fullmatch(r"(-?)(\d+) (\d+):(\d+):(\d+\.\d+)", text)
    if match:
        seconds = int(match[2]) * 86400 + int(match[3]) * 3600 + int(match[4]) * 60
        seconds += float(match[5])
        return f"{-seconds if match[1] else seconds:.6f} s"
    return text


def number(text):
    """Doubles of many digits, without the last ones: the mathematics library differs there."""
    if re.fullmatch(r"-?\d+\.\d{8,}(E-?\d+)?", text):
        return f"{float(text):.11g}"
    return text


def leaves(cell):
    """A nested value as its leaves: Hive's output, which the suite uses, writes the rest its way."""
    if not (cell[:1] in "[{" and len(cell) > 1):
        return number(cell.strip())
    if "INTERVAL" in cell:
        cell = re.sub(
            r"INTERVAL '[^']*' [A-Z]+( TO [A-Z]+)?",
            lambda found: interval(found[0]).replace(" ", ""),
            cell,
        )
    cell = re.sub(
        r"(?<=[:\[,])-?\d+ \d+:\d+:\d+\.\d+|(?<=[:\[,])-?\d+-\d+(?=[,\]}])",
        lambda found: interval(found[0]).replace(" ", ""),
        cell,
    )
    cell = re.sub(r'"(?:[^"\\]|\\.)*":', "", cell)
    cell = re.sub(r"[^,{\[]*? -> ", "", cell)
    cell = re.sub(r"(?<=[{,])-?[\w.]+:(?!\d\d:)", "", cell)
    cell = re.sub(r'[\[\]{}"\s]', "", cell)
    return cell.replace("null", "NULL")


def bytes_as_text(cell):
    """`[61 62]` as `ab`: the suite prints binary values as text."""
    digits = re.sub(r"[\[\] ]", "", cell)
    if len(digits) % 2 == 0 and re.fullmatch(r"[0-9A-F]*", digits):
        return bytes.fromhex(digits).decode("utf-8", "replace")
    return cell


def table(text):
    """The cells of the last table that `millstream sql` printed."""
    lines = text.split("\n")
    rules = [k for k, line in enumerate(lines) if re.fullmatch(r"\+(-*\+)+", line)]
    if len(rules) < 2:
        return []
    closed = len(rules) >= 3
    rule = rules[-3] if closed else rules[-2]
    cuts = [k for k, char in enumerate(lines[rule]) if char == "+"]
    rows = []
    for line in lines[rules[-2] + 1 : rules[-1] if closed else len(lines)]:
        if not line.startswith("|"):
            if rows and line:
                rows[-1][-1] += "\n" + line
            continue
        cells = [line[a + 1 : b] for a, b in zip(cuts, cuts[1:])]
        if any(line[cut : cut + 1] != "|" for cut in cuts):  # wide characters move the cuts
            cells = line.strip("|").split("|")
        rows.append([cell.strip() for cell in cells])
    return rows


def same_rows(printed, statement):
    """None if the rows are the golden ones, else what each side has."""
    body = statement["out"]
    want = [line.split("\t") for line in body.split("\n")] if body else []
    # The file is trimmed at its end, so that the last row may lack cells that are empty.
    if want:
        want[-1] += [""] * (len(want[0]) - len(want[-1]))
    # Spark's runner hides the numbers of expressions, and what looks like them.
    got = [[re.sub(r"#\d+", "#x", cell) for cell in row] for row in table(printed)]
    shape = interval if "interval" in statement["schema"] else str

    def normal(rows):
        return sorted("\t".join(shape(leaves(cell)) for cell in row) for row in rows)

    if normal(got) == normal(want):
        return None
    if "binary" in statement["schema"]:
        as_text = [[[bytes_as_text(cell) for cell in row] for row in rows] for rows in (got, want)]
        if normal(as_text[0]) in (normal(as_text[1]), normal(want)):
            return None
        got = as_text[0]
    cells = [cell for row in got for cell in row]
    if not body.strip() and all(cell.strip() in ("", "NULL") for cell in cells):
        return None  # one row of white space and no row look alike in a golden file
    if re.search(r"\\[ntr]|0A", printed):  # a golden file has control characters as they are
        escaped = re.sub(r"\\[ntr]|\s", "", "".join(cells))
        if escaped == re.sub(r"\s", "", body):
            return None
    return f"Spark {normal(want)[:4]}, Millstream {normal(got)[:4]}"


# --- Judging ------------------------------------------------------------------------------------


def ask(program, setup, sql):
    """(condition or None, printed): what Millstream makes of a statement."""
    command = [program, "sql", "--rows", "100000", "-"]
    text = ";\n".join([*setup, sql])
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS_A_STATEMENT,
        )
    except subprocess.TimeoutExpired:
        return "HUNG", ""
    if done.returncode == 0:
        return None, done.stdout
    if done.returncode < 0 or "panicked at" in done.stderr:
        return "CRASH", done.stderr
    found = re.search(r"error: (?:[^\n:]*: )?([A-Z][A-Z_0-9.]+)", done.stderr)
    return (found[1] if found else "UNKNOWN"), done.stderr.strip().split("\n")[0]


def judge(program, setup, statement):
    """(verdict, explanation, whether it sets something up)."""
    sql, out = statement["sql"].rstrip(";"), statement["out"]
    made = " ".join(setup).lower()
    tables = [
        f"CREATE TEMPORARY VIEW {name} AS {query}"
        for name, query in TABLES.items()
        if re.search(rf"\b{name}\b", sql.lower()) and not re.search(rf"view\s+{name}\b", made)
    ]
    refused = re.match(r"^(org\.apache\.spark|java\.|scala\.)", out)
    body = re.sub(r"^\s*(--[^\n]*\n\s*)*", "", sql)
    condition, printed = ask(program, tables + setup, sql)
    if condition in ("CRASH", "HUNG"):
        return condition.lower(), printed, False
    if condition is None and not refused and SETUP.match(body):
        return "equal", "", True
    if refused:
        found = re.search(r'"(?:errorClass|condition)" : "([A-Z_0-9.a-z]+)"', out)
        want = found[1] if found else None
        if condition is None:
            return "accepted", f"Spark {want}", False
        nameless = want is None or want.startswith("_LEGACY")
        alike = nameless or condition == want
        return (
            ("equal", "", False)
            if alike
            else (
                "condition",
                f"Spark {want}, Millstream {condition}",
                False,
            )
        )
    if condition is not None:
        return "refused", printed, False
    why = same_rows(printed, statement)
    return ("equal", "", False) if why is None else ("wrong", why, False)


def run_file(program, suite, name):
    """Every statement of a file, in order: [(number, verdict, sql, explanation)]."""
    setup, results = settings(suite, name), []
    for at, statement in enumerate(golden(suite / "results" / f"{name}.sql.out"), 1):
        verdict, why, sets_up = judge(program, setup, statement)
        if sets_up:
            setup.append(statement["sql"].rstrip(";"))
        results.append((at, verdict, statement["sql"], why))
    return name, results


def known_differences():
    """{(file, number): reason} of suite-differences.txt."""
    known = {}
    if DIFFERENCES.is_file():
        for line in DIFFERENCES.read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                place, _, reason = line.partition(" ")
                name, _, at = place.rpartition("#")
                known[name, int(at)] = reason.strip()
    return known


def main():
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("program", help="the millstream to ask")
    options.add_argument("--only", default="", help="files whose name matches")
    options.add_argument("--show", default="", help="print statements whose verdict matches")
    options.add_argument("--json", help="write every statement's verdict to this file")
    options.add_argument("--suite", type=pathlib.Path, help="the suite, if it is unpacked already")
    args = options.parse_args()
    suite = args.suite or fetch()
    if suite is None:
        return 0
    names = sorted(
        str(path.relative_to(suite / "results"))[: -len(".sql.out")]
        for path in (suite / "results").rglob("*.sql.out")
    )
    names = [n for n in names if re.search(args.only, n) and not OUT_OF_SCOPE.search(n)]
    known, stale = known_differences(), []
    total, unlisted, everything = collections.Counter(), 0, []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = pool.map(lambda name: run_file(os.path.abspath(args.program), suite, name), names)
        for name, results in runs:
            counts = collections.Counter()
            for at, verdict, sql, why in results:
                bad = verdict in ("wrong", "accepted", "crash", "hung")
                if (name, at) in known and bad:
                    verdict = "listed"
                elif (name, at) in known and not known[name, at].startswith(VARIES):
                    stale.append(f"{name}#{at}")
                elif bad:
                    unlisted += 1
                counts[verdict] += 1
                everything.append([name, at, verdict, sql, why])
                if args.show and re.fullmatch(args.show, verdict):
                    print(f"[{verdict}] {name}#{at}\n  {sql[:600]}\n  {why[:600]}")
                elif bad and verdict != "listed" and not args.show:
                    print(f"[{verdict}] {name}#{at}: {why[:300]}")
            total += counts
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(everything))
    for place in stale:
        print(f"listed in {DIFFERENCES.name}, but no longer different: {place}")
    summary = ", ".join(f"{count} {verdict}" for verdict, count in total.most_common())
    print(f"{sum(total.values())} statements: {summary}")
    return 1 if unlisted or stale else 0


if __name__ == "__main__":
    sys.exit(main())
