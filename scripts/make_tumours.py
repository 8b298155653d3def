#!/usr/bin/env python3
"""Synthetic tumours in real anatomies: BraTS-2020-layout subjects made from FreeSurfer-style label maps at 1 mm.

    pip install numpy scipy nibabel
    scripts/make_tumours.py --labels ANATOMIES --out DIR [--training 48] [--validation 12] [--seed 3] [--crop 240x240x155]
    scripts/make_tumours.py --labels ANATOMIES --out DIR --structures

ANATOMIES is a folder of label maps (.nii.gz) with FreeSurfer's numbers, for example SynthSeg's `data/training_label_maps`.

Each subject is one person's label map (head size, ventricles and folding of the cortex are real), turned to RAS, stripped of
the skull, put into 240 x 240 x 155 voxels of 1 mm, warped by a smooth random field, given a tumour (necrotic core, enhancing
rim, oedema along white matter; lobed, 10 to 150 ml) and painted in four contrasts (FLAIR, T1, T1ce, T2): a Gaussian a
structure, partial volume, a bias field, Rician noise. No person is in both parts: the last quarter of the people (by name)
validates. Subjects have names of BraTS 2020, so that the authors' division (--split) puts them where they belong. The same
seed gives the same bytes; a subject takes some 16 s, and subjects that are there already are kept.

--structures writes a Decathlon folder instead: T1 only, seven classes of healthy anatomy, no tumour.

Labels are exact by construction, images are drawings of real anatomy: report such results as "synthetic tumours in real
anatomies", never as BraTS results.
"""

import argparse
import json
import pathlib
import re
import sys

try:
    import nibabel as nib
    import numpy as np
    from scipy import ndimage as ndi
except ModuleNotFoundError as missing:
    sys.exit(f"make_tumours.py: Python has no module {missing.name}; pip install numpy scipy nibabel")

SPLIT = pathlib.Path(__file__).resolve().parent.parent / "assets/brats_2020_split.txt"

# FreeSurfer's label -> tissue. Everything from 500 on, and 165, 258 and 259, is outside the brain.
TISSUE = {
    2: "wm", 41: "wm", 7: "wm", 46: "wm", 77: "wm", 85: "wm", 16: "stem", 28: "stem", 60: "stem", 3: "gm", 42: "gm",
    8: "cgm", 47: "cgm", 17: "dgm", 53: "dgm", 18: "dgm", 54: "dgm", 10: "thal", 49: "thal", 11: "dgm", 50: "dgm",
    12: "dgm", 51: "dgm", 13: "pal", 52: "pal", 26: "dgm", 58: "dgm", 4: "csf", 43: "csf", 5: "csf", 44: "csf",
    14: "csf", 15: "csf", 24: "csf", 72: "csf",
}
OUTSIDE = [165, 258, 259]
FLUID = 24

# What is painted, in this order: a mean and a spread in each contrast (FLAIR, T1, T1ce, T2).
LOOK = {
    "wm": ((95, 6), (140, 6), (140, 6), (85, 6)),
    "gm": ((125, 8), (105, 7), (106, 7), (118, 8)),
    "cgm": ((122, 8), (108, 7), (110, 7), (112, 8)),
    "dgm": ((120, 7), (113, 6), (114, 6), (105, 7)),
    "thal": ((112, 7), (118, 6), (119, 6), (100, 7)),
    "pal": ((98, 6), (130, 6), (130, 6), (78, 6)),
    "stem": ((105, 6), (130, 6), (131, 6), (92, 6)),
    "csf": ((45, 9), (40, 8), (42, 8), (215, 12)),
    "core": ((110, 22), (70, 14), (75, 16), (190, 24)),
    "rim": ((150, 18), (95, 12), (190, 24), (150, 18)),
    "oedema": ((180, 18), (98, 10), (99, 10), (175, 18)),
}
NAMES = list(LOOK)
CONTRASTS = ["flair", "t1", "t1ce", "t2"]
LESION = {1: "core", 2: "oedema", 4: "rim"}

# --structures: class -> name and FreeSurfer's labels.
CLASSES = {
    1: ("white matter", {2, 41}),
    2: ("cortex", {3, 42}),
    3: ("ventricles", {4, 43, 5, 44, 14, 15}),
    4: ("deep grey matter", {10, 49, 11, 50, 12, 51, 13, 52, 26, 58}),
    5: ("hippocampus and amygdala", {17, 53, 18, 54}),
    6: ("brain stem", {16, 28, 60}),
    7: ("cerebellum", {7, 46, 8, 47}),
}


def smooth(rng, shape, mm):
    """Smooth noise of mean 0 and variance 1 with a correlation length of `mm` voxels: coarse noise, interpolated linearly,
    and a blur against its creases."""
    coarse = [max(4, int(np.ceil(side / mm)) + 3) for side in shape]
    noise = rng.standard_normal(coarse).astype(np.float32)
    noise = ndi.zoom(noise, [(side + 2 * mm) / n for side, n in zip(shape, coarse)], order=1)
    noise = noise[tuple(slice(int(mm // 2), int(mm // 2) + side) for side in shape)]
    noise = np.pad(noise, [(0, side - n) for side, n in zip(shape, noise.shape)], mode="edge")
    noise = ndi.gaussian_filter(noise, min(mm / 4, 6), truncate=2.5)
    return (noise - noise.mean()) / (noise.std() + 1e-9)


def anatomy(path, crop):
    """The brain's labels of one person, in RAS, centred in a volume of the shape `crop`."""
    image = nib.as_closest_canonical(nib.load(path))
    labels = np.rint(np.asarray(image.dataobj)).astype(np.int16)
    # Vessels, choroid plexus and other small parts that have no look of their own are painted as fluid.
    labels[(labels > 0) & (labels < 500) & ~np.isin(labels, [*TISSUE, *OUTSIDE])] = FLUID
    brain = np.isin(labels, list(TISSUE))
    if not brain.any():
        sys.exit(f"make_tumours.py: {path} holds none of FreeSurfer's labels of the brain; give other --labels")
    out = np.zeros(crop, np.int16)
    source, target = [], []
    for axis, (wanted, held) in enumerate(zip(crop, labels.shape)):
        filled = np.flatnonzero(brain.any(tuple(other for other in range(3) if other != axis)))
        low = int(filled[[0, -1]].mean()) - wanted // 2
        source.append(slice(max(low, 0), min(low + wanted, held)))
        target.append(slice(max(-low, 0), max(-low, 0) + min(low + wanted, held) - max(low, 0)))
    out[tuple(target)] = np.where(brain, labels, 0)[tuple(source)]
    return out


def rotation(angle, i, j):
    """The matrix of a turn by `angle` in the plane of the axes `i` and `j`."""
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


def warp(rng, labels, millimetres):
    """The labels pulled (nearest neighbour) through a smooth displacement of at most about `millimetres`, a small turn and a
    small scaling."""
    turn, scale = np.deg2rad(rng.uniform(-8, 8, 3)), rng.uniform(0.94, 1.06, 3)
    matrix = rotation(turn[0], 1, 2) @ rotation(turn[1], 0, 2) @ rotation(turn[2], 0, 1) @ np.diag(scale)
    centre = (np.array(labels.shape) - 1) / 2
    axes = [np.arange(side, dtype=np.float32) - middle for side, middle in zip(labels.shape, centre)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    where = np.tensordot(matrix.astype(np.float32), grid, 1) + centre.astype(np.float32)[:, None, None, None]
    fields = [np.clip(smooth(rng, labels.shape, 24) * millimetres / 3, -millimetres, millimetres) for _ in range(3)]
    where += np.stack(fields)
    return ndi.map_coordinates(labels, where, order=0, mode="constant")


def tumour(rng, labels):
    """A lesion in white matter, in BraTS's values: 0 none, 1 necrotic core, 2 oedema, 4 enhancing rim."""
    white, brain = np.isin(labels, [2, 41]), labels > 0
    depth = ndi.distance_transform_edt(brain)
    seeds = np.argwhere(white & (depth > 8))
    if not len(seeds):
        sys.exit("make_tumours.py: no white matter lies 8 mm deep in the brain; give a larger --crop")
    centre = seeds[rng.integers(len(seeds))]
    core_ml = np.exp(rng.uniform(np.log(4), np.log(50)))
    radius = (core_ml * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    axes = [np.arange(side, dtype=np.float32) - middle for side, middle in zip(labels.shape, centre)]
    stretch = rng.uniform(0.75, 1.3, 3)
    stretch /= stretch.prod() ** (1 / 3)
    squares = [(axis / s).reshape([-1 if k == i else 1 for k in range(3)]) ** 2 for i, (axis, s) in enumerate(zip(axes, stretch))]
    distance = np.sqrt(sum(squares))
    rough = smooth(rng, labels.shape, 14)
    field = distance / radius + 0.22 * rough
    free = brain & ~np.isin(labels, [4, 43, 14, 15])
    solid = (field < 1) & free
    # The draws come in this order: the same seed has always given the same subject.
    rim = solid & (field > rng.uniform(0.55, 0.8) + 0.1 * smooth(rng, labels.shape, 8))
    reach = rng.uniform(1.25, 1.9)
    along = distance / radius + 0.3 * smooth(rng, labels.shape, 18) < np.where(white, reach, 1.08)
    around = distance / radius + 0.22 * rough < 1.12
    oedema = (along & free & ~solid & ~np.isin(labels, [3, 42])) | (around & free & ~solid)
    out = np.zeros(labels.shape, np.uint8)
    out[oedema], out[solid], out[rim] = 2, 1, 4
    pieces, count = ndi.label(out > 0)
    if count > 1:
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        out[pieces != sizes.argmax()] = 0
    return out


def paint(rng, labels, lesion, contrast):
    """The image of a contrast (its number) as 16-bit integers; `lesion` may be None."""
    table = np.full(600, -1, np.int8)
    for label, name in TISSUE.items():
        table[label] = NAMES.index(name)
    tissue = table[labels]
    if lesion is not None:
        for value, name in LESION.items():
            tissue[lesion == value] = NAMES.index(name)
    means = np.array([LOOK[name][contrast][0] * rng.uniform(0.94, 1.06) for name in NAMES] + [0], np.float32)
    spread = np.array([LOOK[name][contrast][1] for name in NAMES] + [0], np.float32)
    texture = 0.6 * smooth(rng, labels.shape, 6)
    grain = ndi.gaussian_filter(rng.standard_normal(labels.shape).astype(np.float32), 0.7)
    image = means[tissue] + spread[tissue] * (texture + 0.8 * grain / 0.27)
    image = ndi.gaussian_filter(image, rng.uniform(0.5, 0.9))
    image = image * np.exp(0.12 * smooth(rng, labels.shape, 90)) * rng.uniform(0.7, 1.4)
    noise = rng.uniform(2, 5)
    real = (image + noise * rng.standard_normal(image.shape)) ** 2
    image = np.sqrt(real + (noise * rng.standard_normal(image.shape)) ** 2)
    return np.where(tissue >= 0, np.maximum(image, 1), 0).astype(np.int16)


def save(array, affine, path):
    """Writes a volume under its name in one go: a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name in front of the folder, so that a reader of the folder does not take it for a volume.
    partial = path.parent.parent / f".{path.name}"
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, partial)
    partial.rename(path)


def subject(rng, labels, root, name):
    """Writes one BraTS subject; its segmentation is the last of its files. Returns the tumour's millilitres."""
    lesion = tumour(rng, labels)
    shape = labels.shape
    # BraTS stores its volumes in LPS order.
    affine = np.array([[-1.0, 0, 0, 0], [0, -1, 0, shape[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    folder = root / "MICCAI_BraTS2020_TrainingData" / name
    put = lambda array, ending: save(np.ascontiguousarray(array[::-1, ::-1]), affine, folder / f"{name}_{ending}.nii.gz")
    for number, contrast in enumerate(CONTRASTS):
        put(paint(rng, labels, lesion, number), contrast)
    put(lesion, "seg")
    return (lesion > 0).sum() / 1000


def structures(rng, labels, root, name):
    """Writes one T1 image and its seven classes; returns their entry in the list of cases."""
    target = np.zeros(labels.shape, np.uint8)
    for value, (_, members) in CLASSES.items():
        target[np.isin(labels, list(members))] = value
    for folder, array in (("imagesTr", paint(rng, labels, None, 1)), ("labelsTr", target)):
        save(array, np.eye(4), root / folder / f"{name}.nii.gz")
    return {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}


def subjects_of(split):
    """Numbers of the training and the validation subjects, from a list with a heading for each part."""
    ids, part = {"training": [], "validation": []}, None
    for line in split.read_text().splitlines():
        line = line.strip()
        if line.endswith(":"):
            part = "training" if line.lower().startswith("train") else "validation"
        elif line:
            ids[part].append(re.sub(r".*_", "", line))
    return ids


def parsed():
    """The command line, checked as far as it can be before a voxel is drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", required=True, type=pathlib.Path, metavar="DIR", help="folder of label maps")
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--training", type=int, default=48, help="subjects to train on [48]")
    parser.add_argument("--validation", type=int, default=12, help="subjects to validate on [12]")
    parser.add_argument("--crop", default="240x240x155", help="shape of the volumes [240x240x155]")
    parser.add_argument("--structures", action="store_true", help="healthy anatomy in seven classes")
    parser.add_argument("--warp", type=float, default=6.0, help="largest displacement in mm [6]")
    parser.add_argument("--split", type=pathlib.Path, default=SPLIT, help="names of BraTS 2020's subjects by part")
    parser.add_argument("--all-validate", action="store_true", help="every person may validate (held-out people)")
    given = parser.parse_args()
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){2}", given.crop):
        parser.error(f"--crop {given.crop}: give three sides, for example 240x240x155")
    given.crop = tuple(int(side) for side in given.crop.split("x"))
    if not given.labels.is_dir():
        parser.error(f"--labels {given.labels}: is no folder; give one with FreeSurfer-style label maps (.nii.gz)")
    given.people = sorted(path for path in given.labels.iterdir() if path.name.endswith(".nii.gz"))
    if not given.people:
        parser.error(f"--labels {given.labels}: holds no .nii.gz; give a folder with FreeSurfer-style label maps")
    given.ids = None if given.structures else subjects_of(given.split)
    for part, count in (("training", given.training), ("validation", given.validation)):
        if given.ids and count > len(given.ids[part]):
            parser.error(f"--{part} {count}: {given.split} names {len(given.ids[part])} such subjects; ask for fewer")
    return given


def main():
    given = parsed()
    cut = 0 if given.all_validate else len(given.people) - max(1, len(given.people) // 4)
    parts = {"training": given.people[:cut], "validation": given.people[cut:]}
    lists = {"training": [], "validation": []}
    for part, count in (("training", given.training), ("validation", given.validation)):
        for k in range(count if parts[part] else 0):
            person = parts[part][k % len(parts[part])]
            rng = np.random.default_rng([given.seed, part == "validation", k])
            draw = lambda: warp(rng, anatomy(person, given.crop), given.warp)
            if given.structures:
                lists[part].append(structures(rng, draw(), given.out, f"{part[:2]}_{k:03d}"))
                continue
            name = f"BraTS20_Training_{given.ids[part][k]}"
            if (given.out / "MICCAI_BraTS2020_TrainingData" / name / f"{name}_seg.nii.gz").exists():
                print(f"{part} {name}: is there already", flush=True)
                continue
            ml = subject(rng, draw(), given.out, name)
            print(f"{part} {name}: {person.name}, tumour {ml:.1f} ml", flush=True)
    if given.structures:
        described = {
            "name": "Structures",
            "description": "healthy anatomy, T1 painted from label maps",
            "modality": {"0": "T1"},
            "labels": {"0": "background", **{str(value): name for value, (name, _) in CLASSES.items()}},
            "numTraining": len(lists["training"]),
            "training": lists["training"],
            "validation": lists["validation"],
            "test": [],
        }
        (given.out / "dataset.json").write_text(json.dumps(described, indent=1))


if __name__ == "__main__":
    main()
