"""Errors of a capture, and the memory that is available for it."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

import numpy as np
import torch

_LONGEST = 200


def first_line(error: BaseException) -> str:
    """Return the first line of an error message, shortened to fit a sentence."""
    lines = str(error).strip().splitlines()
    return lines[0][:_LONGEST] if lines else type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Check whether an error means that memory ran out, for which no other mode is tried."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


def check_memory(shape: tuple[int, ...], dtype: np.dtype[np.floating], everywhere: bool) -> None:
    """Check that Jacobians fit the free memory, before they are allocated.

    Parameters
    ----------
    shape : tuple of int
        Shape of the Jacobians: samples, positions written, features written, features read.
    dtype : numpy.dtype
        Dtype of the Jacobians.
    everywhere : bool
        Whether all positions at `write` are differentiated although ``positions="same"`` is
        possible.

    Raises
    ------
    MemoryError
        If they do not fit.
    """
    free = available_memory()
    each = math.prod(shape[1:]) * dtype.itemsize
    if free is None or shape[0] * each <= free:
        return
    n_samples, n_positions, n_written, n_read = shape
    size = f"{n_samples} samples × {n_positions} positions × {n_written} × {n_read} {dtype} numbers"
    fit = free // each
    advice = [f"max_samples={fit} or fewer"] if fit else []
    advice += ["positions='same'"] if everywhere else []
    advice += ["places with fewer features"] if not advice else []
    raise MemoryError(
        f"the Jacobians take {n_samples * each / 2**30:.3g} GiB ({size}), and "
        f"{free / 2**30:.3g} GiB of memory are free; pass {', or '.join(advice)}."
    )


def available_memory() -> int | None:
    """Return the free memory in bytes, ``None`` if the system does not report it."""
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    # The limit of a container.
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(path).read_text()))
    if not found and hasattr(os, "sysconf"):
        with contextlib.suppress(OSError, ValueError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)
