"""The engine. Private: use the functions of the package, which have names, defaults and checks."""

from typing import Any, Optional, Sequence

import numpy as np
from numpy.typing import NDArray

__version__: str

def command(arguments: Sequence[str]) -> int: ...
def plan(
    model: str, step: dict[str, Any], recompute: int, budget: Optional[int]
) -> tuple[dict[str, Any], NDArray[np.uint64], Optional[float]]: ...
def sweep(
    names: Sequence[str], range: tuple[int, int], step: dict[str, Any], recompute: Optional[int]
) -> dict[str, Any]: ...
def fit(model: str, room: str, step: dict[str, Any], recompute: Optional[int]) -> dict[str, Any]: ...
def roofline(model: str, step: dict[str, Any], launch: float) -> dict[str, Any]: ...
def evaluate(
    prediction: NDArray[np.uint8],
    label: NDArray[np.uint8],
    spacing: Sequence[float],
    tolerance: float,
    classes: Sequence[int],
) -> list[dict[str, Any]]: ...
def marching_cubes(
    field: NDArray[np.uint8] | NDArray[np.float32],
    matrix: NDArray[np.float64],
    label: int,
    shape_of: tuple[float, int, int, int],
    threads: int,
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]: ...

class Segmenter:
    def __init__(self, checkpoint: str, device: str, threads: int, budget: Optional[int]) -> None: ...
    @property
    def model(self) -> str: ...
    @property
    def channels(self) -> list[str]: ...
    @property
    def classes(self) -> list[tuple[int, str]]: ...
    def segment(
        self, array: NDArray[np.float32], matrix: NDArray[np.float64], asked: dict[str, Any]
    ) -> tuple[NDArray[np.uint8], Optional[NDArray[np.float32]], dict[str, Any]]: ...
