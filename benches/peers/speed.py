#!/usr/bin/env python3
"""Training steps and inference of this program beside PyTorch and MONAI, interleaved, on this machine's CPU.

    cargo build --release
    benches/peers/speed.py                                    # all cases, 7 rounds: about an hour on 2 idle cores
    benches/peers/speed.py --cases unet3d-48x64x48 --rounds 1 # one case
    benches/peers/speed.py --list

PyTorch 2.15.0 and MONAI 1.6.1 are installed into a virtual environment (--venv, by default target/python/peers) if the running
Python has none. Compiles `pau.c` and `peaks.c` with cc.

A round times one step of the peer and then one of ours; the peer runs eager, channels-last and under `torch.compile`, each in a
process of its own, and its fastest mode (by the median) counts. `full` and `full2` are OSS-Net C and D; their Padé units run in
compiled C (eager) or in Python (`torch.compile`). Written: OUT.json and OUT.md with medians, bests, resident peaks, our share of
the machine's measured peaks, machine, date, commit, and the load beside it: figures of a machine that did other work
are no record, and the table says so.
"""

import argparse
import ctypes
import datetime
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
VERSIONS = ["torch==2.15.0", "monai==1.6.1", "numpy"]
POINTS = 16384
CASES = [
    "unet3d-48x64x48", "unet3d-96x96x96", "unet3d-128x128x128", "unet3d-192x192x192", "unet2d-240x240x16",
    "full-256x256x160", "full2-256x256x160",
]
WORKS = ["step", "infer"]
MODES = {"unet3d": ["eager", "channels-last", "compile"], "unet2d": ["eager", "channels-last", "compile"],
         "full": ["eager", "compile"], "full2": ["eager", "compile"]}
# Ours: the name of the network, and more flags of `ossnet memory`. A 2D network's volume is a slice and its batch the slices.
NAMES = {"unet3d": "unet3d", "unet2d": "unet2d", "full": "oss-net-c", "full2": "oss-net-d"}


def split(case):
    kind, volume = case.split("-")
    return kind, [int(side) for side in volume.split("x")]


# ---------------------------------------------------------------- the peer, in a process of its own

def compiled_pade(torch, library):
    """The Padé unit as one pass of C, for autograd."""
    at = lambda tensor: ctypes.c_void_p(tensor.data_ptr())

    class OnePass(torch.autograd.Function):
        @staticmethod
        def forward(context, x, numerator, denominator):
            x = x.contiguous()
            y = torch.empty_like(x)
            library.pau_forward(at(x), at(numerator), at(denominator), at(y), ctypes.c_size_t(x.numel()))
            context.save_for_backward(x, numerator, denominator)
            return y

        @staticmethod
        def backward(context, gradient):
            x, numerator, denominator = context.saved_tensors
            gradient, result = gradient.contiguous(), torch.empty_like(x)
            sums = torch.empty(6, dtype=torch.float64), torch.empty(4, dtype=torch.float64)
            library.pau_backward(at(gradient), at(x), at(numerator), at(denominator), at(result), at(sums[0]), at(sums[1]),
                                 ctypes.c_size_t(x.numel()))
            return result, sums[0].float(), sums[1].float()

    return OnePass


def unet(torch, kind, volume, mode):
    """Network call and loss of MONAI's residual U-Net on a made-up batch of one volume, or of its slices."""
    from monai.networks.nets import UNet

    dimensions = 3 if kind == "unet3d" else 2
    network = UNet(dimensions, 4, 1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2)
    shape = [1, 4, *volume] if dimensions == 3 else [volume[2], 4, *volume[:2]]
    x = torch.randn(shape)
    labels = (torch.rand([shape[0], 1, *shape[2:]]) < 0.3).float()
    if mode == "channels-last":
        layout = torch.channels_last_3d if dimensions == 3 else torch.channels_last
        network, x = network.to(memory_format=layout), x.contiguous(memory_format=layout)
    call = torch.compile(network) if mode == "compile" else network
    loss = lambda: torch.nn.functional.binary_cross_entropy_with_logits(call(x), labels)
    return network, loss, lambda: torch.sigmoid(call(x))


def oss_net(torch, kind, volume, points, mode, library):
    """The same of OSS-Net C or D, as its authors train it: the patches are cut before the step."""
    import oss_net as peer

    if mode == "eager":
        one_pass = compiled_pade(torch, ctypes.CDLL(library))
        peer.Pade.forward = lambda self, x: one_pass.apply(x, self.weight_numerator, self.weight_denominator)
    half = [side // 2 for side in volume]
    # Mid-range patches are further channels of the patch mapping.
    channels = 8 if kind == "full2" else 4
    network = peer.OssNet(channels, [(4, 16), (16, 32), (32, 64), (64, 128)], [side >> 4 for side in half], 512)
    x, coordinates = torch.randn(1, 4, *half), torch.rand(1, points, 3) * 2 - 1
    patches, labels = torch.randn(1, points, channels, 7, 7, 7), (torch.rand(1, points, 1) < 0.3).float()
    call = torch.compile(network) if mode == "compile" else network

    def loss():
        probabilities, low = call(x, coordinates, patches)
        return peer.binary_cross_entropy(probabilities, labels) + 0.1 * peer.binary_cross_entropy(low, torch.zeros_like(low))

    # The decoder alone: a volume's encoding is made once and asked at many points.
    def decode():
        with torch.no_grad():
            latents, _ = network.encoder(x)
        decoder = torch.compile(network.decoder) if mode == "compile" else network.decoder
        chunk = min(points, 8192)
        return lambda: decoder(coordinates[:, :chunk], patches[:, :chunk], latents)

    return network, loss, decode


def serve(case, mode, points, threads, library):
    """Answers each line of standard input (`step` or `infer`) with seconds, until it ends; then with the resident peak."""
    import torch

    sys.path.insert(0, str(HERE))
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    kind, volume = split(case)
    make = unet(torch, kind, volume, mode) if kind.startswith("unet") else oss_net(torch, kind, volume, points, mode, library)
    network, loss, infer = make
    optimizer = torch.optim.RAdam(network.parameters(), lr=3e-4)
    decoder = None

    def step():
        optimizer.zero_grad(set_to_none=False)
        loss().backward()
        optimizer.step()

    for line in sys.stdin:
        work = line.strip()
        network.train(work == "step")
        if work == "infer" and not kind.startswith("unet"):
            decoder = decoder or infer()
        started = time.perf_counter()
        if work == "step":
            step()
        else:
            with torch.no_grad():
                (decoder or infer)()
        print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)


# ---------------------------------------------------------------- the rounds

class Peer:
    """A running peer."""

    def __init__(self, python, case, mode, given, library):
        command = [python, __file__, "--serve", case, "--mode", mode, "--points", given.points, "--threads", given.threads, "--library", library]
        environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
        self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def take(self, work):
        """Seconds of one piece of work, and the resident peak so far."""
        self.process.stdin.write(work + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if len(answer) != 2:
            raise RuntimeError("the peer ended; its error is above")
        return float(answer[0]), int(answer[1])

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def ours(given, case, work):
    """Seconds and resident peak of our step. An occupancy network is asked at every voxel of a small volume instead of inference:
    the decoder is what a large one costs."""
    kind, volume = split(case)
    flags = ["--steps", "3", *(["--optimizer", "radam"] if work == "step" else [])]
    if kind == "unet2d":
        volume, flags = [volume[0], volume[1], 1], flags + ["--batch", volume[2]]
    if kind in ("full", "full2"):
        flags += ["--points", given.points if work == "step" else 8192]
        volume = volume if work == "step" else [32, 32, 32]
    name = {"step": "train", "infer": "infer" if kind.startswith("unet") else "eval"}[work]
    command = [given.program, "memory", "--model", NAMES[kind], "--volume", "x".join(map(str, volume)), "--step", name, "--device", "cpu",
               "--threads", given.threads, "--json", "--quiet", *flags]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ossnet: {done.stderr.strip()}")
    told = json.loads(done.stdout)
    return told["step_seconds"], told["resident_peak_bytes"]


def points_of(case, work, side, given):
    """Points that an inference asks: of the peer a chunk, of ours a small volume."""
    if work == "step" or case.startswith("unet"):
        return None
    return min(given.points, 8192) if side == "peer" else 32**3


def summary(times, resident):
    return {"median": statistics.median(times), "best": min(times), "times": times, "resident_peak_bytes": resident}


def measure(case, work, given, python, library):
    """One case: our times beside those of each mode of the peer."""
    kind, _ = split(case)
    own, own_peak, modes = [], 0, {}
    for mode in MODES[kind]:
        peer, times = Peer(python, case, mode, given, library), []
        try:
            for _ in range(2):
                peer.take(work)
            for _ in range(given.rounds):
                seconds, peak = peer.take(work)
                times.append(seconds)
                seconds, resident = ours(given, case, work)
                own, own_peak = own + [seconds], max(own_peak, resident)
            modes[mode] = summary(times, peak)
        except RuntimeError as fault:
            modes[mode] = {"fault": str(fault)}
        finally:
            peer.end()
        print(f"{case} {work} {mode}: {modes[mode].get('median')} s, ours {statistics.median(own) if own else None} s", file=sys.stderr, flush=True)
    sound = {mode: figures for mode, figures in modes.items() if "median" in figures}
    found = {"case": case, "work": work, "peer": modes, "ours": summary(own, own_peak) if own else None}
    if sound and own:
        fastest = min(sound, key=lambda mode: sound[mode]["median"])
        scale = {side: points_of(case, work, side, given) for side in ("peer", "ours")}
        pace = {"peer": sound[fastest]["median"], "ours": found["ours"]["median"]}
        ratio = pace["peer"] / pace["ours"]
        if scale["peer"]:
            found["points_a_second"] = {side: scale[side] / pace[side] for side in pace}
            ratio = found["points_a_second"]["ours"] / found["points_a_second"]["peer"]
        found |= {"fastest": fastest, "ratio": ratio}
    return found


def flops_of(case, given):
    """Floating-point operations and compulsory bytes of our training step, by the program's own account."""
    kind, volume = split(case)
    batch = 1
    if kind == "unet2d":
        volume, batch = [volume[0], volume[1], 1], volume[2]
    command = [given.program, "roofline", "--model", NAMES[kind], "--volume", "x".join(map(str, volume)), "--points", given.points, "--batch", batch, "--json"]
    told = json.loads(subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout)
    return sum(op["flops"] for op in told["ops"]), sum(op["bytes"] for op in told["ops"])


def subject(given):
    """One scan from files to a mesh, as a user runs it: seconds of the process, best and median."""
    times = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            command = [given.program, "infer", "--load-model", given.checkpoint, "--input", given.scan, "--out", f"{folder}/out", "--mesh", "ply",
                       "--threads", str(given.threads), "--quiet"]
            started = time.perf_counter()
            subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - started)
    return summary(times, None)


# ---------------------------------------------------------------- machine, environment, tables

def compiled(name, folder, flags):
    target = pathlib.Path(folder) / name.replace(".c", ".so" if "-shared" in flags else "")
    subprocess.run(["cc", "-O3", "-march=native", "-ffast-math", "-fopenmp", *flags, str(HERE / name), "-o", str(target), "-lm"], check=True)
    return target


def environment(given):
    """A Python with the peers: the running one, or that of the virtual environment, which is made if it is not there."""
    probe = "import torch, monai, numpy; print(torch.__version__, monai.__version__)"
    for python in (sys.executable, given.venv / "bin/python"):
        if pathlib.Path(python).exists():
            found = subprocess.run([str(python), "-c", probe], capture_output=True, text=True)
            if found.returncode == 0:
                return str(python), found.stdout.split()
    subprocess.run([sys.executable, "-m", "venv", str(given.venv)], check=True)
    subprocess.run([str(given.venv / "bin/pip"), "install", "--quiet", *VERSIONS], check=True)
    return environment(given)


def machine():
    model = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        lines = open("/proc/cpuinfo").read().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return {"cpu": model, "cores": os.cpu_count(), "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")}


def table(result):
    seconds = lambda figures: f"{figures['median']:.3f} ({figures['best']:.3f})"
    mib = lambda count: f"{count / 2**20:.0f}" if count else "–"
    head = ["case", "work", "PyTorch, fastest mode", "its s: median (best)", "its MiB", "ours, s", "our MiB", "ratio", "of FMA peak", "of bandwidth"]
    out = ["| " + " | ".join(head) + " |", "|---|---|---|" + "--:|" * (len(head) - 3)]
    for row in result["cases"]:
        if "ratio" not in row:
            faults = "; ".join(f"{mode}: {figures['fault']}" for mode, figures in row["peer"].items() if "fault" in figures)
            out.append(f"| {row['case']} | {row['work']} | {faults} |" + " – |" * (len(head) - 3))
            continue
        peer = row["peer"][row["fastest"]]
        share = [f"{100 * row['shares'][key]:.0f} %" if row.get("shares") else "–" for key in ("flops", "bytes")]
        times = [seconds(peer), seconds(row["ours"])]
        if "points_a_second" in row:
            times = [f"{row['points_a_second'][side]:.0f} points/s" for side in ("peer", "ours")]
        out.append("| " + " | ".join([row["case"], row["work"], row["fastest"], times[0], mib(peer["resident_peak_bytes"]), times[1],
                                      mib(row["ours"]["resident_peak_bytes"]), f"{row['ratio']:.2f}", *share]) + " |")
    if result["subject"]:
        out.append(f"\nOne subject from files to a mesh: {seconds(result['subject'])} s ({result['subject_scan']}). PyTorch and MONAI have no such way to measure.")
    load = result["load"]
    idle = max(load) < 0.5
    beside = "The machine did nothing else." if idle else "**The machine was not idle: these figures are no record.**"
    out.append(f"\n{result['machine']['cpu']}, {result['threads']} threads of {result['machine']['cores']} cores; PyTorch {result['versions'][0]}, MONAI "
               f"{result['versions'][1]}; {result['date']}; commit {result['commit']}; {result['rounds']} rounds. Load by others before and after: "
               f"{load[0]:.2f}, {load[1]:.2f}. {beside} Measured peaks: {result['peaks']['flops'] / 1e9:.0f} GFLOP/s, {result['peaks']['bytes'] / 1e9:.1f} GB/s. "
               "Ratio: above 1, ours is faster. Steps: RAdam, batch 1 (2D: 16 slices). Inference of `full` and `full2`: decoded points a second.")
    return "\n".join(out) + "\n"


def load():
    """Cores that others keep busy, over a second in which this script sleeps."""
    if not os.path.exists("/proc/stat"):
        return os.getloadavg()[0]
    busy = lambda: (lambda v: (sum(v) - v[3] - v[4], sum(v)))([int(word) for word in open("/proc/stat").readline().split()[1:9]])
    before = busy()
    time.sleep(1)
    after = busy()
    return (after[0] - before[0]) / max(1, after[1] - before[1]) * os.cpu_count()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="separated by commas; KIND-XxYxZ, KIND one of unet3d, unet2d, full, full2 (--list)")
    parser.add_argument("--works", default=",".join(WORKS), help="step, infer [both]")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/ossnet")
    parser.add_argument("--venv", type=pathlib.Path, default=ROOT / "target/python/peers")
    parser.add_argument("--checkpoint", type=pathlib.Path, help="with --scan: also time one subject from files to a mesh")
    parser.add_argument("--scan", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("speed"), help="OUT.json and OUT.md [speed]")
    parser.add_argument("--list", action="store_true", help="print the cases")
    for hidden in ("--serve", "--mode", "--library"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve(given.serve, given.mode, given.points, given.threads, given.library)
    if given.list:
        return print("\n".join(CASES))
    if not given.program.exists():
        sys.exit(f"speed.py: {given.program} is not there; cargo build --release, or give --program")
    for case in given.cases.split(","):
        kind = case.split("-")[0]
        if kind not in MODES or case.count("x") != 2:
            parser.error(f"--cases {case}: write for example unet3d-96x96x96; kinds are {', '.join(MODES)}")
    beside = [load()]
    python, versions = environment(given)
    with tempfile.TemporaryDirectory() as folder:
        library = compiled("pau.c", folder, ["-shared", "-fPIC"])
        peaks = json.loads(subprocess.run([str(compiled("peaks.c", folder, []))], capture_output=True, text=True, check=True,
                                          env={**os.environ, "OMP_NUM_THREADS": str(given.threads)}).stdout)
        found = []
        for case in given.cases.split(","):
            for work in given.works.split(","):
                row = measure(case, work, given, python, library)
                if work == "step" and row["ours"]:
                    flops, moved = flops_of(case, given)
                    row |= {"flops": flops, "bytes": moved, "shares": {
                        "flops": flops / row["ours"]["median"] / peaks["flops"], "bytes": moved / row["ours"]["median"] / peaks["bytes"]}}
                found.append(row)
    version = subprocess.run([str(given.program), "--version"], capture_output=True, text=True).stdout.strip()
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    beside.append(load())
    result = {
        "schema_version": 1, "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"), "commit": commit, "version": version,
        "machine": machine(), "threads": given.threads, "rounds": given.rounds, "versions": versions, "load": beside, "peaks": peaks,
        "cases": found, "subject": subject(given) if given.checkpoint and given.scan else None,
        "subject_scan": str(given.scan.name) if given.scan else None,
    }
    given.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    text = table(result)
    given.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
