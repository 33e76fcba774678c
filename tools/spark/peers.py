"""Asks Apache Spark (local mode) and `millstream sql` for the same value."""

import os
import pathlib
import re
import subprocess
import sys

import pyspark
from pyspark.sql import SparkSession

SECONDS_A_QUERY = 20
NO_ROW = "no row"
# The last digit of these is the mathematics library's own.
TRANSCENDENTAL = re.compile(
    r"\b(a?sinh?|a?cosh?|a?tanh?|atan2|cot|csc|sec|exp|expm1|ln|log|log10|log1p|log2|pow|power"
    r"|cbrt|hypot)\("
)


def jar(module):
    """The jar of a module that PySpark does not have, of its version, by Maven."""
    version = pyspark.__version__
    folder = pathlib.Path(__file__).resolve().parents[2] / "target" / "spark-jars"
    path = folder / f"{module}_2.13-{version}.jar"
    if not path.exists():
        copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
        artifact = f"org.apache.spark:{module}_2.13:{version}"
        subprocess.run(
            ["mvn", "-B", "-q", copy, f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"],
            check=True,
            stdout=sys.stderr,
        )
    return path


class Spark:
    """A session of Spark, whose settings may change between two queries."""

    def __init__(self):
        self.session = (
            SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.shuffle.partitions", "1")
            .getOrCreate()
        )
        self.session.sparkContext.setLogLevel("OFF")

    def set(self, ansi, zone):
        self.session.conf.set("spark.sql.ansi.enabled", str(ansi).lower())
        self.session.conf.set("spark.sql.session.timeZone", zone)

    def value(self, query):
        """("value", text) of the query's one value, or ("error", condition)."""
        try:
            rows = self.session.sql(query).collect()
        except Exception as error:  # Spark's, or the gateway's own
            condition = getattr(error, "getCondition", lambda: None)()
            if not condition:
                found = re.search(r"\[([A-Z_0-9.]+)\]", str(error))
                condition = found[1] if found else "?"
            return "error", condition
        if not rows:
            return "value", NO_ROW
        return "value", "NULL" if rows[0][0] is None else str(rows[0][0])


class Millstream:
    """The program to compare, as it is run by its users."""

    def __init__(self, program, ansi, zone, setup=""):
        self.program = os.path.abspath(program)
        self.settings = (
            f"SET spark.sql.session.timeZone = '{zone}';"
            f" SET spark.sql.ansi.enabled = {str(ansi).lower()}; {setup}"
        )

    def value(self, query):
        try:
            done = subprocess.run(
                [self.program, "sql", f"{self.settings} {query}"],
                capture_output=True,
                text=True,
                timeout=SECONDS_A_QUERY,
            )
        except subprocess.TimeoutExpired:
            return "error", "HUNG"
        if done.returncode == 0:
            line = done.stdout.split("\n")[3]
            return "value", line[1:-1].strip() if line.startswith("|") else NO_ROW
        if done.returncode < 0 or "panicked at" in done.stderr:
            return "error", "CRASH"
        found = re.search(r"error: (?:[^\n:]*: )?([A-Z][A-Z_0-9.]+)", done.stderr)
        return "error", found[1] if found else "UNKNOWN"


def as_hex(expression):
    """A query of the expression's text that no table's layout can change."""
    return f"SELECT hex(encode(CAST({expression} AS STRING), 'UTF-8')) AS v"


def from_hex(answer):
    """What `as_hex` gave, to read."""
    kind, text = answer
    if kind == "value" and re.fullmatch("([0-9A-F]{2})*", text):
        return kind, bytes.fromhex(text).decode("utf-8", "replace")
    return answer


def last_digits(text):
    """The text with its long numbers cut to twelve digits."""
    return re.sub(r"-?\d+\.\d{6,}(E-?\d+)?", lambda found: f"{float(found[0]):.12g}", text)


def verdict(spark, millstream, expression=""):
    """equal, value, condition, refused, accepted, missing (not built yet), crash or hung."""
    if millstream[1] in ("CRASH", "HUNG"):
        return millstream[1].lower()
    if spark[0] == millstream[0] == "value":
        if spark != millstream and TRANSCENDENTAL.search(expression):
            spark, millstream = from_hex(spark), from_hex(millstream)
            return "equal" if last_digits(spark[1]) == last_digits(millstream[1]) else "value"
        return "equal" if spark == millstream else "value"
    if millstream[1] in ("UNRESOLVED_ROUTINE", "NOT_YET_SUPPORTED"):
        return "equal" if spark == millstream else "missing"
    if spark[0] == millstream[0]:
        # One may name the condition alone, the other its subclass; Spark's legacy errors have no
        # name that is meant to last.
        one, other = spark[1], millstream[1]
        alike = one.startswith(other) or other.startswith(one)
        return "equal" if alike or one == "?" or one.startswith("_LEGACY") else "condition"
    return "refused" if millstream[0] == "error" else "accepted"


def report(total, goal, place=""):
    """Prints the verdicts counted and the share that is equal; the exit code."""
    asked = sum(count for found, count in total.items() if found != "missing")
    equal = 100 * total["equal"] / max(asked, 1)
    said = ", ".join(f"{count} {found}" for found, count in total.most_common())
    print(f"all: {said}; {equal:.2f}% equal{place}")
    return 1 if equal < goal or total["crash"] or total["hung"] else 0
