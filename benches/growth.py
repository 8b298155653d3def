#!/usr/bin/env python3
"""How the time of a training step grows on this machine's CPU: with points, voxels, width and threads, as fitted exponents.

    cargo build --release
    benches/growth.py                  # 3 rounds: about fifteen minutes on 2 idle cores
    benches/growth.py --rounds 1 --only points

A row varies one thing and keeps the others. Each size is timed in every round (`ossnet memory --device cpu`; for widths
`ossnet train` on the embedded heads), its median over the rounds counts, and the exponent is the slope of the least-squares line through the
logarithms: 1 is proportional, 0 constant. Between the two largest sizes it stands beside, for fixed costs bend the line at small ones.
Printed as a table in Markdown, and written as OUT.json.
"""

import argparse
import datetime
import json
import math
import os
import pathlib
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CUBES = [32, 48, 64, 96, 128]
WIDTHS = [64, 128, 256, 512]
CHANNELS = [8, 16, 32]


def output(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def step(program, model, side, points, threads):
    """Seconds of a step on made-up data."""
    size = "x".join([str(side)] * 3)
    command = [program, "memory", "--model", model, "--volume", size, "--device", "cpu", "--threads", str(threads), "--json"]
    command += ["--points", str(points)] if points else []
    return json.loads(output(command + ["--steps", "3"]))["step_seconds"]


def trained(program, model, key, value, threads):
    """Seconds of a step on the embedded heads with a network of another width."""
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder, "config.toml")
        config.write_text(f'preset = "sample"\nmodel = "{model}"\n[network]\n{key} = {value}\n')
        output([program, "train", "--config", config, "--epochs", "8", "--validate-every", "0", "--no-scoring", "--quiet",
                "--threads", str(threads), "--out", f"{folder}/run"])
        events = [json.loads(line) for line in open(f"{folder}/run/log.jsonl")]
    return statistics.median([event["seconds"] for event in events if event["event"] == "step"][2:])


def rows(program, threads):
    """What grows: its name, its sizes, and the seconds at a size."""
    yield "OSS-Net C", "points at 64³", [4096, 8192, 16384, 32768], lambda n: step(program, "oss-net-c", 64, n, threads)
    yield "OSS-Net C", "voxels, 16,384 points", [n**3 for n in CUBES], lambda n: step(program, "oss-net-c", round(n ** (1 / 3)), 16384, threads)
    yield "3D U-Net", "voxels", [n**3 for n in CUBES], lambda n: step(program, "unet3d", round(n ** (1 / 3)), 0, threads)
    yield "OSS-Net C", "width of the decoder", WIDTHS, lambda n: trained(program, "oss-net-c", "width", n, threads)
    doubled = lambda n: [n * 2**level for level in range(5)]
    yield "3D U-Net", "width (first level's channels)", CHANNELS, lambda n: trained(program, "unet3d", "channels", doubled(n), threads)
    if threads > 1:
        yield "OSS-Net C", "threads, 64³, 16,384 points", [1, threads], lambda n: step(program, "oss-net-c", 64, 16384, n)
        yield "3D U-Net", "threads, 96³", [1, threads], lambda n: step(program, "unet3d", 96, 0, n)


def slope(points):
    """Of the least-squares line through the logarithms."""
    x, y = ([math.log(value) for value in axis] for axis in zip(*points))
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "target/release/ossnet")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows that hold this word")
    parser.add_argument("--out", default="growth", help="OUT.json")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    wanted = [row for row in rows(arguments.program, arguments.threads) if arguments.only in row[1]]
    rounds = [[[seconds(size) for size in sizes] for _, _, sizes, seconds in wanted] for _ in range(arguments.rounds)]
    result = []
    print("| network | grows | from … to | seconds | exponent | at the end |\n|---|---|--:|--:|--:|--:|")
    for number, (network, what, sizes, _) in enumerate(wanted):
        seconds = [statistics.median(each[number][i] for each in rounds) for i in range(len(sizes))]
        points = list(zip(sizes, seconds))
        row = {"network": network, "grows": what, "sizes": sizes, "seconds": seconds, "exponent": slope(points), "at_the_end": slope(points[-2:])}
        result.append(row)
        print(f"| {network} | {what} | {sizes[0]:,} … {sizes[-1]:,} | {seconds[0]:.3f} … {seconds[-1]:.3f} | {row['exponent']:.2f} | {row['at_the_end']:.2f} |")
    version = json.loads(output([arguments.program, "devices", "--json"]))["made_by"]
    record = {"made_by": version, "date": datetime.date.today().isoformat(), "threads": arguments.threads, "rounds": arguments.rounds,
              "load_before": load, "rows": result}
    pathlib.Path(f"{arguments.out}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
