#!/usr/bin/env python3
"""Five folds over the Decathlon's hippocampi: O-Net, OSS-Net C and the 3D U-Net of `ossnet`, and MONAI's U-Net beside them.

    scripts/evidence_hippocampus.py run DATA OUT [--epochs N] [--threads N] [--ossnet PROGRAM] [--python PYTHON]
    scripts/evidence_hippocampus.py keep OUT [RECORD]
    scripts/evidence_hippocampus.py write [RECORD] [PAGE] [--names OLD=NEW,...]

`run` goes fold by fold, so that a stop leaves whole folds; called again it goes on. Every network sees the same number of scans.
PYTHON is one that has torch, monai and nibabel; without it MONAI is left out. `keep` copies what finished folds say of each case, and
what they cost, to benches/record/hippocampus, and `write` makes docs/evidence.md of that; nothing in that page is written by hand but
RECORD/notes.md, which it quotes. Statistics are computed here, apart from those of `ossnet compare`.
"""

import argparse
import glob
import json
import math
import os
import random
import re
import resource
import shutil
import subprocess
import time

MODELS = "o-net-small,oss-net-c-small,unet3d"
FOLDS = 5
HERE = os.path.dirname(os.path.abspath(__file__))
PEER = os.path.join(HERE, "..", "benches", "peers", "hippocampus_monai.py")
RECORD = os.path.join(HERE, "..", "benches", "record", "hippocampus")
PAGE = os.path.join(HERE, "..", "docs", "evidence.md")
# What is kept of a run's results, and of each of its rows.
KEPT = ("schema_version", "models", "baselines", "threads", "seed", "made_by")
KEPT_OF_A_ROW = ("name", "parameters", "cases", "peak_bytes", "total_seconds", "epochs", "steps")
# The aims of the evaluation, beside what was reached.
AIM_DICE, AIM_DIFFERENCE = 0.885, 0.01


def timed(command, log):
    """Runs a command; wall, user and system seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    with open(log, "w") as file:
        subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return [time.time() - started, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime]


def run(args):
    os.makedirs(os.path.join(args.out, "monai"), exist_ok=True)
    for fold in range(1, FOLDS + 1):
        folder = os.path.join(args.out, "ossnet", f"fold-{fold}")
        seconds = os.path.join(args.out, f"ossnet-{fold}.seconds")
        if not os.path.exists(seconds):
            command = [args.ossnet, "compare", "--models", MODELS, "--data", args.data, "--fold", f"{fold}/{FOLDS}"]
            command += ["--epochs", str(args.epochs), "--seed", "0", "--threads", str(args.threads), "--out", folder]
            spent = timed(command, os.path.join(args.out, f"ossnet-{fold}.log"))
            with open(seconds, "w") as file:
                file.write(" ".join(f"{value:.1f}" for value in spent) + "\n")
        found = os.path.join(args.out, "monai", f"fold-{fold}.json")
        if args.python and not os.path.exists(found):
            folds = os.path.join(folder, "folds.json")
            command = [args.python, PEER, args.data, folds, str(fold), str(args.epochs), found, str(args.threads)]
            timed(command, os.path.join(args.out, f"monai-{fold}.log"))


def keep(args):
    """Copies finished folds, without what `write` does not read."""
    finished = sorted(glob.glob(os.path.join(args.out, "ossnet-*.seconds")))
    others = glob.glob(os.path.join(args.out, "monai", "fold-*.json")) + glob.glob(os.path.join(args.out, "load.log"))
    for path in finished + others + glob.glob(os.path.join(args.out, "notes.md")):
        kept = os.path.join(args.record, os.path.relpath(path, args.out))
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        shutil.copyfile(path, kept)
    for path in finished:
        name = f"fold-{re.search(r'-([0-9]+).seconds$', path)[1]}"
        of, to = os.path.join(args.out, "ossnet", name), os.path.join(args.record, "ossnet", name)
        os.makedirs(to, exist_ok=True)
        for model in MODELS.split(","):
            with open(os.path.join(of, model + ".toml")) as file:
                planned = re.sub(r"^dataset_path = .*", 'dataset_path = "DATA"', file.read(), flags=re.M)
            with open(os.path.join(to, model + ".toml"), "w") as file:
                file.write(planned)
        with open(os.path.join(of, "results.json")) as file:
            results = json.load(file)
        results = {key: results[key] for key in KEPT}
        for rows in ("models", "baselines"):
            results[rows] = [{key: row[key] for key in KEPT_OF_A_ROW if key in row} for row in results[rows]]
        with open(os.path.join(to, "results.json"), "w") as file:
            json.dump(results, file, separators=(",", ":"))
            file.write("\n")


def percentile(ordered, share):
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def interval(values):
    """95 % percentile interval of the mean over 10,000 resamples of the cases."""
    draw = random.Random(0)
    means = sorted(sum(draw.choices(values, k=len(values))) / len(values) for _ in range(10_000))
    return percentile(means, 0.025), percentile(means, 0.975)


def wilcoxon(differences):
    """Two-sided p of the signed-rank test, normal approximation with ties; for more than 25 pairs."""
    ordered = sorted((d for d in differences if d), key=abs)
    assert len(ordered) > 25, "fewer pairs than the normal approximation needs"
    positive, ties, at = 0.0, 0.0, 0
    while at < len(ordered):
        end = at
        while end < len(ordered) and abs(ordered[end]) == abs(ordered[at]):
            end += 1
        positive += (at + 1 + end) / 2 * sum(d > 0 for d in ordered[at:end])
        ties += (end - at) ** 3 - (end - at)
        at = end
    n = len(ordered)
    variance = (n * (n + 1) * (2 * n + 1) - ties / 2) / 24
    return math.erfc(abs(positive - n * (n + 1) / 4) / math.sqrt(2 * variance))


def gather(out, names):
    """Each method's cases by name, and what it cost; and what the runs say of themselves."""
    methods, about = {}, {"folds": [], "monai_folds": [], "seconds": []}
    for path in sorted(glob.glob(os.path.join(out, "ossnet", "fold-*", "results.json"))):
        fold = int(os.path.basename(os.path.dirname(path)).split("-")[1])
        if not os.path.exists(os.path.join(out, f"ossnet-{fold}.seconds")):
            continue
        with open(path) as file:
            results = json.load(file)
        about["folds"].append(fold)
        about.update(made_by=results["made_by"], threads=max(results["threads"], about.get("threads", 1)), seed=results["seed"])
        about["baselines"] = [row["name"] for row in results["baselines"]]
        with open(os.path.join(out, f"ossnet-{fold}.seconds")) as file:
            about["seconds"].append([float(value) for value in file.read().split()])
        for row, model in zip(results["models"], MODELS.split(",")):
            with open(os.path.join(os.path.dirname(path), model + ".toml")) as file:
                row["batch"] = int(re.search(r"^batch_size = (\d+)", file.read(), re.M)[1])
        for row in results["models"] + results["baselines"]:
            method = methods.setdefault(names.get(row["name"], row["name"]), {"cases": {}, "peak": []})
            for case in row["cases"]:
                classes = {part["name"]: part["dice"] for part in case.get("classes", []) if not part.get("absent")}
                method["cases"][case["name"]] = (case["dice"], classes)
            method["parameters"] = row.get("parameters")
            method["epochs"], method["batch"] = row.get("epochs"), row.get("batch")
            if "total_seconds" in row:
                method["peak"].append(row["peak_bytes"])
    for path in sorted(glob.glob(os.path.join(out, "monai", "fold-*.json"))):
        with open(path) as file:
            row = json.load(file)
        if row["fold"] not in about["folds"]:
            continue
        about["monai_folds"].append(row["fold"])
        about["versions"] = row["versions"]
        method = methods.setdefault("MONAI UNet", {"cases": {}, "peak": [], "processor": []})
        method["cases"].update({case["name"]: (case["dice"], case["classes"]) for case in row["cases"]})
        method["processor"].append(row["processor_seconds"])
        method["parameters"], method["epochs"] = row["parameters"], row["epochs"]
    return methods, about


def score_row(name, method):
    values = [dice for dice, _ in method["cases"].values()]
    mean = sum(values) / len(values)
    low, high = interval(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    classes = sorted({part for _, parts in method["cases"].values() for part in parts})
    by_class = []
    for part in classes:
        held = [parts[part] for _, parts in method["cases"].values() if parts.get(part) is not None]
        by_class.append(f"{part} {sum(held) / len(held):.3f}")
    cells = [name, f"{method['parameters']:,}" if method.get("parameters") else "–", str(len(values)), f"{mean:.4f}"]
    cells += [f"{low:.4f} to {high:.4f}", f"{percentile(sorted(values), 0.5):.4f}", f"{deviation:.3f}"]
    cells += [", ".join(by_class) or "–", f"{max(method['peak']) / 2**20:.1f}" if method["peak"] else "–"]
    return cells, mean


def pair(methods, first, second):
    a, b = methods[first]["cases"], methods[second]["cases"]
    differences = [a[name][0] - b[name][0] for name in sorted(a) if name in b]
    mean, (low, high) = sum(differences) / len(differences), interval(differences)
    return len(differences), mean, low, high, wilcoxon(differences)


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|" + "|".join("---" if k == 0 else "--:" for k in range(len(heads))) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def said(first, second, found):
    """A sentence that says no more than the interval does."""
    pairs, mean, low, high, _ = found
    ends = f"({mean:+.4f} Dice, 95 % interval {low:+.4f} to {high:+.4f}, {pairs} cases)"
    if low > 0:
        return f"{first} is more accurate than {second} {ends}."
    if high < 0:
        return f"{second} is more accurate than {first} {ends}."
    return f"These cases do not tell {first} from {second} {ends}."


def aims(unet, occupancy, mean, found):
    _, difference, low, high, _ = found
    reached = "reached" if mean >= AIM_DICE else "not reached"
    within = "holds" if low > -AIM_DIFFERENCE else "does not hold" if high < -AIM_DIFFERENCE else "is not decided"
    return (
        f"* The aim of a mean Dice of {AIM_DICE} for {unet} is {reached} ({mean:.4f}).\n"
        f"* The claim that {occupancy} comes within {AIM_DIFFERENCE} of {unet} {within} with this budget "
        f"({difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f})."
    )


def write(args):
    names = dict(entry.split("=") for entry in args.names.split(",")) if args.names else {}
    methods, about = gather(args.out, names)
    ours = [name for name in methods if name not in about["baselines"] and name != "MONAI UNet"]
    occupancy, unet = ours[-2], ours[-1]
    rows = {name: score_row(name, method) for name, method in methods.items()}
    networks = ours + (["MONAI UNet"] if "MONAI UNet" in methods else [])
    pairs = [(a, b) for i, a in enumerate(networks) for b in networks[i + 1 :]]
    if about["baselines"]:
        best_trivial = max(about["baselines"], key=lambda name: rows[name][1])
        pairs += [(name, best_trivial) for name in ours]
    found = {(a, b): pair(methods, a, b) for a, b in pairs}
    epochs = methods[unet]["epochs"]
    made, wall = about["made_by"], [sum(spent[k] for spent in about["seconds"]) for k in range(3)]
    folds = len(about["folds"])
    head = ["network", "parameters", "cases", "mean Dice", "95 % interval", "median", "deviation", "by class"]
    head += ["peak, MiB"]
    parts = [
        "# Evidence: hippocampi",
        f"{folds} of {FOLDS} folds over the 200 labelled cases of Medical Segmentation Decathlon task 4 (`Task04_Hippocampus`, "
        f"CC-BY-SA 4.0, arXiv:1902.09063). Every network sees the same number of scans: {epochs} epochs of the "
        "other folds' cases. Defaults of each program, nothing chosen on these cases. "
        "Written by `scripts/evidence_hippocampus.py write`; to repeat it:",
        "```sh\nscripts/evidence_hippocampus.py run DATA OUT "
        f"--epochs {epochs} --threads {about['threads']} --python PYTHON\n"
        "scripts/evidence_hippocampus.py keep OUT   # each case, in benches/record/hippocampus\n"
        "scripts/evidence_hippocampus.py write      # this page of it\n```",
        "## Scores",
        table(head, [row for row, _ in rows.values()]),
        "Dice on the scans' own grids over all voxels, the mean of both classes; each case once, by the network that did not see it. "
        "Intervals: bootstrap over the cases, 10,000 resamples, percentiles. Peak: bytes held in a training step.",
        "## Differences on the same cases",
        table(
            ["difference", "cases", "mean", "95 % interval", "p (Wilcoxon)"],
            [
                [f"{a} − {b}", str(n), f"{mean:+.4f}", f"{low:+.4f} to {high:+.4f}", "< 0.0001" if p < 1e-4 else f"{p:.4f}"]
                for (a, b), (n, mean, low, high, p) in found.items()
            ],
        ),
        "## What that says",
        "\n".join(f"* {said(a, b, found[a, b])}" for a, b in pairs),
        aims(unet, occupancy, rows[unet][1], found[occupancy, unet]),
        "* Bytes at the peak of a step, for each of its scans: "
        + ", ".join(f"{name} {max(methods[name]['peak']) / 2**20 / methods[name]['batch']:.1f} MiB" for name in ours)
        + f" (batches of {', '.join(str(methods[name]['batch']) for name in ours)}). At 48×64×48 voxels memory is no reason to choose any.",
        "## How it was run",
        f"{made['host_cpu']}, {made['host_cores']} cores, {about['threads']} threads, seed {about['seed']}, ossnet {made['version']} "
        f"(commit {made['commit']}), {made['date']}. The three networks of `ossnet` took "
        f"{(wall[1] + wall[2]) / folds:.0f} s of processor time a fold, training and scoring.",
    ]
    if "MONAI UNet" in methods:
        monai = methods["MONAI UNet"]
        parts.append(
            f"MONAI {about['versions']['monai']}, PyTorch {about['versions']['torch']}: {len(about['monai_folds'])} of these folds, "
            f"{sum(monai['processor']) / len(monai['processor']):.0f} s of processor time a fold; batch 2, Adam 1e-3, cosine, no "
            "augmentation (`benches/peers/hippocampus_monai.py`). `ossnet compare` plans its runs by the data (`--preset auto`), and augments."
        )
    load = os.path.join(args.out, "load.log")
    if os.path.exists(load):
        with open(load) as file:
            readings = [float(line.split()[1]) for line in file]
        parts.append(
            f"Load average meanwhile, a reading a minute: {min(readings):.1f} to {max(readings):.1f}, "
            f"median {percentile(sorted(readings), 0.5):.1f}."
        )
    notes = os.path.join(args.out, "notes.md")
    if os.path.exists(notes):
        with open(notes) as file:
            parts.append(file.read().strip())
    with open(args.page, "w") as file:
        file.write("\n\n".join(parts) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.add_argument("data")
    running.add_argument("out")
    running.add_argument("--epochs", type=int, default=10)
    running.add_argument("--threads", type=int, default=2)
    running.add_argument("--ossnet", default="target/release/ossnet")
    running.add_argument("--python")
    running.set_defaults(do=run)
    keeping = commands.add_parser("keep")
    keeping.add_argument("out")
    keeping.add_argument("record", nargs="?", default=RECORD)
    keeping.set_defaults(do=keep)
    writing = commands.add_parser("write")
    writing.add_argument("out", nargs="?", default=RECORD)
    writing.add_argument("page", nargs="?", default=PAGE)
    writing.add_argument("--names", help="other names for networks, as OLD=NEW,OLD=NEW")
    writing.set_defaults(do=write)
    args = parser.parse_args()
    args.do(args)


main()
