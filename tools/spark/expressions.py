#!/usr/bin/env python3
"""What Apache Spark makes of the expressions, and queries of one value, in a list of
operators/tests/spark.

    pip install pyspark==4.3.0
    tools/spark/expressions.py > operators/tests/spark/expected.jsonl
    tools/spark/expressions.py text.txt > operators/tests/spark/text.jsonl
    tools/spark/expressions.py templates.txt > operators/tests/spark/templates.jsonl
    tools/spark/expressions.py scalars.txt > operators/tests/spark/scalars.jsonl
    tools/spark/expressions.py time-of-day.txt > operators/tests/spark/time-of-day.jsonl
    tools/spark/expressions.py xpath.txt > operators/tests/spark/xpath.jsonl
    tools/spark/expressions.py xml.txt > operators/tests/spark/xml.jsonl
    tools/spark/expressions.py variant.txt > operators/tests/spark/variant.jsonl
    tools/spark/expressions.py constant-arguments.txt > operators/tests/spark/constant-arguments.jsonl
    tools/spark/expressions.py calendar-interval.txt > operators/tests/spark/calendar-interval.jsonl
    tools/spark/expressions.py aggregates.txt > operators/tests/spark/aggregates.jsonl
    tools/spark/expressions.py windows.txt > operators/tests/spark/windows.jsonl

One JSON object per line: the expression, its type and its value as text, or the error's condition.
"""

import json
import pathlib
import re
import sys

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

name = sys.argv[1] if len(sys.argv) > 1 else "expressions.txt"
root = pathlib.Path(__file__).resolve().parents[2] / "operators/tests/spark"
session = (
    SparkSession.builder.master("local[1]")
    .config("spark.ui.enabled", "false")
    .config("spark.sql.session.timeZone", "America/New_York")
    .config("spark.sql.timeType.enabled", "true")
    .config("spark.driver.extraJavaOptions", "-Duser.timezone=UTC")
    .getOrCreate()
)
session.sparkContext.setLogLevel("OFF")
for line in (root / name).read_text().splitlines():
    line = line.strip()
    if not line or line.startswith("#"):
        continue
    result = {"sql": line}
    try:
        query = line if line.startswith(("SELECT ", "WITH ")) else f"SELECT {line} AS x"
        frame = session.sql(query)
        frame = frame.toDF("x")
        data_type = frame.schema[0].dataType.simpleString()
        text = "hex(x)" if data_type == "binary" else "CAST(x AS STRING)"
        result["type"] = data_type
        result["text"] = frame.selectExpr(text).collect()[0][0]
    except PySparkException as error:
        result = {"sql": line, "error": error.getCondition()}
    except Exception as error:  # the gateway's own, which may wrap an error with a condition
        wrapped = re.search(r"SparkException: \[([A-Z_.]+)\]", str(error))
        result = {"sql": line, "error": wrapped[1] if wrapped else str(error).splitlines()[0]}
    if result.get("error", "") is None:  # an error without a condition says nothing
        continue
    print(json.dumps(result, ensure_ascii=False))
    sys.stdout.flush()
