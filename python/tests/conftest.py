"""What the tests share: the command of the installed wheel, scans, and checkpoints that it trained."""

import json
import os
import pathlib
import subprocess
import sys

import nibabel
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADS = ROOT / "assets" / "sample" / "heads"


@pytest.fixture(scope="session")
def command():
    """Runs the wheel's command; returns what it prints. `ok=False` returns the finished process."""
    # Beside the interpreter of this environment, whose module is tested.
    program = pathlib.Path(sys.executable).parent / "ossnet"

    def run(*arguments, ok=True):
        done = subprocess.run(
            [program, *map(str, arguments)], capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}
        )
        if not ok:
            return done
        assert done.returncode == 0, done.stderr
        if "--json" not in arguments:
            return done.stdout
        told = json.loads(done.stdout)
        # What the command says of itself beside the result.
        told.pop("schema_version", None), told.pop("made_by", None), told.pop("data", None)
        return told

    return run


@pytest.fixture(scope="session")
def scan():
    """A head MRI and its labels, as nibabel reads them: path, image, label."""
    path = HEADS / "imagesTr" / "pycortexS1_0000.nii.gz"
    return path, nibabel.load(path), nibabel.load(HEADS / "labelsTr" / "pycortexS1.nii.gz")


@pytest.fixture(scope="session", params=["unet3d", "o-net-small"])
def checkpoint(request, command, tmp_path_factory):
    """A network of each kind after a little training."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    # An occupancy network finds nothing in its first epochs.
    epochs = 3 if request.param == "unet3d" else 120
    command("train", "--model", request.param, "--preset", "sample", "--epochs", epochs, "--out", folder, "--quiet")
    return folder / f"{request.param}.safetensors"


@pytest.fixture(scope="session")
def two_balls():
    """Labels 1 and 2, two balls on a grid of 2 × 1.5 × 3 mm that is stored from left to right and from foot to head."""
    i, j, k = np.indices((28, 32, 20))
    labels = np.zeros((28, 32, 20), np.uint8)
    labels[(i - 9) ** 2 + (j - 10) ** 2 + (k - 9) ** 2 < 40] = 1
    labels[(i - 18) ** 2 + (j - 21) ** 2 + (k - 11) ** 2 < 50] = 2
    return labels, np.diag([2.0, 1.5, 3.0, 1.0]) + np.array([[0, 0, 0, -20.0], [0, 0, 0, 5.0], [0, 0, 0, 7.5], [0] * 4])
