#!/usr/bin/env python3
"""What DeepMind's surface-distance gives: the golden numbers of tests/fixtures/surface_distance.json, and the table of
src/evaluate/surfels.rs.

    pip install "numpy<2" "scipy<1.12" surface-distance==0.1   # the package uses names that later versions removed
    python3 scripts/golden_surfaces.py golden > tests/fixtures/surface_distance.json
    python3 scripts/golden_surfaces.py table > src/evaluate/surfels.rs && rustfmt src/evaluate/surfels.rs
"""
import json
import sys

import numpy as np
import surface_distance as sd
from surface_distance import lookup_tables

HEAD = """//! Surface elements ("surfels") of a corner between eight voxels, by which of the eight are inside.
//!
//! Made by `scripts/golden_surfaces.py` from the table of DeepMind's surface-distance (copyright 2018 Google Inc.,
//! Apache License 2.0), a marching-cubes triangulation: for each of the 256 neighbourhoods the normals of its triangles,
//! whose lengths are their areas. Only the magnitudes of the components matter; each is a digit that counts eighths.

/// Three digits a triangle.
pub const SURFELS: [&str; 256] = [
"""


def table():
    print(HEAD, end="")
    for normals in lookup_tables._NEIGHBOUR_CODE_TO_NORMALS:
        eighths = [[abs(c) * 8 for c in normal] for normal in normals if any(normal)]
        assert all(c == int(c) and c < 10 for normal in eighths for c in normal)
        print('"' + "".join(str(int(c)) for normal in eighths for c in normal) + '",')
    print("];")


def ellipsoid(shape, centre, radii):
    grid = np.indices(shape)
    return sum(((grid[k] - centre[k]) / radii[k]) ** 2 for k in range(3)) <= 1


def cases():
    rng = np.random.default_rng(7)
    shape = (14, 12, 10)
    ball = ellipsoid(shape, (6, 6, 5), (4.2, 3.7, 3.1))
    moved = ellipsoid(shape, (7, 5, 5), (3.9, 4.1, 2.6))
    yield "balls", ball, moved, (1.0, 1.0, 1.0)
    yield "anisotropic", ball, moved, (0.7, 1.3, 2.5)
    yield "equal", ball, ball, (0.7, 1.3, 2.5)
    yield "two against one", ball | ellipsoid(shape, (12, 10, 8), (1.5, 1.5, 1.5)), moved, (1.0, 0.5, 2.0)
    noise = [rng.random((9, 8, 7)) < share for share in (0.4, 0.5)]
    yield "noise to the faces", noise[0], noise[1], (1.5, 1.0, 0.8)
    single = np.zeros((5, 5, 5), bool)
    other = single.copy()
    single[2, 2, 2], other[4, 0, 2] = True, True
    yield "single voxels", single, other, (1.0, 2.0, 3.0)
    yield "full", np.ones((4, 3, 5), bool), ellipsoid((4, 3, 5), (2, 1, 2), (1.5, 1.5, 2.5)), (1.0, 1.0, 1.0)
    empty = np.zeros((5, 5, 5), bool)
    yield "nothing predicted", single, empty, (1.0, 2.0, 3.0)


def golden():
    out = []
    for name, truth, predicted, spacing in cases():
        found = sd.compute_surface_distances(truth, predicted, spacing)
        entry = {
            "name": name,
            "shape": truth.shape,
            "spacing": spacing,
            "truth": "".join("01"[v] for v in truth.ravel().astype(int)),
            "predicted": "".join("01"[v] for v in predicted.ravel().astype(int)),
            "area_truth": found["surfel_areas_gt"].sum(),
            "area_predicted": found["surfel_areas_pred"].sum(),
        }
        if predicted.any():
            entry["average"] = sd.compute_average_surface_distance(found)
            entry["hausdorff"] = {p: sd.compute_robust_hausdorff(found, p) for p in (50, 95, 100)}
            entry["dice"] = {t: sd.compute_surface_dice_at_tolerance(found, t) for t in (0.0, 0.5, 1.0, 2.0)}
        out.append(entry)
    json.dump(out, sys.stdout, indent=1, default=float)


{"golden": golden, "table": table}[sys.argv[1]]()
