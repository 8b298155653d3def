#!/usr/bin/env python3
"""Training steps by two processes of one thread beside one process of two, interleaved, on this machine's CPU.

    scripts/install-openmpi.sh
    cargo build --release --features mpi
    benches/scaling.py                       # four networks, 5 rounds: about ten minutes on 2 idle cores
    benches/scaling.py --models unet3d --rounds 1

A round trains each network on the embedded heads with the settings of the sample preset but for --batch-size 4, once in each way, and
each way takes the median of its steps but for the first two. Printed, and written as OUT.json: the median over the rounds of the
seconds a step, and the median of the rounds' ratios.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ["o-net-small", "oss-net-c-small", "oss-net-c", "unet3d"]
WAYS = {"1 process x 2 threads": (1, 2), "2 processes x 1 thread": (2, 1), "1 process x 1 thread": (1, 1)}


def step(program, model, epochs, processes, threads):
    """The median seconds of a step of one run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "train", "--preset", "sample", "--model", model, "--batch-size", "4", "--epochs", str(epochs)]
        command += ["--validate-every", "0", "--no-scoring", "--quiet", "--threads", str(threads), "--out", f"{folder}/run"]
        if processes > 1:
            command = ["mpirun", "-n", str(processes), "--map-by", f"slot:PE={threads}", "--bind-to", "core"] + command
        root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        done = subprocess.run(command, env=os.environ | root, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        events = [json.loads(line) for line in open(f"{folder}/run/log.jsonl")]
    return statistics.median([event["seconds"] for event in events if event["event"] == "step"][2:])


def cpu():
    """The processor's name."""
    lines = open("/proc/cpuinfo") if os.path.exists("/proc/cpuinfo") else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "target/release/ossnet", help="a build with --features mpi")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20, help="a step each")
    parser.add_argument("--out", default="scaling", help="OUT.json")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    rows = []
    for model in arguments.models.split(","):
        rounds = [
            {way: step(arguments.program, model, arguments.epochs, *sizes) for way, sizes in WAYS.items()}
            for _ in range(arguments.rounds)
        ]
        one, two, single = WAYS
        row = {
            "model": model,
            "seconds": {way: statistics.median(figures[way] for figures in rounds) for way in WAYS},
            "threads_over_processes": statistics.median(figures[one] / figures[two] for figures in rounds),
            "single_over_threads": statistics.median(figures[single] / figures[one] for figures in rounds),
            "single_over_processes": statistics.median(figures[single] / figures[two] for figures in rounds),
        }
        rows.append(row)
        times = ", ".join(f"{way} {1000 * seconds:.0f} ms" for way, seconds in row["seconds"].items())
        print(f"{model}: {times}; over one thread: two threads {row['single_over_threads']:.2f} x, "
              f"two processes {row['single_over_processes']:.2f} x", flush=True)
    version = subprocess.run([arguments.program, "--version"], capture_output=True, text=True).stdout.strip()
    record = {
        "date": datetime.date.today().isoformat(),
        "version": version,
        "cpu": cpu(),
        "load_before": load,
        "rounds": arguments.rounds,
        "rows": rows,
    }
    pathlib.Path(f"{arguments.out}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
