"""Jacobians of many samples, in the fastest mode that PyTorch supports for the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import get_config

from jacrot._utils.arrays import Array
from jacrot._utils.warnings import warn
from jacrot.readers._capture_checks import Checks
from jacrot.readers._capture_errors import check_memory, first_line, is_out_of_memory
from jacrot.readers._capture_function import Function, Indices

# Inputs that are run together: enough to use the machine fully.
MAX_INPUTS = 64
# A derivative needs a multiple of the memory that autograd saves; larger blocks are not faster.
HEADROOM = 8
_VECTORIZED = ("forward", "reverse")
_DESCRIPTIONS = {
    "forward": "torch.func.jvp",
    "reverse": "torch.func.vjp",
    "input by input": "autograd.grad of one input after the other",
    "one by one": "autograd.grad of one derivative after the other",
}


class _Disagreement(Exception):
    """A mode of differentiation disagrees with ordinary autograd."""


class Jacobians:
    """The activations and Jacobians of the samples of a function.

    Parameters
    ----------
    function : Function
        Function to differentiate.
    checks : Checks
        Checks of the function, after ``probe``.
    inputs, positions : ndarray of int
        Input and position at `read` of every sample.
    local : bool
        Whether only the position of the sample is differentiated at `write`.
    block : int
        Number of derivatives computed at once.
    """

    def __init__(
        self,
        function: Function,
        checks: Checks,
        inputs: Indices,
        positions: Indices,
        local: bool,
        block: int,
    ) -> None:
        self.function, self.checks = function, checks
        self.positions, self.local, self.block = positions, local, block
        read, write = function.read, function.write
        self.inputs, self.starts, counts = np.unique(inputs, return_index=True, return_counts=True)
        self.ends = self.starts + counts
        self.owners = np.searchsorted(self.inputs, inputs)
        n_written = 1 if local else write.n_positions
        shape = (len(inputs), n_written, write.n_features, read.n_features)
        dtype = np.result_type(read.numpy_dtype, write.numpy_dtype)
        check_memory(shape, dtype, not local and read.grid == write.grid and n_written > 1)
        self.jacobians = np.zeros(shape, dtype)
        self.X = np.empty((len(inputs), read.n_features), read.numpy_dtype)
        # Derivatives of one input in forward and in reverse mode.
        forward = read.n_features * (1 if local else counts.max())
        reverse = write.n_features * n_written
        self.n_derivatives = min(forward, reverse)
        self.modes = ["forward"] if forward < reverse else []
        self.modes += ["reverse", "input by input", "one by one"]
        self.reason = ""

    def compute(self, progress: Callable[[float], None]) -> tuple[Array, Array]:
        """Compute activations and Jacobians of all samples.

        Parameters
        ----------
        progress : callable
            Called with the number of samples that are finished.

        Returns
        -------
        jacobians : ndarray of shape (n_samples, n_positions, d_write, d_read)
            The Jacobians.
        X : ndarray of shape (n_samples, d_read)
            The activations.

        Raises
        ------
        ValueError
            If an activation or a derivative is not finite, or every Jacobian is zero.
        """
        self._choose_mode()
        begin = 0
        while begin < len(self.inputs):
            together = int(np.clip(self.block // self.n_derivatives, 1, MAX_INPUTS))
            subset = slice(begin, begin + (together if self.modes[0] in _VECTORIZED else 1))
            if self._try(partial(self._differentiate, subset, progress), subset):
                self._check(subset)
                begin = subset.stop
        self._warn()
        read, write = self.function.read, self.function.write
        if not self.jacobians.any():
            hint = "positions='all', or " if self.local else ""
            raise ValueError(
                f"{write.label} does not depend on {read.label}: the Jacobian is zero at each of "
                f"{len(self.X)} samples; pass {hint}other places."
            )
        return self.jacobians, self.X

    def _choose_mode(self) -> None:
        """Drop the modes that do not agree with ordinary autograd."""
        if self.checks.work.autocast:
            self.reason = "the model runs under autocast, which torch.func.vmap does not apply"
            self.modes = [mode for mode in self.modes if mode not in _VECTORIZED]
        while len(self.modes) > 1 and not self._try(self._verify, slice(0, 0)):
            pass

    def _verify(self) -> None:
        """Compare the first mode with ordinary autograd, at the inputs that were probed.

        Some rules of ``vmap`` for an operation, in PyTorch or by a user, are wrong. In half
        precision, rounding may also move an activation across a kink; the slower mode is correct.
        """
        mode = self.modes[0]
        inputs = self.checks.inputs if mode in _VECTORIZED else self.checks.first
        derivatives = _Derivatives(self, inputs, mode)
        if not self.checks.agrees(derivatives.vjp, len(inputs)):
            raise _Disagreement(
                f"derivatives by {_DESCRIPTIONS[mode]} differ from those of ordinary autograd"
            )

    def _try(self, attempt: Callable[[], None], subset: slice) -> bool:
        """Run an attempt; if PyTorch does not support the mode, continue with the next one."""
        try:
            attempt()
        except (RuntimeError, NotImplementedError, _Disagreement) as error:
            if is_out_of_memory(error):
                error.add_note(f"block={self.block} derivatives are computed at once; pass fewer.")
                raise
            if len(self.modes) == 1:
                read, write = self.function.read, self.function.write
                raise ValueError(
                    f"PyTorch cannot differentiate the model between {read.label} and "
                    f"{write.label} ({first_line(error)}); pass places that do not have this "
                    "operation between them."
                ) from error
            reason = error
        else:
            return True
        # An error of the model itself is raised without derivatives too; show that one.
        for number in self.inputs[subset]:
            self.function.run(np.array([number]))
        del self.modes[0]
        self.reason = self.reason or (
            str(reason)
            if isinstance(reason, _Disagreement)
            else f"PyTorch's vectorized derivatives do not support the model ({first_line(reason)})"
        )
        return False

    def _warn(self) -> None:
        if self.reason:
            warn(
                f"{self.reason}: the Jacobians were computed by {_DESCRIPTIONS[self.modes[0]]}, "
                "which is slower."
            )

    def _samples(self, subset: slice) -> slice:
        return slice(self.starts[subset][0], self.ends[subset][-1])

    def _differentiate(self, subset: slice, progress: Callable[[float], None]) -> None:
        """Compute the Jacobians of all samples of some inputs."""
        samples = self._samples(subset)
        owners = self.owners[samples] - subset.start
        self.derivatives = _Derivatives(self, self.inputs[subset], self.modes[0])
        self.derivatives.fill(
            self.jacobians[samples],
            owners,
            self.positions[samples],
            lambda share: progress(samples.start + share * (samples.stop - samples.start)),
        )

    def _check(self, subset: slice) -> None:
        """Store the activations of some inputs, after comparison with the unmodified model."""
        function, derivatives, samples = self.function, self.derivatives, self._samples(subset)
        read, write = function.read, function.write
        at_read, at_write = function.run(self.inputs[subset])
        self.checks.check_batch(read, list(derivatives.given), at_read)
        self.checks.check_batch(write, list(derivatives.result), at_write)
        where = self.owners[samples] - subset.start, self.positions[samples]
        self.X[samples] = to_numpy(derivatives.given[where])
        written = derivatives.result[where] if self.local else derivatives.result
        _check_finite(self.X[samples], f"the activations at {read.label}")
        _check_finite(to_numpy(written), f"the activations at {write.label}")
        _check_finite(self.jacobians[samples], f"the derivatives of {write.label}")


class _Derivatives:
    """Derivatives at some inputs: tangents or cotangents, and their jvps or vjps.

    Parameters
    ----------
    jacobians : Jacobians
        The Jacobians that they belong to.
    inputs : ndarray of int
        The inputs.
    mode : {"forward", "reverse", "input by input", "one by one"}
        Mode of differentiation.
    """

    def __init__(self, jacobians: Jacobians, inputs: Indices, mode: str) -> None:
        function = jacobians.function
        self.local = jacobians.local
        self.forward = mode == "forward"
        self.seeded = function.read if self.forward else function.write
        self.n_inputs = len(inputs)
        self.step = max(1, jacobians.block // self.n_inputs)
        # Rows at `write` and at `read`, (n_inputs, positions, features).
        self.result, self.given, self.derive, self.vjp = function.linearise(inputs, mode)
        if self.forward:
            self._check_adjoint(jacobians.checks.work.eps)

    def _check_adjoint(self, eps: float) -> None:
        """Check that forward and reverse mode agree; only forward mode ignores no_grad.

        They agree if ``⟨v, J u⟩ = ⟨Jᵀ v, u⟩``, for directions in which no feature dominates.
        """
        rng = np.random.RandomState(0)
        shapes = (2, *self.given.shape), (1, *self.result.shape)
        u, v = (torch.as_tensor(rng.normal(size=shape)) for shape in shapes)
        u, v = u.to(self.given), v.to(self.result)
        v = v / _scales(self.derive(u)[:1])
        pulled = self.vjp(v)
        u = u / _scales(pulled)
        pushed = self.derive(u)
        ahead, back = ((x * y).sum(dim=(2, 3)) for x, y in ((v, pushed), (u, pulled)))
        size = v.norm(dim=(2, 3)) * pushed.norm(dim=(2, 3))
        if not ((ahead - back).abs() <= 3 * eps**0.5 * size).all():
            raise _Disagreement("derivatives by torch.func.jvp differ from those by torch.func.vjp")

    def fill(
        self, jacobians: Array, owners: Indices, at: Indices, progress: Callable[[float], None]
    ) -> None:
        """Compute the Jacobians of samples, at positions `at` of the inputs `owners`."""
        local, n_seeded = self.local, self.seeded.n_features
        rank = _rank(owners)
        if local or self.forward:
            # Seed the samples of one group, which do not influence one another.
            group_of = self._independent(owners, at, rank) if local else rank
            spots = np.zeros((group_of.max() + 1, *self._shape[:2]), bool)
            spots[group_of, owners, at] = True
        else:
            # Seed one position of `write`, for all samples.
            spots = np.eye(self._shape[1], dtype=bool)[:, None].repeat(self.n_inputs, axis=1)
        n_seeds = len(spots) * n_seeded
        for seeded in self._blocks(n_seeds):
            group, feature = np.divmod(seeded, n_seeded)
            seeds = self._zeros(len(seeded))
            seeds[np.arange(len(seeded)), :, :, feature] = self._tensor(spots[group])
            results = self.derive(seeds)
            progress((seeded[-1] + 1) / n_seeds)
            if not (local or self.forward):
                rows = to_numpy(results[:, owners, at])
                jacobians[:, group, feature] = rows.swapaxes(0, 1)
                continue
            number, sample = np.nonzero(group[:, None] == group_of)
            feature, of = feature[number], owners[sample]
            if not self.forward:
                jacobians[sample, 0, feature] = to_numpy(results[number, of, at[sample]])
            elif local:
                jacobians[sample, 0, :, feature] = to_numpy(results[number, of, at[sample]])
            else:
                jacobians[sample, :, :, feature] = to_numpy(results[number, of])

    def _independent(self, owners: Indices, at: Indices, rank: Indices) -> Indices:
        """Group the samples such that samples of one input in a group do not influence one another.

        The derivative along a random direction at one position is zero at another position if and
        only if all derivatives are. The groups are those of Curtis, Powell and Reid,
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
            seeds[rank[mine] - ranks[0], owners[mine], at[mine]] = self._tensor(random)
            hit = to_numpy((self.derive(seeds) != 0).any(dim=-1))
            meets[owners[:, None], ranks, rank[:, None]] = hit[:, owners, at].T
        meets |= meets.swapaxes(1, 2)
        starts = np.arange(len(at)) - rank
        for sample, (start, i) in enumerate(zip(starts, rank, strict=True)):
            taken = groups[start:sample][meets[owners[sample], i, :i]]
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
        return torch.zeros((count, *self._shape), dtype=place.dtype, device=place.device)

    def _tensor(self, array: NDArray[Any]) -> Any:
        place = self.seeded
        return torch.as_tensor(array, dtype=place.dtype, device=place.device)


def default_block(n_bytes: int) -> int:
    """Return the number of derivatives that fit scikit-learn's ``working_memory``."""
    return max(1, int(get_config()["working_memory"] * 2**20 // (HEADROOM * n_bytes)))


def to_numpy(tensor: Any) -> NDArray[Any]:
    """Copy a tensor to the host, in single precision or higher."""
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    return np.asarray(tensor.detach().cpu().numpy())


def _scales(rows: Any) -> Any:
    """Return the scale of each feature of rows, within the range of half precision."""
    scales = rows.cpu().double().square().mean(dim=-2, keepdim=True).sqrt()
    largest = scales.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return (scales / largest).clamp(min=2.0**-10).to(rows)


def _rank(owners: Indices) -> Indices:
    """Return the rank of each entry in its run of equal numbers, from zero."""
    return np.arange(len(owners)) - np.searchsorted(owners, owners)


def _check_finite(array: Array, name: str) -> None:
    count = np.count_nonzero(~np.isfinite(array))
    if count:
        raise ValueError(
            f"{name} contain NaN or infinity ({count} of {array.size} numbers); check the "
            "weights and inputs, or exclude such samples with where."
        )
