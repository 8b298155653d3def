"""Trains OSS-Net C on the embedded head MRIs by the official rules, in PyTorch: the peer of `ossnet train` for docs/parity.md.

    apt-get install python3-torch          # or pip install torch numpy; made with PyTorch 1.13.1
    python3 benches/peers/train.py init 0 init-0.pt              # fresh weights of seed 0, as torch initialises them
    python3 benches/peers/train.py train 0 init-0.pt peer-0.pt   # 60 epochs; prints losses and the scores at the end

The network is the small one of `ossnet train --preset sample` (encoder 16, 32, 64; decoder width 128), the rules are the
official code's: raw voxel indices, half of the points near the border and the rest never on the last index, cross entropy on
clamped probabilities, flips, brightness and noise, Lookahead around RAdam with one rate for all parameters, rates x0.1 after
two and three fifths of the epochs. Scores: Dice and IoU at 0.5 over every second voxel along each axis (all would take as long
as the training).
"""
import gzip
import json
import pathlib
import sys
import time

import numpy as np
import torch
from torch.nn import functional as F

from oss_net import LookaheadRAdam, OssNet, binary_cross_entropy

HEADS = pathlib.Path(__file__).parents[2] / "assets/sample/heads"
EPOCHS, POINTS, RATE, MILESTONES = 60, 512, 3e-3, (24, 36)


def read(path):
    """The voxels of a little-endian NIfTI-1 of unsigned bytes, first axis slowest."""
    raw = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(raw, "<i2", 3, 42)
    datatype, start = np.frombuffer(raw, "<i2", 1, 70)[0], int(np.frombuffer(raw, "<f4", 1, 108)[0])
    assert datatype == 2, f"{path}: not unsigned bytes"
    return np.frombuffer(raw, "u1", int(shape.prod()), start).reshape(shape, order="F").astype(np.float32)


def border_of(label):
    """Sobel gradient > 0, dilated by a cube of 13 voxels."""
    padded, found = np.pad(label, 1, "symmetric"), np.zeros(label.shape, bool)
    for axis in range(3):
        slope = padded
        for other in range(3):
            n = label.shape[other]
            low, middle, high = (slope.take(range(k, k + n), other) for k in range(3))
            slope = high - low if other == axis else low + 2 * middle + high
        found |= slope != 0
    near = F.max_pool3d(torch.from_numpy(found.astype(np.float32))[None], 13, 1, 6)[0]
    return near.nonzero()


def load(part):
    """Normalised volume, label and border points of each case of `part`."""
    cases = []
    for case in json.loads((HEADS / "dataset.json").read_text())[part]:
        image, label = HEADS / case["image"], read(HEADS / case["label"])
        volume = torch.from_numpy(read(image))
        volume = (volume - volume.mean()) / volume.std()
        cases.append((image.name, volume, torch.from_numpy(label), border_of(label)))
    return cases


def patches_at(volume, points):
    """The 7x7x7 voxels around each point, zero outside: [points, 1, 7, 7, 7]."""
    windows = F.pad(volume, [3] * 6).unfold(0, 7, 1).unfold(1, 7, 1).unfold(2, 7, 1)
    return windows[points[:, 0], points[:, 1], points[:, 2]][:, None]


def half_of(volume):
    return F.interpolate(volume[None, None], scale_factor=0.5, mode="trilinear", align_corners=False)[0]


def draw(case, generator):
    """An augmented case and its points: half volume, points, patches, labels, low-resolution label."""
    _, volume, label, border = case
    uniform = lambda: torch.rand(1, generator=generator).item()
    shape = torch.tensor(volume.shape)
    if uniform() < 0.5:
        axes = [[0], [1], [0, 1]][int(3 * uniform())]
        volume, label, border = volume.flip(axes), label.flip(axes), border.clone()
        border[:, axes] = shape[axes] - 1 - border[:, axes]
    if uniform() < 0.5:
        volume = volume + (2 * uniform() - 1) * 0.15 * volume.max()
    if uniform() < 0.5:
        volume = volume + 0.15 * torch.randn(volume.shape, generator=generator)
    chosen = border[torch.randperm(len(border), generator=generator)[: POINTS // 2]]
    rest = (torch.rand(POINTS - len(chosen), 3, generator=generator) * (shape - 1)).long()
    points = torch.cat([chosen, rest])
    labels = label[points[:, 0], points[:, 1], points[:, 2]][:, None]
    low = F.adaptive_max_pool3d(label[None], [side // 16 for side in volume.shape])
    return half_of(volume), points.float(), patches_at(volume, points), labels, low


@torch.no_grad()
def score(network, case):
    """Dice and IoU over every second voxel along each axis."""
    _, volume, label, _ = case
    network.eval()
    latents, _ = network.encoder(half_of(volume)[None])
    inside = []
    lattice = 2 * torch.ones([side // 2 for side in volume.shape]).nonzero()
    for points in lattice.split(1 << 12):
        found = network.decoder(points[None].float(), patches_at(volume, points)[None], latents)
        inside.append(found[0, :, 0] > 0.5)
    predicted, truth = torch.cat(inside), label[::2, ::2, ::2].flatten() > 0
    both, either = (predicted & truth).sum().item(), (predicted | truth).sum().item()
    return 2 * both / (both + either), both / either


def fresh(seed):
    torch.manual_seed(seed)
    return OssNet(1, [(1, 16), (16, 32), (32, 64)], (4, 5, 4), 128)


def init(seed, path):
    torch.save(fresh(int(seed)).state_dict(), path)


def train(seed, start, path):
    network, generator = fresh(int(seed)), torch.Generator().manual_seed(int(seed))
    network.load_state_dict(torch.load(start))
    cases = load("training")
    parameters = list(network.parameters())
    optimizer = LookaheadRAdam(parameters, [RATE] * len(parameters))
    started = time.perf_counter()
    for epoch in range(EPOCHS):
        network.train()
        order = torch.randperm(len(cases), generator=generator)
        half, points, patches, labels, low = (torch.stack(items) for items in zip(*(draw(cases[i], generator) for i in order)))
        predicted, coarse = network(half, points, patches)
        loss = binary_cross_entropy(predicted, labels) + 0.1 * binary_cross_entropy(coarse, low)
        network.zero_grad()
        loss.backward()
        optimizer.step(0.1 ** sum(epoch >= milestone for milestone in MILESTONES))
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {loss.item():.4f}, {time.perf_counter() - started:.0f} s", flush=True)
    torch.save(network.state_dict(), path)
    scores = np.array([score(network, case) for case in load("validation")])
    print(f"seed {seed}: Dice {scores[:, 0].mean():.4f}, IoU {scores[:, 1].mean():.4f} (cases: {scores[:, 0].round(4)})")


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"init": init, "train": train}[sys.argv[1]](*sys.argv[2:])
