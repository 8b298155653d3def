"""Memory-efficient segmentation of 3D medical images, every byte accounted for.

What a training step costs, asked of the engine's own allocator without computing anything:

>>> import ossnet
>>> step = ossnet.plan("oss-net-c", (256, 256, 160), points=16384, recompute=3)
>>> step["peak_bytes"], step["by_role"], step["by_layer"]  # doctest: +SKIP

A scan segmented by a checkpoint of ``ossnet train``; reading files is nibabel's business:

>>> scan = nibabel.load("scan.nii.gz")                                          # doctest: +SKIP
>>> found = ossnet.Segmenter("model.safetensors").segment(scan.get_fdata(), scan.affine)  # doctest: +SKIP
>>> nibabel.save(nibabel.Nifti1Image(found.labels, scan.affine), "labels.nii.gz")          # doctest: +SKIP

Arrays are indexed as nibabel has them: ``[i, j, k]`` along the axes of the affine, channels last. Lengths are in mm, volumes
in ml, sizes in bytes, times in seconds. Errors are exceptions with the one line that the command prints: ``ValueError`` for
arguments and files' content, ``OSError`` for files, ``MemoryError`` for a budget that does not suffice, ``RuntimeError`` for
devices. Other Python threads run while the engine computes, and Ctrl-C is answered between two pieces of work.

Not a medical device: for research only.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, NamedTuple, Optional, Sequence, Union

from . import _ossnet
from ._view import Result

__all__ = ["Result", "Segmentation", "Segmenter", "evaluate", "fit", "marching_cubes", "plan", "roofline", "sweep"]
__version__: str = _ossnet.__version__

Volume = Union[int, str, Sequence[int]]


def _bytes(memory_budget: Union[int, str, None]) -> Optional[int]:
    if isinstance(memory_budget, str):
        return _ossnet.read_bytes(memory_budget)
    if memory_budget is not None and memory_budget <= 0:
        raise ValueError(f"memory_budget {memory_budget} must be above 0 bytes")
    return memory_budget


def _step(
    volume: Volume,
    points: Optional[int],
    batch: int,
    step: str,
    precision: str,
    device: str,
    threads: int,
) -> dict[str, Any]:
    if isinstance(volume, str):
        volume = _ossnet.read_shape(volume)
    sides = [volume] * 3 if isinstance(volume, int) else [int(side) for side in volume]
    if len(sides) != 3:
        raise ValueError(f"volume {tuple(sides)} must have three sides, for example (256, 256, 160)")
    numbers = {"batch": batch, "threads": threads} if points is None else {"batch": batch, "threads": threads, "points": points}
    for name, value in [*numbers.items(), *(("volume", side) for side in sides)]:
        if value < 0:
            raise ValueError(f"{name} {value} must not be negative")
    return {
        "volume": sides,
        "points": points,
        "batch": batch,
        "step": step,
        "precision": precision,
        "device": device,
        "threads": threads,
    }


def _levels(recompute: Optional[int]) -> Optional[int]:
    if recompute is not None and recompute not in range(4):
        raise ValueError(f"there is no recompute level {recompute}; use 0, 1, 2 or 3")
    return recompute


def plan(
    model: str,
    volume: Volume,
    *,
    points: Optional[int] = None,
    batch: int = 1,
    recompute: int = 0,
    step: str = "train",
    precision: str = "f32",
    device: str = "cpu",
    threads: int = 0,
    memory_budget: Union[int, str, None] = None,
) -> Result:
    """What one step of a network costs, without computing it.

    Parameters
    ----------
    model
        ``oss-net-c``, ``o-net``, ``unet3d``, … or an official name such as ``full``.
    volume
        Voxels of the full-resolution volume along its axes, ``(256, 256, 160)`` or ``"256x256x160"``, or one number for a cube.
    points
        Points a volume of a training step (16,384 if not given), or decoded at once in inference. U-Nets have none.
    batch
        Volumes a step.
    recompute
        0 (fastest) to 3 (leanest).
    step
        ``train``, ``eval`` or ``infer``.
    precision
        ``f32``, and on CUDA ``tf32`` or ``bf16``.
    device
        What the plan is for: ``cpu``, ``cuda``, an architecture such as ``sm_90``, or a GPU such as ``h100`` (:func:`roofline`
        has the list), of which the result then has ``seconds``: a lower bound from its data sheet, no measurement.
    threads
        Threads of the CPU that is planned for (0: one for each core).
    memory_budget
        Bytes that the engine may hold, for example ``"8GiB"``; ``MemoryError`` names the op that does not fit, and what would.

    Returns
    -------
    Result
        The dictionary that ``ossnet memory --json`` prints: ``peak_bytes``, ``by_role``, ``by_layer``, ``reserved_bytes``,
        ``timeline``, … and ``live_bytes`` (uint64, the bytes that live after each allocation and release of the step) and
        ``seconds`` (``None`` unless the device is a GPU that is known by name).
    """
    _levels(recompute)
    asked = _step(volume, points, batch, step, precision, device, threads)
    value, live, seconds = _ossnet.plan(model, asked, recompute, _bytes(memory_budget))
    return Result(value, live_bytes=live, seconds=seconds)


def sweep(
    models: Union[str, Sequence[str]] = ("o-net", "oss-net-c", "unet3d"),
    sides: tuple[int, int] = (32, 512),
    *,
    points: Optional[int] = None,
    batch: int = 1,
    recompute: Optional[int] = None,
    step: str = "train",
    device: str = "cpu",
    threads: int = 0,
) -> Result:
    """Memory against resolution: what cubes from ``sides[0]`` to ``sides[1]`` cost, at one level of recomputation or at all.

    Returns
    -------
    Result
        The dictionary that ``ossnet memory --sweep --json`` prints, with each curve's ``points`` as arrays: ``levels`` (of each:
        ``curves``, ``recorded`` curves of PyTorch where there are some, ``crossings``) and fitted ``slopes``.
    """
    import numpy as np

    names = [models] if isinstance(models, str) else list(models)
    # Slopes a point are fitted at the command's own volume.
    asked = _step((256, 256, 160), points, batch, step, "f32", device, threads)
    value = _ossnet.sweep(names, tuple(sides), asked, _levels(recompute))
    for level in value["levels"]:
        for curve in level["curves"] + level["recorded"]:
            rows = curve["points"]
            keys = rows[0] if rows else ()
            curve["points"] = {key: np.array([row[key] for row in rows], dtype=np.uint64) for key in keys}
    return Result(value)


def fit(
    model: str,
    room: Union[int, str],
    volume: Volume = (256, 256, 160),
    *,
    points: Optional[int] = None,
    batch: int = 1,
    recompute: Optional[int] = None,
    step: str = "train",
    device: Optional[str] = None,
    threads: int = 0,
) -> Result:
    """The largest volume, points and batch that fit, each while the rest stays as given.

    Parameters
    ----------
    room
        Bytes, as a number or as text (``8GiB``), or ``gpus`` for a list of well-known ones.
    device
        What is planned for: ``cpu`` unless ``room`` is ``gpus``, then ``cuda``.

    Returns
    -------
    Result
        The dictionary that ``ossnet memory --fit --json`` prints.
    """
    device = device or ("cuda" if room == "gpus" else "cpu")
    asked = _step(volume, points, batch, step, "f32", device, threads)
    return Result(_ossnet.fit(model, str(room), asked, _levels(recompute)))


def roofline(
    model: str,
    volume: Volume = (256, 256, 160),
    device: str = "h100",
    *,
    points: int = 16384,
    batch: int = 1,
    step: str = "train",
    precision: str = "f32",
    launch: float = 2.5e-6,
) -> Result:
    """A lower bound of a step's time on a GPU: a model from its data sheet, no measurement.

    ``device`` is a GPU by name (an unknown one's error lists all); ``launch`` are the seconds that a kernel launch costs.

    Returns
    -------
    Result
        The dictionary that ``ossnet roofline --json`` prints.
    """
    return Result(_ossnet.roofline(model, _step(volume, points, batch, step, precision, device, 0), launch))


class Segmentation(NamedTuple):
    """A scan's answer."""

    labels: Any
    """uint8 ``[i, j, k]`` on the scan's own grid, with the label values of the training data."""
    probabilities: Any
    """float32 ``[i, j, k, output]``, or ``None`` if they were not asked for."""
    facts: dict[str, Any]
    """``seconds``, ``peak_bytes`` of the engine, and ``evaluated``: points at each stage of the search, or passes."""


class Segmenter:
    """A checkpoint of ``ossnet train``, ready for scans.

    Parameters
    ----------
    checkpoint
        A ``.safetensors`` file.
    device
        ``cpu``, ``cuda`` or ``cuda:1``.
    threads
        Threads of the CPU (0: one for each core). Results do not depend on them.
    memory_budget
        Bytes that the engine may hold, for example ``"8GiB"``; by default 0.9 of what the machine, the container or the GPU has.
    """

    def __init__(
        self,
        checkpoint: Union[str, "os.PathLike[str]"],
        *,
        device: str = "cpu",
        threads: int = 0,
        memory_budget: Union[int, str, None] = None,
    ) -> None:
        if threads < 0:
            raise ValueError(f"threads {threads} must not be negative")
        self._inner = _ossnet.Segmenter(os.fspath(checkpoint), device, threads, _bytes(memory_budget))

    @property
    def model(self) -> str:
        """The network's name."""
        return self._inner.model

    @property
    def channels(self) -> list[str]:
        """The image channels that it takes, in their order."""
        return self._inner.channels

    @property
    def classes(self) -> dict[int, str]:
        """Label value and name of each class, background first."""
        return dict(self._inner.classes)

    def __repr__(self) -> str:
        classes = ", ".join(f"{value} {name}" for value, name in self.classes.items())
        return f"<ossnet.Segmenter of {self.model}: {', '.join(self.channels)} -> {classes}>"

    def segment(
        self,
        array: Any,
        affine: Any,
        *,
        probabilities: bool = False,
        threshold: float = 0.5,
        dense: bool = False,
        window: Optional[Sequence[int]] = None,
        overlap: float = 0.5,
        mirror: bool = False,
        points_at_once: int = 0,
    ) -> Segmentation:
        """Segments a scan.

        Parameters
        ----------
        array
            ``[i, j, k]`` or ``[i, j, k, channel]``, in the units of the training data, of any number type.
        affine
            4×4, from voxels to mm of the patient (RAS), as nibabel has it.
        probabilities
            Return them as well, which evaluates every voxel.
        threshold
            Of networks with one output, the probability above which a voxel is inside.
        dense
            Evaluate every voxel instead of searching hierarchically (occupancy networks).
        window, overlap, mirror
            Go through the volume in windows of that many voxels which overlap by that share, and average over mirrored volumes
            (U-Nets).
        points_at_once
            Points decoded at once (0: as many as memory admits).

        Returns
        -------
        Segmentation
            Labels and probabilities are views of the engine's own memory: nothing is copied.
        """
        import numpy as np

        asked = {
            "probabilities": probabilities,
            "dense": dense,
            "threshold": threshold,
            "window": None if window is None else [int(side) for side in window],
            "overlap": overlap,
            "mirror": mirror,
            "points_at_once": points_at_once,
        }
        values = np.asarray(array, dtype=np.float32)
        labels, chances, facts = self._inner.segment(values, np.asarray(affine, dtype=np.float64), asked)
        if facts["warning"]:
            warnings.warn(facts["warning"], stacklevel=2)
        shape, axes, flips = facts.pop("shape"), facts.pop("axes"), facts.pop("flips")
        del facts["warning"]
        back = tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)
        labels = labels.reshape(shape).transpose(axes)[back]
        if chances is not None:
            chances = chances.reshape(*shape, -1).transpose(*axes, 3)[back]
        return Segmentation(labels, chances, facts)


def _labels(array: Any, what: str) -> Any:
    """Labels as uint8; anything but whole numbers from 0 to 255 is an error."""
    import numpy as np

    array = np.asarray(array)
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.view(np.uint8)
    labels = array.astype(np.uint8)
    if not np.array_equal(labels, array):
        raise ValueError(f"{what} holds values that are no labels (whole numbers from 0 to 255); renumber its classes")
    return labels


def evaluate(
    prediction: Any,
    label: Any,
    spacing: Union[str, Sequence[float]],
    *,
    tolerance: float = 1.0,
    classes: Optional[Sequence[int]] = None,
) -> dict[int, dict[str, float]]:
    """Scores a segmentation.

    Parameters
    ----------
    prediction, label
        Arrays of one shape with label values from 0 to 255; 0 is background.
    spacing
        Distance between voxels along the arrays' axes, in mm: ``(1, 1, 3)`` or ``"1x1x3"``.
    tolerance
        Of the surface Dice, in mm.
    classes
        Label values to score; by default all that occur in either, but 0.

    Returns
    -------
    dict
        Of each class: ``dice``, ``iou``, ``precision``, ``recall``, ``hd95`` and ``assd`` (mm), ``surface_dice``,
        ``volume_error`` (ml), ``relative_volume_error``, ``true_ml`` and ``predicted_ml``. What is not defined (a distance to
        nothing) is NaN.
    """
    import numpy as np

    prediction, label = _labels(prediction, "prediction"), _labels(label, "label")
    if classes is None:
        classes = [int(value) for value in np.union1d(np.unique(prediction), np.unique(label)) if value > 0]
    lengths = _ossnet.read_spacing(spacing) if isinstance(spacing, str) else [float(mm) for mm in spacing]
    scores = _ossnet.evaluate(prediction, label, lengths, tolerance, list(classes))
    number = lambda value: float("nan") if value is None else value  # noqa: E731
    return {
        value: {
            "true_ml": found["true_ml"],
            "predicted_ml": found["predicted_ml"],
            **{name: number(score) for name, score in found["values"].items()},
        }
        for value, found in zip(classes, scores)
    }


def marching_cubes(
    array: Any,
    affine: Any,
    *,
    threshold: float = 0.5,
    label: Optional[int] = None,
    smallest: int = 0,
    smooth: int = 0,
    triangles: int = 0,
    threads: int = 0,
) -> tuple[Any, Any]:
    """The closed surface of a segmentation or a probability map, in mm.

    Parameters
    ----------
    array
        ``[i, j, k]``. Booleans and integers are labels, of which ``label`` is meshed (by default the only one that is not 0);
        floats are values, meshed where they cross ``threshold``.
    affine
        4×4, from voxels to mm.
    smallest
        Drop pieces of fewer voxels.
    smooth
        Iterations of smoothing.
    triangles
        Simplify to at most so many (0: keep all).

    Returns
    -------
    vertices : float32 ``[n, 3]`` in mm
    faces : uint32 ``[m, 3]``, counterclockwise seen from outside
    """
    import numpy as np

    array = np.asarray(array)
    if np.issubdtype(array.dtype, np.floating):
        if label is not None:
            raise ValueError("label is for arrays of whole numbers; give integers, or a threshold instead")
        field = np.asarray(array, dtype=np.float32)
        if not np.isfinite(field).all():
            raise ValueError("array holds values that are not finite; replace them, for example by numpy.nan_to_num")
    else:
        field = _labels(array, "array")
        if label is None:
            present = [int(value) for value in np.unique(field) if value > 0]
            if len(present) > 1:
                raise ValueError(f"array holds the labels {present}; choose one by label=")
            label = present[0] if present else 1
    for name, value in [("smallest", smallest), ("smooth", smooth), ("triangles", triangles), ("threads", threads)]:
        if value < 0:
            raise ValueError(f"{name} {value} must not be negative")
    matrix = np.asarray(affine, dtype=np.float64)
    shape = (threshold, smallest, smooth, triangles)
    vertices, faces = _ossnet.marching_cubes(field, matrix, label or 0, shape, threads)
    return vertices.reshape(-1, 3), faces.reshape(-1, 3)
