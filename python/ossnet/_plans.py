"""What steps cost, asked of the engine's own allocator: nothing is computed."""

from __future__ import annotations

from typing import Any, Optional, Sequence, Union

from . import _arguments, _ossnet
from ._arguments import Bytes, Volume
from ._view import Result

Sides = Union[int, str, "tuple[int, int]", Sequence[int], Sequence[Volume]]


def plan(
    model: str,
    volume: Volume,
    *,
    points: Optional[int] = None,
    batch: int = 1,
    channels: int = 4,
    outputs: int = 1,
    recompute: Union[int, str] = 0,
    step: str = "train",
    precision: str = "f32",
    device: str = "cpu",
    threads: int = 0,
    memory_budget: Optional[Bytes] = None,
) -> Result:
    """What one step of a network costs, without computing it.

    Parameters
    ----------
    model
        ``oss-net-c``, ``o-net``, ``unet3d``, … or an official name such as ``full``.
    volume
        Voxels of the full-resolution volume along its axes, ``(256, 256, 160)`` or ``"256x256x160"``, or one number for a cube.
    points
        Points a volume of a training step (16,384 if not given), or decoded at once in inference. U-Nets have none; in a
        :func:`sweep` of several networks theirs are passed over.
    batch
        Volumes a step.
    channels
        Channels of the images (4: as BraTS).
    outputs
        Outputs of the network: 1 for inside against outside, else one a class, background included.
    recompute
        0 (fastest) to 3 (leanest); a schedule, as the result has it; or ``"auto"``: the fastest that fits ``memory_budget``.
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
        Bytes that the engine may hold, for example ``"8GiB"``; without one, as many as it takes.

    Returns
    -------
    Result
        The dictionary that ``ossnet memory --json`` prints: ``peak_bytes``, ``by_role``, ``by_layer``, ``reserved_bytes``,
        ``recompute``, ``timeline``, … and ``live_bytes`` (uint64, the bytes that live after each allocation and release of the
        step) and ``seconds`` (``None`` unless the device is a GPU that is known by name).

    Raises
    ------
    MemoryError
        The budget does not suffice; the line names the op that does not fit, and what would.
    ValueError
        An unknown name, or sizes that the network does not admit.

    Examples
    --------
    >>> import ossnet
    >>> step = ossnet.plan("unet3d", 64, channels=1, outputs=3)
    >>> step["peak_bytes"] == sum(step["by_role"].values()) == int(step["live_bytes"].max())
    True
    """
    asked = _arguments.step(volume, points, batch, channels, outputs, step, precision, device, threads)
    level = _arguments.level(recompute)
    if level is None:
        raise ValueError("recompute None is no level; use 0, 1, 2, 3 or 'auto'")
    value, live, seconds = _ossnet.plan(_arguments.text("model", model), asked, level, _arguments.size(memory_budget))
    return Result(value, live_bytes=live, seconds=seconds)


def sweep(
    models: Union[str, Sequence[str]] = ("o-net", "oss-net-c", "unet3d"),
    sides: Sides = (32, 512),
    *,
    points: Optional[int] = None,
    batch: int = 1,
    channels: int = 4,
    outputs: int = 1,
    recompute: Union[int, str, None] = None,
    step: str = "train",
    precision: str = "f32",
    device: str = "cpu",
    threads: int = 0,
) -> Result:
    """Memory against resolution. Volumes that a network does not admit are left out of its curve.

    Parameters
    ----------
    models
        One name, or several, as in :func:`plan`.
    sides
        Sides of cubes, from 16 to 4096 voxels: a list, ``[64, 96, 128]``; or a range, eight an octave, as a tuple of two or as
        text, ``(64, 512)`` or ``"64..512"``. Or shapes, ``[(64, 64, 48), (128, 128, 96)]``.
    recompute
        One level or schedule; all levels if not given.
    points, batch, channels, outputs, step, precision, device, threads
        As in :func:`plan`.

    Returns
    -------
    Result
        The dictionary that ``ossnet memory --sweep --json`` prints: ``levels`` (of each: ``curves``, ``recorded`` curves of
        PyTorch where there are some, ``crossings``) and fitted ``slopes``. A curve's ``points`` are uint64 arrays of one length:
        ``side``, ``peak_activation_bytes``, ``peak_bytes``, ``reserved_bytes``, ``parameters``. Of shapes, ``volume`` ``[n, 3]``
        takes the place of ``side``, and nothing is ``recorded`` or crosses.

    Raises
    ------
    ValueError
        An unknown name, or nothing that a network admits.

    Examples
    --------
    >>> import ossnet
    >>> curve = ossnet.sweep("unet3d", [64, 96], recompute=0)["levels"][0]["curves"][0]
    >>> curve["points"]["side"].tolist()
    [64, 96]
    """
    import numpy as np

    names = [models] if isinstance(models, str) else [_arguments.text("models", name) for name in models]
    # Slopes a point are fitted at the command's own volume.
    asked = _arguments.step((256, 256, 160), points, batch, channels, outputs, step, precision, device, threads)
    wanted = _arguments.sides(sides)
    engine: Any = _ossnet.sweep if isinstance(wanted[0], int) else _ossnet.sweep_shapes
    value = engine(names, wanted, asked, _arguments.level(recompute))
    for level in value["levels"]:
        for curve in level["curves"] + level["recorded"]:
            rows = curve["points"]
            keys = rows[0] if rows else ()
            curve["points"] = {key: np.array([row[key] for row in rows], dtype=np.uint64) for key in keys}
    return Result(value)


def fit(
    model: str,
    room: Bytes,
    volume: Volume = (256, 256, 160),
    *,
    points: Optional[int] = None,
    batch: int = 1,
    channels: int = 4,
    outputs: int = 1,
    recompute: Union[int, str, None] = None,
    step: str = "train",
    precision: str = "f32",
    device: Optional[str] = None,
    threads: int = 0,
) -> Result:
    """The largest volume, points and batch that fit, each while the rest stays as given.

    Parameters
    ----------
    room
        Bytes, as a number or as text (``"8GiB"``), or ``"gpus"`` for a list of well-known ones.
    recompute
        One level or schedule; all levels if not given, or ``"auto"``: ``best`` is then the fastest of those that hold the most.
    device
        What is planned for: ``cpu`` unless ``room`` is ``gpus``, then ``cuda``.
    model, volume, points, batch, channels, outputs, step, precision, threads
        As in :func:`plan`.

    Returns
    -------
    Result
        The dictionary that ``ossnet memory --fit --json`` prints: ``fits``, of each room ``budget_bytes`` and ``largest``, a list
        with ``quantity`` (``side``, ``points``, ``batch``), ``by_level`` and ``best``.

    Raises
    ------
    ValueError
        An unknown name, no number of bytes, or sizes that the network does not admit.

    Examples
    --------
    >>> import ossnet
    >>> found = ossnet.fit("unet3d", "1GiB", 64, recompute=0)
    >>> [answer["quantity"] for answer in found["fits"][0]["largest"]]
    ['side', 'batch']
    """
    device = device or ("cuda" if room == "gpus" else "cpu")
    asked = _arguments.step(volume, points, batch, channels, outputs, step, precision, device, threads)
    text = room if isinstance(room, str) else str(_arguments.whole("room", room, 1))
    return Result(_ossnet.fit(_arguments.text("model", model), text, asked, _arguments.level(recompute)))


def roofline(
    model: str,
    volume: Volume = (256, 256, 160),
    device: str = "h100",
    *,
    points: int = 16384,
    batch: int = 1,
    channels: int = 4,
    outputs: int = 1,
    step: str = "train",
    precision: str = "f32",
    launch: float = 2.5e-6,
) -> Result:
    """A lower bound of a step's time on a GPU: a model from its data sheet, no measurement.

    Parameters
    ----------
    device
        A GPU by name; an unknown one's error lists all.
    launch
        Seconds that a kernel launch costs; 0 for a step that is one CUDA graph.
    model, volume, points, batch, channels, outputs, step, precision
        As in :func:`plan`.

    Returns
    -------
    Result
        The dictionary that ``ossnet roofline --json`` prints; times in seconds.

    Raises
    ------
    ValueError
        An unknown name, or sizes that the network does not admit.

    Examples
    --------
    >>> import ossnet
    >>> found = ossnet.roofline("unet3d", 64, "a100")
    >>> found["step"]["seconds"] < found["unfused_step"]["seconds"]
    True
    """
    asked = _arguments.step(volume, points, batch, channels, outputs, step, precision, device, 0)
    return Result(_ossnet.roofline(_arguments.text("model", model), asked, _arguments.number("launch", launch)))
