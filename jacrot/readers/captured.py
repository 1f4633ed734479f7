"""Any PyTorch model: the activations at one place, and exact Jacobians of another place."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from numbers import Integral
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.utils.random import sample_without_replacement

from jacrot._arrays import Array
from jacrot._optional import require
from jacrot._random import random_source

Indices = NDArray[np.intp]
# Seeds (m, n_inputs, positions, features) of m derivatives to their results, on the other side.
Derive = Callable[[Any], Any]

# Inputs run together: enough to fill the machine, whatever the model does before `read`.
MAX_INPUTS = 64
# A derivative needs a multiple of what autograd saves, and larger blocks are no faster.
HEADROOM = 8
INPUT = ":input"


class Captured(NamedTuple):
    """Activations and the Jacobians at them: what ``fit`` takes, as ``fit(*captured)``.

    Parameters
    ----------
    jacobians : ndarray of shape (n_samples, d_write, d_read)
        Derivatives of the activations at `write` with respect to those at `read`; of shape
        ``(n_samples, n_write_positions, d_write, d_read)`` where a sample has several.
    X : ndarray of shape (n_samples, d_read)
        The activations at `read`.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.readers import Captured
    >>> rng = np.random.default_rng(0)
    >>> captured = Captured(jacobians=rng.normal(size=(20, 3, 4)), X=rng.normal(size=(20, 4)))
    >>> JacobianSparsityRotation().fit(*captured).rotation_.shape
    (4, 4)
    """

    jacobians: Array
    X: Array


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
) -> Captured:
    """Record activations of a PyTorch model and exact Jacobians of later ones at them.

    Every input is run on its own, with the activation at `read` perturbed, and the activation at
    `write` differentiated by ``torch.func``, on the model's device and in its precision. What lies
    between, before and after the two places does not matter. A place is the output of a module,
    by its name in ``model.named_modules()``, or, as ``"name:input"``, what that module reads (and
    nothing else that reads the same tensor); ``""`` is the model itself. Of a tuple or a
    dictionary, it is the first tensor.

    The samples are pairs of an input and a position: a token of a sequence
    ``(n, positions, features)``, a pixel of an image ``(n, channels, height, width)``; an
    activation ``(n, features)`` has no positions.

    Parameters
    ----------
    model : torch.nn.Module
        The model. It runs in evaluation mode and is left as it was.
    inputs : tensor, tuple of tensors or dict
        What the model is called with: one argument, positional ones, or keyword arguments. The
        first axis of every tensor counts the inputs; what is no tensor is passed on as it is.
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
        Draws the samples.

    Returns
    -------
    Captured
        ``(jacobians, X)``, in single precision where the model runs in half precision.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError
        If `inputs` is something else, or an activation does not hold real floating-point numbers.
    ValueError
        If a place is unknown, does not run exactly once, or does not depend on the other; if
        the grids of positions differ; if the activations or Jacobians have NaN or infinity; if
        inputs influence each other, or two runs of the model differ.

    Notes
    -----
    Derivatives go through ``torch.func.vmap`` of ``vjp``, or of ``jvp`` where `read` is narrower.
    Models that ``vmap`` refuses (data-dependent control flow, some in-place operations) run input
    by input, with ordinary autograd: the same numbers, more slowly. As everywhere in autograd,
    nothing passes ``detach`` and ``no_grad``.

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
    >>> captured.jacobians.shape, captured.X.shape
    ((100, 6, 4), (100, 4))
    >>> rotation = JacobianSparsityRotation(rotate_output=True).fit(*captured)
    """
    torch = require("torch", caller="capture", extra="torch")
    _check_options(torch, model, positions, max_samples, block)
    source = _Place(torch, model, "read", read, read_axis)
    target = _Place(torch, model, "write", write, write_axis)
    with _as_in_use(torch, model), _Function(torch, model, inputs, source, target) as function:
        function.probe()
        local = _at_same_positions(source, target, positions)
        rng = random_source(random_state)
        drawn = _drawn(where, (function.n_inputs, source.n_positions), max_samples, rng)
        numbers, at = np.divmod(drawn, source.n_positions)
        return _captured(function, numbers, at, local, block)


class _Place:
    """The output or the input of a module: a matrix (positions, features) for each input."""

    # Of the activation of one input; `grid` is its shape without features and inputs.
    shape: tuple[int, ...]
    axis: int
    grid: tuple[int, ...]
    n_positions: int
    n_features: int
    dtype: Any
    device: Any
    numpy_dtype: type[np.floating]

    def __init__(self, torch: Any, model: Any, argument: str, name: str, axis: int | None) -> None:
        self.torch = torch
        self.argument = argument
        self.label = f"{argument}={name!r}"
        modules = dict(model.named_modules(remove_duplicate=False))
        self.is_input = name not in modules and name.endswith(INPUT)
        name = name.removesuffix(INPUT) if self.is_input else name
        if name not in modules:
            close = difflib.get_close_matches(name, modules, n=5, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise ValueError(
                f"{self.label} is no module of the model; {hint or 'look at'} "
                f"{'model.named_modules() lists them all' if hint else 'model.named_modules()'}."
            )
        self.module = modules[name]
        self.given_axis = axis

    def attach(self, visit: Callable[[_Place, Any], Any]) -> Any:
        """Call `visit` with every activation; a tensor that it returns takes its place."""
        pytree = self.torch.utils._pytree

        def seen(tree: Any) -> Any:
            leaves, structure = pytree.tree_flatten(tree)
            tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, self.torch.Tensor)]
            if not tensors:
                raise TypeError(
                    f"{self.label} has no tensor but {type(tree).__name__}; write a place whose "
                    "activation is a tensor, or a tuple or dictionary with one."
                )
            changed = visit(self, leaves[tensors[0]])
            if changed is None:
                return None
            leaves[tensors[0]] = changed
            return pytree.tree_unflatten(leaves, structure)

        if self.is_input:
            return self.module.register_forward_pre_hook(
                lambda module, args, kwargs: seen((args, kwargs)), with_kwargs=True
            )
        return self.module.register_forward_hook(lambda module, args, output: seen(output))

    def measure(self, activation: Any) -> None:
        """Learn what the activation of one input looks like."""
        self.shape = tuple(activation.shape)
        if not activation.is_floating_point():
            raise TypeError(
                f"{self.label} has dtype {activation.dtype}, which cannot be differentiated; write "
                "a place of real floating-point activations (after an embedding, its output)."
            )
        if not self.shape or 0 in self.shape:
            raise ValueError(
                f"{self.label} has shape {self.shape} for one input; write a place of vectors."
            )
        axis = self.given_axis
        if axis is None:
            axis = self._usual_axis(len(self.shape))
        if not isinstance(axis, Integral) or not -len(self.shape) <= axis < len(self.shape):
            raise ValueError(
                f"{self.argument}_axis={axis!r} is no axis of {self.label}, whose activation has "
                f"shape {self.shape} for one input; write an integer below {len(self.shape)}."
            )
        self.axis = int(axis) % len(self.shape)
        self.dtype, self.device = activation.dtype, activation.device
        self.numpy_dtype = np.float64 if self.dtype == self.torch.float64 else np.float32
        self.n_features = self.shape[self.axis]
        others = [*self.shape[: self.axis], *self.shape[self.axis + 1 :]]
        self.n_positions = int(np.prod(others, dtype=int))
        # The axis of inputs, of which there is one, is not always the first: (t, n, d).
        if 1 in others:
            others.remove(1)
        self.grid = tuple(others)

    def _usual_axis(self, ndim: int) -> int:
        nn = self.torch.nn
        if isinstance(self.module, (nn.Linear, nn.LayerNorm, nn.Embedding)):
            return -1
        kinds = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
        pooling = nn.modules.pooling.__name__
        second = isinstance(self.module, kinds) or type(self.module).__module__ == pooling
        return 1 if ndim > 3 or (ndim > 1 and second) else -1

    def rows(self, activation: Any) -> Any:
        """Reshape the activation of one input to (positions, features)."""
        if tuple(activation.shape) != self.shape:
            raise ValueError(
                f"{self.label} has shape {tuple(activation.shape)} for one input and {self.shape} "
                "for another; write inputs whose activations have one shape."
            )
        return activation.movedim(self.axis, -1).reshape(self.n_positions, self.n_features)

    def activation(self, rows: Any) -> Any:
        """Undo :meth:`rows`, with any leading axes."""
        others = [*self.shape[: self.axis], *self.shape[self.axis + 1 :]]
        lead = rows.shape[:-2]
        return rows.reshape(*lead, *others, self.n_features).movedim(-1, len(lead) + self.axis)


class _Reached(BaseException):
    """The activation at `write` is known: the rest of the model need not run."""


class _Function:
    """What the model computes from `read` to `write`, for every input on its own."""

    def __init__(self, torch: Any, model: Any, inputs: Any, read: _Place, write: _Place) -> None:
        self.torch = torch
        self.model = model
        self.read = read
        self.write = write
        self.leaves, self.structure = torch.utils._pytree.tree_flatten(_arguments(torch, inputs))
        self.batched = [i for i, leaf in enumerate(self.leaves) if self._is_batch(leaf)]
        if any(isinstance(leaf, np.ndarray) for leaf in self.leaves):
            raise TypeError(
                "inputs holds a NumPy array; write torch.as_tensor(array), in the precision that "
                "the model expects."
            )
        lengths = {len(self.leaves[i]) for i in self.batched}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                f"inputs has tensors with {sorted(lengths) or 'no'} rows; write tensors whose "
                "first axes count the same inputs (repeat what they share), at least one."
            )
        self.n_inputs = lengths.pop()
        device = next((p.device for p in chain(model.parameters(), model.buffers())), None)
        for i in self.batched:
            # A tensor made in inference mode cannot be differentiated; its clone can.
            leaf = self.leaves[i].clone() if self.leaves[i].is_inference() else self.leaves[i]
            self.leaves[i] = leaf.detach().to(device)
        self.offset: Any = None
        self.seen: list[tuple[_Place, Any]] = []

    def _is_batch(self, leaf: Any) -> bool:
        return isinstance(leaf, self.torch.Tensor) and leaf.ndim > 0

    def __enter__(self) -> _Function:
        # `read` first: where both are one place, `write` sees the perturbed activation.
        self.hooks = [place.attach(self._visit) for place in (self.read, self.write)]
        return self

    def __exit__(self, *exception: Any) -> None:
        for hook in self.hooks:
            hook.remove()

    def _visit(self, place: _Place, activation: Any) -> Any:
        if self.offset is None:
            # A copy: an in-place operation may follow.
            self.seen.append((place, activation.clone()))
            return None
        if place is self.write:
            self.seen.append((place, place.rows(activation)))
            raise _Reached
        given = activation.detach()
        self.seen.append((place, place.rows(given)))
        return given + place.activation(self.offset)

    def _call(self, tensors: Any) -> None:
        leaves = list(self.leaves)
        for i, tensor in zip(self.batched, tensors, strict=True):
            leaves[i] = tensor
        args, kwargs = self.torch.utils._pytree.tree_unflatten(leaves, self.structure)
        self.model(*args, **kwargs)

    def taken(self, numbers: Indices) -> tuple[Any, ...]:
        """Take some inputs."""
        return tuple(self.leaves[i][numbers.tolist()] for i in self.batched)

    def run(self, numbers: Indices) -> tuple[Any, Any]:
        """Run the model as it is on a batch; give the activations at `read` and `write`."""
        self.seen = []
        self._call(self.taken(numbers))
        seen, self.seen = self.seen, []
        for place in (self.read, self.write):
            count = sum(other is place for other, _ in seen)
            if count == 0:
                raise ValueError(
                    f"{place.label} does not run when the model is called (a container?); write a "
                    "module that its forward calls."
                )
            if count > 1:
                raise ValueError(
                    f"{place.label} runs {count} times when the model is called; write a module "
                    f"that runs once, or the input of one ('name{INPUT}')."
                )
        if seen[0][0] is self.write:
            raise ValueError(
                f"{self.write.label} runs before {self.read.label} and cannot depend on it; write "
                f"the earlier place as read (a module's input is 'name{INPUT}')."
            )
        return seen[0][1], seen[1][1]

    def perturbed(self, tensors: Any, offset: Any) -> tuple[Any, Any]:
        """Run one input with an offset (positions, features) added at `read`; give rows."""
        self.offset, self.seen = offset, []
        try:
            self._call([tensor.unsqueeze(0) for tensor in tensors])
        except _Reached:
            pass
        finally:
            self.offset, seen, self.seen = None, self.seen, []
        if [place for place, _ in seen] != [self.read, self.write]:
            raise ValueError(
                f"{self.read.label} and {self.write.label} do not run for every input; write "
                "modules that always run."
            )
        return seen[1][1], seen[0][1]

    def zeros(self, n_inputs: int) -> Any:
        """Make offsets that change nothing."""
        read = self.read
        shape = (n_inputs, read.n_positions, read.n_features)
        return self.torch.zeros(shape, dtype=read.dtype, device=read.device)

    def probe(self) -> None:
        """Learn shapes from the first input, and whether inputs mix from the first two."""
        numbers = np.arange(min(2, self.n_inputs))
        alone = list(zip(*(self.run(numbers[i : i + 1]) for i in numbers), strict=True))
        together = self.run(numbers)
        for place, singles, batch in zip((self.read, self.write), alone, together, strict=True):
            place.measure(singles[0])
            self.check(place, self.torch.stack([place.rows(single) for single in singles]), batch)

    def derivative_bytes(self) -> int:
        """Estimate the memory of one derivative: what autograd saves between the places.

        Refuse places between which there is no path.
        """
        torch = self.torch
        parameters = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        saved: list[int] = []

        def pack(tensor: Any) -> Any:
            if self.seen and tensor.untyped_storage().data_ptr() not in parameters:
                saved.append(tensor.numel() * tensor.element_size())
            return tensor

        offset = self.zeros(1).requires_grad_()
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            result, _ = self.perturbed([t[0] for t in self.taken(np.array([0]))], offset[0])
        depends = result.requires_grad and (
            torch.autograd.grad(result, offset, result, allow_unused=True)[0] is not None
        )
        if not depends:
            raise ValueError(
                f"{self.write.label} does not depend on {self.read.label}: no path of "
                "differentiable operations leads there; write an earlier read, or a later write."
            )
        ends = offset.numel() * offset.element_size() + result.numel() * result.element_size()
        return sum(saved) + 2 * ends

    def check(self, place: _Place, rows: Any, batch: Any) -> None:
        """Refuse models that give an input another activation in a batch than alone."""
        torch = self.torch
        alone = place.activation(rows)
        layouts = [alone, *(torch.cat(list(alone), dim=i) for i in range(alone.ndim - 1))]
        if batch.shape == alone.shape[1:]:
            # The same for all inputs, as a positional embedding.
            batch = batch.expand_as(alone)
        same = [layout for layout in layouts if layout.shape == batch.shape]
        finite = batch[batch.isfinite()].abs()
        scale = float(finite.max()) if finite.numel() else 0.0
        eps = torch.finfo(batch.dtype).eps
        if batch.is_cuda and batch.dtype == torch.float32:
            # Where TensorFloat-32 is allowed.
            eps = 2.0**-10
        tolerance = min(0.1, 3 * eps**0.5) * scale
        if not any(torch.allclose(x, batch, 0, tolerance, equal_nan=True) for x in same):
            raise ValueError(
                f"{place.label} differs between runs of the model on an input alone and on a batch "
                f"(shapes {tuple(alone.shape[1:])} and {tuple(batch.shape)}): the model is random, "
                "or its inputs influence each other. Write a model whose inputs are independent "
                "along their first axis (batch_first=True?), or one input at a time."
            )

    def _check_adjoint(self, push: Derive, pull: Derive, zeros: Any, result: Any) -> None:
        """Refuse forward mode where it is not reverse mode's: it passes through no_grad."""
        rng = np.random.RandomState(0)
        u, v = (self.torch.as_tensor(rng.normal(size=x.shape)).to(x) for x in (zeros, result))
        Ju, vJ = push(u), pull(v)[0]
        ahead, back = (v * Ju).sum(dim=(1, 2)), (u * vJ).sum(dim=(1, 2))
        size = v.norm(dim=(1, 2)) * Ju.norm(dim=(1, 2))
        if not ((ahead - back).abs() <= 3 * self.torch.finfo(v.dtype).eps ** 0.5 * size).all():
            raise ValueError("forward and reverse derivatives differ")

    def linearized(self, numbers: Indices, way: str) -> tuple[Any, Any, Derive]:
        """Give rows at `write` and at `read` of some inputs, and what derives in between."""
        func, autograd = self.torch.func, self.torch.autograd
        tensors, zeros = self.taken(numbers), self.zeros(len(numbers))
        # An input alone, so that no other one can have an influence.
        vmapped = func.vmap(self.perturbed)

        def function(offsets: Any) -> tuple[Any, Any]:
            return vmapped(tensors, offsets)

        def push(tangent: Any) -> Any:
            return func.jvp(function, (zeros,), (tangent,), has_aux=True)[1]

        if way in ("forward", "reverse"):
            result, pull, given = func.vjp(function, zeros, has_aux=True)
            if way == "reverse":
                return result, given, func.vmap(lambda cotangent: pull(cotangent)[0])
            self._check_adjoint(push, pull, zeros, result)
            return result, given, func.vmap(push)

        offset = zeros.requires_grad_()
        with self.torch.enable_grad():
            result, given = self.perturbed([tensor[0] for tensor in tensors], offset[0])
            # So that there is a derivative, zero, where this input has no path to it.
            result = result + 0 * offset.sum()

        def gradients(cotangents: Any) -> Any:
            if way == "input by input":
                return autograd.grad(
                    result, offset, cotangents[:, 0], retain_graph=True, is_grads_batched=True
                )[0]
            each = [autograd.grad(result, offset, c[0], retain_graph=True)[0] for c in cotangents]
            return self.torch.stack(each)

        return result.detach()[None], given[None], gradients


def _captured(
    function: _Function, numbers: Indices, at: Indices, local: bool, block: int | None
) -> Captured:
    """Differentiate at positions `at` of the inputs `numbers`, some inputs after the other."""
    read, write = function.read, function.write
    cost = function.derivative_bytes()
    if block is None:
        block = max(1, int(get_config()["working_memory"] * 2**20 // (HEADROOM * cost)))
    n_written = 1 if local else write.n_positions
    shape = (len(at), n_written, write.n_features, read.n_features)
    jacobians = np.zeros(shape, np.result_type(read.numpy_dtype, write.numpy_dtype))
    X = np.empty((len(at), read.n_features), read.numpy_dtype)

    inputs, starts, counts = np.unique(numbers, return_index=True, return_counts=True)
    ends = starts + counts
    forward = read.n_features * (1 if local else counts.max())
    reverse = write.n_features * n_written
    ways = [*(["forward"] if forward < reverse else []), "reverse", "input by input", "one by one"]
    begin = 0
    while begin < len(inputs):
        together = int(np.clip(block // min(forward, reverse), 1, MAX_INPUTS))
        some = slice(begin, begin + (together if ways[0] in ("forward", "reverse") else 1))
        samples = slice(starts[some][0], ends[some][-1])
        which = np.searchsorted(inputs[some], numbers[samples])
        try:
            derivatives = _Derivatives(function, inputs[some], ways[0], block)
            derivatives.fill(jacobians[samples], which, at[samples], local)
        except Exception:
            # What vmap or forward mode refuses, ordinary autograd may do.
            if len(ways) == 1:
                raise
            del ways[0]
            continue
        at_read, at_write = function.run(inputs[some])
        function.check(read, derivatives.given, at_read)
        function.check(write, derivatives.result, at_write)
        X[samples] = _to_numpy(derivatives.given[which, at[samples]])
        written = derivatives.result[which, at[samples]] if local else derivatives.result
        _check_finite(X[samples], f"the activations at {read.label}")
        _check_finite(_to_numpy(written), f"the activations at {write.label}")
        _check_finite(jacobians[samples], f"the derivatives of {write.label}")
        begin = some.stop
    if not jacobians.any():
        hint = "positions='all', or " if local else ""
        raise ValueError(
            f"{write.label} does not depend on {read.label}: the Jacobian is zero at each of "
            f"{len(at)} samples; write {hint}other places."
        )
    return Captured(jacobians[:, 0] if n_written == 1 else jacobians, X)


class _Derivatives:
    """Derivatives at some inputs: seeds on one side of the function, results on the other.

    Parameters
    ----------
    function : _Function
        What is differentiated.
    numbers : ndarray of int
        The inputs.
    way : {"forward", "reverse", "input by input", "one by one"}
        How: by vmap of jvp or of vjp; by ordinary autograd, with or without vmap, of one input.
    block : int
        Derivatives at once.
    """

    def __init__(self, function: _Function, numbers: Indices, way: str, block: int) -> None:
        self.torch = function.torch
        self.forward = way == "forward"
        self.seeded = function.read if self.forward else function.write
        self.n_inputs = len(numbers)
        self.step = max(1, block // self.n_inputs)
        # Rows at `write` and at `read`, (n_inputs, positions, features).
        self.result, self.given, self.derive = function.linearized(numbers, way)

    def fill(self, jacobians: Array, which: Indices, at: Indices, local: bool) -> None:
        """Write the Jacobians of samples: positions `at` of the inputs `which`."""
        n_seeded = self.seeded.n_features
        rank = _rank(which)
        if local or self.forward:
            # Seeds at the samples of one group; within an input, they do not meet.
            group_of = self._independent(which, at, rank) if local else rank
            spots = np.zeros((group_of.max() + 1, *self._shape[:2]), bool)
            spots[group_of, which, at] = True
        else:
            # Seeds at one position of `write`, for all samples.
            spots = np.eye(self._shape[1], dtype=bool)[:, None].repeat(self.n_inputs, axis=1)
        for numbers in self._blocks(len(spots) * n_seeded):
            group, feature = np.divmod(numbers, n_seeded)
            seeds = self._zeros(len(numbers))
            seeds[np.arange(len(numbers)), :, :, feature] = self._tensor(spots[group])
            results = self.derive(seeds)
            if not (local or self.forward):
                rows = _to_numpy(results[:, which, at])
                jacobians[:, group, feature] = rows.swapaxes(0, 1)
                continue
            number, sample = np.nonzero(group[:, None] == group_of)
            feature, of = feature[number], which[sample]
            if not self.forward:
                jacobians[sample, 0, feature] = _to_numpy(results[number, of, at[sample]])
            elif local:
                jacobians[sample, 0, :, feature] = _to_numpy(results[number, of, at[sample]])
            else:
                jacobians[sample, :, :, feature] = _to_numpy(results[number, of])

    def _independent(self, which: Indices, at: Indices, rank: Indices) -> Indices:
        """Group the samples so that, within a group, none of an input influences another.

        A derivative along a random direction at one position is zero at another position exactly
        where no derivative is anything else. The groups are those of Curtis, Powell and Reid,
        "On the estimation of sparse Jacobian matrices", J. Inst. Maths Applics 13 (1974).
        """
        most = rank.max() + 1
        groups = np.zeros(len(at), np.intp)
        if most == 1:
            return groups
        rng = np.random.RandomState(0)
        meets = np.zeros((self.n_inputs, most, most), bool)
        for ranks in self._blocks(most):
            seeds = self._zeros(len(ranks))
            mine = np.isin(rank, ranks)
            random = rng.normal(size=(mine.sum(), self.seeded.n_features))
            seeds[rank[mine] - ranks[0], which[mine], at[mine]] = self._tensor(random)
            hit = _to_numpy((self.derive(seeds) != 0).any(dim=-1))
            meets[which[:, None], ranks, rank[:, None]] = hit[:, which, at].T
        meets |= meets.swapaxes(1, 2)
        starts = np.arange(len(at)) - rank
        for sample, (start, i) in enumerate(zip(starts, rank, strict=True)):
            taken = groups[start:sample][meets[which[sample], i, :i]]
            groups[sample] = np.setdiff1d(np.arange(i + 1), taken)[0]
        return groups

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.n_inputs, self.seeded.n_positions, self.seeded.n_features

    def _blocks(self, count: int) -> Iterator[Indices]:
        for start in range(0, count, self.step):
            yield np.arange(start, min(start + self.step, count))

    def _zeros(self, count: int) -> Any:
        place = self.seeded
        return self.torch.zeros((count, *self._shape), dtype=place.dtype, device=place.device)

    def _tensor(self, array: NDArray[Any]) -> Any:
        place = self.seeded
        return self.torch.as_tensor(array, dtype=place.dtype, device=place.device)


@contextmanager
def _as_in_use(torch: Any, model: Any) -> Iterator[None]:
    """Set evaluation mode, and attention with every derivative; then back to what was."""
    attention = require("torch.nn.attention", caller="capture", extra="torch")
    training = [(module, module.training) for module in model.modules()]
    mha = torch.backends.mha
    fast = mha.get_fastpath_enabled()
    try:
        model.eval()
        # It skips the modules inside, and has no derivative.
        mha.set_fastpath_enabled(False)
        math = attention.sdpa_kernel(attention.SDPBackend.MATH)
        with torch.inference_mode(False), torch.no_grad(), math:
            yield
    finally:
        mha.set_fastpath_enabled(fast)
        for module, was in training:
            module.training = was


def _check_options(torch: Any, model: Any, positions: Any, max_samples: Any, block: Any) -> None:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; write a torch.nn.Module.")
    if positions not in ("same", "all"):
        raise ValueError(f"positions={positions!r} is unknown; write 'same' or 'all'.")
    for name, count in (("max_samples", max_samples), ("block", 1 if block is None else block)):
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"{name}={count!r} is no number of them; write an integer above 0.")


def _arguments(torch: Any, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, torch.Tensor):
        return (inputs,), {}
    if isinstance(inputs, tuple):
        return inputs, {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    raise TypeError(
        f"inputs is a {type(inputs).__name__}; write a tensor, a tuple of tensors (positional "
        "arguments), or a dict (keyword arguments)."
    )


def _at_same_positions(read: _Place, write: _Place, positions: str) -> bool:
    if positions == "all" or read.n_positions == 1 or write.n_positions == 1:
        return False
    if read.grid != write.grid:
        raise ValueError(
            f"{read.label} has positions {read.grid} and {write.label} has {write.grid}, so that "
            "there is no same position; write positions='all', or places of one grid."
        )
    return True


def _drawn(
    where: Any, shape: tuple[int, int], max_samples: int, rng: np.random.RandomState
) -> Indices:
    """Draw samples, numbered through inputs and positions."""
    count = shape[0] * shape[1]
    chosen: Indices | None = None
    if where is not None:
        where = where.cpu() if hasattr(where, "cpu") else where
        flags = np.asarray(where)
        if flags.size != count or flags.shape[:1] != shape[:1]:
            raise ValueError(
                f"where has shape {flags.shape}; write one entry for each of {shape[0]} inputs "
                f"and {shape[1]} positions at read."
            )
        chosen = np.flatnonzero(flags)
        count = len(chosen)
        if count == 0:
            raise ValueError("where is false everywhere; write True for the samples to draw from.")
    drawn = np.arange(count)
    if count > max_samples:
        drawn = np.sort(sample_without_replacement(count, max_samples, random_state=rng))
    return drawn if chosen is None else chosen[drawn]


def _rank(which: Indices) -> Indices:
    """Count, within every run of equal numbers, from zero."""
    return np.arange(len(which)) - np.searchsorted(which, which)


def _to_numpy(tensor: Any) -> NDArray[Any]:
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    return np.asarray(tensor.detach().cpu().numpy())


def _check_finite(array: Array, name: str) -> None:
    count = np.count_nonzero(~np.isfinite(array))
    if count:
        raise ValueError(
            f"{name} contain NaN or infinity ({count} of {array.size} numbers); look at the "
            "weights and inputs, or leave such samples out by where."
        )
