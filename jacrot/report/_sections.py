"""Values that the sections of the report show.

Every function returns plain values for one section. The text of the sections, and the format of the
numbers, are in ``report.html.jinja``.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jacrot._io.files import sha256
from jacrot._io.fingerprints import fingerprint
from jacrot._jacobians.base import Jacobians
from jacrot._utils.arrays import Array, Matrix
from jacrot.display import (
    AxisStabilityDisplay,
    ConvergenceDisplay,
    JacobianDisplay,
    NullBaselineDisplay,
)
from jacrot.inspection import AxisStability, NullBaseline
from jacrot.inspection._comparison import (
    GIVEN,
    OURS,
    Comparison,
    rotations_by_place,
)
from jacrot.segments import RotatedSegment

Values = dict[str, Any]
FilePath = str | os.PathLike[str]

# Entries of all Jacobians that a picture is the mean of.
PICTURE_ENTRIES = 2**23
# Layers of a network that are drawn at most.
MAX_LAYERS = 6
# Width of a picture, in inches: its text is legible on a narrow screen.
WIDTH = 7.0
# Resolution of a picture, in dots per inch.
DPI = 130


def describe_fit(estimator: Any, segments: list[RotatedSegment]) -> Values:
    """Return what was rotated, what was minimised, and whether the search converged."""
    parameters = estimator.get_params(deep=False)
    provenance = estimator.provenance_
    rotations = rotations_by_place(segments)
    criterion = parameters["criterion"]
    return {
        "whole_network": len(segments) > 1,
        "network": repr(estimator.network_),
        # Number of axes, and of the dimensions that they were chosen from, by site.
        "shapes": {site: rotation.shape for site, rotation in rotations.items()},
        "projects": any(len(rotation) < rotation.shape[1] for rotation in rotations.values()),
        "rotate_output": parameters["rotate_output"],
        "functional": parameters["coordinates"] == "functional",
        "criterion": criterion if isinstance(criterion, str) else None,
        "n_samples": provenance["data"][0]["shape"][0],
        "n_searches": parameters["n_init"],
        "seed": provenance["seed"],
        "converged": estimator.converged_,
    }


def compare_bases(comparison: Comparison) -> Values:
    """Return the sparsity in every basis, in ours, and in the sparsest of the others."""
    other, held_out = comparison.sparsest_other
    return {
        "all": comparison.bases,
        "given": comparison.bases[GIVEN],
        "ours": comparison.bases[OURS],
        "other": {"name": other, "held_out": held_out},
        "layers": comparison.layers,
    }


def draw_jacobians(segments: list[RotatedSegment]) -> Values:
    """Draw the mean Jacobian of every layer that is rotated, before and after the rotation."""
    pictures, counts = [], []
    for segment in segments[:MAX_LAYERS]:
        given, effective = segment.given.stack, segment.effective.stack
        n_samples = min(
            given.shape[0],
            effective.shape[0],
            max(1, PICTURE_ENTRIES // effective.n_entries_each),
        )
        figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
        JacobianDisplay.from_jacobians(
            _rotate_subsample(given, n_samples, None, None),
            _rotate_subsample(effective, n_samples, segment.P, segment.Q),
            rotated_output=segment.P is not None,
            ax=figure.subplots(1, 2),
        )
        pictures.append(_encode_picture(figure))
        counts.append(n_samples)
    return {"pictures": pictures, "n_layers": len(segments), "n_samples": counts}


def compare_with_nulls(null: NullBaseline | None) -> Values | None:
    """Return the sparsity of every kind of null network beside that of the network."""
    if null is None:
        return None
    (n_runs,) = {len(runs) for runs in null.nulls.values()}
    conclusion, _, figures = null.verdict.partition(": ")
    figure = Figure(figsize=(WIDTH, 1.2 + 0.6 * len(null.nulls)), layout="constrained")
    display = NullBaselineDisplay.from_result(null, ax=figure.add_subplot())
    # The verdict stands above the picture already.
    display.ax_.set_title("", loc="left")
    kinds = [
        {
            "name": name,
            "given": null.nulls_given[name].mean(),
            "rotated": runs.mean(),
            "spread": null.spread[name],
            "gain": null.nulls_gain[name].mean(),
        }
        for name, runs in null.nulls.items()
    ]
    return {
        "conclusion": conclusion,
        "figures": figures,
        "n_runs": n_runs,
        "kinds": kinds,
        "given": null.given,
        "rotated": null.score,
        "gain": null.gain,
        "verdict": null.verdict,
        "picture": _encode_picture(figure),
    }


def compare_refits(stability: AxisStability | None) -> Values | None:
    """Return how well the axes of every rotation recur in other fits."""
    if stability is None:
        return None
    n_starts, n_resamples = (
        len(next(iter(cosines.values())))
        for cosines in (stability.cosines_of_starts, stability.cosines_of_samples)
    )
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    AxisStabilityDisplay.from_result(stability, ax=figure.add_subplot())
    rotations = [
        {"name": name, "mean": mean, "chance": stability.chance[name]}
        for name, mean in stability.mean.items()
    ]
    return {
        "n_starts": n_starts,
        "n_resamples": n_resamples,
        "rotations": rotations,
        "picture": _encode_picture(figure),
    }


def draw_search(estimator: Any) -> Values | None:
    """Draw the cost of the search; return ``None`` if there was nothing to search."""
    history = estimator.history_
    if history["stage"].size == 0:
        return None
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    ConvergenceDisplay.from_estimator(estimator, ax=figure.add_subplot())
    return {
        "n_steps": estimator.n_iter_,
        "seconds": history["seconds"][-1],
        "picture": _encode_picture(figure),
    }


def list_sources(
    estimator: Any, X_test: Array, files: Mapping[str, FilePath | tuple[FilePath, str]]
) -> Values:
    """Return the hashes of all inputs, the settings of the fit and the versions of packages."""
    provenance = estimator.provenance_
    read = []
    for name, file in files.items():
        path, digest = file if isinstance(file, tuple) else (file, sha256(Path(file)))
        read.append({"name": name, "path": os.fspath(path), "sha256": digest})
    settings = {"estimator": provenance["estimator"], "seed": provenance["seed"]}
    # The activations are those of the network.
    parameters = {k: v for k, v in provenance["parameters"].items() if k != "activation"}
    return {
        "files": read,
        "fitted": provenance["data"],
        "held_out": {
            "shape": X_test.shape,
            "dtype": X_test.dtype,
            "sha256": fingerprint(X_test),
        },
        "networks": provenance["networks"],
        "settings": settings | parameters,
        "versions": provenance["versions"],
    }


def _rotate_subsample(stack: Jacobians, n: int, P: Matrix | None, Q: Matrix | None) -> Array:
    """Rotate some Jacobians of a stack, evenly spread over the samples."""
    chosen = stack.subset(np.linspace(0, stack.shape[0] - 1, n).astype(np.intp))
    rotated = np.concatenate(list(chosen.rotated(P, Q)))
    return rotated.reshape(n, stack.n_matrices, *rotated.shape[1:])


def _encode_picture(figure: Figure) -> str:
    """Return a figure as a data URI, which makes it a part of the page."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
