#!/usr/bin/env python3
"""Time, memory and checkpoint of aggregates whose values grow, by function and number of rows.

    benches/growing.py target/release/millstream [OTHER PROGRAM ...]

A run reads a CSV file to its end into the sink `noop`, with a checkpoint. Memory is the peak of the
process. Other programs, older builds for instance, stand beside; `-` is a run over 60 s.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

FUNCTIONS = ["collect_list(n)", "collect_set(n)", "listagg(CAST(n AS STRING), ',')", "percentile_approx(n, 0.5)", "percentile(n, 0.5)", "mode(n)", "approx_count_distinct(n)", "count(n)"]
SIZES = [(20_000, 2), (100_000, 10), (1_000_000, 1)]
SECONDS_MAX = 60


def run(program, work, rows, keys, function):
    shutil.rmtree(work / "checkpoint", ignore_errors=True)
    job = f"""CREATE TEMPORARY VIEW v (k STRING, n INT) USING csv OPTIONS (path '{work / f"{rows}-{keys}"}');
        CREATE STREAMING TABLE o USING noop OPTIONS (outputMode 'complete', trigger 'availableNow',
        checkpointLocation '{work / "checkpoint"}') AS SELECT k, {function} AS x FROM STREAM v GROUP BY k;"""
    begun = time.monotonic()
    process = subprocess.Popen([program, "run", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = threading.Timer(SECONDS_MAX, process.kill)
    limit.start()
    process.stdin.write(job.encode())
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    limit.cancel()
    if status:
        return "-"
    files = (file for file in (work / "checkpoint").rglob("*") if file.is_file())
    disk = sum(file.stat().st_size for file in files)
    return f"{time.monotonic() - begun:.2f} s, {usage.ru_maxrss / 1024:.0f} MB, {disk / 1e6:.1f} MB"


def main():
    programs = sys.argv[1:]
    if not programs or programs[0].startswith("-"):
        sys.exit(__doc__)
    work = pathlib.Path(tempfile.mkdtemp(prefix="millstream-growing-"))
    try:
        for rows, keys in SIZES:
            folder = work / f"{rows}-{keys}"
            folder.mkdir()
            with open(folder / "a.csv", "w") as file:
                # Line by line: a child's peak of memory begins with this program's.
                file.writelines(f"k{i % keys},{i}\n" for i in range(rows))
        print(f"| function | rows | keys | {' | '.join(pathlib.Path(p).name + ': time, memory, checkpoint' for p in programs)} |")
        print(f"|---|---:|---:|{'---:|' * len(programs)}")
        for function in FUNCTIONS:
            for rows, keys in SIZES:
                figures = [run(program, work, rows, keys, function) for program in programs]
                print(f"| `{function}` | {rows} | {keys} | {' | '.join(figures)} |", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
