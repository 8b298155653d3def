#!/usr/bin/env python3
"""Trains and scores every row of the OSS-Net paper's Table 1, and the paper's two baselines, on BraTS 2020 or LiTS.

    scripts/table1.py --dataset brats --data BraTS2020 --out table1 --plan       # bytes and hours, before anything runs
    scripts/table1.py --dataset brats --data BraTS2020 --out table1 --device cuda
    scripts/table1.py --dataset lits --data LITS --out table1-lits --device cuda

Rows: O-Net and OSS-Net A to D by the settings of the official scripts, 3D and 2D residual U-Net by MONAI's usual ones (the
paper's code for them was not published). Each row is trained by `ossnet train`, scored on each validation subject by the
official rule (random points) and over all voxels, and timed in `ossnet infer`. The end is table1.md, table1.csv and table1.json
in --out, beside the published figures.

The same command goes on after any stop, Ctrl-C and loss of power included: finished rows and scored subjects are skipped, a
row that was being trained goes on from its last checkpoint. A row that fails is told and passed over; run again to try again.

`--subjects`, `--epochs`, `--minutes`, `--rows` and `--train-flags` reduce the work; the table then says so. `--rules data` takes what
`ossnet plan` chooses for each network on these data instead, and `--minutes 30` then gives every row the same time to train in.
docs/table1.md has more. Python's own library is all that is needed.
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import table1_report as report

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Row -> title and the official name of its network. `full` and `full2` are the published OSS-Net C and D.
OCCUPANCY = {
    "o-net": ("O-Net", "vanilla_o_net_wide"),
    "oss-net-a": ("OSS-Net A", "A"),
    "oss-net-b": ("OSS-Net B", "B"),
    "oss-net-c": ("OSS-Net C", "full"),
    "oss-net-d": ("OSS-Net D", "full2"),
}
UNETS = {"unet3d": ("3D residual U-Net", "unet3d"), "unet2d": ("2D residual U-Net", "unet2d")}
ROWS = {**OCCUPANCY, **UNETS}

# The official scripts: 50 epochs, batches of 8 (BraTS) or 4 (LiTS), 2^14 points; BraTS draws them uniformly, LiTS half near the
# border. Rates x0.1 at epochs 20 and 30 of 50.
EPOCHS, POINTS = 50, 1 << 14
BATCH = {"brats": 8, "lits": 4}
SLICES = 16
# A 3D U-Net takes a whole BraTS subject; a whole LiTS volume fits no device, so it learns from patches there.
PATCH = {"brats": None, "lits": [128, 128, 128]}
MULTIPLE = 16


class Fault(Exception):
    """What a user has to mend: one line with a remedy."""


class Interrupted(Exception):
    """Ctrl-C: the program that was running has saved its work."""


class Program:
    """The `ossnet` program with the flags that every call takes."""

    def __init__(self, given):
        self.path, self.flags = given.program, ["--quiet"]
        for name in ("device", "threads", "memory_budget"):
            if getattr(given, name) is not None:
                self.flags += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
        self.stopped = False

    def inspect(self, data):
        """What the program says of a data set."""
        text, _ = self.call(["inspect", "--quiet", "--json", data])
        return json.loads(text)

    def run(self, *arguments):
        return self.call([*arguments, *self.flags])

    def call(self, arguments):
        """Runs it to its end: standard output, and seconds and resident bytes of the process."""
        command = [str(argument) for argument in (self.path, *arguments)]
        started = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            # In a session of its own: a terminal's Ctrl-C comes to this script alone, which passes it on once.
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
            interrupted = False
            while True:
                try:
                    _, status, usage = os.wait4(child.pid, 0)
                    break
                except KeyboardInterrupt:
                    if not interrupted:
                        child.send_signal(signal.SIGINT)
                    interrupted = True
            child.returncode = os.waitstatus_to_exitcode(status)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        # macOS counts bytes, everybody else KiB.
        resident = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        processor = usage.ru_utime + usage.ru_stime
        cost = {"seconds": time.monotonic() - started, "processor": processor, "resident": resident}
        if interrupted or child.returncode == 130:
            raise Interrupted(cost)
        if child.returncode:
            lines = [line for line in texts[1].splitlines() if not line.startswith("warning: ")]
            told = lines[-1] if lines else f"ended with status {child.returncode} without a word"
            failure = Fault(f"{shlex.join(command[:2])}: {told}")
            failure.cost = cost
            raise failure
        return texts[0], cost


def settings_of(row, dataset, given):
    """The configuration of a row for `ossnet train --config`."""
    epochs = given.epochs
    lines = [
        f'preset = "{dataset}"', f'model = "{ROWS[row][1]}"', f"epochs = {epochs}", f"seed = {given.seed}",
        f"validate_every = {given.validate_every}", 'recompute = "auto"',
    ]
    if row in OCCUPANCY:
        milestones = [max(1, round(epochs * share)) for share in (0.4, 0.6)]
        lines += [
            f"batch_size = {BATCH[dataset]}", f"training_samples = {POINTS}", "segmentation_loss_factor = 0.1",
            f"uniform_sampling = {'true' if dataset == 'brats' else 'false'}",
            *(["reference = true"] if given.rules == "official" else []),
            "[schedule]", 'name = "multi_step"', f"milestones = {milestones}", "factor = 0.1",
        ]
    else:
        patch = PATCH[dataset] if row == "unet3d" else None
        lines += [
            "batch_size = 1", f"slices = {SLICES}", "dice_factor = 1.0", *([f"patch = {patch}"] if patch else []),
            "[optimizer]", 'name = "adam"', "rate = 1e-3", "activation_rate = 0.0", "lookahead_every = 0",
            "[schedule]", 'name = "cosine"',
        ]
    return "\n".join(lines) + "\n"


def write(path, text):
    """Writes a file in one go: one that is there is whole."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text)
    partial.replace(path)


def read_json(path, default=None):
    return json.loads(path.read_text()) if path.exists() else default


def link(case, layout, folder):
    """The files of a case, under their own names, in a data set's `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [pathlib.Path(file).resolve() for file in case["files"]]
    # A BraTS subject is a folder; a LiTS case is a volume and its segmentation side by side.
    for source in [files[0].parent] if layout == "brats" else files:
        target = folder / source.name
        if not target.is_symlink():
            target.symlink_to(source)


def part(described, name):
    return [case for case in described["cases"] if case["part"] == name]


def chosen(described, count):
    """`count` cases: every fifth, at least one, validates, as long as there are so many of each part."""
    training, validation = part(described, "training"), part(described, "validation")
    held = min(max(1, count // 5), len(validation))
    return training[: count - held] + validation[:held]


def subset(program, described, count, folder):
    """A data set of `count` of the cases, and what the program says of it."""
    for case in chosen(described, count):
        link(case, described["layout"], folder)
    return program.inspect(folder)


class Row:
    """One network: its folder in --out, its training, its scores."""

    def __init__(self, name, given, program):
        self.name, self.given, self.program = name, given, program
        self.title = ROWS[name][0]
        self.folder = given.out / "rows" / name
        self.run = self.folder / "run"

    def note(self, key, cost):
        """Adds what a piece of work took to the row's account, which outlives stops."""
        path = self.folder / "costs.json"
        costs = read_json(path, {})
        before = costs.get(key, {"seconds": 0.0, "processor": 0.0, "resident": 0})
        costs[key] = {name: before[name] + cost[name] for name in ("seconds", "processor")}
        costs[key]["resident"] = max(before["resident"], cost["resident"])
        write(path, json.dumps(costs, indent=1))

    def accounted(self, key, *arguments):
        """Runs the program and notes what it took, whatever its end."""
        try:
            text, cost = self.program.run(*arguments)
        except Interrupted as stop:
            self.note(key, stop.args[0])
            raise
        except Fault as fault:
            if hasattr(fault, "cost"):
                self.note(key, fault.cost)
            raise
        self.note(key, cost)
        return text, cost

    def train(self, data):
        """Trains to the end, from wherever the row stands."""
        if (self.run / "summary.json").exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        given, settings = self.given, self.folder / "settings.toml"
        if given.rules == "data":
            length = ["--time-budget", f"{given.minutes}m"] if given.minutes else ["--epochs", given.epochs]
            flags = ["--model", ROWS[self.name][1], "--merge-classes", "--seed", given.seed, "--validate-every", given.validate_every, *length]
        else:
            write(settings, settings_of(self.name, given.dataset, given))
            flags = ["--config", settings]
        if (self.run / "config.toml").exists():
            self.accounted("training", "train", "--resume", self.run)
        else:
            self.accounted("training", "train", *flags, "--data", data, "--out", self.run, *given.train_flags)

    def weights(self):
        """The checkpoint that is scored: the best validation's, as the official code takes it, or the last."""
        last = next(path for path in sorted(self.run.glob("*.safetensors")) if not path.name.endswith(".best.safetensors"))
        best = last.with_name(last.name.replace(".safetensors", ".best.safetensors"))
        return best if self.given.weights == "best" and best.exists() else last

    def score(self, case, layout):
        """Both scores of one validation subject. It is a data set of its own: memory holds one at a time."""
        path = self.folder / "scores" / f"{case['name']}.json"
        if path.exists():
            return
        data, work = self.given.out / "cases" / case["name"], self.folder / "scores/.work"
        link(case, layout, data)
        shutil.rmtree(work, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        common = ["evaluate", "--load-model", self.weights(), "--data", data, "--seed", self.given.seed, "--json"]
        dense, dense_cost = self.accounted("scoring", *common, "--out", work)
        sampled, sampled_cost = self.accounted("scoring", *common, "--sampled")
        shutil.rmtree(work, ignore_errors=True)
        values = json.loads(dense)["scores"][0]["classes"][0]["values"]
        points = json.loads(sampled)["cases"][0]
        found = {"name": case["name"], "seconds": dense_cost["seconds"], "sampled_seconds": sampled_cost["seconds"]}
        found["sampled"] = {key: points[key] for key in ("dice", "iou")}
        found["dense"] = {key: values[key] for key in ("dice", "iou", "hd95")}
        write(path, json.dumps(found, indent=1))

    def infer(self, case, layout):
        """One subject through `ossnet infer`, from files to a file: seconds and resident bytes."""
        path = self.folder / "inference.json"
        if path.exists():
            return
        scan = pathlib.Path(case["files"][0]).resolve()
        scan = scan.parent if layout == "brats" else scan
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            _, cost = self.program.run("infer", "--load-model", self.weights(), "--input", scan, "--out", pathlib.Path(work) / "out")
        write(path, json.dumps({"case": case["name"], **cost}, indent=1))

    def levels(self):
        """What the same run would hold at each level of recomputation, by its plan; the weights would be the same but for rounding."""
        path = self.folder / "levels.json"
        if path.exists() or (self.given.device or "cpu") != "cpu":
            return
        found, text = {}, (self.run / "config.toml").read_text()
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            config = pathlib.Path(work) / "config.toml"
            for level in range(4):
                write(config, re.sub(r"^recompute = .*$", f'recompute = "{level}"', text, flags=re.MULTILINE))
                threads = ["--threads", self.given.threads] if self.given.threads else []
                planned, _ = self.program.call(["memory", "--config", config, "--json", *threads])
                found[str(level)] = json.loads(planned)["peak_bytes"]
        write(path, json.dumps(found, indent=1))

    def result(self, cases):
        """The row of the table, as far as it has come."""
        summary = read_json(self.run / "summary.json", {})
        scores = [read_json(self.folder / "scores" / f"{case['name']}.json") for case in cases]
        log = self.run / "log.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        steps = [line["seconds"] for line in lines if line.get("event") == "step"]
        costs = read_json(self.folder / "costs.json", {})
        return {
            "name": self.name,
            "title": self.title,
            "finished": bool(summary) and all(scores),
            "parameters": summary.get("parameters"),
            "steps": summary.get("steps"),
            "device_bytes": summary.get("peak_bytes"),
            "changed_to_fit": summary.get("changed_to_fit", []),
            "best": summary.get("best"),
            "weights": self.weights().name if summary else None,
            "step_seconds": summary.get("step_seconds"),
            "training_seconds": sum(steps) if steps else None,
            "costs": costs,
            "inference": read_json(self.folder / "inference.json"),
            "level_bytes": read_json(self.folder / "levels.json", {}),
            "cases": [score for score in scores if score],
        }


def points_of(row, shape):
    """Points (U-Nets: voxels) that one step sees, by the configuration of the row's run; `shape` is the largest subject's."""
    path = row.run / "config.toml"
    if not path.exists():
        return None
    text = path.read_text()
    found = lambda name: json.loads(re.search(rf"^{name} = (.*)$", text, re.MULTILINE)[1])
    if row.name in OCCUPANCY:
        return found("batch_size") * found("training_samples")
    padded = [-(-side // MULTIPLE) * MULTIPLE for side in shape]
    sides = [*padded[:2], found("slices")] if row.name == "unet2d" else found("patch") or padded
    return found("batch_size") * sides[0] * sides[1] * sides[2]


def rehearse(name, given, program, described):
    """Three steps and one scored subject of a row, in a folder that vanishes: bytes, and seconds of the whole row."""
    flags = given.train_flags
    # With --rules data a batch is the planner's to choose, and four is the largest that it takes of volumes.
    cases = 4 if given.rules == "data" else BATCH[given.dataset] if name in OCCUPANCY else 1
    cases = int(flags[flags.index("--batch-size") + 1]) if "--batch-size" in flags else cases
    with tempfile.TemporaryDirectory(dir=given.out) as work:
        work = pathlib.Path(work)
        for case in part(described, "training")[:cases] + part(described, "validation")[:1]:
            link(case, described["layout"], work / "data")
        (work / "out").mkdir()
        brief = argparse.Namespace(**{**vars(given), "epochs": 3, "minutes": None, "validate_every": 0, "out": work / "out"})
        row = Row(name, brief, program)
        row.train(work / "data")
        summary = read_json(row.run / "summary.json")
        case = part(described, "validation")[0]
        row.score(case, described["layout"])
        scored = read_json(row.folder / "scores" / f"{case['name']}.json")
        resident = max(cost["resident"] for cost in read_json(row.folder / "costs.json").values())
    training, validation = (len(part(described, which)) for which in ("training", "validation"))
    a_step = summary["step_seconds"]
    # Three epochs of `cases` cases made so many steps.
    per_epoch = max(1, training * summary["steps"] // (3 * cases))
    steps = int(0.85 * 60 * given.minutes / a_step) if given.minutes else given.epochs * per_epoch
    times = steps // per_epoch // given.validate_every if given.validate_every else 0
    # The run's own last scoring, and both scorings of the table.
    scoring = validation * ((times + 2) * scored["seconds"] + scored["sampled_seconds"])
    return {
        "name": name, "title": ROWS[name][0], "device_bytes": summary["peak_bytes"], "host_bytes": resident,
        "changed_to_fit": summary["changed_to_fit"], "step_seconds": a_step, "steps": steps,
        "training_seconds": steps * a_step, "scoring_seconds": scoring,
    }


def plan(given, program, described):
    """Prints what the whole table costs on this machine; writes plan.json."""
    rows = []
    for name in given.rows:
        print(f"rehearsing {ROWS[name][0]} ...", file=sys.stderr, flush=True)
        try:
            rows.append(rehearse(name, given, program, described))
        except Fault as fault:
            rows.append({"name": name, "title": ROWS[name][0], "fault": str(fault)})
    write(given.out / "plan.json", json.dumps(rows, indent=1) + "\n")
    print(report.plan(rows))
    return any("fault" in row for row in rows)


def whole(given, program, described):
    """Trains and scores every row; writes the table after each, so that it grows."""
    cases, failures = part(described, "validation"), {}
    data = pathlib.Path(described["path"])
    for name in given.rows:
        row = Row(name, given, program)
        try:
            print(f"{row.title}: training", file=sys.stderr, flush=True)
            row.train(data)
            for number, case in enumerate(cases):
                print(f"{row.title}: scoring {number + 1}/{len(cases)}, {case['name']}", file=sys.stderr, flush=True)
                row.score(case, described["layout"])
            row.infer(cases[0], described["layout"])
            row.levels()
        except Fault as fault:
            failures[name] = str(fault)
            print(f"table1.py: {row.title}: {fault}", file=sys.stderr, flush=True)
        rows = [Row(other, given, program) for other in given.rows]
        results = [row.result(cases) for row in rows]
        shape = [max(case["shape"][k] for case in part(described, "training")) for k in range(3)]
        for row, result in zip(rows, results):
            result["points_a_step"] = points_of(row, shape)
        table = report.table(results, given, described, failures)
        for ending, text in table.items():
            if text:
                write(given.out / f"table1.{ending}", text)
    print(table["md"])
    return bool(failures)


def claim(given):
    """Refuses a folder that was begun with other settings: its rows would not belong together."""
    said = {key: getattr(given, key) for key in ("dataset", "epochs", "minutes", "subjects", "seed", "rules", "weights", "validate_every", "train_flags")}
    said["data"] = str(given.data.resolve())
    path = given.out / "settings.json"
    held = read_json(path, said)
    for key, value in said.items():
        if held.get(key) != value:
            raise Fault(f"{given.out} was begun with {key} {held.get(key)}, not {value}; give that, or another --out")
    write(path, json.dumps(said, indent=1) + "\n")


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, choices=("brats", "lits"))
    parser.add_argument("--data", required=True, type=pathlib.Path, metavar="DIR", help="the data set, as it is unpacked")
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="DIR", help="results; the same folder goes on")
    parser.add_argument("--plan", action="store_true", help="rehearse, print bytes and hours, and stop")
    parser.add_argument("--rows", default=",".join(ROWS), help="[all of %(default)s]")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="[%(default)s]")
    parser.add_argument("--subjects", type=int, metavar="N", help="of the data set, a fifth of them to validate on [all]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validate-every", type=int, default=5, metavar="N", help="epochs; 0: never [5, the official rule]")
    parser.add_argument("--weights", choices=("best", "last"), default="best",
                        help="score the best validation's, as the official code does, or the last ones [best]")
    parser.add_argument("--rules", choices=("official", "own", "data"), default="official",
                        help="of occupancy networks: the official code's, or this program's; data: every network as "
                        "`ossnet plan` sets it up for these data [official]")
    parser.add_argument("--minutes", type=float, metavar="N", help="of training for every row, with --rules data, instead of --epochs")
    parser.add_argument("--train-flags", type=shlex.split, default=[], metavar="FLAGS", help="more flags of `ossnet train`, for all rows")
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/ossnet", help="[target/release/ossnet]")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 [cpu]")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--memory-budget", metavar="BYTES")
    given = parser.parse_args()
    given.rows = given.rows.split(",")
    for name in given.rows:
        if name not in ROWS:
            parser.error(f"--rows {name}: choose from {', '.join(ROWS)}")
    if given.minutes is not None and (given.rules != "data" or given.minutes <= 0):
        parser.error("--minutes is for --rules data, more than 0; elsewhere say --epochs")
    if given.epochs < 1 or given.validate_every < 0 or (given.subjects is not None and given.subjects < 2):
        parser.error("--epochs must be 1 or more, --validate-every 0 or more, --subjects 2 or more")
    return given


def main():
    given = parsed()
    # Also where a shell has them ignored, as in background jobs of scripts.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    try:
        if not given.program.exists():
            raise Fault(f"{given.program} is not there; cargo build --release, or give --program")
        program = Program(given)
        described = program.inspect(given.data)
        if not described["layout"].startswith(given.dataset):
            raise Fault(f"{given.data} has the layout {described['layout']}, not {given.dataset}; give the data set as it is unpacked")
        described["path"] = str(given.data.resolve())
        for which in ("training", "validation"):
            if not part(described, which):
                raise Fault(f"{given.data} has no {which} case; add some")
        given.out.mkdir(parents=True, exist_ok=True)
        claim(given)
        if given.subjects is not None:
            folder = given.out / "data"
            described = {**subset(program, described, given.subjects, folder), "path": str(folder.resolve())}
        failed = plan(given, program, described) if given.plan else whole(given, program, described)
        sys.exit(1 if failed else 0)
    except Fault as fault:
        sys.exit(f"table1.py: {fault}")
    except (Interrupted, KeyboardInterrupt):
        print("table1.py: interrupted, what was done is saved; the same command goes on", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
