#!/usr/bin/env python3
"""Spark's documented examples of each function that Millstream has: the answers agree.

    pip install pyspark==4.3.0                                        # and Java 17
    tools/spark/examples.py target/release/millstream [--only FUNCTION-REGEX] [--all]

The examples are those that `DESCRIBE FUNCTION EXTENDED` prints, asked of Spark and of
`millstream sql`. Examples of what changes at each call (the clock, random numbers) are left out.
With --all they are the examples of every function of Spark, and the functions that Millstream lacks
are printed. The exit code is 1 if an answer differs.
"""

import argparse
import collections
import re
import subprocess
import sys

import peers

# Other values at each call, or of the place where they run. With a seed, random values are the same.
VARYING = re.compile(
    r"\b(rand|randn|random)\(\)|\b(uuid|shuffle|now|current_(date|path|time|timestamp|user)|curdate"
    r"|localtime|localtimestamp|unix_timestamp\(\))\b|\b(version|user|session_user)\(\)"
    # Without an initialization vector, GCM and CBC take a random one.
    r"|aes_encrypt\('[^']*', '[^']*'(?:, '(?:GCM|CBC)'(?:, 'DEFAULT')?)?\)"
)


def functions(program):
    """The names that `millstream functions` prints."""
    said = subprocess.run([program, "functions"], capture_output=True, text=True, check=True)
    return sorted(set(re.findall(r"\b[a-z_][a-z_0-9]*\b", said.stdout)))


def functions_of_spark(spark):
    """The names of all functions of Spark, operators too."""
    return sorted(row[0] for row in spark.session.sql("SHOW SYSTEM FUNCTIONS").collect())


def examples(spark, name):
    """The statements of a function's examples."""
    try:
        rows = spark.session.sql(f"DESCRIBE FUNCTION EXTENDED `{name}`").collect()
    except Exception:  # no function of Spark's
        return []
    text = "\n".join(row[0] for row in rows)
    _, _, text = text.partition("Examples:")
    text = text.partition("\n    Note:")[0]
    return [statement.strip() for statement in re.findall(r"> (SELECT.*?);\s*$", text, re.M | re.S)]


def main():
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("program", help="the millstream to compare")
    options.add_argument("--only", default="", help="functions whose name matches")
    options.add_argument("--all", action="store_true", help="every function of Spark")
    args = options.parse_args()
    spark = peers.Spark()
    spark.set(True, "UTC")
    spark.session.sql("SET spark.sql.timeType.enabled = true")
    millstream = peers.Millstream(args.program, True, "UTC")
    total, asked, missing = collections.Counter(), set(), collections.Counter()
    for name in functions_of_spark(spark) if args.all else functions(args.program):
        if not re.search(args.only, name):
            continue
        for statement in examples(spark, name):
            if statement in asked or VARYING.search(statement):
                continue
            asked.add(statement)
            # The one value of the example, as a struct of all its columns, as text.
            try:
                columns = len(spark.session.sql(statement).columns)
            except Exception:
                columns = 1
            names = ", ".join(f"c{k}" for k in range(columns))
            cells = ", ".join(f"CAST(c{k} AS STRING)" for k in range(columns))
            # Rows have an order only where the example gives them one.
            rows = "collect_list(x)"
            if "ORDER BY" not in statement.upper():
                rows = f"array_sort({rows})"
            query = (
                f"SELECT hex(encode(CAST({rows} AS STRING), 'UTF-8')) FROM"
                f" (SELECT concat_ws('|', {cells}) AS x FROM ({statement}) AS t({names}))"
            )
            answers = spark.value(query), millstream.value(query)
            found = peers.verdict(*answers, statement)
            total[found] += 1
            missing[name] += found == "missing"
            if found not in ("equal", "missing"):
                said, ours = (peers.from_hex(answer)[1] for answer in answers)
                print(f"[{found}] {statement}\n  Spark {said!r}\n  Millstream {ours!r}", flush=True)
    said = ", ".join(f"{count} {found}" for found, count in total.most_common())
    print(f"{sum(total.values())} examples: {said}")
    lacking = ", ".join(f"{name} {count}" for name, count in sorted(missing.items()) if count)
    if lacking:
        print(f"missing, with the number of their examples: {lacking}")
    return 1 if total["value"] or total["accepted"] or total["crash"] or total["hung"] else 0


if __name__ == "__main__":
    sys.exit(main())
