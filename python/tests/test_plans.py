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


@pytest.mark.parametrize("model", ["oss-net-c", "unet3d"])
def test_channels_and_outputs_are_the_commands(command, model):
    flags = ["--model", model, *SMALL, "--channels", "1", "--outputs", "3"]
    asked = {**ASKED, "channels": 1, "outputs": 3}
    if model == "unet3d":
        del asked["points"], flags[4:6]
    usual = {name: asked[name] for name in asked if name not in ("channels", "outputs")}
    plan = ossnet.plan(model, **asked)
    assert {key: plan[key] for key in plan if key not in ("live_bytes", "seconds")} == command("memory", *flags, "--json")
    assert plan["peak_bytes"] != ossnet.plan(model, **usual)["peak_bytes"]
    assert ossnet.roofline(model, **asked) == command("roofline", *flags, "--json")
    assert ossnet.fit(model, "1GiB", **asked) == command("memory", "--fit", "1GiB", *flags, "--json")
    told = command("memory", "--sweep", "64,96", "--models", model, *flags[4:], "--json")
    del asked["volume"]
    assert as_lists(ossnet.sweep(model, [96, 64], **asked)) == told


def test_recompute_auto_is_the_commands(command):
    many = {**ASKED, "batch": 1, "points": 5120}
    flags = ["--volume", "64x64x48", "--points", "5120", "--model", "oss-net-c"]
    whole = ossnet.plan("oss-net-c", **many)
    budget = int(whole["reserved_bytes"] * 0.9)
    told = command("memory", *flags, "--recompute", "auto", "--memory-budget", budget, "--json")
    plan = ossnet.plan("oss-net-c", recompute="auto", memory_budget=budget, **many)
    assert {key: plan[key] for key in told} == told
    assert plan["recompute"] != 0 and plan["reserved_bytes"] <= budget
    # What was chosen can be asked for, be it a level or a schedule.
    again = ossnet.plan("oss-net-c", recompute=plan["recompute"], **many)
    assert (again["peak_bytes"], again["recompute"]) == (plan["peak_bytes"], plan["recompute"])
    # Without a budget the fastest fits.
    assert ossnet.plan("oss-net-c", recompute="auto", **many)["recompute"] == 0
    fits = command("memory", "--fit", "256MiB", *flags, "--recompute", "auto", "--json")
    assert ossnet.fit("oss-net-c", "256MiB", recompute="auto", **many) == fits
    schedule = "rrrkkkkkk"
    told = command("memory", *flags, "--recompute", schedule, "--json")
    assert ossnet.plan("oss-net-c", recompute=schedule, **many)["peak_bytes"] == told["peak_bytes"]


def test_a_plan_for_a_gpu_by_name_has_the_rooflines_seconds(command):
    told = command("roofline", "--model", "unet3d", *SMALL, "--device", "a100", "--json")
    assert ossnet.plan("unet3d", (64, 64, 48), batch=2, device="a100")["seconds"] == told["step"]["seconds"]
    assert ossnet.roofline("unet3d", device="a100", **ASKED) == told


def test_a_sweep_is_the_commands(command):
    told = command("memory", "--sweep", "32..96", "--models", "oss-net-c,unet3d", "--points", "512", "--json")
    sweep = ossnet.sweep(["oss-net-c", "unet3d"], (32, 96), points=512)
    assert as_lists(sweep) == told
    curve = sweep["levels"][0]["curves"][0]["points"]
    assert curve["reserved_bytes"].dtype == np.uint64 and (np.diff(curve["side"]) > 0).all()


@pytest.mark.parametrize("sides", [[96, 64, 64], "64,96", range(64, 97, 32), np.array([64, 96]), ["64x64x64", 96]])
def test_sides_are_a_list(command, sides):
    told = command("memory", "--sweep", "64,96", "--models", "unet3d", "--recompute", "1", "--json")
    sweep = ossnet.sweep("unet3d", sides, recompute=1)
    if isinstance(sides, list) and "64x64x64" in sides:
        # Shapes keep their order and have a volume in the place of a side.
        points = sweep["levels"][0]["curves"][0]["points"]
        assert points.pop("volume").tolist() == [[64] * 3, [96] * 3]
        points["side"] = np.array([64, 96])
        [told["levels"][0].pop(key) for key in ("recorded", "crossings")]
        [sweep["levels"][0].pop(key) for key in ("recorded", "crossings")]
        rows = [told["levels"][0]["curves"][0]["points"][n] for n in range(2)]
        assert all(points[key].tolist() == [row[key] for row in rows] for key in rows[0])
        assert sweep["slopes"] == told["slopes"]
    else:
        assert as_lists(sweep) == told


def test_a_range_of_sides_is_a_tuple_or_a_text():
    of = lambda sides: as_lists(ossnet.sweep("unet3d", sides, recompute=0))  # noqa: E731
    assert of((64, 128)) == of("64..128") != of([64, 128])
    assert [row["side"] for row in of(64)["levels"][0]["curves"][0]["points"]] == [64]


def test_a_sweep_over_shapes():
    shapes = [(128, 128, 96), (50, 50, 50), (64, 64, 48)]
    sweep = ossnet.sweep(["unet3d", "oss-net-c"], shapes, points=512, precision="bf16", device="sm_90")
    assert [level["recompute"] for level in sweep["levels"]] == [0, 1, 2, 3]
    points = sweep["levels"][1]["curves"][0]["points"]
    # The U-Net does not admit sides of 50.
    assert points["volume"].tolist() == [[128, 128, 96], [64, 64, 48]]
    for row, volume in enumerate(points["volume"]):
        plan = ossnet.plan("unet3d", volume, recompute=1, precision="bf16", device="sm_90")
        for key in ["peak_bytes", "reserved_bytes", "peak_activation_bytes", "parameters"]:
            assert points[key][row] == plan[key], key
    assert "<polyline" in sweep._repr_html_()


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
        ({"volume": 64, "channels": 0}, "channels 0"),
        ({"volume": 64, "outputs": 257}, "outputs 257"),
        ({"volume": 64, "recompute": "krl"}, "recompute='krl'"),
        ({"volume": 64, "points": 512}, "points says nothing to unet3d"),
        ({"volume": 64, "recompute": None}, "recompute None"),
        ({"volume": 64, "precision": "f16"}, "f32, tf32 and bf16"),
        ({"volume": 64, "memory_budget": 0}, "memory_budget 0"),
        ({"volume": 64, "memory_budget": 1 << 64}, "memory_budget 18446744073709551616 is out of range"),
        ({"volume": 64, "batch": 1 << 64}, "batch 18446744073709551616 is out of range"),
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
    with pytest.raises(ValueError, match=word) as raised:
        ossnet.plan("unet3d", **asked)
    assert "--" not in str(raised.value)


@pytest.mark.parametrize(
    "name, value",
    [("volume", 64.0), ("volume", (64, 64.5, 64)), ("batch", "2"), ("points", 5.5), ("recompute", 1.5), ("device", None)],
)
def test_arguments_of_another_type_are_named(name, value):
    with pytest.raises(TypeError, match=name):
        ossnet.plan("unet3d", **{"volume": 64, **{name: value}})


@pytest.mark.parametrize(
    "models, sides, word",
    [
        ("unet3d", [], "sides is empty"),
        ("unet3d", 8, "sides: '8'"),
        ("unet3d", (128, 64), "128..64"),
        ("unet3d", "64..", "32..1024"),
        ("unet3d", [17], "multiples of 16"),
        ("unet3d", [(50, 50, 50)], "multiples of 16"),
        ("unet3d", [(64, 64)], "three sides"),
        (["unet3d", "unet3d"], [64], "twice"),
        ([], [64], "names no model"),
    ],
)
def test_bad_sweeps(models, sides, word):
    with pytest.raises(ValueError, match=word) as raised:
        ossnet.sweep(models, sides)
    assert "--" not in str(raised.value)
    with pytest.raises(ValueError, match="recompute='auto' needs a budget"):
        ossnet.sweep("unet3d", [64], recompute="auto")
    with pytest.raises(ValueError, match="points says nothing to unet3d"):
        ossnet.fit("unet3d", "1GiB", 64, points=512)
    with pytest.raises(ValueError, match="room: .*8GiB, or gpus"):
        ossnet.fit("unet3d", "much", 64)


def test_a_budget_that_does_not_suffice():
    with pytest.raises(MemoryError, match="wants .* in use .*choose a smaller network"):
        ossnet.plan("oss-net-c", (64, 64, 48), points=512, memory_budget=64 << 20)
    with pytest.raises(MemoryError, match=r"raise memory_budget to \d+MiB") as raised:
        ossnet.plan("oss-net-c", (64, 64, 48), points=512, memory_budget="64MiB")
    assert "--" not in str(raised.value)
    # The remedies are arguments: what the line says can be pasted into the call.
    with pytest.raises(MemoryError, match=r"it fits with .*; as it is it needs memory_budget='\d+MiB'") as raised:
        ossnet.plan("oss-net-c", (64, 64, 48), points=5120, batch=2, memory_budget="170MiB")
    assert "--" not in str(raised.value)
    change = str(raised.value).split("it fits with ")[1].split(" (")[0]
    asked = {"points": 5120, "batch": 2, **eval(f"dict({change})")}
    ossnet.plan("oss-net-c", (64, 64, 48), memory_budget="170MiB", **asked)


def test_sizes_are_written_as_on_the_command_line():
    as_text, as_numbers = (ossnet.plan("unet3d", volume) for volume in ["64×64x48", (64, 64, 48)])
    assert as_text["peak_bytes"] == as_numbers["peak_bytes"]
