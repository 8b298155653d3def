"""The tables of scripts/table1.py: intervals, and markdown, CSV and JSON beside the published figures."""

import csv
import io
import json
import random
import time

import table1_picture

# Dice and IoU of Table 1 in the README of the official implementation of Reich, Prangemeier, Cetin & Koeppl, "OSS-Net: Memory
# Efficient High Resolution Semantic Segmentation of 3D Medical Data", BMVC 2021. It has no U-Nets.
PUBLISHED_SOURCE = "Reich et al., OSS-Net, BMVC 2021: Table 1 in the README of the official implementation"
PUBLISHED = {
    "o-net": {"brats": (0.7016, 0.5615), "lits": (0.6506, 0.4842)},
    "oss-net-a": {"brats": (0.8592, 0.7644), "lits": (0.7127, 0.5579)},
    "oss-net-b": {"brats": (0.8541, 0.7572), "lits": (0.7585, 0.6154)},
    "oss-net-c": {"brats": (0.8842, 0.7991), "lits": (0.7616, 0.6201)},
    "oss-net-d": {"brats": (0.8774, 0.7876), "lits": (0.7566, 0.6150)},
}

# Key of a score, what it is called, where it stands in a subject's scores, digits.
SCORES = [
    ("sampled_dice", "Dice, sampled", ("sampled", "dice"), 4),
    ("sampled_iou", "IoU, sampled", ("sampled", "iou"), 4),
    ("dice", "Dice, all voxels", ("dense", "dice"), 4),
    ("iou", "IoU, all voxels", ("dense", "iou"), 4),
    ("hd95_mm", "HD95, mm", ("dense", "hd95"), 2),
]

RESAMPLES = 10_000


def interval(values, seed=0):
    """Mean, and the 95 % percentile interval of 10,000 bootstrap resamples over the subjects (None below two)."""
    if not values:
        return {"count": 0, "mean": None, "low": None, "high": None}
    mean = sum(values) / len(values)
    if len(values) < 2:
        return {"count": 1, "mean": mean, "low": None, "high": None}
    rng = random.Random(seed)
    means = sorted(sum(rng.choices(values, k=len(values))) / len(values) for _ in range(RESAMPLES))
    return {"count": len(values), "mean": mean, "low": means[int(0.025 * RESAMPLES)], "high": means[int(0.975 * RESAMPLES) - 1]}


def bytes_text(count):
    if count is None:
        return "–"
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} bytes"


def time_text(seconds):
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 60:.1f} min" if seconds < 36000 else f"{seconds / 3600:.1f} h"


def number(value, digits):
    return "–" if value is None else f"{value:.{digits}f}"


def scored(summary, digits, subjects):
    """A mean with its interval; how many subjects it stands for, where it leaves some out."""
    text = number(summary["mean"], digits)
    if summary["low"] is not None:
        text += f" [{summary['low']:.{digits}f}, {summary['high']:.{digits}f}]"
    return text if summary["count"] in (0, subjects) else f"{text} ({summary['count']}/{subjects})"


def lines(head, rows):
    """A table in markdown: the first column to the left, all others to the right."""
    out = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return "\n".join(out + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def figures(result, dataset):
    """A row's figures, ready for all three forms."""
    published = PUBLISHED.get(result["name"], {}).get(dataset, (None, None))
    found = {"row": result["name"], "network": result["title"], "finished": result["finished"],
             "published_dice": published[0], "published_iou": published[1]}
    for key, _, (kind, name), _ in SCORES:
        values = [case[kind][name] for case in result["cases"]]
        found[key] = interval([value for value in values if value is not None])
    step = result["step_seconds"]
    training, inference = result["costs"].get("training", {}), result["inference"] or {}
    return found | {
        "subjects": len(result["cases"]),
        "parameters": result["parameters"],
        "device_peak_bytes": result["device_bytes"],
        "level_bytes": result["level_bytes"],
        "host_peak_bytes": training.get("resident"),
        "steps": result["steps"],
        "step_seconds": step,
        "training_seconds": result["training_seconds"],
        "training_processor_seconds": training.get("processor"),
        "points_a_second": result["points_a_step"] / step if step else None,
        "inference_seconds": inference.get("seconds"),
        "inference_processor_seconds": inference.get("processor"),
        "inference_host_bytes": inference.get("resident"),
        "changed_to_fit": result["changed_to_fit"],
        "weights": result["weights"],
    }


def reductions(given):
    """What makes this less than the published protocol."""
    told = []
    if given.subjects is not None:
        told.append(f"{given.subjects} subjects only")
    if given.minutes:
        told.append(f"{given.minutes:g} minutes of training for each row instead of 50 epochs")
    elif given.epochs != 50:
        told.append(f"{given.epochs} epochs instead of 50")
    if given.rules == "own":
        told.append("this program's rules instead of the official code's")
    if given.rules == "data":
        told.append("every network as `ossnet plan` sets it up for these data")
    if given.train_flags:
        told.append(f"changed by `{' '.join(given.train_flags)}`")
    return told


def differences(results):
    """Dice over all voxels of each two rows on the same subjects: mean difference with its interval, and who is ahead how often."""
    found = []
    for i, first in enumerate(results):
        for second in results[i + 1:]:
            others = {case["name"]: case["dense"]["dice"] for case in second["cases"]}
            values = [case["dense"]["dice"] - others[case["name"]] for case in first["cases"] if case["name"] in others]
            if len(values) > 1:
                found.append({"first": first["title"], "second": second["title"], "ahead": sum(value > 0 for value in values), **interval(values)})
    return found


def markdown(rows, given, described, failures, paired):
    training, validation = (sum(case["part"] == part for case in described["cases"]) for part in ("training", "validation"))
    title = {"brats": "BraTS 2020", "lits": "LiTS"}[given.dataset]
    out = [f"# Table 1 on {title}\n"]
    out.append(f"{training} subjects to train on, {validation} to validate on ({described['split']}); seed {given.seed}; "
               f"device {given.device or 'cpu'}; {time.strftime('%Y-%m-%d', time.gmtime())}.\n")
    if reductions(given):
        out.append(f"**Reduced: {'; '.join(reductions(given))}.** These figures cannot be held against the published ones.\n")
    unfinished = [row["network"] for row in rows if not row["finished"]]
    if unfinished:
        out.append(f"Not finished: {', '.join(unfinished)}. The same command goes on.\n")
    head = ["network", "published Dice", "published IoU", *(name for _, name, _, _ in SCORES)]
    body = []
    for row in rows:
        cells = [row["network"], number(row["published_dice"], 4), number(row["published_iou"], 4)]
        body.append(cells + [scored(row[key], digits, row["subjects"]) for key, _, _, digits in SCORES])
    out.append(lines(head, body))
    head = ["network", "parameters", "device peak", "host peak", "steps", "s a step", "training", "points a second",
            "`infer` of a subject", "its host peak"]
    body = []
    for row in rows:
        body.append([
            row["network"], str(row["parameters"] or "–"), bytes_text(row["device_peak_bytes"]), bytes_text(row["host_peak_bytes"]),
            str(row["steps"] or "–"), number(row["step_seconds"], 3), time_text(row["training_seconds"]),
            number(row["points_a_second"], 0), time_text(row["inference_seconds"]), bytes_text(row["inference_host_bytes"]),
        ])
    out.append(lines(head, body))
    if paired:
        body = [[f"{pair['first']} − {pair['second']}", f"{pair['mean']:+.4f}", f"{pair['low']:+.4f} to {pair['high']:+.4f}", f"{pair['ahead']} of {pair['count']}"]
                for pair in paired]
        out.append(lines(["Dice over all voxels on the same subjects", "mean", "95 % interval", "first ahead on"], body))
    changed = [f"{row['network']}: {'; '.join(row['changed_to_fit'])}" for row in rows if row["changed_to_fit"]]
    out += [f"Changed to fit the memory: {text}.\n" for text in changed]
    out += [f"Failed: {name}: {text}\n" for name, text in failures.items()]
    points = {"brats": "2^17 uniform points a subject", "lits": "2^14 points a subject, 40 % of them near the border"}
    out.append(
        f"Published: {PUBLISHED_SOURCE}. Sampled: the official rule, {points[given.dataset]}; the official code draws other points "
        f"each time. Brackets: 95 % intervals, {RESAMPLES:,} bootstrap resamples over subjects. HD95 leaves out subjects in which "
        f"one of the surfaces is empty: (scored/all). Weights: {'those of the best validation by IoU' if given.weights == 'best' else 'the last'}"
        f"{', as the official code takes them: its choice is made on the subjects that are scored' if given.weights == 'best' else ''}. "
        "Device peak: most bytes that the engine held in training (on the CPU they are part of the host's); host peak: resident bytes "
        "of the process, files and code included. Points of a U-Net are voxels. `infer`: the program from files to a file.\n")
    return "\n".join(out)


def comma_separated(rows):
    """A line a row; means and intervals in columns of their own."""
    flat = []
    for row in rows:
        line = {}
        for key, value in row.items():
            if key == "level_bytes":
                line |= {f"level_{level}_bytes": value.get(level) for level in ("0", "1", "2", "3")}
            elif isinstance(value, dict):
                line |= {f"{key}{'' if part == 'mean' else '_' + part}": value[part] for part in ("mean", "low", "high", "count")}
            else:
                line[key] = "; ".join(value) if isinstance(value, list) else value
        flat.append(line)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def table(results, given, described, failures):
    """The whole table as `md`, `csv` and `json`, and its picture as `svg` once a row has scores."""
    rows, paired = [figures(result, given.dataset) for result in results], differences(results)
    whole = {
        "schema_version": 1, "dataset": given.dataset, "published": PUBLISHED_SOURCE, "reduced": reductions(given),
        "failures": failures, "rows": rows, "differences": paired, "cases": {result["name"]: result["cases"] for result in results},
    }
    return {
        "svg": table1_picture.picture(rows),
        "md": markdown(rows, given, described, failures, paired),
        "csv": comma_separated(rows),
        "json": json.dumps(whole, indent=1, ensure_ascii=False) + "\n",
    }


def plan(rows):
    """What `--plan` prints."""
    body, hours = [], 0.0
    for row in rows:
        if "fault" in row:
            body.append([row["title"], "–", "–", "–", "–", "–", "–"])
            continue
        total = row["training_seconds"] + row["scoring_seconds"]
        hours += total / 3600
        body.append([row["title"], bytes_text(row["device_bytes"]), bytes_text(row["host_bytes"]), str(row["steps"]),
                     number(row["step_seconds"], 3), time_text(row["scoring_seconds"]), f"{total / 3600:.2f}"])
    text = lines(["network", "device peak", "host peak", "steps", "s a step", "scoring", "hours"], body)
    text += f"\n{hours:.2f} hours in all, by rehearsals of three steps and one scored subject each on this machine. Untrained weights "
    text += "find little to look at closely: scoring takes longer once a network has learnt.\n"
    for row in rows:
        if "fault" in row:
            text += f"\n{row['title']} does not run here: {row['fault']}\n"
        elif row["changed_to_fit"]:
            text += f"\n{row['title']}, to fit the memory: {'; '.join(row['changed_to_fit'])}\n"
    return text
