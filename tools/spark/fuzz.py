#!/usr/bin/env python3
"""Random typed expressions in Apache Spark and in `millstream sql`: their values and errors agree.

    pip install pyspark==4.3.0                                        # and Java 17
    tools/spark/fuzz.py target/release/millstream --count 1000        # a few minutes
    tools/spark/fuzz.py target/release/millstream --minutes 480       # a night

Each round takes the next seed, which decides the expressions, their depth (1 to 3), ANSI mode and
the time zone, and prints its totals; --round tries one again. Disagreements are written to --out,
one JSON object a line, as they are found. What Millstream says that it lacks (`missing`) counts
for neither side. The exit code is 1 if fewer than 99.8% are equal, or one crashed or hung.

The templates are in templates.py; expressions of whole families are families.py's.
"""

import argparse
import collections
import json
import random
import sys
import time

import peers
from templates import ANY, COLUMNS, NUMBER, NUMBERS, TEMPLATES, VALUES

ROWS = 9
ROUND = 250
NULLS = 0.1
TYPES = [kind for _, kind in COLUMNS]


class Generator:
    """Expressions of a seed."""

    def __init__(self, seed, depth):
        self.random, self.depth = random.Random(seed), depth
        self.by_result = collections.defaultdict(list)
        for template in TEMPLATES:
            self.by_result[template[2]].append(template)

    def row(self, number):
        values = [str(number)]
        for _, kind in COLUMNS:
            null = self.random.random() < NULLS
            value = "NULL" if null else self.random.choice(VALUES[kind])
            values.append(f"CAST({value} AS {kind})")
        return f"({', '.join(values)})"

    def leaf(self, kind):
        if isinstance(kind, tuple):
            return self.random.choice(kind)
        if kind == ANY:
            kind = self.random.choice(TYPES)
        if kind == NUMBER:
            kind = self.random.choice(NUMBERS)
        if self.random.random() < NULLS:
            return f"CAST(NULL AS {kind})"
        if self.random.random() < 0.5:
            return next(name for name, of in COLUMNS if of == kind)
        return f"CAST({self.random.choice(VALUES[kind])} AS {kind})"

    def argument(self, kind, depth):
        if isinstance(kind, tuple) or depth <= 0 or self.random.random() < 0.35:
            return self.leaf(kind)
        if kind == ANY:
            kind = self.random.choice(TYPES)
        kinds = [*NUMBERS, NUMBER] if kind == NUMBER else [kind]
        candidates = [template for k in kinds for template in self.by_result[k]]
        if not candidates:
            return self.leaf(kind)
        return self.apply(self.random.choice(candidates), depth)

    def apply(self, template, depth):
        text, kinds, _ = template
        return f"({text.format(*[self.argument(kind, depth - 1) for kind in kinds])})"

    def expression(self):
        return self.apply(self.random.choice(TEMPLATES), self.depth)


def run_round(spark, program, seed, count, out):
    """Compares a seed's expressions; the verdicts counted."""
    depth, ansi = 1 + seed % 3, seed % 4 != 3
    zone = "America/New_York" if seed % 2 == 0 else "UTC"
    generator = Generator(seed, depth)
    rows = [generator.row(number) for number in range(ROWS)]
    names = ", ".join(["id"] + [name for name, _ in COLUMNS])
    table = f"SELECT * FROM VALUES {', '.join(rows)} AS v({names})"
    spark.set(ansi, zone)
    spark.session.sql(f"CREATE OR REPLACE TEMPORARY VIEW t AS {table}")
    millstream = peers.Millstream(program, ansi, zone, f"CREATE TEMPORARY VIEW t AS {table};")
    counts = collections.Counter()
    for _ in range(count):
        expression, row = generator.expression(), generator.random.randrange(ROWS)
        query = f"{peers.as_hex(expression)} FROM t WHERE id = {row}"
        answers = spark.value(query), millstream.value(query)
        found = peers.verdict(*answers, expression)
        counts[found] += 1
        if found not in ("equal", "missing"):
            difference = {
                "round": seed,
                "verdict": found,
                "expression": expression,
                "row": rows[row],
                "spark": peers.from_hex(answers[0]),
                "millstream": peers.from_hex(answers[1]),
                "ansi": ansi,
                "zone": zone,
            }
            print(json.dumps(difference, ensure_ascii=False), file=out, flush=True)
    said = ", ".join(f"{count} {found}" for found, count in counts.most_common())
    mode = "ANSI" if ansi else "not ANSI"
    print(f"round {seed} (depth {depth}, {mode}, {zone}): {said}", flush=True)
    return counts


def main():
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("program", help="the millstream to compare")
    options.add_argument("--count", type=int, default=1000, help="expressions (default 1000)")
    options.add_argument("--minutes", type=float, help="go on for so long, whatever the count")
    options.add_argument("--seed", type=int, help="the first round's seed (default: by the clock)")
    options.add_argument("--round", type=int, help="only this round, all of it")
    options.add_argument("--out", default="spark-fuzz.jsonl", help="where disagreements go")
    args = options.parse_args()
    seed = args.seed if args.seed is not None else int(time.time())
    spark, total = peers.Spark(), collections.Counter()
    end = time.monotonic() + 60 * args.minutes if args.minutes else None
    with open(args.out, "w", encoding="utf-8") as out:
        if args.round is not None:
            total += run_round(spark, args.program, args.round, ROUND, out)
        elif end is None:
            for start in range(0, args.count, ROUND):
                count = min(ROUND, args.count - start)
                total += run_round(spark, args.program, seed, count, out)
                seed += 1
        else:
            while time.monotonic() < end:
                total += run_round(spark, args.program, seed, ROUND, out)
                seed += 1
    return peers.report(total, 99.8, f"; disagreements in {args.out}")


if __name__ == "__main__":
    sys.exit(main())
