#!/usr/bin/env python3
"""Whether Apache Spark reads our folders exactly once, and we read Spark's.

    pip install pyspark==4.3.0
    cargo build --release
    tools/spark/files.py

Each side writes 54 rows in 18 batches, so that its log is compacted; a stray file that no log names
lies beside them. Ends with an error if a row is missing or doubled on either side.
"""

import pathlib
import subprocess
import sys
import tempfile

from pyspark.sql import SparkSession

millstream = pathlib.Path(__file__).resolve().parents[2] / "target/release/millstream"
folder = pathlib.Path(tempfile.mkdtemp(prefix="millstream-spark-"))
source = folder / "in"
source.mkdir()


def run(job):
    path = folder / "job.sql"
    path.write_text(job)
    done = subprocess.run([millstream, "run", path], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


for batch in range(18):
    lines = [f"b{batch}-{row}" for row in range(3)]
    (source / f"{batch:02}.txt").write_text("\n".join(lines) + "\n")
run(f"""
CREATE TEMPORARY VIEW lines USING text OPTIONS (path '{source}', maxFilesPerTrigger '1');
CREATE STREAMING TABLE copy USING csv OPTIONS (path '{folder}/ours', header 'true',
  trigger 'availableNow', checkpointLocation '{folder}/c1') AS
SELECT value, length(value) AS n FROM STREAM lines;
""")
(folder / "ours/part-stray.csv").write_text("value,n\nstray,1\n")

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
spark.sparkContext.setLogLevel("OFF")
ours = spark.read.option("header", "true").schema("value string, n int").csv(f"{folder}/ours")
rows = sorted(row.value for row in ours.collect())
expected = sorted(f"b{batch}-{row}" for batch in range(18) for row in range(3))
print("Spark reads ours: ", len(rows), "rows, right" if rows == expected else "rows, WRONG")

query = (
    spark.readStream.option("maxFilesPerTrigger", 1)
    .text(str(source))
    .writeStream.format("text")
    .option("path", f"{folder}/theirs")
    .option("checkpointLocation", f"{folder}/c2")
    .trigger(availableNow=True)
    .start()
)
query.awaitTermination()
(folder / "theirs/part-stray.txt").write_text("stray\n")
shown = run(f"""
CREATE TEMPORARY VIEW lines USING text OPTIONS (path '{folder}/theirs');
CREATE STREAMING TABLE copy USING console OPTIONS (outputMode 'complete', trigger 'once') AS
SELECT count(*) AS n, count(value) AS m, approx_count_distinct(value) > 50 AS different
FROM STREAM lines WHERE value <> 'stray';
""")
right = "| 54| 54|     true|" in shown
print("we read Spark's:  ", "54 rows, right" if right else shown)
sys.exit(0 if rows == expected and right else 1)
