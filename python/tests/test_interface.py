"""Names, types and docstrings say what the functions do, and messages speak of arguments."""

import ast
import doctest
import inspect
import pathlib

import pytest

import ossnet
from ossnet import _ossnet

FUNCTIONS = [ossnet.plan, ossnet.sweep, ossnet.fit, ossnet.roofline, ossnet.evaluate, ossnet.marching_cubes]


def arguments(definition):
    """Names of a stub's function, but `self`."""
    return [argument.arg for argument in definition.args.args if argument.arg != "self"]


def test_the_stub_is_the_module():
    stub = ast.parse(pathlib.Path(ossnet.__file__).with_name("_ossnet.pyi").read_text(encoding="utf-8"))
    functions = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef)}
    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    public = {name for name in vars(_ossnet) if not name.startswith("_")}
    assert public == {*functions, *classes}
    for name, node in functions.items():
        assert arguments(node) == list(inspect.signature(getattr(_ossnet, name)).parameters), name
    for name, node in classes.items():
        found = getattr(_ossnet, name)
        members = {member.name: member for member in node.body if isinstance(member, ast.FunctionDef)}
        assert arguments(members.pop("__init__")) == list(inspect.signature(found).parameters)
        assert set(members) == {name for name in vars(found) if not name.startswith("_")}
        for method, member in members.items():
            if not member.decorator_list:
                told = [name for name in inspect.signature(getattr(found, method)).parameters if name != "self"]
                assert arguments(member) == told, method


@pytest.mark.parametrize("function", [*FUNCTIONS, ossnet.Segmenter, ossnet.Segmenter.segment], ids=lambda f: f.__qualname__)
def test_every_argument_has_a_type_and_is_described(function):
    text = inspect.getdoc(function)
    of = inspect.signature(function.__init__ if inspect.isclass(function) else function).parameters
    heads = [line for line in text.split("Parameters\n")[1].splitlines() if line and not line.startswith(" ")]
    described = {name.strip() for head in heads for name in head.split(":")[0].split(",")}
    for name, parameter in of.items():
        if name != "self":
            assert parameter.annotation is not inspect.Parameter.empty, name
            assert name in described, name
    for part in ["Raises", "Examples", *([] if inspect.isclass(function) else ["Returns"])]:
        assert f"{part}\n---" in text, part


@pytest.mark.parametrize("function", [ossnet, *FUNCTIONS], ids=lambda f: f.__name__)
def test_the_examples_run(function):
    examples = doctest.DocTestFinder(recurse=False).find(function, globs={"ossnet": ossnet})
    assert examples and all(example.examples for example in examples)
    runner = doctest.DocTestRunner()
    said = []
    for example in examples:
        runner.run(example, out=said.append)
    assert runner.failures == 0, "".join(said)


@pytest.mark.parametrize(
    "command, python",
    [
        ("raise --memory-budget to 107MiB", "raise memory_budget to 107MiB"),
        ("it needs --memory-budget 107MiB", "it needs memory_budget='107MiB'"),
        ("fits with --recompute 2 --points 4096 (1 GiB), or", "fits with recompute=2, points=4096 (1 GiB), or"),
        ("--recompute rrk: the network", "recompute='rrk': the network"),
        ("with --window 96x96x64 (2 GiB)", "with window=(96, 96, 64) (2 GiB)"),
        ("--volume: side 50 must", "volume: side 50 must"),
        ("or use --device cpu", "or use device='cpu'"),
        ("(use --device cpu)", "(use device='cpu')"),
        ("or with --precision bf16 (1 GiB)", "or with precision='bf16' (1 GiB)"),
        ("with --points-at-once 8192 (1 GiB)", "with points_at_once=8192 (1 GiB)"),
        ("omit --probabilities, or raise --memory-budget", "omit probabilities, or raise memory_budget"),
        (
            "an answer of 9x9x9 voxels is much; ask for a coarser --resolution or --spacing, or raise --memory-budget",
            "an answer of 9x9x9 voxels is much; resample the scan to a coarser grid, or raise memory_budget",
        ),
        # A file is called as it is called, and a flag without an argument of that meaning stays.
        ("/data/run--device.nii: is; omit --graph", "/data/run--device.nii: is; omit --graph"),
        ("nothing -- to change --", "nothing -- to change --"),
    ],
)
def test_messages_are_in_pythons_terms(command, python):
    assert _ossnet.in_python(command) == python
