"""Peak memory of a training step in PyTorch: MONAI's residual U-Net, and OSS-Net C. docs/memory.md has the figures.

Needs Python 3.10 or newer and `pip install torch==2.9.1 monai==1.6.1 numpy` (other versions give other figures); runs on the
CPU.

    python benches/peers/memory.py unet3d 64x64x64 96x96x96
    python benches/peers/memory.py oss-net-c 128x128x80 --points 2048

What is measured: the live bytes of PyTorch's CPU allocator over one step in steady state (forward, loss, backward,
optimiser), from the profiler's memory events, above those at the start of the step. Parameters, gradients, optimiser state
and the batch exist before and are not in the figure. Scratch of oneDNN is outside that allocator and not in it either.

OSS-Net's Padé units save their input only and redo the rest backwards, as the official CUDA kernel does, but in Python: their
temporaries count. `--autograd-pade` leaves them to autograd. (The recorded curves were made with a compiled one-pass
kernel without temporaries, which is not part of this folder: the strongest form of the peer.)
"""

import argparse
import pathlib
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent))


def peak_of(step):
    """Most live bytes above those at the start while `step` runs."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    if not events:
        sys.exit("the profiler of this PyTorch tells no memory events")
    # Older versions tell microseconds; events of one moment stay in their order.
    start = (lambda e: e.start_ns()) if hasattr(events[0], "start_ns") else (lambda e: e.start_us())
    live = peak = 0
    for event in sorted(events, key=start):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def unet(volume, batch):
    """4,808,126 parameters in 3D. The network, and its loss on a made-up batch."""
    from monai.networks.nets import UNet

    network = UNet(3, 4, 1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2)
    x = torch.randn(batch, 4, *volume)
    labels = (torch.rand(batch, 1, *volume) < 0.3).float()
    return network, lambda: torch.nn.functional.binary_cross_entropy_with_logits(network(x), labels)


class OnePassPade(torch.autograd.Function):
    """P(x) / (1 + sum |d_j| |x|^(j+1)) that saves x only."""

    @staticmethod
    def value(x, numerator, denominator):
        top, bottom = torch.zeros_like(x), torch.zeros_like(x)
        for coefficient in numerator.flip(0):
            top.mul_(x).add_(coefficient)
        size = x.abs()
        for coefficient in denominator.abs().flip(0):
            bottom.add_(coefficient).mul_(size)
        return top.div_(bottom.add_(1))

    @staticmethod
    def forward(context, x, numerator, denominator):
        context.save_for_backward(x, numerator, denominator)
        return OnePassPade.value(x, numerator, denominator)

    @staticmethod
    def backward(context, gradient):
        saved = [tensor.detach().requires_grad_() for tensor in context.saved_tensors]
        # In pieces, so that the temporaries are a piece's and not the array's.
        x, numerator, denominator = saved
        result, sums = torch.empty_like(x), [torch.zeros_like(numerator), torch.zeros_like(denominator)]
        pieces = zip(x.detach().flatten().split(1 << 20), gradient.flatten().split(1 << 20), result.view(-1).split(1 << 20))
        for piece, own, out in pieces:
            piece = piece.requires_grad_()
            with torch.enable_grad():
                powers = torch.stack([piece**k for k in range(len(numerator))])
                sizes = torch.stack([piece.abs() ** (k + 1) for k in range(len(denominator))])
                value = (numerator @ powers) / (1 + denominator.abs() @ sizes)
            found = torch.autograd.grad(value, [piece, numerator, denominator], own)
            out.copy_(found[0])
            sums[0] += found[1]
            sums[1] += found[2]
        return result, *sums


def oss_net(volume, batch, points, autograd):
    """The network as its authors train it, and its loss on a made-up batch. Patches are cut before the step."""
    import oss_net as peer

    if not autograd:
        peer.Pade.forward = lambda self, x: OnePassPade.apply(x, self.weight_numerator, self.weight_denominator)
    half = [side // 2 for side in volume]
    grid = [side >> 4 for side in half]
    channels = [(4, 16), (16, 32), (32, 64), (64, 128)]
    network = peer.OssNet(4, channels, grid, 512)
    x, coordinates = torch.randn(batch, 4, *half), torch.rand(batch, points, 3) * 2 - 1
    patches, labels = torch.randn(batch, points, 4, 7, 7, 7), (torch.rand(batch, points, 1) < 0.3).float()

    def loss():
        probabilities, low = network(x, coordinates, patches)
        low_labels = (torch.zeros_like(low) > 1).float()
        return peer.binary_cross_entropy(probabilities, labels) + 0.1 * peer.binary_cross_entropy(low, low_labels)

    return network, loss


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("unet3d", "oss-net-c"))
    parser.add_argument("volumes", nargs="+", help="shapes such as 128x128x80, sides multiples of 16 (of 32 for oss-net-c)")
    parser.add_argument("--points", type=int, default=16384)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--autograd-pade", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"PyTorch {torch.__version__}, {arguments.threads} threads, batch {arguments.batch}")
    for text in arguments.volumes:
        volume = [int(side) for side in text.split("x")]
        if arguments.model == "unet3d":
            network, loss = unet(volume, arguments.batch)
        else:
            network, loss = oss_net(volume, arguments.batch, arguments.points, arguments.autograd_pade)
        optimizer = torch.optim.RAdam(network.parameters(), lr=3e-4)

        def step():
            # Gradients keep their memory from step to step: they are counted apart.
            optimizer.zero_grad(set_to_none=False)
            loss().backward()
            optimizer.step()

        step()
        step()
        started = time.perf_counter()
        step()
        seconds = time.perf_counter() - started
        parameters = sum(p.numel() for p in network.parameters())
        print(f"{text}: {parameters} parameters, peak {peak_of(step) / 2**20:.0f} MiB, {seconds:.3f} s a step", flush=True)


if __name__ == "__main__":
    main()
