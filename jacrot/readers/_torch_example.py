"""A module of PyTorch on random inputs: where its tensors are, and whether it was read right."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jacrot.network import Network

# Attributes in which modules say how many features they read.
WIDTHS = ("in_features", "in_channels", "num_features", "embed_dim", "normalized_shape")
# Modules of how many widths are asked; the first is nearly always the one that reads the inputs.
MOST_WIDTHS = 4
N_POSITIONS = 5
# Heights and widths of images, in pixels: from one size on a network has pixels left after all of
# its convolutions and pools, and a dense layer after them needs one size.
SQUARES = (32, 28, *range(3, 15), 16, 20, 24, 48, 64, 96, 128, 224)
IMAGE_SIZES = ((17, 16), *((size, size) for size in SQUARES))
# Numbers in one sample, so that no image of many channels fills the memory.
MOST_ENTRIES = 2**18
# By how much outputs may differ, as a share of the largest: a network in double precision, of
# weights folded in single precision, and one in single precision.
TOLERANCES = {"float64": 1e-4, "float32": 1e-3}
# How many times the model's own rounding error besides, up to a share of the largest output: what
# differs by more between two calls draws random numbers.
ROUNDINGS, MOST_ROUNDING = 10, 1e-2


def batches(torch: Any, model: Any) -> Iterator[Any]:
    """Draw batches of tokens, of rows, of sequences and of images that a module may read.

    Parameters
    ----------
    torch : module
        PyTorch.
    model : torch.nn.Module
        The module.

    Yields
    ------
    Tensor
        Two or three samples, in single precision; of tokens, their ids.
    """
    tensors = [*model.parameters(), *model.buffers()]
    device = tensors[0].device if tensors else "cpu"
    asked = (getattr(module, name, None) for module in model.modules() for name in WIDTHS)
    found = [value[-1] if isinstance(value, tuple) and value else value for value in asked]
    found += [tensor.shape[-1] for tensor in tensors if tensor.ndim == 2]
    widths = [width for width in found if isinstance(width, int)] or [3]
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            n_tokens, length = module.num_embeddings, min(N_POSITIONS, module.num_embeddings)
            ids = torch.randint(n_tokens, (2, length), generator=generator, device="cpu")
            yield ids.to(device)
            break
    for width in list(dict.fromkeys(widths))[:MOST_WIDTHS]:
        # No two axes of one length, which could be taken for each other.
        n_samples = 3 if width == 2 else 2
        n_positions = N_POSITIONS + (width == N_POSITIONS)
        for shape in [(width,), (n_positions, width), *((width, *size) for size in IMAGE_SIZES)]:
            if math.prod(shape) <= MOST_ENTRIES:
                yield torch.randn(n_samples, *shape, generator=generator, device="cpu").to(device)


def memory(torch: Any, root: Any, graph: Any) -> dict[str, Any]:
    """Find where in memory the tensors are that a traced module computes.

    Parameters
    ----------
    torch : module
        PyTorch.
    root : torch.nn.Module
        What was traced. It is run: pass a copy of the user's.
    graph : torch.fx.Graph
        Its calls.

    Returns
    -------
    dict of str to tuple
        Of a call's name, the storage and the view of it (offset, shape and strides) on an input
        with the axes in order; empty if the module reads none that :func:`batches` draws.
    """
    places: dict[str, Any] = {}
    # All of them, so that no address is used again.
    kept = []

    class Interpreter(torch.fx.Interpreter):
        def run_node(self, node: Any) -> Any:
            result = super().run_node(node)
            if isinstance(result, torch.Tensor):
                kept.append(result)
                view = result.storage_offset(), tuple(result.shape), result.stride()
                places[node.name] = result.untyped_storage().data_ptr(), view
            return result

    dtypes = [tensor.dtype for tensor in root.parameters() if tensor.is_floating_point()]
    module = torch.fx.GraphModule(root, graph)
    for batch in batches(torch, root):
        places.clear()
        kept.clear()
        x = batch.to(dtypes[0]) if dtypes and batch.is_floating_point() else batch
        if _tried(Interpreter(module, garbage_collect_values=False).run, x) is not None:
            return places
    return {}


def check(torch: Any, copied: Callable[[], Any], network: Network) -> None:
    """Check that a network computes what the module does from which it was read.

    Parameters
    ----------
    torch : module
        PyTorch.
    copied : callable
        Makes a copy of the module in evaluation mode.
    network : Network
        The network. Where no batch of :func:`batches` fits it and the module, nothing is compared.

    Raises
    ------
    ValueError
        If they differ on the first batch that fits.
    """
    model = copied()
    for name, tolerance in TOLERANCES.items():
        dtype = getattr(torch, name)
        # Not every device has double precision.
        if _tried(model.to, dtype) is None:
            continue
        for batch in batches(torch, model):
            x = batch.to(dtype) if batch.is_floating_point() else batch
            expected = _outputs(torch, model, x)
            if expected is None:
                continue
            try:
                with np.errstate(all="ignore"):
                    found = network(_read(network, x.cpu().numpy()))
            except ValueError:
                continue
            rounded = _outputs(torch, model.float(), x.float() if x.is_floating_point() else x)
            with np.errstate(all="ignore"):
                differs = _difference(found, expected, rounded, tolerance)
            if differs is None:
                return
            raise ValueError(
                f"the network read from model has {differs}, on a random input of shape "
                f"{tuple(x.shape)} in evaluation mode: model does something that from_torch does "
                "not see (or draws random numbers); use jacrot.readers.capture, which takes any "
                "module."
            )


def _difference(found: Any, expected: Any, rounded: Any, tolerance: float) -> str | None:
    """Describe how outputs differ from those of a module, ``None`` if by roundings only."""
    if found.shape != expected.shape:
        return f"outputs of shape {found.shape} in place of {expected.shape}"
    size = np.abs(expected).max(initial=0, where=np.isfinite(expected))
    slack = tolerance * size
    if rounded is not None:
        rounding = np.abs(rounded - expected).max(initial=0, where=np.isfinite(expected))
        slack += min(ROUNDINGS * rounding, MOST_ROUNDING * size)
    if np.allclose(found, expected, rtol=0, atol=slack, equal_nan=True):
        return None
    error = np.nan_to_num(np.abs(found - expected), nan=np.inf).max()
    return f"outputs that differ by {error:.2g} from those of model"


def _read(network: Network, x: Any) -> Any:
    """Make one-hot rows of token ids, which is what a network reads in their place."""
    return x if x.dtype.kind == "f" else np.eye(network.n_inputs or x.max() + 1)[x]


def _outputs(torch: Any, model: Any, x: Any) -> Any:
    """Compute the outputs of a module, ``None`` if it does not read such inputs."""
    # The module may change its inputs.
    y = _tried(model, x.clone())
    # Blocks of transformers return more beside.
    y = y[0] if isinstance(y, tuple) else getattr(y, "last_hidden_state", y)
    return y.double().cpu().numpy() if isinstance(y, torch.Tensor) else None


def _tried(function: Callable[[Any], Any], x: Any) -> Any:
    """Call a function, and return ``None`` if it raises, as a module does of other inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(x)
        except Exception:
            return None
