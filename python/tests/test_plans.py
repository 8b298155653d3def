"""Plans equal what the command prints; bad questions are exceptions with its line."""

import numpy as np
import pytest

import ossnet

SMALL = ["--volume", "64x64x48", "--points", "512", "--batch", "2"]
ASKED = {"volume": (64, 64, 48), "points": 512, "batch": 2}


def as_lists(value):
    """Arrays of a sweep as the command has them: a dictionary a point."""
    if isinstance(value, dict):
        found = {key: as_lists(entry) for key, entry in value.items()}
        points = value.get("points")
        if isinstance(points, dict):
            rows = zip(*points.values())
            found["points"] = [dict(zip(points, (int(cell) for cell in row))) for row in rows]
        return found
    return [as_lists(entry) for entry in value] if isinstance(value, list) else value


@pytest.mark.parametrize("device", ["cpu", "sm_90", "h100"])
def test_a_plan_is_the_commands(command, device):
    told = command("memory", "--model", "oss-net-c", *SMALL, "--recompute", "3", "--plan-for", device, "--json")
    plan = ossnet.plan("oss-net-c", recompute=3, device=device, **ASKED)
    live = plan.pop("live_bytes")
    assert (plan.pop("seconds") is None) == (device != "h100")
    assert plan == told
    assert live.dtype == np.uint64 and int(live.max()) == plan["peak_bytes"]
    assert sum(plan["by_role"].values()) == sum(plan["by_layer"].values()) == plan["peak_bytes"]


def test_a_plan_for_a_gpu_by_name_has_the_rooflines_seconds(command):
    told = command("roofline", "--model", "unet3d", *SMALL, "--device", "a100", "--json")
    assert ossnet.plan("unet3d", device="a100", **ASKED)["seconds"] == told["step"]["seconds"]
    assert ossnet.roofline("unet3d", device="a100", **ASKED) == told


def test_a_sweep_is_the_commands(command):
    told = command("memory", "--sweep", "32..96", "--models", "oss-net-c,unet3d", "--points", "512", "--json")
    sweep = ossnet.sweep(["oss-net-c", "unet3d"], (32, 96), points=512)
    assert as_lists(sweep) == told
    curve = sweep["levels"][0]["curves"][0]["points"]
    assert curve["reserved_bytes"].dtype == np.uint64 and (np.diff(curve["side"]) > 0).all()


@pytest.mark.parametrize("room", ["256MiB", "gpus"])
def test_a_fit_is_the_commands(command, room):
    told = command("memory", "--fit", room, "--model", "o-net", *SMALL, "--json")
    assert ossnet.fit("o-net", room, **ASKED) == told


def test_results_show_themselves():
    plan = ossnet.plan("unet3d", 32)
    sweep = ossnet.sweep("unet3d", (32, 64), recompute=0)
    for result in [plan, sweep, ossnet.fit("unet3d", "1GiB", 32, recompute=0), ossnet.roofline("unet3d", 32)]:
        page = result._repr_html_()
        assert "<table>" in page or "<svg" in page
    assert "saved activations" in plan._repr_html_() or "saved" in plan._repr_html_()
    assert sweep._repr_html_().count("<polyline") == 1 + len(sweep["levels"][0]["recorded"])


def test_the_line_is_the_commands(command):
    done = command("memory", "--model", "unet4d", ok=False)
    with pytest.raises(ValueError) as raised:
        ossnet.plan("unet4d", 64)
    assert str(raised.value) in done.stderr and done.returncode == 2


@pytest.mark.parametrize(
    "asked, word",
    [
        ({"volume": (64, 64)}, "three sides"),
        ({"volume": -1}, "negative"),
        ({"volume": 0}, "65536"),
        ({"volume": 50}, "multiple"),
        ({"volume": 64, "points": 0}, "points"),
        ({"volume": 64, "recompute": 4}, "recompute"),
        ({"volume": 64, "device": "h1000"}, "h1000"),
        ({"volume": 64, "step": "walk"}, "walk"),
        ({"volume": 64, "precision": "bf16"}, "CUDA"),
        ({"volume": "64x64"}, "256x256x160"),
        ({"volume": 64, "memory_budget": "8 parsecs"}, "GiB"),
    ],
)
def test_bad_questions(asked, word):
    with pytest.raises(ValueError, match=word):
        ossnet.plan("unet3d", **asked)


def test_a_budget_that_does_not_suffice():
    with pytest.raises(MemoryError, match="wants .* in use .*choose a smaller network"):
        ossnet.plan("oss-net-c", (64, 64, 48), points=512, memory_budget=64 << 20)
    with pytest.raises(MemoryError):
        ossnet.plan("oss-net-c", (64, 64, 48), points=512, memory_budget="64MiB")


def test_sizes_are_written_as_on_the_command_line():
    as_text, as_numbers = (ossnet.plan("unet3d", volume) for volume in ["64×64x48", (64, 64, 48)])
    assert as_text["peak_bytes"] == as_numbers["peak_bytes"]
