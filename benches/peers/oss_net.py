"""OSS-Net (configurations with the skip encoder) and its training step in PyTorch, written from the published description.

A peer to compare with, not the official code, which is not in this repository. `check` shows that it computes what the
official code does: predictions and losses of the golden files, which that code made.

    apt-get install python3-torch          # or pip install torch numpy; made with PyTorch 1.13.1
    python3 benches/peers/oss_net.py check tests/fixtures/tiny_full_brats
    python3 benches/peers/oss_net.py trajectory tests/fixtures/tiny_full_brats > tests/fixtures/trajectory_tiny_full.json
"""
import json
import math
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

NUMERATOR = [3.35583603e-02, 5.05000375e-01, 1.65343934e00, 2.01001052e00, 9.31901999e-01, 1.52424124e-01]
DENOMINATOR = [3.30847488e-06, 3.98021568e00, 5.12471206e-07, 3.01830109e-01]


class Pade(nn.Module):
    """P(x) / (1 + sum |d_j| |x|^(j+1)), orders 5/4."""

    def __init__(self):
        super().__init__()
        self.weight_numerator = nn.Parameter(torch.tensor(NUMERATOR))
        self.weight_denominator = nn.Parameter(torch.tensor(DENOMINATOR))

    def forward(self, x):
        numerator, power = torch.zeros_like(x), torch.ones_like(x)
        for coefficient in self.weight_numerator:
            numerator = numerator + coefficient * power
            power = power * x
        size, denominator, power = x.abs(), torch.ones_like(x), x.abs()
        for coefficient in self.weight_denominator:
            denominator = denominator + coefficient.abs() * power
            power = power * size
        return numerator / denominator


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.main_mapping = nn.Sequential(
            nn.Conv3d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm3d(outputs), Pade(), nn.AvgPool3d(2),
            nn.Identity(), nn.Conv3d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm3d(outputs))
        self.residual_mapping = nn.Identity() if inputs == outputs else nn.Conv3d(inputs, outputs, 1, bias=False)
        self.final_activation = Pade()

    def forward(self, x):
        return self.final_activation(self.main_mapping(x) + F.avg_pool3d(self.residual_mapping(x), 2))


class Encoder(nn.Module):
    def __init__(self, channels, latents, grid, auxiliary):
        super().__init__()
        self.blocks = nn.ModuleList(Block(a, b) for a, b in channels)
        self.output_mappings = nn.ModuleList(
            nn.Sequential(nn.AdaptiveMaxPool3d(grid), nn.Conv3d(b, b // 2, 5, padding=2, bias=False), nn.BatchNorm3d(b // 2),
                          Pade()) for _, b in channels)
        total = sum(b // 2 for _, b in channels)
        self.final_mapping = nn.Sequential(nn.Conv3d(total, latents, 5, padding=2), nn.BatchNorm3d(latents), Pade())
        last = channels[-1][1]
        self.segmentation_mapping = nn.Sequential(nn.Conv3d(last, 1, 5, padding=2, bias=False)) if auxiliary else None

    def forward(self, x):
        outputs = []
        for block, mapping in zip(self.blocks, self.output_mappings):
            x = block(x)
            outputs.append(mapping(x))
        latents = self.final_mapping(torch.cat(outputs, 1)).flatten(2)
        return latents, torch.sigmoid(self.segmentation_mapping(x)) if self.segmentation_mapping else None


class ConditionalNorm(nn.Module):
    """One scalar mean and variance over all coordinates and features; gamma and beta from the latent."""

    def __init__(self, features, latent):
        super().__init__()
        self.linear_gamma, self.linear_beta = nn.Linear(latent, features), nn.Linear(latent, features)
        self.normalization = nn.BatchNorm1d(1, affine=False)
        for linear, bias in ((self.linear_gamma, 1.0), (self.linear_beta, 0.0)):
            nn.init.zeros_(linear.weight)
            nn.init.constant_(linear.bias, bias)

    def forward(self, x, latent):
        batch, points, features = x.shape
        normal = self.normalization(x.reshape(batch * points, 1, features)).view_as(x)
        return self.linear_gamma(latent)[:, None] * normal + self.linear_beta(latent)[:, None]


class DecoderBlock(nn.Module):
    def __init__(self, inputs, outputs, latent):
        super().__init__()
        self.linear_layer_1, self.linear_layer_2 = nn.Linear(inputs, outputs), nn.Linear(outputs, outputs)
        self.cnb_1, self.cnb_2 = ConditionalNorm(outputs, latent), ConditionalNorm(outputs, latent)
        self.activation, self.final_activation = Pade(), Pade()
        self.residual_mapping = nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)

    def forward(self, x, latent):
        y = self.activation(self.cnb_1(self.linear_layer_1(x), latent))
        return self.final_activation(self.cnb_2(self.linear_layer_2(y), latent) + self.residual_mapping(x))


class PatchMapping(nn.Module):
    def __init__(self, channels):
        super().__init__()
        middle = max(channels // 2, 1)
        self.mapping = nn.Sequential(nn.Conv3d(channels, middle, 7, padding=3), Pade(), nn.Identity(),
                                     nn.Conv3d(middle, 1, 7, padding=3), Pade())

    def forward(self, patches):
        batch, points = patches.shape[:2]
        return self.mapping(patches.flatten(0, 1)).reshape(batch, points, 343)


class Decoder(nn.Module):
    def __init__(self, channels, width, blocks, latent):
        super().__init__()
        sides = [3 + 343 + latent] + [width] * blocks
        self.blocks = nn.ModuleList(DecoderBlock(a, b, latent) for a, b in zip(sides, sides[1:]))
        self.patch_mapping = PatchMapping(channels)
        self.final_mapping = nn.Sequential(nn.Linear(width, 1, bias=False))

    def forward(self, coordinates, patches, latents):
        points = coordinates.shape[1]
        x = torch.cat([coordinates, self.patch_mapping(patches), latents[:, :1].expand(-1, points, -1)], 2)
        for i, block in enumerate(self.blocks):
            x = block(x, latents[:, i + 1])
        return torch.sigmoid(self.final_mapping(x))


class OssNet(nn.Module):
    """encoder_channels: pairs; grid: of the latents; width of the decoder."""

    def __init__(self, image_channels, encoder_channels, grid, width, blocks=5, auxiliary=True):
        super().__init__()
        self.encoder = Encoder(encoder_channels, blocks + 1, grid, auxiliary)
        self.decoder = Decoder(image_channels, width, blocks, math.prod(grid))

    def forward(self, half, coordinates, patches):
        latents, low = self.encoder(half)
        return self.decoder(coordinates, patches, latents), low


def binary_cross_entropy(probabilities, labels):
    p = probabilities.clamp(1e-6, 1 - 1e-6)
    return -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()


class LookaheadRAdam:
    """The official optimiser: RAdam as torch_optimizer has it, inside Lookahead(5, 0.8) whose slow weights are made after
    the first step. `rates`: the learning rate of each parameter."""

    def __init__(self, parameters, rates):
        self.parameters, self.rates, self.steps = list(parameters), list(rates), 0
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.slow = None

    @torch.no_grad()
    def step(self, factor=1.0):
        self.steps += 1
        t, b1, b2 = self.steps, 0.9, 0.999
        longest = 2 / (1 - b2) - 1
        length = longest - 2 * t * b2**t / (1 - b2**t)
        size = 1 / (1 - b1**t)
        if length >= 5:
            size *= math.sqrt((1 - b2**t) * (length - 4) / (longest - 4) * (length - 2) / length * longest / (longest - 2))
        for p, rate, m, v in zip(self.parameters, self.rates, self.first, self.second):
            if p.grad is None:
                continue
            m.mul_(b1).add_(p.grad, alpha=1 - b1)
            v.mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
            step = factor * rate * size
            p.sub_(step * m / (v.sqrt() + 1e-8) if length >= 5 else step * m)
        if self.slow is None:
            self.slow = [p.clone() for p in self.parameters]
        elif (t - 1) % 5 == 0:
            for slow, p in zip(self.slow, self.parameters):
                slow.add_(p - slow, alpha=0.8)
                p.copy_(slow)


def golden(stem, dtype):
    """The model of a golden file with its weights, and its batch."""
    arrays = np.load(stem + ".npz")
    config = json.loads(str(arrays["config"]))
    model = OssNet(arrays["volume"].shape[1], config["encoder_channels"], config["encoder_output_shape"],
                   config["decoder_features"][-1][1]).to(dtype)
    model.load_state_dict(torch.load(stem + ".pt", map_location="cpu"))
    tensor = lambda name: torch.from_numpy(arrays[name].astype(np.float64)).to(dtype)
    return model, arrays, {name: tensor(name) for name in ("volume", "coords", "patches", "labels", "seg_label")}


def loss_of(model, batch):
    predicted, low = model(batch["volume"], batch["coords"], batch["patches"])
    return binary_cross_entropy(predicted, batch["labels"]) + 0.1 * binary_cross_entropy(low, batch["seg_label"])


def check(stem):
    model, arrays, batch = golden(stem, torch.float64)
    model.eval()
    with torch.no_grad():
        predicted, low = model(batch["volume"], batch["coords"], batch["patches"])
    worst = [np.abs(found.numpy() - arrays[name]).max() for found, name in ((predicted, "eval_pred_f64"), (low, "eval_seg_f64"))]
    model.train()
    loss = loss_of(model, batch).item()
    print(f"eval predictions differ by {worst[0]:.1e}, the low-resolution segmentation by {worst[1]:.1e}; "
          f"training loss {loss:.12f} against {arrays['train_loss'][1]:.12f}")
    assert max(worst) < 1e-9 and abs(loss - arrays["train_loss"][1]) < 1e-9


def trajectory(stem, steps=20, rate=3e-4):
    out = {"fixture": stem.rsplit("/", 1)[-1], "rate": rate}
    for dtype in (torch.float64, torch.float32):
        torch.manual_seed(0)
        model, _, batch = golden(stem, dtype)
        model.train()
        parameters = list(model.parameters())
        optimizer = LookaheadRAdam(parameters, [rate] * len(parameters))
        losses = []
        for _ in range(steps):
            model.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        norms = {name: float(p.detach().double().norm()) for name, p in model.named_parameters()}
        out[str(dtype).rsplit(".", 1)[-1]] = {"losses": losses, "norms": norms}
    json.dump(out, sys.stdout, indent=1)


if __name__ == "__main__":
    torch.set_num_threads(2)
    {"check": check, "trajectory": trajectory}[sys.argv[1]](*sys.argv[2:])
