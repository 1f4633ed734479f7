"""Checks that a model is a deterministic function of each of its inputs separately.

Runs of the same operations on the same shapes give the same bits, in any precision and however
large some activations are. Therefore two runs of one input are compared, and runs of an input with
different other inputs in the batch, separately in every feature: a difference is random, or due to
the other inputs. Derivatives are compared as well, because they show what rounding hides in the sum
of a large and a small number. The gradient of the output of one input with respect to the
activation of another one must be exactly zero.

A tolerance is needed only if sums may be added in a different order: on accelerators, if inputs
determine shapes (a mixture of experts), and between an input alone and in a batch. It is

    |x − y| ≤ min(1/4, 3 √ε) scale + 4 ε size

for every feature. ``scale`` is the spread of the feature over inputs and positions, at least the
median spread of all features, so that a constant feature has a scale, which an outlier among the
features does not change. ``size`` is the largest magnitude of the feature, and ε the rounding unit
of the lowest precision in use. A rounding error is about ε times the largest term of a sum, and the
sum may be much smaller than its terms. Between an input alone and in a batch, where every sum may
round differently, ``size`` is therefore the largest magnitude at the place, and root mean squares
over inputs and positions are compared. This last comparison is less sensitive; it detects models
that depend on the number or the order of their inputs, and modes of differentiation that change the
function or its derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from jacrot._utils.warnings import warn
from jacrot.readers._capture_errors import first_line, is_out_of_memory
from jacrot.readers._capture_function import Function, Gradient, Indices
from jacrot.readers._capture_places import Place

# Rounding units by which two runs may differ on a CPU: threads may add numbers of single precision
# in a different order, rarely in forward passes, and often in the backward pass of indexing.
_SINGLE_EPS = 2.0**-23
_SAME_VALUES = 4.0
_SAME_SLOPES = 128.0
_TENSOR_FLOAT_EPS = 2.0**-10


class Work(TorchFunctionMode):
    """Record of the operations of a run: shapes, precision, and whether autocast is on."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = 0.0
        self.autocast = False
        self.shapes: list[tuple[int, ...]] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and record its results."""
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.shapes.append(tuple(tensor.shape))
                if tensor.dtype.is_floating_point:
                    self.record_precision(tensor)
                    device = tensor.device.type
                    if torch.amp.is_autocast_available(device):
                        self.autocast |= torch.is_autocast_enabled(device)
        return result

    def record_precision(self, tensor: Any) -> None:
        """Update the lowest precision by that of a tensor."""
        self.eps = max(self.eps, torch.finfo(tensor.dtype).eps)
        if tensor.is_cuda and tensor.dtype == torch.float32:
            # TF32 even if it is disabled, since each library and operation has its own switch.
            self.eps = max(self.eps, _TENSOR_FLOAT_EPS)


class _Gap:
    """Difference between rows (positions, features) and their expected values, by feature.

    Parameters
    ----------
    actual, expected : sequence of tensor
        Rows of one or more inputs.
    reference : sequence of tensor, default=None
        Rows from which the spread of a feature is computed; ``None`` for those expected.
    centred : bool, default=True
        Whether the spread is that around the mean, or around zero as for derivatives.
    """

    def __init__(
        self,
        actual: Sequence[Any],
        expected: Sequence[Any],
        reference: Sequence[Any] | None = None,
        centred: bool = True,
    ) -> None:
        largest, size, squares = [], [], []
        for x, y in zip(actual, expected, strict=True):
            x, y = _wide(x), _wide(y)
            alike = (x == y) | (x.isnan() & y.isnan())
            gap = torch.where(alike, 0.0, (x - y).abs()).nan_to_num(nan=torch.inf)
            largest.append(gap.amax(0))
            squares.append((gap**2).mean(0))
            size.append(_finite(y).abs().amax(0))
        self.largest, self.size = (torch.stack(each).amax(0) for each in (largest, size))
        self.typical = torch.stack(squares).mean(0).sqrt()
        rows = [_finite(_wide(each)) for each in (expected if reference is None else reference)]
        # Subtract a nearby origin, because the variance of numbers far from zero cancels.
        origin = rows[0][:1] if centred else 0.0
        count = sum(len(each) for each in rows)
        variance = sum(((each - origin) ** 2).sum(0) for each in rows) / count
        mean = sum((each - origin).sum(0) for each in rows) / count if centred else 0.0
        spread = (variance - mean**2).clamp(min=0).sqrt()
        if centred and count == 1:
            spread = self.size
        self.scale = torch.maximum(spread, spread.median())

    def exceeds(self, tolerance: Any) -> bool:
        """Check whether any entry of a feature exceeds its tolerance."""
        return not bool((self.largest <= tolerance).all())

    def typically_exceeds(self, tolerance: Any) -> bool:
        """Check whether the root mean square of a feature exceeds its tolerance."""
        return not bool((self.typical <= tolerance).all())

    def __str__(self) -> str:
        k = int(self.largest.argmax())
        return f"by up to {float(self.largest[k]):.2g} in feature {k}"


def _wide(rows: Any) -> Any:
    return rows.detach() if rows.dtype == torch.float64 else rows.detach().float()


def _finite(rows: Any) -> Any:
    return torch.where(rows.isfinite(), rows, 0.0)


class Checks:
    """Checks of one function, which also determine the precision of the model.

    Parameters
    ----------
    function : Function
        The function.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self.read, self.write = function.read, function.write
        self.work = Work()

    def probe(self) -> int:
        """Run one or two inputs in several ways, which must agree, and measure the places.

        Returns
        -------
        int
            Memory of one derivative of one input, in bytes.

        Raises
        ------
        ValueError
            If the model is random, if its inputs influence each other, if `write` does not depend
            on `read` by differentiable operations, or if an in-place change bypasses `read`.
        """
        function, read, write = self.function, self.read, self.write
        inputs = self.inputs = self._two_inputs()
        self.first = inputs[:1]
        with self.work:
            given, written = self._run_alone(self.first)
        for place, activation in ((read, given), (write, written)):
            place.measure(activation)
            self.work.record_precision(activation)
        given_again, written_again = function.run(self.first)
        self._check_same(read, given_again, given, _random(read))
        self._check_same(write, written_again, written, _random(write))
        gradient, _ = self._differentiated(self.first)
        self._check_path(gradient)
        self._check_same(read, gradient.read, given, _random(read))
        self._check_same(write, gradient.written, written, self._aliased())
        self.seeds = _seeds(write)
        self.slopes = [[gradient.gradient(seed) for seed in self.seeds]]
        again, _ = self._differentiated(self.first)
        self._check_slopes(again.gradient(self.seeds[0]), self.slopes[0][0], True, _random(write))
        if len(inputs) > 1:
            second = self._run_alone(inputs[1:])
            alone, _ = self._differentiated(inputs[1:])
            self.slopes.append([alone.gradient(seed) for seed in self.seeds])
            together = self._check_neighbours(inputs)
            self.check_batch(read, [read.rows(given), read.rows(second[0])], together.read)
            self.check_batch(write, [write.rows(written), write.rows(second[1])], together.written)
        return gradient.n_bytes

    def _two_inputs(self) -> Indices:
        """Return the first input, and the first one that differs from it if there is one."""
        function = self.function
        if function.n_inputs == 1:
            return np.array([0])
        first = function.select(np.array([0]))
        for other in range(1, function.n_inputs):
            second = function.select(np.array([other]))
            if not all(torch.equal(x, y) for x, y in zip(first, second, strict=True)):
                return np.array([0, other])
        return np.array([0, 1])

    def _run_alone(self, one: Indices) -> tuple[Any, Any]:
        try:
            return self.function.run(one)
        except Exception as error:
            if self.function.n_inputs == 1:
                raise
            try:
                self.function.run(np.arange(self.function.n_inputs))
            except Exception:
                # The batch fails as well: show the original error.
                raise error from None
            hint = self._batch_norm_advice() or "pass a model that accepts any number of inputs"
            raise ValueError(
                "the model runs on a batch but not on one of its inputs alone, as capture calls "
                f"it ({type(error).__name__}: {first_line(error)}); {hint}."
            ) from error

    def _differentiated(self, inputs: Indices) -> tuple[Gradient, list[tuple[int, ...]]]:
        """Differentiate a batch; also return the shapes of all results of operations."""
        try:
            with Work() as work:
                gradient = self.function.differentiate(inputs)
            return gradient, work.shapes
        except (RuntimeError, NotImplementedError) as error:
            if is_out_of_memory(error):
                raise
            # The model itself ran without an error.
            raise ValueError(
                f"PyTorch cannot differentiate the model between {self.read.label} and "
                f"{self.write.label} ({first_line(error)}); pass places that do not have "
                "this operation between them."
            ) from error

    def _check_path(self, gradient: Gradient) -> None:
        read, write = self.read, self.write
        module = type(read.module).__name__
        if not gradient.depends:
            hint = ""
            if gradient.others:
                hint = (
                    f" It depends on tensor {gradient.others[0]} of the {gradient.n_tensors} "
                    f"that {module} returns, while {read.label} is the first: pass as read "
                    "the input of the module that uses it, 'name:input'."
                )
            raise ValueError(
                f"{write.label} does not depend on {read.label} by differentiable operations "
                "(detach, no_grad, inference_mode, integers and NumPy interrupt them); pass an "
                f"earlier read, or a later write.{hint}"
            )
        if gradient.others:
            warn(
                f"{write.label} depends on {read.label}, the first tensor that {module} returns, "
                f"and also on tensor {gradient.others[0]} of {gradient.n_tensors}, which is "
                "held constant; the Jacobians are those with respect to the first only."
            )

    def _check_neighbours(self, inputs: Indices) -> Gradient:
        """Compare an input in a batch with another input and in a batch with itself."""
        read, write = self.read, self.write
        together, shapes = self._differentiated(inputs)
        shared = together.read.shape == read.shape
        for i in (0, 1):
            cotangent = torch.zeros_like(together.written)
            write.split(cotangent, 2)[i].copy_(self.seeds[0])
            slopes = read.split(together.gradient(cotangent), 2)
            influence = slopes[1 - i]
            if not shared and bool(((influence != 0) & influence.isfinite()).any()):
                raise ValueError(self._influenced(write))
            beside_itself, its_shapes = self._differentiated(inputs[[i, i]])
            same = shapes == its_shapes
            for place, x, y in (
                (read, beside_itself.read, together.read),
                (write, beside_itself.written, together.written),
            ):
                both = [place.rows(each) for each in place.split(y, 2)]
                gap = _Gap([place.rows(place.split(x, 2)[i])], [both[i]], both)
                self._check_gap(gap, self._influenced(place), _SAME_VALUES if same else None)
            its_slopes = read.split(beside_itself.gradient(cotangent), 2)[i]
            self._check_slopes(its_slopes, slopes[i], same, self._influenced(write))
        return together

    def _check_same(self, place: Place, x: Any, y: Any, message: str) -> None:
        """Compare the results of two runs of the same operations on the same shapes."""
        self._check_gap(_Gap([place.rows(x)], [place.rows(y)]), message, _SAME_VALUES)

    def _check_slopes(self, x: Any, y: Any, same: bool, message: str) -> None:
        gap = _Gap([self.read.rows(x)], [self.read.rows(y)], centred=False)
        self._check_gap(gap, message, _SAME_SLOPES if same else None)

    def _check_gap(self, gap: _Gap, message: str, roundings: float | None) -> None:
        """Raise an error for a gap above a number of roundings, or above the tolerance."""
        if roundings is None or self.read.device.type != "cpu":
            tolerance = self._tolerance(gap, gap.size)
        else:
            tolerance = roundings * min(self.work.eps, _SINGLE_EPS) * gap.size
        if gap.exceeds(tolerance):
            raise ValueError(message.replace("{gap}", str(gap)))

    def _tolerance(self, gap: _Gap, size: Any) -> Any:
        return min(0.25, 3 * self.work.eps**0.5) * gap.scale + 4 * self.work.eps * size

    def check_batch(self, place: Place, rows: Sequence[Any], batch: Any) -> None:
        """Compare inputs that were run alone with the batch of them.

        Parameters
        ----------
        place : Place
            The place.
        rows : sequence of tensor
            Activations (positions, features) of every input, run alone.
        batch : tensor
            Activation of the batch, run by the unmodified model.

        Raises
        ------
        ValueError
            If they differ.
        """
        expected = [place.rows(each) for each in place.split(batch, len(rows))]
        gap = _Gap(rows, expected)
        if gap.typically_exceeds(self._tolerance(gap, gap.size.max())):
            raise ValueError(
                f"{place.label} differs between an input alone and the same input in a batch, "
                f"{gap}: the model depends on the number or the order of its inputs, or its inputs "
                f"influence each other. {self._advice()}"
            )

    def agrees(self, derive: Callable[[Any], Any], n_inputs: int) -> bool:
        """Compare derivatives in reverse mode with those of ordinary autograd.

        Parameters
        ----------
        derive : callable
            Maps several cotangents (m, n_inputs, positions, features) to gradients.
        n_inputs : int
            Number of the inputs of `derive`, the first of those that were probed.

        Returns
        -------
        bool
            Whether they agree within the tolerance.
        """
        read, write = self.read, self.write
        seeds = torch.stack([write.rows(seed) for seed in self.seeds])
        found = derive(seeds[:, None].repeat(1, n_inputs, 1, 1))
        expected = [[read.rows(s) for s in slopes] for slopes in self.slopes[:n_inputs]]
        gap = _Gap(
            [rows for i in range(n_inputs) for rows in found[:, i]],
            [rows for slopes in expected for rows in slopes],
            centred=False,
        )
        return not gap.typically_exceeds(self._tolerance(gap, gap.size.max()))

    def _influenced(self, place: Place) -> str:
        return (
            f"{place.label} of an input depends on the other inputs of a batch: its inputs "
            f"influence each other. {self._advice()}"
        )

    def _advice(self) -> str:
        hint = self._batch_norm_advice()
        return (
            f"{hint[0].upper()}{hint[1:]}."
            if hint
            else "Pass a model whose inputs are independent along their first axis "
            "(batch_first=True?), or one input at a time."
        )

    def _batch_norm_advice(self) -> str:
        kind = torch.nn.modules.batchnorm._BatchNorm
        for name, module in self.function.model.named_modules():
            if isinstance(module, kind) and module.running_mean is None:
                return (
                    f"the {type(module).__name__} {name!r} has no running statistics and uses "
                    "batch statistics; pass a model with track_running_stats=True"
                )
        return ""

    def _aliased(self) -> str:
        return (
            f"{self.write.label} changes, {{gap}}, when {self.read.label} is replaced by an equal "
            "tensor: the model changes this tensor in place under another name (a view, or the "
            "variable that was passed to the module), or compares its identity. Pass an earlier or "
            "later read, or a model without that in-place operation."
        )


def _random(place: Place) -> str:
    return (
        f"{place.label} or its derivative differs between two runs of the model on the same "
        "input, {gap}: the model is random (dropout with training=True, noise, sampling). Pass a "
        "deterministic model."
    )


def _seeds(place: Place) -> Any:
    """Draw two random cotangents of the activation of one input."""
    rng = np.random.RandomState(0)
    seeds = torch.as_tensor(rng.normal(size=(2, *place.shape)))
    return seeds.to(dtype=place.dtype, device=place.device)
