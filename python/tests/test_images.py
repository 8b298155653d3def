"""Segmentations, scores and meshes equal the command's, whatever the order of the axes."""

import json
import pathlib
import shutil
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK

import ossnet

# Voxels as those that the checkpoints were trained on.
SPACED = np.diag([2.75, 2.75, 2.75, 1])


def test_a_segmentation_is_the_commands(command, checkpoint, scan, tmp_path):
    path, image, _ = scan
    name = path.name.removesuffix("_0000.nii.gz")
    command("infer", "--load-model", checkpoint, "--input", path, "--out", tmp_path / "a", "--quiet")
    command("infer", "--load-model", checkpoint, "--input", path, "--out", tmp_path / "b", "--probabilities", "--quiet")
    segmenter = ossnet.Segmenter(checkpoint)
    found = segmenter.segment(image.get_fdata(), image.affine)
    file = next(file for file in (tmp_path / "a").glob("*.nii.gz"))
    told = np.asarray(nibabel.load(file).dataobj)
    assert np.array_equal(found.labels, told) and told.any()
    assert found.labels.dtype == np.uint8 and found.probabilities is None
    assert found.labels.base is not None and found.facts["peak_bytes"] > 0
    dense = segmenter.segment(image.get_fdata(), image.affine, probabilities=True)
    chances = np.asarray(nibabel.load(next((tmp_path / "b").glob("*_probabilities.nii.gz"))).dataobj)
    assert np.array_equal(dense.probabilities[..., 0], chances.reshape(image.shape)), name
    assert segmenter.classes[1] == "brain" and segmenter.channels == ["T1"] and "brain" in repr(segmenter)


def test_other_programs_know_what_the_file_is(command, checkpoint, scan, tmp_path):
    path, image, _ = scan
    command("infer", "-l", checkpoint, "-i", path, "-o", tmp_path / "seg.nii.gz", "-q")
    read = SimpleITK.ReadImage(str(tmp_path / "seg.nii.gz"))
    assert read.GetMetaData("intent_code") == "1002", "NIFTI_INTENT_LABEL"
    assert read.GetPixelID() == SimpleITK.sitkUInt8
    of_scan = SimpleITK.ReadImage(str(path))
    assert read.GetSize() == of_scan.GetSize()
    for place in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(read, place)(), getattr(of_scan, place)(), atol=1e-5), place
    assert np.array_equal(SimpleITK.GetArrayFromImage(read).T, np.asarray(nibabel.load(tmp_path / "seg.nii.gz").dataobj))
    # One name and one colour a value in 3D Slicer's table and in ITK-SNAP's, for every value that SimpleITK finds.
    slicer = [line.split() for line in (tmp_path / "seg.ctbl").read_text().splitlines() if not line.startswith("#")]
    snap = [line.split() for line in (tmp_path / "seg.label").read_text().splitlines() if not line.startswith("#")]
    assert [line[:2] for line in slicer] == [["0", "background"], ["1", "brain"]]
    assert snap[1][0] == "1" and snap[1][7] == '"brain"' and snap[1][1:4] == slicer[1][2:5]
    statistics = SimpleITK.LabelShapeStatisticsImageFilter()
    statistics.Execute(read)
    assert set(map(str, statistics.GetLabels())) <= {line[0] for line in slicer[1:]}


@pytest.mark.parametrize("readme", ["README.md", "python/README.md"])
def test_the_readmes_lines_run(checkpoint, scan, tmp_path, monkeypatch, capsys, readme):
    text = (pathlib.Path(__file__).parents[2] / readme).read_text(encoding="utf-8")
    lines = text.split("```python\n")[1].split("```")[0]
    shutil.copy(checkpoint, tmp_path / "model.safetensors")
    shutil.copy(scan[0], tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(lines, readme, "exec"), names)
    if readme == "README.md":
        assert len(lines.splitlines()) == 5 and "'saved'" in capsys.readouterr().out
    else:
        assert names["step"]["recompute"] == 3 and names["scores"]["dice"] == 1
    assert len(names["faces"]) > 100 and np.isfinite(names["vertices"]).all()


def test_a_runs_folder_stands_for_its_checkpoint(command, checkpoint, scan, tmp_path):
    path, image, _ = scan
    folder = checkpoint.parent
    command("infer", "-l", folder, "-i", path, "-o", tmp_path / "seg.nii.gz", "-q")
    segmenter = ossnet.Segmenter(folder)
    # The best of the run, if validations chose one.
    best = folder / checkpoint.name.replace(".safetensors", ".best.safetensors")
    assert segmenter.files == [str(best if best.exists() else checkpoint)]
    told = np.asarray(nibabel.load(tmp_path / "seg.nii.gz").dataobj)
    assert np.array_equal(segmenter.segment(image.get_fdata(), image.affine).labels, told) and told.any()
    assert ossnet.Segmenter(str(folder)).files == segmenter.files


def test_several_checkpoints_are_averaged_as_the_command_does(command, checkpoint, scan, tmp_path):
    path, image, _ = scan
    shutil.copy(checkpoint, tmp_path / "again.safetensors")
    files = [*sorted(checkpoint.parent.glob("*.safetensors")), tmp_path / "again.safetensors"]
    command("infer", "-l", *files, "-i", path, "-o", tmp_path / "seg.nii.gz", "-q")
    segmenter = ossnet.Segmenter(files)
    found = segmenter.segment(image.get_fdata(), image.affine)
    assert np.array_equal(found.labels, np.asarray(nibabel.load(tmp_path / "seg.nii.gz").dataobj))
    assert f"mean of {len(files)} checkpoints" in segmenter.model and segmenter.files == [str(file) for file in files]


def test_arguments_that_say_nothing_to_a_network(checkpoint):
    segmenter, array = ossnet.Segmenter(checkpoint), np.zeros((32, 32, 32))
    known = {"points_at_once": 4096} if "o-net" in checkpoint.name else {"window": "32x32x32", "mirror": True}
    other = {"window": 32} if "o-net" in checkpoint.name else {"points_at_once": 4096}
    assert segmenter.segment(array, SPACED, **known).labels.shape == array.shape
    for asked, problem in [
        (other, f"know {next(iter(other))}.*omit it"),
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"window": (32, 32)}, "window .*three sides"),
        ({"points_at_once": -1}, "points_at_once -1"),
    ]:
        with pytest.raises(ValueError, match=problem) as raised:
            segmenter.segment(array, np.eye(4), **asked)
        assert "--" not in str(raised.value)


def test_any_order_of_the_axes_is_the_same_scan(checkpoint, scan):
    _, image, _ = scan
    segmenter = ossnet.Segmenter(checkpoint)
    straight = segmenter.segment(image.get_fdata(), image.affine)
    for codes in ["LPS", "SAL", "ARI"]:
        to = nibabel.orientations.axcodes2ornt(codes)
        turned = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), to))
        found = segmenter.segment(np.asarray(turned.dataobj), turned.affine)
        back = nibabel.Nifti1Image(np.ascontiguousarray(found.labels), turned.affine).as_reoriented(
            nibabel.orientations.ornt_transform(to, nibabel.io_orientation(image.affine))
        )
        assert np.array_equal(np.asarray(back.dataobj), straight.labels), codes


def test_scores_are_the_commands(command, checkpoint, scan, tmp_path):
    path, image, label = scan
    told = command("evaluate", "--load-model", checkpoint, "--out", tmp_path / "scores", "--json", "--quiet")
    case = next(case for case in told["scores"] if "pycortexS1" in case["name"])
    # Scores are of dense answers.
    found = ossnet.Segmenter(checkpoint).segment(image.get_fdata(), image.affine, dense=True)
    spacing = image.header.get_zooms()[:3]
    scores = ossnet.evaluate(found.labels, np.asarray(label.dataobj).astype(int), spacing)
    values = case["classes"][0]["values"]
    assert {name: scores[1][name] for name in values} == values
    assert scores[1]["true_ml"] == case["classes"][0]["true_ml"]


def test_scores_by_hand():
    truth, predicted = np.zeros((6, 5, 4), np.uint8), np.zeros((6, 5, 4), np.uint8)
    truth[1:4, 1:3, 1:3] = 3
    predicted[2:5, 1:3, 1:3] = 3
    scores = ossnet.evaluate(predicted, truth, (2, 2, 2))[3]
    assert scores["dice"] == 2 * 8 / 24 and scores["iou"] == 8 / 16 and scores["true_ml"] == pytest.approx(0.096)
    assert ossnet.evaluate(predicted, truth, "2x2x2")[3] == scores
    # Nothing was found of what is there: no distance is large enough.
    assert np.isinf(ossnet.evaluate(predicted * 0, truth, (2, 2, 2))[3]["hd95"])
    with pytest.raises(ValueError, match="resample"):
        ossnet.evaluate(predicted[1:], truth, (1, 1, 1))
    with pytest.raises(ValueError, match="no labels"):
        ossnet.evaluate(predicted + 0.5, truth, (1, 1, 1))
    with pytest.raises(ValueError, match="spacing"):
        ossnet.evaluate(predicted, truth, (1, 0, 1))


def stl(path):
    """Corners of an STL's triangles, float32 [n, 3, 3]."""
    data = path.read_bytes()
    (count,) = struct.unpack_from("<I", data, 80)
    facets = np.frombuffer(data, np.dtype([("floats", "<f4", 12), ("rest", "<u2")]), count, 84)
    return facets["floats"].reshape(-1, 4, 3)[:, 1:]


@pytest.mark.parametrize("codes", ["RAS", "LIA"])
def test_meshes_are_the_commands(command, two_balls, tmp_path, codes):
    labels, affine = two_balls
    image = nibabel.Nifti1Image(labels, affine)
    to = nibabel.orientations.axcodes2ornt(codes)
    image = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), to))
    nibabel.save(image, tmp_path / "labels.nii.gz")
    flags = ["--smallest", 0, "--triangles", 0, "--smooth", 2]
    command("mesh", tmp_path / "labels.nii.gz", "--label", 2, "--out", tmp_path / "ball.stl", *flags)
    vertices, faces = ossnet.marching_cubes(np.asarray(image.dataobj), image.affine, label=2, smooth=2)
    assert vertices.dtype == np.float32 and faces.dtype == np.uint32
    assert np.array_equal(vertices[faces], stl(tmp_path / "ball.stl"))


def test_meshes_by_hand(two_balls):
    labels, affine = two_balls
    vertices, faces = ossnet.marching_cubes((labels == 1).astype(np.float32), affine)
    again, _ = ossnet.marching_cubes(labels == 1, affine)
    assert np.array_equal(vertices, again)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(int), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all(), "every edge has two triangles"
    a, b, c = (vertices[faces[:, corner]].astype(float) for corner in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert 0.85 < volume / ((labels == 1).sum() * 9.0) < 1.15
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        ossnet.marching_cubes(labels, affine)
    with pytest.raises(ValueError, match="span space"):
        ossnet.marching_cubes(labels == 1, np.zeros((4, 4)))


def test_files_and_arrays_that_do_not_fit(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match="check the path"):
        ossnet.Segmenter(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="bad.safetensors"):
        ossnet.Segmenter(tmp_path / "bad.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: holds no checkpoint"):
        ossnet.Segmenter(tmp_path / "empty")
    (tmp_path / "worse.safetensors").touch()
    with pytest.raises(ValueError, match=r"several networks \(bad, worse\)"):
        ossnet.Segmenter(tmp_path)
    for asked, kind, problem in [
        ({"device": "gpu"}, ValueError, "cpu, cuda or cuda:1"),
        ({"precision": "bf16"}, ValueError, "precision='bf16' needs .*device='cuda'"),
        ({"threads": 1 << 20}, ValueError, "threads"),
        ({"memory_budget": "1MiB"}, MemoryError, "choose a smaller network, or raise memory_budget"),
        ({"memory_budget": 1 << 62}, ValueError, "lower memory_budget"),
    ]:
        with pytest.raises(kind, match=problem) as raised:
            ossnet.Segmenter(checkpoint, **asked)
        assert "--" not in str(raised.value)
    for nothing in [[], 3]:
        with pytest.raises((TypeError, ValueError), match="checkpoint"):
            ossnet.Segmenter(nothing)
    segmenter = ossnet.Segmenter(checkpoint)
    with pytest.raises(ValueError, match="three axes"):
        segmenter.segment(np.zeros((8, 8)), np.eye(4))
    with pytest.raises(ValueError, match="no voxel"):
        segmenter.segment(np.zeros((8, 8, 0)), np.eye(4))
    with pytest.raises(ValueError, match=r"array holds nan at \(0, 0, 0\).*not finite"):
        segmenter.segment(np.full((16, 16, 16), np.nan), np.eye(4))
    with pytest.raises(ValueError, match="4×4"):
        segmenter.segment(np.zeros((16, 16, 16)), np.eye(3))
    with pytest.raises(TypeError, match="give numbers"):
        segmenter.segment(np.zeros((16, 16, 16), complex), np.eye(4))
    with pytest.raises(ValueError, match=r"the array has 2 image channels, .*\(T1\); give all of them along its fourth axis"):
        segmenter.segment(np.zeros((16, 16, 16, 2)), np.eye(4))


def test_a_scan_that_does_not_fit(checkpoint):
    segmenter = ossnet.Segmenter(checkpoint, memory_budget="6MiB" if "o-net" in checkpoint.name else "24MiB")
    with pytest.raises(MemoryError, match=r"(raise memory_budget to \d+MiB|it needs memory_budget='\d+MiB')$") as raised:
        segmenter.segment(np.zeros((128, 128, 96)), SPACED, probabilities=True)
    assert "--" not in str(raised.value)
