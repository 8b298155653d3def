"""Peak memory of a training step of MONAI's residual U-Net, as recorded in docs/memory.md.

Needs Python 3.10 or newer with `pip install torch==2.9.1 monai==1.6.1` (other versions give other figures) and nothing
else; it runs on the CPU. One line a side:

    python benches/peers/unet_memory.py 64 96 128

What is measured: the live bytes of PyTorch's CPU allocator over one step in steady state (forward, loss, backward,
optimiser), from the profiler's memory events, relative to the start of the step. Parameters, gradients, optimiser state
and the batch exist before and are not in the figure. Scratch of oneDNN is outside that allocator and not in it either.
"""

import argparse
import sys
import time

import torch
from monai.networks.nets import UNet


def peak_of(step):
    """Most live bytes above those at the start while `step` runs."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    events = profile.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    if not changes:
        sys.exit("the profiler of this PyTorch tells no memory events")
    live = peak = 0
    for _, change in changes:
        live += change
        peak = max(peak, live)
    return peak


def unet(dimensions):
    """The network of the comparison: 4,808,126 parameters in 3D, 1,625,708 in 2D."""
    return UNet(
        spatial_dims=dimensions,
        in_channels=4,
        out_channels=1,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sides", type=int, nargs="+", help="sides of the volumes, multiples of 16")
    parser.add_argument("--dimensions", type=int, choices=(2, 3), default=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network = unet(arguments.dimensions)
    optimizer = torch.optim.RAdam(network.parameters(), lr=3e-4)
    loss = torch.nn.BCEWithLogitsLoss()
    parameters = sum(p.numel() for p in network.parameters())
    print(f"PyTorch {torch.__version__}, {parameters} parameters, {arguments.threads} threads, batch {arguments.batch}")
    for side in arguments.sides:
        shape = (side,) * arguments.dimensions
        volume = torch.randn(arguments.batch, 4, *shape)
        label = (torch.rand(arguments.batch, 1, *shape) < 0.3).float()

        def step():
            # Gradients keep their memory from step to step, as the ledger of the comparison counts them apart.
            optimizer.zero_grad(set_to_none=False)
            loss(network(volume), label).backward()
            optimizer.step()

        step()
        step()
        started = time.perf_counter()
        step()
        seconds = time.perf_counter() - started
        print(f"side {side}: peak {peak_of(step) / 2**20:.0f} MiB above the start of a step, {seconds:.3f} s a step", flush=True)


if __name__ == "__main__":
    main()
