"""MONAI's residual U-Net on one fold of a cross-validation that `ossnet compare --folds` or `--fold` drew.

    python benches/peers/hippocampus_monai.py DATA FOLDS.json FOLD EPOCHS OUT.json [THREADS]

The network is the one that `ossnet` calls unet3d: MONAI's UNet with channels 16 to 256. The rest is how MONAI's users train it: DiceCE
without background, Adam at 1e-3 with a cosine schedule, batch 2, z-scored volumes padded to the largest training shape, no augmentation.
Written: Dice by case and class, seconds of training and of scoring, seconds of the processor. Needs torch, monai and nibabel.
"""

import json
import os
import random
import resource
import sys
import time

import nibabel
import numpy
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet

BATCH, RATE, MULTIPLE = 2, 1e-3, 16


def read(data, name):
    """Image and labels of a case as arrays; the image has mean 0 and deviation 1."""
    image, labels = (nibabel.load(os.path.join(data, part, name + ".nii.gz")) for part in ("imagesTr", "labelsTr"))
    image = numpy.asarray(image.dataobj, dtype=numpy.float32)
    return (image - image.mean()) / image.std(), numpy.asarray(labels.dataobj).astype(numpy.int64)


def padded(array, shape):
    """The array in the middle of zeros, and where it lies."""
    grown = numpy.zeros(numpy.maximum(shape, array.shape), array.dtype)
    starts = [(grown.shape[k] - array.shape[k]) // 2 for k in range(3)]
    place = tuple(slice(start, start + side) for start, side in zip(starts, array.shape))
    grown[place] = array
    return grown, place


def dice(found, truth, label):
    """Dice of a class; None where neither holds it."""
    found, truth = found == label, truth == label
    sizes = found.sum() + truth.sum()
    return float(2 * (found & truth).sum() / sizes) if sizes else None


def main():
    data, folds, fold, epochs, out = sys.argv[1:6]
    torch.set_num_threads(int(sys.argv[6]) if len(sys.argv) > 6 else 2)
    random.seed(0)
    torch.manual_seed(0)
    with open(folds) as file:
        drawn = json.load(file)["folds"]
    validation = drawn[int(fold) - 1]
    training = sorted(name for names in drawn for name in names if name not in validation)
    cases = {name: read(data, name) for name in training + validation}
    shape = [-(-max(cases[name][0].shape[k] for name in training) // MULTIPLE) * MULTIPLE for k in range(3)]
    with open(os.path.join(data, "dataset.json")) as file:
        labels = {int(value): name for value, name in json.load(file)["labels"].items()}
    classes = sorted(value for value in labels if value > 0)

    started = time.time()
    network = UNet(3, 1, 1 + len(classes), channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    batches = len(training) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(epochs) * batches)
    tensors = [[torch.from_numpy(padded(array, shape)[0])[None] for array in cases[name]] for name in training]
    for epoch in range(int(epochs)):
        random.shuffle(tensors)
        total = 0.0
        for at in range(0, batches * BATCH, BATCH):
            images, truths = (torch.stack(part) for part in zip(*tensors[at : at + BATCH]))
            optimizer.zero_grad()
            loss = loss_of(network(images), truths)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"fold {fold}, epoch {epoch + 1}: loss {total / batches:.4f}, {time.time() - started:.1f} s", flush=True)
    trained = time.time()

    network.eval()
    scored = []
    with torch.no_grad():
        for name in validation:
            image, truth = cases[name]
            image, place = padded(image, [-(-side // MULTIPLE) * MULTIPLE for side in numpy.maximum(shape, image.shape)])
            found = network(torch.from_numpy(image)[None, None]).argmax(1)[0].numpy()[place]
            by_class = {labels[value]: dice(found, truth, value) for value in classes}
            held = [by_class[labels[value]] for value in classes if (truth == value).any()]
            scored.append({"name": name, "dice": float(numpy.mean(held)), "classes": by_class})
    used = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "model": "MONAI UNet",
        "fold": int(fold),
        "epochs": int(epochs),
        "parameters": sum(weights.numel() for weights in network.parameters()),
        "training_seconds": trained - started,
        "total_seconds": time.time() - started,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "monai": __import__("monai").__version__},
        "cases": scored,
    }
    with open(out + ".tmp", "w") as file:
        json.dump(result, file, indent=1)
    os.replace(out + ".tmp", out)
    print(f"fold {fold}: mean Dice {numpy.mean([case['dice'] for case in scored]):.4f}")


main()
