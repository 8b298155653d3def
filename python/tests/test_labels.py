"""Label maps of any type and layout: surfaces and scores are those of small numbers, and of the command's files."""

import nibabel
import numpy as np
import pytest
from test_images import stl

import ossnet

TYPES = ["u2", "i4", ">i4", "<i8", "u8", ">u2", "f4", ">f8"]


@pytest.fixture
def atlas(two_balls):
    """The two balls under the values that FreeSurfer gives to areas."""
    labels, affine = two_balls
    return np.array([0, 2035, 14175], np.int32)[labels], affine


@pytest.mark.parametrize("label", [2035, 14175])
def test_meshes_of_large_labels_are_the_commands(command, atlas, tmp_path, label):
    labels, affine = atlas
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "atlas.nii.gz")
    flags = ["--smallest", 0, "--triangles", 0, "--label", label]
    command("mesh", tmp_path / "atlas.nii.gz", "--out", tmp_path / "area.stl", *flags)
    told = stl(tmp_path / "area.stl")
    for kind in TYPES:
        vertices, faces = ossnet.marching_cubes(labels.astype(kind), affine, label=label)
        assert np.array_equal(vertices[faces], told), kind


@pytest.mark.parametrize("threshold", [None, 100.0])
def test_floats_are_taken_as_the_command_takes_files(command, atlas, tmp_path, threshold):
    labels, affine = atlas
    one = np.where(labels == 2035, 2035.0, 0.0)
    nibabel.save(nibabel.Nifti1Image(one, affine), tmp_path / "one.nii.gz")
    flags = ["--smallest", 0, "--triangles", 0, *([] if threshold is None else ["--threshold", threshold])]
    command("mesh", tmp_path / "one.nii.gz", "--out", tmp_path / "one.stl", *flags)
    vertices, faces = ossnet.marching_cubes(one, affine, threshold=threshold)
    assert np.array_equal(vertices[faces], stl(tmp_path / "one.stl"))


def test_values_beyond_floats_are_told_apart():
    labels = np.zeros((6, 6, 6), np.int64)
    labels[1:3, 1:3, 1:3], labels[3:5, 3:5, 3:5] = 2**60, 2**60 + 1
    vertices, _ = ossnet.marching_cubes(labels, np.eye(4), label=2**60 + 1)
    assert vertices.min() == 2.5 and vertices.max() == 4.5
    assert [*ossnet.evaluate(labels, labels, 1)] == [2**60, 2**60 + 1]
    largest = np.where(labels > 0, np.uint64(2**64 - 1), np.uint64(0))
    assert ossnet.evaluate(largest, largest, 1, classes=2**64 - 1)[2**64 - 1]["dice"] == 1
    with pytest.raises(ValueError, match="label 18446744073709551616 is out of range"):
        ossnet.marching_cubes(largest, np.eye(4), label=2**64)


@pytest.mark.parametrize("kind", TYPES)
def test_scores_of_large_labels_are_those_of_small_ones(two_balls, atlas, kind):
    labels, _ = two_balls
    moved = np.roll(labels, 1, axis=0)
    small = ossnet.evaluate(moved, labels, (2, 1.5, 3))
    large = ossnet.evaluate(np.roll(atlas[0], 1, axis=0).astype(kind), atlas[0], (2, 1.5, 3))
    assert large == {2035: small[1], 14175: small[2]} and 0.5 < large[2035]["dice"] < 1
    assert ossnet.evaluate(np.roll(atlas[0], 1, axis=0), atlas[0].astype(kind), (2, 1.5, 3), classes=14175) == {14175: small[2]}
    assert ossnet.evaluate(-moved.astype(int), -labels.astype(int), (2, 1.5, 3))[-1] == small[1]


def layouts(array):
    """The same values in other places."""
    bytes_of = np.zeros(array.nbytes + 1, np.uint8)[1:]
    unaligned = bytes_of.view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    assert not unaligned.flags.aligned
    apart = np.zeros((*array.shape, 2), array.dtype)
    apart[..., 1] = array
    frozen = array.copy()
    frozen.flags.writeable = False
    backwards = np.ascontiguousarray(array[::-1, :, ::-1])[::-1, :, ::-1]
    return [np.asfortranarray(array), apart[..., 1], backwards, frozen, unaligned, array.astype(array.dtype.newbyteorder())]


def test_the_layout_of_an_array_does_not_matter(atlas):
    labels, affine = atlas
    chances = np.where(labels == 2035, 0.75, 0.125).astype(np.float32)
    told = ossnet.marching_cubes(labels, affine, label=2035), ossnet.marching_cubes(chances, affine)
    scores = ossnet.evaluate(np.roll(labels, 1), labels, 1)
    for other, values in zip(layouts(labels), layouts(chances)):
        for found, wanted in zip([ossnet.marching_cubes(other, affine, label=2035), ossnet.marching_cubes(values, affine)], told):
            assert all(map(np.array_equal, found, wanted))
        assert ossnet.evaluate(np.roll(labels, 1), other, "1") == scores
    assert np.array_equal(ossnet.marching_cubes(labels.tolist(), affine.tolist(), label=2035)[0], told[0][0])


def test_a_scan_of_any_layout_has_one_answer(checkpoint, scan):
    _, image, _ = scan
    values = np.asarray(image.dataobj)
    segmenter = ossnet.Segmenter(checkpoint)
    told = segmenter.segment(values, image.affine).labels
    for other in layouts(values.astype(np.float32)):
        assert np.array_equal(segmenter.segment(other, image.affine).labels, told), other.flags
    assert np.array_equal(segmenter.segment(values[..., None], image.affine.tolist()).labels, told)


@pytest.mark.parametrize(
    "change, asked, problem",
    [
        (lambda a: a, {}, r"holds the labels \[2035, 14175\]; choose one by label"),
        (lambda a: a, {"label": 7}, r"no voxel of class 7; label may be \[2035, 14175\]"),
        (lambda a: a, {"label": 2035, "threshold": 0.5}, "give one of them"),
        (lambda a: a * 0, {}, "nothing but 0"),
        (lambda a: a * 0, {"label": 1}, "nothing but 0"),
        (lambda a: a * 0 + 3, {}, "is 3 everywhere.*label=3"),
        (lambda a: a + 0.25, {}, "neither classes .* nor probabilities"),
        (lambda a: a + 0.25, {"label": 2035}, "no classes .*give threshold"),
        (lambda a: a[:0], {"label": 2035}, "three axes that has voxels"),
        (lambda a: a[0], {"label": 2035}, "three axes"),
        (lambda a: np.where(a > 0, np.nan, 0.0), {}, r"holds nan at \(\d+, \d+, \d+\)"),
        (lambda a: a, {"label": 2035, "smooth": 101}, "smooth 101"),
        (lambda a: a, {"label": 2035, "smallest": -1}, "smallest -1"),
        (lambda a: a, {"label": 2035, "threads": 1 << 20}, "threads 1048576"),
        (lambda a: a, {"threshold": float("nan")}, "threshold NaN"),
        (lambda a: np.arange(a.size).reshape(a.shape), {}, "and 17907 more"),
    ],
)
def test_arrays_that_have_no_surface(atlas, change, asked, problem):
    labels, affine = atlas
    with pytest.raises(ValueError, match=problem) as raised:
        ossnet.marching_cubes(change(labels), affine, **asked)
    assert "--" not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "affine, kind, problem",
    [
        (np.eye(3), ValueError, r"\(3, 3\); give a 4×4"),
        (None, ValueError, "4×4"),
        ("RAS", TypeError, "no matrix"),
        (np.zeros((4, 4)), ValueError, "span space"),
        (np.full((4, 4), np.nan), ValueError, "span space"),
        (np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [5, 5, 5, 1]]), ValueError, "last row"),
    ],
)
def test_affines_that_are_none(atlas, affine, kind, problem):
    with pytest.raises(kind, match=problem):
        ossnet.marching_cubes(atlas[0], affine, label=2035)


@pytest.mark.parametrize("array", [np.zeros((2, 2, 2), complex), np.full((2, 2, 2), None), "a.nii", None])
def test_arrays_of_no_numbers(array):
    with pytest.raises(TypeError, match="holds values of type .*give numbers"):
        ossnet.marching_cubes(array, np.eye(4))
    with pytest.raises(TypeError, match="holds values of type .*give numbers"):
        ossnet.evaluate(np.zeros((2, 2, 2)), array, 1)


@pytest.mark.parametrize(
    "change, asked, kind, problem",
    [
        (lambda a: a[0], {}, ValueError, "label has shape .*three axes"),
        (lambda a: a[1:], {}, ValueError, "resample"),
        (lambda a: a + 0.5, {}, ValueError, "label holds values that are no labels"),
        (lambda a: a, {"spacing": (1, 1)}, ValueError, "spacing"),
        (lambda a: a, {"spacing": None}, TypeError, "spacing None"),
        (lambda a: a, {"spacing": "1x1"}, ValueError, "spacing: '1x1'"),
        (lambda a: a, {"tolerance": -1}, ValueError, "tolerance -1"),
        (lambda a: a, {"classes": [0.5]}, TypeError, "classes 0.5"),
    ],
)
def test_labels_that_cannot_be_scored(atlas, change, asked, kind, problem):
    with pytest.raises(kind, match=problem):
        ossnet.evaluate(atlas[0], change(atlas[0]), **{"spacing": 1, **asked})


def test_a_surface_that_does_not_fit(atlas):
    with pytest.raises(MemoryError, match="the data wants .*; raise memory_budget") as raised:
        ossnet.marching_cubes(atlas[0], atlas[1], label=2035, memory_budget=1000)
    assert "--" not in str(raised.value) and "network" not in str(raised.value)
