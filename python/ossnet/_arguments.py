"""What arguments may look like, and what the engine is given for them. Every refusal names the argument."""

from __future__ import annotations

import operator
from typing import Any, Callable, Optional, Sequence, TypeVar, Union

from . import _ossnet

Volume = Union[int, str, Sequence[int]]
Bytes = Union[int, str]
T = TypeVar("T")


# The largest number that the engine is given.
_MOST = (1 << 63) - 1


def text(name: str, value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} {value!r} must be a text")
    return value


def _read(name: str, reader: Callable[[str], T], value: str) -> T:
    """What the command's own reader makes of a text."""
    try:
        return reader(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def whole(name: str, value: Any, least: int = 0, most: int = _MOST) -> int:
    """A whole number of any type, numpy's among them."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} {value!r} must be a whole number") from None
    if number < least:
        raise ValueError(f"{name} {number} must " + ("not be negative" if least == 0 else f"be {least} or more"))
    if number > most:
        raise ValueError(f"{name} {number} is out of range; give at most {most}")
    return number


def label(name: str, value: Any) -> int:
    """A value of a label map, of whatever type its whole numbers are."""
    return whole(name, value, -(1 << 63), (1 << 64) - 1)


def number(name: str, value: Any) -> float:
    """A number of any type."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} {value!r} must be a number") from None


def is_whole(value: Any) -> bool:
    """Whether there is one number, and a whole one."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def shape(name: str, value: Volume) -> list[int]:
    """Three sides: of a text, a sequence, or one number for a cube."""
    if isinstance(value, str):
        return list(_read(name, _ossnet.read_shape, value))
    if is_whole(value):
        return [whole(name, value)] * 3
    try:
        sides = [whole(name, side) for side in value]  # type: ignore[union-attr]
    except TypeError:
        raise TypeError(f"{name} {value!r} must be three whole numbers, for example (256, 256, 160)") from None
    if len(sides) != 3:
        raise ValueError(f"{name} {tuple(sides)} must have three sides, for example (256, 256, 160)")
    return sides


def size(memory_budget: Optional[Bytes]) -> Optional[int]:
    """Bytes; ``None`` stays."""
    if isinstance(memory_budget, str):
        return _read("memory_budget", _ossnet.read_bytes, memory_budget)
    return None if memory_budget is None else whole("memory_budget", memory_budget, 1)


def level(recompute: Union[int, str, None]) -> Optional[str]:
    """A level of recomputation as the engine reads it."""
    if recompute is None or isinstance(recompute, str):
        return recompute
    return str(whole("recompute", recompute))


def spacing(value: Union[str, float, Sequence[float]]) -> list[float]:
    """Three lengths in mm: of a text, a sequence, or one number for all axes."""
    if isinstance(value, str):
        return list(_read("spacing", _ossnet.read_spacing, value))
    try:
        lengths = [float(mm) for mm in value]  # type: ignore[union-attr]
    except TypeError:
        lengths = [number("spacing", value)] * 3
    if len(lengths) != 3 or not all(0 < mm < float("inf") for mm in lengths):
        raise ValueError(f"spacing {tuple(lengths)} must be three numbers of mm above 0, for example (1, 1, 3)")
    return lengths


def sides(value: Any) -> Union[list[int], list[list[int]]]:
    """Sides of cubes, rising; or shapes of volumes, in the order that was given."""
    if isinstance(value, str):
        return list(_read("sides", _ossnet.read_sides, value))
    if is_whole(value):
        value = [value]
    try:
        entries = list(value)
    except TypeError:
        raise TypeError(f"sides {value!r} must be sides, shapes, or a text such as '32..512'") from None
    if not entries:
        raise ValueError("sides is empty; give for example [64, 96, 128], or '32..512' for a range")
    if not all(map(is_whole, entries)):
        return [shape("sides", entry) for entry in entries]
    numbers = [str(whole("sides", entry)) for entry in entries]
    # A tuple of two is a range.
    between = ".." if isinstance(value, tuple) and len(numbers) == 2 else ","
    return list(_read("sides", _ossnet.read_sides, between.join(numbers)))


def step(
    volume: Volume,
    points: Optional[int],
    batch: int,
    channels: int,
    outputs: int,
    step: str,
    precision: str,
    device: str,
    threads: int,
) -> dict[str, Any]:
    """A step as the engine reads it."""
    return {
        "volume": shape("volume", volume),
        "points": None if points is None else whole("points", points),
        "batch": whole("batch", batch),
        "channels": whole("channels", channels),
        "outputs": whole("outputs", outputs),
        "step": text("step", step),
        "precision": text("precision", precision),
        "device": text("device", device),
        "threads": whole("threads", threads),
    }


def numbers(name: str, array: Any) -> Any:
    """An array of booleans, whole numbers or floats, of any byte order and layout."""
    import numpy as np

    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        remedy = "give numbers, of an image for example numpy.asarray(image.dataobj)"
        raise TypeError(f"{name} holds values of type {array.dtype}; {remedy}")
    return array


def volume(name: str, array: Any) -> Any:
    """The array, which has three axes and voxels."""
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; give an array of three axes that has voxels")
    return array


def finite(name: str, array: Any) -> Any:
    """The array, all of whose values are finite."""
    import numpy as np

    if not np.isfinite(array).all():
        place = tuple(int(at) for at in np.argwhere(~np.isfinite(array))[0])
        remedy = "replace what is not finite, for example by numpy.nan_to_num"
        raise ValueError(f"{name} holds {array[place]} at {place}; {remedy}")
    return array


# How far from a whole number a float may lie that is a label, as in files.
_ROUNDING = 1e-3


def labels(name: str, array: Any) -> Any:
    """A label map, of whole numbers of whatever type; ``None`` if it holds others."""
    import numpy as np

    array = numbers(name, array)
    if array.dtype == bool:
        return array.view(np.uint8)
    if array.dtype.kind != "f":
        return array
    rounded = np.rint(finite(name, array))
    return rounded if (np.abs(array - rounded) <= _ROUNDING).all() else None


def affine(value: Any) -> Any:
    """A 4×4 matrix; whether it spans space is the engine's to say."""
    import numpy as np

    try:
        matrix = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"the affine is no matrix of numbers but {type(value).__name__}; give image.affine") from None
    if matrix.shape != (4, 4):
        raise ValueError(f"the affine has shape {matrix.shape}; give a 4×4 matrix from voxels to mm")
    return matrix
