"""Runs of a PyTorch module on random inputs: memory of its tensors, and comparison of outputs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jacrot.network import Network

# Attributes of modules with the number of input features.
WIDTHS = ("in_features", "in_channels", "num_features", "embed_dim", "normalized_shape")
# Maximum number of widths to try; the first is nearly always that of the inputs.
MOST_WIDTHS = 4
N_POSITIONS = 5
# Heights and widths of images, in pixels. Convolutions and pools need a minimum size, and a dense
# layer after them needs one particular size.
SQUARES = (32, 28, *range(3, 15), 16, 20, 24, 48, 64, 96, 128, 224)
IMAGE_SIZES = ((17, 16), *((size, size) for size in SQUARES))
# Limit for the numbers in one sample, so that images with many channels do not fill the memory.
MOST_ENTRIES = 2**18
# Tolerances for outputs, relative to the largest: in double precision, with weights that were
# folded in single precision, and in single precision.
TOLERANCES = {"float64": 1e-4, "float32": 1e-3}
# Additional tolerance as a multiple of the rounding error of the model, up to a share of the
# largest output: larger differences between two calls are due to random numbers.
ROUNDINGS, MOST_ROUNDING = 10, 1e-2


def batches(torch: Any, model: Any) -> Iterator[Any]:
    """Draw batches of tokens, rows, sequences and images that a module may accept.

    Parameters
    ----------
    torch : module
        PyTorch.
    model : torch.nn.Module
        The module.

    Yields
    ------
    Tensor
        Two or three samples, in single precision or as ids of tokens.
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
        # Different lengths of all axes, so that axes cannot be confused.
        n_samples = 3 if width == 2 else 2
        n_positions = N_POSITIONS + (width == N_POSITIONS)
        for shape in [(width,), (n_positions, width), *((width, *size) for size in IMAGE_SIZES)]:
            if math.prod(shape) <= MOST_ENTRIES:
                yield torch.randn(n_samples, *shape, generator=generator, device="cpu").to(device)


def locate_tensors(torch: Any, root: Any, graph: Any) -> dict[str, Any]:
    """Return the memory of the tensors that a traced module computes.

    Parameters
    ----------
    torch : module
        PyTorch.
    root : torch.nn.Module
        The module that was traced. It is run: pass a copy of the module of the user.
    graph : torch.fx.Graph
        Calls of the module.

    Returns
    -------
    dict of str to tuple
        For the name of each call, the storage and the view of it (offset, shape and strides) on a
        contiguous input; empty if the module does not accept any batch of :func:`batches`.
    """
    places: dict[str, Any] = {}
    # Keep all tensors, so that addresses are unique.
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
        if _try(Interpreter(module, garbage_collect_values=False).run, x) is not None:
            return places
    return {}


def check(torch: Any, copied: Callable[[], Any], network: Network) -> None:
    """Check that a network computes the same function as the module from which it was converted.

    Parameters
    ----------
    torch : module
        PyTorch.
    copied : callable
        Returns a copy of the module in evaluation mode.
    network : Network
        The network. If no batch of :func:`batches` fits both, nothing is compared.

    Raises
    ------
    ValueError
        If the outputs differ on the first batch that fits.
    """
    model = copied()
    for name, tolerance in TOLERANCES.items():
        dtype = getattr(torch, name)
        # Some devices do not have double precision.
        if _try(model.to, dtype) is None:
            continue
        for batch in batches(torch, model):
            x = batch.to(dtype) if batch.is_floating_point() else batch
            expected = _outputs(torch, model, x)
            if expected is None:
                continue
            try:
                with np.errstate(all="ignore"):
                    found = network(_to_inputs(network, x.cpu().numpy()))
            except ValueError:
                continue
            rounded = _outputs(torch, model.float(), x.float() if x.is_floating_point() else x)
            with np.errstate(all="ignore"):
                differs = _difference(found, expected, rounded, tolerance)
            if differs is None:
                return
            raise ValueError(
                f"the network converted from model has {differs}, on a random input of shape "
                f"{tuple(x.shape)} in evaluation mode: model does something that from_torch does "
                "not see (or draws random numbers); use jacrot.readers.capture, which works with "
                "any module."
            )


def _difference(found: Any, expected: Any, rounded: Any, tolerance: float) -> str | None:
    """Describe how outputs differ from those of a module, ``None`` if only by rounding."""
    if found.shape != expected.shape:
        return f"outputs of shape {found.shape} instead of {expected.shape}"
    size = np.abs(expected).max(initial=0, where=np.isfinite(expected))
    slack = tolerance * size
    if rounded is not None:
        rounding = np.abs(rounded - expected).max(initial=0, where=np.isfinite(expected))
        slack += min(ROUNDINGS * rounding, MOST_ROUNDING * size)
    if np.allclose(found, expected, rtol=0, atol=slack, equal_nan=True):
        return None
    error = np.nan_to_num(np.abs(found - expected), nan=np.inf).max()
    return f"outputs that differ by {error:.2g} from those of model"


def _to_inputs(network: Network, x: Any) -> Any:
    """Convert token ids to one-hot rows, the inputs of the network."""
    return x if x.dtype.kind == "f" else np.eye(network.n_inputs or x.max() + 1)[x]


def _outputs(torch: Any, model: Any, x: Any) -> Any:
    """Compute the outputs of a module, ``None`` if it does not accept the inputs."""
    # The module may change its inputs.
    y = _try(model, x.clone())
    # Blocks of transformers return further objects.
    y = y[0] if isinstance(y, tuple) else getattr(y, "last_hidden_state", y)
    return y.double().cpu().numpy() if isinstance(y, torch.Tensor) else None


def _try(function: Callable[[Any], Any], x: Any) -> Any:
    """Call a function; return ``None`` if it raises, as for inputs of the wrong shape."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(x)
        except Exception:
            return None
