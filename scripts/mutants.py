#!/usr/bin/env python3
"""Mutation tests: changes one expression after the other, and asks whether any test that runs it notices.

    scripts/mutants.py build [--lib]          # once for a commit: all mutants in one set of test programs (--lib: the library's)
    scripts/mutants.py cover                  # which test runs which mutant, and how long it takes
    scripts/mutants.py run [--part 3/10] [--only FILE] [--seconds 30]
    scripts/mutants.py report                 # counts, and the survivors that mutants/explained.txt does not explain

All mutants stand in one program (mutants/), of which a variable turns one on: a build for each of thousands would take days.
Each is run against the tests that reach it, quickest first, until one fails, for --seconds of processor time. Then it
is `caught`, `hangs` (which is noticed as well), `missed` or, if no test reaches it, `unreached`. `run` goes on where it was interrupted; everything is kept in
target/mutants. Exit status of `report`: 1 if a survivor is not explained.
"""
import argparse
import collections
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "target" / "mutants"
TREE = HERE / "tree"
AREAS = ["memory", "data", "evaluate", "train", "planner"]
# What is about kernels runs the arena for minutes and asks nothing of it that others do not.
LEFT_OUT = ("ops::", "mesh::", "tape::")
CARGO = ["--config", "profile.dev.package.ossnet.opt-level=1"]
LIBRARY, TARGETS = ["--lib"], ["--lib", "--test", "commands", "--test", "engine"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def rewrite():
    """The tracked files, with mutants."""
    shutil.rmtree(TREE / "src", ignore_errors=True)
    TREE.mkdir(parents=True, exist_ok=True)
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        to = TREE / name
        to.parent.mkdir(parents=True, exist_ok=True)
        # What did not change keeps its date, and is not compiled again.
        if name == "build.rs" or not to.exists() or to.read_bytes() != (ROOT / name).read_bytes():
            shutil.copy2(ROOT / name, to)
    (HERE / "skipped.txt").touch()
    program = ROOT / "mutants" / "target" / "debug" / "ossnet-mutants"
    subprocess.run([program, TREE / "src", HERE / "mutants.jsonl", HERE / "skipped.txt", *AREAS], check=True)
    shutil.copy(ROOT / "mutants" / "mutant.rs", TREE / "src" / "mutant.rs")
    lib = TREE / "src" / "lib.rs"
    text = lib.read_text().replace("#![warn(missing_docs)]", "#![allow(warnings, arithmetic_overflow, unconditional_panic)]")
    lib.write_text(text.replace("\npub mod ", "\n#[doc(hidden)]\npub mod mutant;\npub mod ", 1))
    # The build script compiles some of the same files.
    script = TREE / "build.rs"
    script.write_text(script.read_text() + "\nmod mutant {\n    pub fn on(_: usize) -> bool {\n        false\n    }\n}\n")
    beside = ROOT.parent / "shared"
    if beside.exists() and not (HERE / "shared").exists():
        (HERE / "shared").symlink_to(beside)


def not_compiling(messages):
    """The mutants that the compiler's errors are about."""
    found, other = set(), []
    for message in messages:
        numbers = set()
        for span in (span for span in message["spans"] if span["is_primary"]):
            text = (TREE / span["file_name"]).read_text().split("\n")
            near = list(range(span["line_start"] - 1, span["line_end"]))
            above = next((n for n in range(near[0], max(-1, near[0] - 8), -1) if "mutant::on(" in text[n]), near[0])
            for line in {above, *near}:
                numbers.update(re.findall(r"mutant::on\((\d+)\)", text[line]))
        found |= numbers
        other += [] if numbers else [message["rendered"]]
    if other:
        sys.exit("error: not because of a mutant:\n" + "\n".join(other[:5]))
    return found


def cargo(command, targets, *arguments):
    run = ["cargo", command, *targets, "--message-format=json", *CARGO, *arguments]
    result = subprocess.run(run, cwd=TREE, stdout=subprocess.PIPE, text=True)
    return result.returncode, [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def build(targets):
    subprocess.run(["cargo", "build", "--quiet", "--manifest-path", ROOT / "mutants" / "Cargo.toml"], check=True)
    while True:
        rewrite()
        status, messages = cargo("check", targets, "--profile", "test")
        errors = [m["message"] for m in messages if m["reason"] == "compiler-message" and m["message"]["level"] == "error"]
        if not errors:
            break
        skipped = not_compiling(errors)
        print(f"{len(skipped)} do not compile", flush=True)
        with (HERE / "skipped.txt").open("a") as file:
            file.writelines(f"{number}\n" for number in sorted(skipped))
    status, messages = cargo("test", targets, "--no-run")
    if status != 0:
        sys.exit("error: the tests do not compile")
    programs = {m["target"]["name"]: m["executable"] for m in messages if m.get("executable") and m["profile"]["test"]}
    (HERE / "programs.json").write_text(json.dumps(programs))


def run_test(program, test, variables, most):
    """The exit status of a test, and the seconds of processor time that it took: at most `most`."""

    def limit():
        resource.setrlimit(resource.RLIMIT_CPU, (int(most), int(most) + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [program, "--exact", test, "--test-threads", "1"]
    try:
        status = subprocess.run(
            command, cwd=TREE, env={**os.environ, **variables}, preexec_fn=limit, timeout=1200, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ).returncode
    except subprocess.TimeoutExpired:
        status = -24
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return status, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cover():
    programs = json.loads((HERE / "programs.json").read_text())
    out = HERE / "cover.jsonl"
    done = {(cover["program"], cover["test"]) for cover in lines(out)}
    with out.open("a") as file:
        for name, program in programs.items():
            listed = subprocess.run([program, "--list"], cwd=TREE, capture_output=True, text=True, check=True).stdout
            for test in re.findall(r"^(\S+): test$", listed, re.M):
                if test.startswith(LEFT_OUT) or (name, test) in done:
                    continue
                folder = HERE / "asked"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                status, seconds = run_test(program, test, {"OSSNET_MUTANT_COVER": str(folder)}, 300)
                numbers = sorted({int(n) for path in folder.iterdir() for n in path.read_text().split()})
                entry = {"program": name, "test": test, "status": status, "seconds": round(seconds, 3), "numbers": numbers}
                file.write(json.dumps(entry) + "\n")
                file.flush()
                if status != 0:
                    print(f"left out, for it fails without a mutant: {name} {test}", flush=True)


def run(part, only, most):
    programs = json.loads((HERE / "programs.json").read_text())
    tests = [cover for cover in lines(HERE / "cover.jsonl") if cover["status"] == 0]
    reached = collections.defaultdict(list)
    for test in tests:
        for number in test["numbers"]:
            reached[number].append(test)
    which, parts = (int(n) for n in part.split("/"))
    out = HERE / f"results-{which}-{parts}.jsonl"
    done = {mutant["number"] for path in HERE.glob("results-*.jsonl") for mutant in lines(path)}
    with out.open("a") as file:
        for mutant in lines(HERE / "mutants.jsonl"):
            if mutant["number"] % parts != which or mutant["number"] in done or only not in mutant["file"]:
                continue
            # Tests of the file itself notice most.
            module = mutant["file"].removesuffix(".rs").removesuffix("/mod").replace("/", "::")
            candidates = reached[mutant["number"]]
            candidates.sort(key=lambda test: (not test["test"].startswith(module), test["seconds"]))
            verdict, by, spent = "missed" if candidates else "unreached", None, 0.0
            for test in candidates:
                if spent > most:
                    verdict = "missed, not by all"
                    break
                variables = {"OSSNET_MUTANT": str(mutant["number"])}
                status, seconds = run_test(programs[test["program"]], test["test"], variables, 20 + 10 * test["seconds"])
                spent += seconds
                if status != 0:
                    verdict, by = "hangs" if status in (-9, -24) else "caught", test["test"]
                    break
            file.write(json.dumps({**mutant, "verdict": verdict, "by": by, "seconds": round(spent, 1)}) + "\n")
            file.flush()


def explained():
    """`FILE FUNCTION CHANGE` of each line before its `#`."""
    path = ROOT / "mutants" / "explained.txt"
    return {line.split("#")[0].strip() for line in path.read_text().splitlines()} - {""} if path.exists() else set()


def report():
    mutants = [mutant for path in sorted(HERE.glob("results-*.jsonl")) for mutant in lines(path)]
    reasons, open_ones = explained(), 0
    counts = collections.defaultdict(collections.Counter)
    for mutant in sorted(mutants, key=lambda mutant: mutant["number"]):
        key = f"{mutant['file']} {mutant['function']} {mutant['change']}"
        verdict = mutant["verdict"]
        if verdict not in ("caught", "hangs") and key in reasons:
            verdict = "explained"
        counts[mutant["file"].split("/")[0].removesuffix(".rs")][verdict] += 1
        if verdict not in ("caught", "hangs", "explained"):
            open_ones += 1
            print(f"{verdict}: src/{mutant['file']}:{mutant['line']}:{mutant['column']} in {mutant['function']}: {mutant['change']}")
    for area, verdicts in counts.items():
        print(f"{area}: " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()))
    total = len(lines(HERE / "mutants.jsonl"))
    print(f"{len(mutants)} of {total} tried, {open_ones} open")
    return int(open_ones > 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["build", "cover", "run", "report"])
    parser.add_argument("--lib", action="store_true", help="build the library's tests alone")
    parser.add_argument("--part", default="0/1", help="K/N: every Nth mutant")
    parser.add_argument("--only", default="", help="files whose name holds this")
    parser.add_argument("--seconds", type=float, default=30, help="of processor time for a mutant")
    options = parser.parse_args()
    HERE.mkdir(parents=True, exist_ok=True)
    if options.command == "run":
        return run(options.part, options.only, options.seconds)
    if options.command == "build":
        return build(LIBRARY if options.lib else TARGETS)
    return {"cover": cover, "report": report}[options.command]()


if __name__ == "__main__":
    sys.exit(main())
