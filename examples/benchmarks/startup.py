"""What starting costs: `import keras_gss` beyond `import keras`, and `keras-gss --help`.

    python examples/benchmarks/startup.py --out examples/results/startup.json

Each figure is taken in a process of its own; the processes take turns. `import` is timed inside,
after Keras has been imported, so that the seconds Keras takes do not blur it; `help` and, as what
any Python program costs, `python` are whole processes. On a busy machine read the CPU time.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORT = """
import time, keras
wall, cpu = time.perf_counter(), time.process_time()
import keras_gss
print(time.perf_counter() - wall, time.process_time() - cpu)
"""
HELP = "import keras_gss_cli; keras_gss_cli.main(['--help'])"
PROCESSES = {"import": IMPORT, "help": HELP, "python": "pass"}


def run(name):
    """Runs one of `PROCESSES`; returns its wall and CPU time in milliseconds."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-c", PROCESSES[name]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if name == "import":
        wall, cpu = map(float, done.stdout.split())
    return {"wall": 1e3 * wall, "cpu": 1e3 * cpu}


def main():
    """Measures, prints a line for each kind of process and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="3 rounds")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    for name in PROCESSES:  # writes the bytecode
        run(name)
    taken = {name: [] for name in PROCESSES}
    for _ in range(3 if arguments.quick else arguments.rounds):
        for name, times in taken.items():
            times.append(run(name))
    rows = {
        name: {
            clock: {
                "median": statistics.median(each[clock] for each in times),
                "min": min(each[clock] for each in times),
                "max": max(each[clock] for each in times),
            }
            for clock in ("wall", "cpu")
        }
        for name, times in taken.items()
    }
    for name, row in rows.items():
        figures = (
            f"{clock} {t['median']:.0f} ms ({t['min']:.0f}-{t['max']:.0f})"
            for clock, t in row.items()
        )
        print(f"{name}: {', '.join(figures)}")
    if arguments.out:
        result = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg(),
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("keras", "tensorflow")},
            "milliseconds": rows,
        }
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
