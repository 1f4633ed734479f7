"""Activations at one place of a PyTorch model, and exact Jacobians of another place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.random import sample_without_replacement
from tqdm import tqdm

from jacrot._io.fingerprints import fingerprint
from jacrot._utils.optional import import_optional
from jacrot._utils.random import resolve_random_state, resolve_seed
from jacrot.segments._captured import Captured

if TYPE_CHECKING:
    from jacrot.readers._capture_places import Place

__all__ = ["Captured", "capture"]

# Limit for the bytes of weights that are hashed, which takes about a second.
MAX_HASHED_BYTES = 2**30


def capture(
    model: Any,
    inputs: Any,
    read: str,
    write: str,
    *,
    positions: Literal["same", "all"] = "same",
    max_samples: int = 1024,
    where: ArrayLike | None = None,
    read_axis: int | None = None,
    write_axis: int | None = None,
    block: int | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
) -> Captured:
    """Capture activations of a PyTorch model, and exact Jacobians of later activations at them.

    Each input is run separately. The activation at the hook point `read` is perturbed, and the
    activation at `write` is differentiated by ``torch.func``, on the device and in the precision of
    the model. The model may do anything between, before and after the two places. A place is the
    output of a module, by its name in ``model.named_modules()``, or its input, as ``"name:input"``
    (not including other modules that read the same tensor); ``""`` is the model itself. For a
    tuple, a dictionary or a dataclass, it is the first tensor.

    A sample is one position of one input: a token of a sequence ``(n, positions, features)``, or a
    pixel of an image ``(n, channels, height, width)``. An activation ``(n, features)`` has no
    positions.

    Parameters
    ----------
    model : torch.nn.Module
        The model, which is run in evaluation mode. Its weights, buffers, attributes, hooks, modes
        and gradients are restored at the end, also after an error.
    inputs : tensor, tuple of tensors or dict
        Arguments of the model: one argument, positional arguments, or keyword arguments. The first
        axis of every tensor is that of the inputs. Other objects are passed on unchanged.
    read : str
        Place whose activations are to be rotated.
    write : str
        Place that is differentiated, which runs after `read`.
    positions : {"same", "all"}, default="same"
        Positions at `write` that are differentiated: only the position of the sample, which
        requires the same grid of positions at both places, or all positions. If `read` has no
        positions, all positions are differentiated.
    max_samples : int, default=1024
        Maximum number of samples. If more are available, this number is drawn, and the order kept.
    where : array-like of bool, default=None
        Samples to draw from, one entry for each input and position at `read`, such as an
        ``attention_mask`` that excludes padding. ``None`` for all.
    read_axis, write_axis : int, default=None
        Axis of the features at `read` and at `write`. ``None`` is the last axis after ``Linear``,
        ``LayerNorm`` and ``Embedding``, and the second axis after convolutions, pooling, batch,
        group and instance norm. After other modules it is the second of four or more axes, and
        the last of fewer.
    block : int, default=None
        Number of derivatives computed at once, each a row (or a column) of the Jacobians of one
        input. ``None`` is the number that fits scikit-learn's ``working_memory``.
    random_state : int, RandomState instance or None, default=None
        Determines the samples. With ``None`` they differ from call to call, and
        ``source["seed"]`` of the result is the seed that was used.
    verbose : int, default=0
        Whether to print how many of the available samples are drawn, and to show a progress bar.

    Returns
    -------
    Captured
        ``(jacobians, X)``, in single precision if the model runs in half precision, with
        ``samples``, the input and the position of each sample, and ``source``, a record of model,
        places and samples.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    MemoryError
        If the Jacobians do not fit the free memory.
    TypeError
        If the model is TorchScript or exported, if `inputs` is not of these types, or if an
        activation does not contain real floating-point numbers.
    ValueError
        If a place is unknown or does not run exactly once, or `write` does not depend on `read`;
        if the grids of positions differ; if the activations or Jacobians contain NaN or infinity;
        if the model is random, or inputs influence each other; if PyTorch cannot differentiate it.

    Warns
    -----
    UserWarning
        If the Jacobians are computed in a slower mode, or if `write` also depends on a further
        tensor at `read`.

    Notes
    -----
    Derivatives are computed by ``torch.func.vmap`` of ``vjp``, or of ``jvp`` if `read` is narrower.
    Models for which ``torch.func`` does not work (data-dependent control flow, some in-place
    operations), and models that run under autocast, which it does not apply, are differentiated
    input by input with ordinary autograd. This is slower, and a warning is issued. As always in
    autograd, ``detach`` and ``no_grad`` interrupt derivatives.

    Activations are copied when they are read, so that a model may change them in place later.
    The activation at `read` is replaced by an equal tensor that is perturbed. Other views of the
    original tensor, such as a variable that was passed to a module which returns it, are not
    perturbed. A model for which this changes the function raises an error.

    With ``positions="same"`` one pass differentiates at all positions that do not influence one
    another, which are determined for every input by one random derivative for each of its samples.
    A token-wise block then costs ``min(d_write, d_read)`` passes for each input, and attention the
    same number for each sample. Many positions of few inputs cost the least.

    The Jacobians of all samples are stored, ``n_samples * d_write * d_read`` numbers.

    Examples
    --------
    >>> import torch
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.readers import capture
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3, padding=1)
    ... )
    >>> captured = capture(model, torch.ones(5, 1, 8, 8), read="0", write="2", max_samples=100)
    >>> captured
    Captured(read='0', write='2', jacobians=(100, 6, 4), X=(100, 4), samples=100 of 180)
    >>> rotation = JacobianSparsityRotation(rotate_output=True).fit(*captured)
    """
    import_optional("torch", caller="capture", extra="torch")
    from jacrot.readers import _capture_jacobians as jacobians
    from jacrot.readers._capture_checks import Checks
    from jacrot.readers._capture_function import Function
    from jacrot.readers._capture_model import borrowed, check_model
    from jacrot.readers._capture_places import Place

    _check_options(positions, max_samples, block)
    module = check_model(model)
    source = Place(module, "read", read, read_axis)
    target = Place(module, "write", write, write_axis)
    seed = resolve_seed(random_state)
    with borrowed(module) as reset, Function(module, inputs, source, target, reset) as function:
        checks = Checks(function)
        n_bytes = checks.probe()
        local = _is_local(source, target, positions)
        shape = function.n_inputs, source.n_positions
        drawn, n_available = _draw_samples(where, shape, max_samples, resolve_random_state(seed))
        samples = np.stack(np.divmod(drawn, source.n_positions), axis=1)
        stack = jacobians.Jacobians(
            function, checks, samples[:, 0], samples[:, 1], local,
            jacobians.default_block(n_bytes) if block is None else block,
        )  # fmt: skip
        with _progress(verbose, len(samples), n_available, shape) as progress:
            J, X = stack.compute(progress)
    return Captured(
        J[:, 0] if J.shape[1] == 1 else J,
        X,
        samples=samples,
        source={
            "model": f"{type(module).__module__}.{type(module).__qualname__}",
            "weights": _weights_fingerprint(module),
            "read": read,
            "write": write,
            "positions": "same" if local else "all",
            "n_samples": len(samples),
            "n_available": n_available,
            "samples": fingerprint(samples.astype(np.int64)),
            "seed": int(seed) if isinstance(seed, Integral) else None,
            "computed": stack.modes[0],
        },
    )


def _check_options(positions: Any, max_samples: Any, block: Any) -> None:
    if positions not in ("same", "all"):
        raise ValueError(f"positions={positions!r} is unknown; pass 'same' or 'all'.")
    for name, count in (("max_samples", max_samples), ("block", 1 if block is None else block)):
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"{name}={count!r} is not positive; pass an integer above 0.")


def _is_local(read: Place, write: Place, positions: str) -> bool:
    if positions == "all" or read.n_positions == 1 or write.n_positions == 1:
        return False
    if read.grid != write.grid:
        raise ValueError(
            f"{read.label} has positions {read.grid} and {write.label} has {write.grid}, which do "
            "not correspond; pass positions='all', or places with the same grid."
        )
    return True


def _draw_samples(
    where: Any, shape: tuple[int, int], max_samples: int, rng: np.random.RandomState
) -> tuple[NDArray[np.intp], int]:
    """Draw indices of samples, counted over inputs and positions; return also their number."""
    count = shape[0] * shape[1]
    chosen: NDArray[np.intp] | None = None
    if where is not None:
        where = where.detach().cpu() if hasattr(where, "detach") else where
        flags = np.asarray(where)
        if flags.size != count or flags.shape[:1] != shape[:1]:
            raise ValueError(
                f"where has shape {flags.shape}; pass one entry for each of {shape[0]} inputs "
                f"and {shape[1]} positions at read."
            )
        chosen = np.flatnonzero(flags)
        count = len(chosen)
        if count == 0:
            raise ValueError("where is False everywhere; pass True for the samples to draw from.")
    drawn = np.arange(count)
    if count > max_samples:
        drawn = np.sort(sample_without_replacement(count, max_samples, random_state=rng))
    return (drawn if chosen is None else chosen[drawn]), count


@contextmanager
def _progress(
    verbose: int, n_samples: int, n_available: int, shape: tuple[int, int]
) -> Iterator[Callable[[float], None]]:
    """Show a progress bar over samples."""
    n_inputs, n_positions = shape
    with tqdm(desc="capture", total=n_samples, unit=" samples", disable=not verbose) as bar:
        if verbose:
            bar.write(
                f"capture: {n_samples} of {n_available} samples, from {n_inputs} inputs of "
                f"{n_positions} positions"
            )

        def progress(n_done: float) -> None:
            # Blocks that are computed again in another mode are not counted twice.
            bar.update(max(0, int(n_done) - bar.n))

        yield progress


def _weights_fingerprint(model: Any) -> str | None:
    """Hash the parameters and buffers of a model, unless they are too large or not dense."""
    import torch

    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if sum(tensor.nbytes for tensor in tensors.values()) > MAX_HASHED_BYTES:
        return None
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            return None
        numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(numbers.numpy())
    return digest.hexdigest()
