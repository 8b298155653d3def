"""Memory-efficient segmentation of 3D medical images, every byte accounted for.

What a training step costs, asked of the engine's own allocator without computing anything:

>>> import ossnet
>>> step = ossnet.plan("oss-net-c", (256, 256, 160), points=16384, recompute=3)
>>> step["peak_bytes"], step["by_role"], step["by_layer"]  # doctest: +SKIP

A scan segmented by a checkpoint of ``ossnet train``; reading files is nibabel's business:

>>> scan = nibabel.load("scan.nii.gz")                                          # doctest: +SKIP
>>> found = ossnet.Segmenter("runs/heads").segment(scan.get_fdata(), scan.affine)          # doctest: +SKIP
>>> nibabel.save(nibabel.Nifti1Image(found.labels, scan.affine), "labels.nii.gz")          # doctest: +SKIP

Arrays are indexed as nibabel has them: ``[i, j, k]`` along the axes of the affine, channels last. Lengths are in mm, volumes
in ml, sizes in bytes, times in seconds. Sizes may be text as well, as the command takes it: ``"256x256x160"``, ``"8GiB"``.

Errors are exceptions with the one line that the command prints, in terms of the arguments here: ``ValueError`` for arguments and
files' content, ``TypeError`` for arguments of another type, ``OSError`` for files, ``MemoryError`` for a budget that does not
suffice, ``RuntimeError`` for devices. Other Python threads run while the engine computes, and Ctrl-C is answered between two
pieces of work.

Not a medical device: for research only.
"""

from __future__ import annotations

from . import _ossnet
from ._images import Segmentation, Segmenter, evaluate, marching_cubes
from ._plans import fit, plan, roofline, sweep
from ._view import Result

__all__ = ["Result", "Segmentation", "Segmenter", "evaluate", "fit", "marching_cubes", "plan", "roofline", "sweep"]
__version__: str = _ossnet.__version__
