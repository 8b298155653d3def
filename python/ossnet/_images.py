"""Segmentations of scans, their scores and their surfaces."""

from __future__ import annotations

import os
import warnings
from typing import Any, NamedTuple, Optional, Sequence, Union

from . import _arguments, _ossnet
from ._arguments import Bytes, Volume

Path = Union[str, "os.PathLike[str]"]


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
        A ``.safetensors`` file, or the folder of its run, which stands for its best weights if validations chose some, else for
        its last. Of several, or of a folder with folds, probabilities are averaged.
    device
        ``cpu``, ``cuda`` or ``cuda:1``.
    threads
        Threads of the CPU (0: one for each core). Results do not depend on them.
    memory_budget
        Bytes that the engine may hold, for example ``"8GiB"``; by default 0.9 of what the machine, the container or the GPU has.
    precision
        ``f32``, and on CUDA ``tf32`` or ``bf16``.

    Raises
    ------
    OSError
        A file that cannot be read.
    ValueError
        A file that is no checkpoint, a folder without one or with those of several networks.
    MemoryError, RuntimeError
        Weights that do not fit the budget; a device that is not there.

    Examples
    --------
    >>> segmenter = ossnet.Segmenter("runs/liver")                       # doctest: +SKIP
    >>> found = segmenter.segment(scan.get_fdata(), scan.affine)         # doctest: +SKIP
    """

    def __init__(
        self,
        checkpoint: Union[Path, Sequence[Path]],
        *,
        device: str = "cpu",
        threads: int = 0,
        memory_budget: Optional[Bytes] = None,
        precision: str = "f32",
    ) -> None:
        try:
            given = [checkpoint] if isinstance(checkpoint, (str, os.PathLike)) else list(checkpoint)
            files = [os.fspath(file) for file in given]
        except TypeError:
            raise TypeError(f"checkpoint {checkpoint!r} must be a path, or several") from None
        device, precision = _arguments.text("device", device), _arguments.text("precision", precision)
        threads = _arguments.whole("threads", threads)
        self._inner = _ossnet.Segmenter(files, device, threads, _arguments.size(memory_budget), precision)

    @property
    def model(self) -> str:
        """The network's name."""
        return self._inner.model

    @property
    def files(self) -> list[str]:
        """The files of its weights."""
        return [os.fspath(file) for file in self._inner.files]

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
        threshold: Optional[float] = None,
        dense: bool = False,
        window: Optional[Volume] = None,
        overlap: float = 0.5,
        mirror: bool = False,
        points_at_once: int = 0,
    ) -> Segmentation:
        """Segments a scan.

        Parameters
        ----------
        array
            ``[i, j, k]`` or ``[i, j, k, channel]``, in the units of the training data, of any number type and memory layout.
        affine
            4×4, from voxels to mm of the patient (RAS), as nibabel has it.
        probabilities
            Return them as well, which evaluates every voxel.
        threshold
            Of networks with one output, the probability above which a voxel is inside (0.5 if not given).
        dense
            Evaluate every voxel instead of searching hierarchically (occupancy networks; U-Nets always do).
        window, overlap, mirror
            Go through the volume in windows of that many voxels which overlap by that share, and average over mirrored volumes
            (U-Nets).
        points_at_once
            Points decoded at once (0: as many as memory admits; occupancy networks).

        Returns
        -------
        Segmentation
            Labels and probabilities are views of the engine's own memory: nothing is copied.

        Raises
        ------
        ValueError
            An array of another shape or number of channels, with values that are not finite, an affine that does not span
            space, or an argument that says nothing to this network.
        TypeError
            An array of something else than numbers.
        MemoryError
            The budget does not suffice; the line says what would fit.

        Examples
        --------
        >>> labels, _, facts = segmenter.segment(scan.get_fdata(), scan.affine)   # doctest: +SKIP
        """
        import numpy as np

        asked = {
            "probabilities": bool(probabilities),
            "dense": bool(dense),
            "threshold": None if threshold is None else _arguments.number("threshold", threshold),
            "window": None if window is None else _arguments.shape("window", window),
            "overlap": _arguments.number("overlap", overlap),
            "mirror": bool(mirror),
            "points_at_once": _arguments.whole("points_at_once", points_at_once),
        }
        scan = _arguments.finite("array", _arguments.numbers("array", array))
        values = np.require(scan, np.float32, "A")
        labels, chances, facts = self._inner.segment(values, _arguments.affine(affine), asked)
        if facts["warning"]:
            warnings.warn(facts["warning"], stacklevel=2)
        shape, axes, flips = facts.pop("shape"), facts.pop("axes"), facts.pop("flips")
        del facts["warning"]
        back = tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)
        labels = labels.reshape(shape).transpose(axes)[back]
        if chances is not None:
            chances = chances.reshape(*shape, -1).transpose(*axes, 3)[back]
        return Segmentation(labels, chances, facts)


def _present(*maps: Any) -> list[int]:
    """The values of label maps but 0, rising."""
    import numpy as np

    return sorted({int(value) for array in maps for value in np.unique(array)} - {0})


def _named(values: Sequence[int]) -> str:
    """Values for a message, which stays a line."""
    return f"{list(values)}" if len(values) <= 12 else f"{list(values[:12])} and {len(values) - 12} more"


def evaluate(
    prediction: Any,
    label: Any,
    spacing: Union[str, float, Sequence[float]],
    *,
    tolerance: float = 1.0,
    classes: Union[int, Sequence[int], None] = None,
) -> dict[int, dict[str, float]]:
    """Scores a segmentation.

    Parameters
    ----------
    prediction, label
        Label maps of one shape, ``[i, j, k]``: whole numbers, whatever their size and type; 0 is background.
    spacing
        Distance between voxels along the arrays' axes, in mm: ``(1, 1, 3)``, ``"1x1x3"``, or one number for all.
    tolerance
        Of the surface Dice, in mm.
    classes
        Label values to score; by default all that occur in either, but 0.

    Returns
    -------
    dict
        Of each class: ``dice``, ``iou``, ``precision``, ``recall``, ``hd95`` and ``assd`` (mm), ``surface_dice``,
        ``volume_error`` (ml), ``relative_volume_error``, ``true_ml`` and ``predicted_ml``. What is not defined (a distance to
        nothing) is NaN or infinite.

    Raises
    ------
    ValueError
        Arrays of two shapes, values that are no whole numbers, or a spacing that is no length.
    TypeError
        Arrays of something else than numbers.

    Examples
    --------
    >>> import numpy, ossnet
    >>> label = numpy.zeros((8, 8, 8), numpy.int32)
    >>> label[2:6, 2:6, 2:6] = 2035
    >>> scores = ossnet.evaluate(numpy.roll(label, 1, axis=0), label, (1, 1, 3))
    >>> scores[2035]["dice"], scores[2035]["hd95"]
    (0.75, 1.0)
    """
    import numpy as np

    maps = []
    for name, array in [("prediction", prediction), ("label", label)]:
        found = _arguments.labels(name, array)
        if found is None:
            raise ValueError(f"{name} holds values that are no labels (whole numbers); choose classes, as by array > 0.5")
        maps.append(_arguments.volume(name, found))
    if maps[0].shape != maps[1].shape:
        shapes = f"prediction has shape {maps[0].shape} and label {maps[1].shape}"
        raise ValueError(f"{shapes}; resample one to the other's grid")
    lengths, tolerance = _arguments.spacing(spacing), _arguments.number("tolerance", tolerance)
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance {tolerance} must be 0 mm or more")
    if classes is None:
        wanted = _present(*maps)
    else:
        given = [classes] if _arguments.is_whole(classes) else classes
        wanted = [_arguments.label("classes", value) for value in given]  # type: ignore[union-attr]
    scores = {}
    for value in wanted:
        predicted, true = ((array == value).view(np.uint8) for array in maps)
        found = _ossnet.evaluate(predicted, true, lengths, tolerance)
        scores[value] = {
            "true_ml": found["true_ml"],
            "predicted_ml": found["predicted_ml"],
            **{name: float("nan") if score is None else score for name, score in found["values"].items()},
        }
    return scores


# More iterations of smoothing let long waves of a surface grow.
_MOST_SMOOTHING = 100


def marching_cubes(
    array: Any,
    affine: Any,
    *,
    threshold: Optional[float] = None,
    label: Optional[int] = None,
    smallest: int = 0,
    smooth: int = 0,
    triangles: int = 0,
    threads: int = 0,
    memory_budget: Optional[Bytes] = None,
) -> tuple[Any, Any]:
    """The closed surface of a segmentation or a probability map, in mm.

    Parameters
    ----------
    array
        ``[i, j, k]``. Booleans and whole numbers are classes, whatever their size and type, floats among them; other floats are
        probabilities.
    affine
        4×4, from voxels to mm.
    threshold
        The value above which a voxel is inside, of any array; 0.5 of probabilities if not given.
    label
        The class to be meshed; by default the only one that is not 0.
    smallest
        Drop pieces of fewer voxels; where all are that small, the largest stays.
    smooth
        Iterations of smoothing, at most 100.
    triangles
        Simplify to at most so many (0: keep all).
    threads
        Threads of the CPU (0: one for each core).
    memory_budget
        Bytes that the engine may hold, for example ``"8GiB"``.

    Returns
    -------
    vertices : float32 ``[n, 3]`` in mm
    faces : uint32 ``[m, 3]``, counterclockwise seen from outside

    Raises
    ------
    ValueError
        Several classes and no ``label``, a label that does not occur, values that are neither classes nor probabilities and no
        ``threshold``, an affine that does not span space.
    TypeError
        An array of something else than numbers.
    MemoryError
        The budget does not suffice.

    Examples
    --------
    >>> import numpy, ossnet
    >>> labels = numpy.zeros((8, 8, 8), numpy.int32)
    >>> labels[2:6, 2:6, 2:6] = 2035
    >>> vertices, faces = ossnet.marching_cubes(labels, numpy.diag([1, 1, 3, 1]), label=2035)
    >>> vertices.min(axis=0).tolist(), vertices.max(axis=0).tolist()
    ([1.5, 1.5, 4.5], [5.5, 5.5, 16.5])
    """
    smallest, smooth = _arguments.whole("smallest", smallest), _arguments.whole("smooth", smooth)
    if smooth > _MOST_SMOOTHING:
        raise ValueError(f"smooth {smooth} must be at most {_MOST_SMOOTHING}")
    shape = (smallest, smooth, _arguments.whole("triangles", triangles))
    matrix, threads, budget = _arguments.affine(affine), _arguments.whole("threads", threads), _arguments.size(memory_budget)
    field, cut = _field(array, threshold, label)
    vertices, faces = _ossnet.marching_cubes(field, matrix, (cut, *shape), threads, budget)
    return vertices.reshape(-1, 3), faces.reshape(-1, 3)


def _field(array: Any, threshold: Optional[float], label: Optional[int]) -> tuple[Any, float]:
    """What the engine meshes: uint8, 1 inside a class, or float32; and where the surface cuts."""
    import numpy as np

    array = _arguments.finite("array", _arguments.volume("array", _arguments.numbers("array", array)))
    if threshold is not None:
        if label is not None:
            raise ValueError("label is a class and threshold a value; give one of them")
        return np.require(array, np.float32, "A"), _arguments.number("threshold", threshold)
    classes = _arguments.labels("array", array)
    if classes is None:
        if label is not None:
            raise ValueError("array holds values that are no classes (whole numbers); leave label out and give threshold")
        low, high = float(array.min()), float(array.max())
        # Interpolation leaves its range by rounding.
        if low < -1e-3 or high > 1 + 1e-3:
            kinds = "neither classes (whole numbers) nor probabilities (0 to 1)"
            raise ValueError(f"array holds values from {low:g} to {high:g} that are {kinds}; give threshold, the surface's value")
        return np.require(array, np.float32, "A"), 0.5
    if label is not None:
        label = _arguments.label("label", label)
        inside = classes == label
        if not inside.any():
            present = _present(classes)
            remedy = f"label may be {_named(present)}" if present else "it holds nothing but 0"
            raise ValueError(f"array has no voxel of class {label}; {remedy}")
        return inside.view(np.uint8), 0.5
    present = _present(classes)
    if not present:
        raise ValueError("array holds nothing but 0; give a segmentation, or threshold for the surface at a value")
    if len(present) > 1:
        raise ValueError(f"array holds the labels {_named(present)}; choose one by label, or give threshold for a value")
    if (classes == present[0]).all():
        remedy = f"give label={present[0]} for the surface of the whole volume"
        raise ValueError(f"array is {present[0]} everywhere: there is no surface; {remedy}")
    return (classes == present[0]).view(np.uint8), 0.5
