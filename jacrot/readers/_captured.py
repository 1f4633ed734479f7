"""Any PyTorch model: the activations at one place, and exact Jacobians of another place."""

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
from jacrot._utils.optional import require
from jacrot._utils.random import drawn_seed, random_source
from jacrot.segments._captured import Captured

if TYPE_CHECKING:
    from jacrot.readers._capture_places import Place

__all__ = ["Captured", "capture"]

# Weights of more bytes are not hashed, which would take longer than a second.
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
    """Record activations of a PyTorch model and exact Jacobians of later ones at them.

    Every input is run on its own, with the activation at `read` perturbed, and the activation at
    `write` differentiated by ``torch.func``, on the model's device and in its precision. What lies
    between, before and after the two places does not matter. A place is the output of a module,
    by its name in ``model.named_modules()``, or, as ``"name:input"``, what that module reads (and
    nothing else that reads the same tensor); ``""`` is the model itself. Of a tuple, a dictionary
    or a dataclass, it is the first tensor.

    The samples are pairs of an input and a position: a token of a sequence
    ``(n, positions, features)``, a pixel of an image ``(n, channels, height, width)``; an
    activation ``(n, features)`` has no positions.

    Parameters
    ----------
    model : torch.nn.Module
        The model. It runs in evaluation mode. Afterwards its weights, buffers, attributes, hooks,
        modes and gradients are what they were, also after an error.
    inputs : tensor, tuple of tensors or dict
        What the model is called with: one argument, positional ones, or keyword arguments. The
        first axis of every tensor counts the inputs; what is not a tensor is passed on as it is.
    read : str
        The place whose activations are to be rotated.
    write : str
        The place that is differentiated; it runs after `read`.
    positions : {"same", "all"}, default="same"
        Which activations at `write` are differentiated, where `write` has positions: those at the
        position of the sample (the two places then need the same grid of positions), or those
        at every position. Where `read` has no positions, it is every position.
    max_samples : int, default=1024
        Most samples; if there are more, so many are drawn, and kept in their order.
    where : array-like of bool, default=None
        Which samples to draw from, one entry for each input and position at `read`: the
        ``attention_mask`` that leaves out padding. ``None`` for all.
    read_axis, write_axis : int, default=None
        Axis of the features at `read` and at `write`. ``None`` is the last one after ``Linear``,
        ``LayerNorm`` and ``Embedding``, the second one after convolutions, pooling, batch, group
        and instance norm; of other modules, the second one of four and more dimensions,
        the last one of fewer.
    block : int, default=None
        Derivatives computed at once, each a row (or a column) of the Jacobians of one input.
        ``None`` is what scikit-learn's ``working_memory`` has room for.
    random_state : int, RandomState instance or None, default=None
        Draws the samples. ``None`` draws others at each call; the seed that did is in
        ``source["seed"]`` of the result.
    verbose : int, default=0
        Whether a line says how many of how many samples are drawn, and a progress bar how many
        are done and how much time is left.

    Returns
    -------
    Captured
        ``(jacobians, X)``, in single precision where the model runs in half precision, with
        ``samples``, the input and position of each, and ``source``, where they come from.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    MemoryError
        If the Jacobians do not fit the free memory.
    TypeError
        If the model is TorchScript or exported, if `inputs` is something else, or an activation
        does not hold real floating-point numbers.
    ValueError
        If a place is unknown, does not run exactly once, or does not depend on the other; if
        the grids of positions differ; if the activations or Jacobians have NaN or infinity; if
        the model is random, or inputs influence each other; if PyTorch cannot differentiate it.

    Warns
    -----
    UserWarning
        If the Jacobians are computed in a slower way, or if `write` depends on a further tensor
        at `read` too.

    Notes
    -----
    Derivatives go through ``torch.func.vmap`` of ``vjp``, or of ``jvp`` where `read` is narrower.
    Models that these refuse (data-dependent control flow, some in-place operations), and those
    that run under autocast, which these do not apply, run input by input, with ordinary autograd,
    more slowly; a warning says so. As everywhere in autograd, nothing passes ``detach`` and
    ``no_grad``.

    Activations are copied when they are read, so that a model may change them in place later on.
    The activation at `read` is replaced by an equal tensor that is perturbed: what is reached
    through another name of the same memory (the variable that was passed to a module which returns
    it, for one) is not perturbed. A model for which that makes another function is refused.

    With ``positions="same"`` one pass differentiates at all positions that have no influence on
    each other, which random derivatives find out for every input anew: one for each of its
    samples. A token-wise block then costs ``min(d_write, d_read)`` passes for each input,
    attention as many for each sample. Samples of few inputs with many positions are the cheapest.

    The Jacobians of all samples are kept, ``n_samples * d_write * d_read`` numbers.

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
    require("torch", caller="capture", extra="torch")
    from jacrot.readers import _capture_jacobians as jacobians
    from jacrot.readers._capture_checks import Checks
    from jacrot.readers._capture_function import Function
    from jacrot.readers._capture_model import borrowed, check_model
    from jacrot.readers._capture_places import Place

    _check_options(positions, max_samples, block)
    module = check_model(model)
    source = Place(module, "read", read, read_axis)
    target = Place(module, "write", write, write_axis)
    seed = drawn_seed(random_state)
    with borrowed(module) as reset, Function(module, inputs, source, target, reset) as function:
        checks = Checks(function)
        n_bytes = checks.probe()
        local = _at_same_positions(source, target, positions)
        shape = function.n_inputs, source.n_positions
        drawn, n_available = _drawn(where, shape, max_samples, random_source(seed))
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
            "computed": stack.ways[0],
        },
    )


def _check_options(positions: Any, max_samples: Any, block: Any) -> None:
    if positions not in ("same", "all"):
        raise ValueError(f"positions={positions!r} is unknown; pass 'same' or 'all'.")
    for name, count in (("max_samples", max_samples), ("block", 1 if block is None else block)):
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"{name}={count!r} is not a number of them; pass an integer above 0.")


def _at_same_positions(read: Place, write: Place, positions: str) -> bool:
    if positions == "all" or read.n_positions == 1 or write.n_positions == 1:
        return False
    if read.grid != write.grid:
        raise ValueError(
            f"{read.label} has positions {read.grid} and {write.label} has {write.grid}, so that "
            "there is no same position; pass positions='all', or places of one grid."
        )
    return True


def _drawn(
    where: Any, shape: tuple[int, int], max_samples: int, rng: np.random.RandomState
) -> tuple[NDArray[np.intp], int]:
    """Draw samples, numbered through inputs and positions; return also of how many."""
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
            raise ValueError("where is false everywhere; pass True for the samples to draw from.")
    drawn = np.arange(count)
    if count > max_samples:
        drawn = np.sort(sample_without_replacement(count, max_samples, random_state=rng))
    return (drawn if chosen is None else chosen[drawn]), count


@contextmanager
def _progress(
    verbose: int, n_samples: int, n_available: int, shape: tuple[int, int]
) -> Iterator[Callable[[float], None]]:
    """Show how many samples are done; the bar knows how much time is left."""
    n_inputs, n_positions = shape
    with tqdm(desc="capture", total=n_samples, unit=" samples", disable=not verbose) as bar:
        if verbose:
            bar.write(
                f"capture: {n_samples} of {n_available} samples, from {n_inputs} inputs of "
                f"{n_positions} positions"
            )

        def progress(n_done: float) -> None:
            # Blocks that are tried again in another way are not counted twice.
            bar.update(max(0, int(n_done) - bar.n))

        yield progress


def _weights_fingerprint(model: Any) -> str | None:
    """Hash the parameters and buffers of a model, where they are plain and not too large."""
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
