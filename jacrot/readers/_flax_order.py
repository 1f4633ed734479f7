"""The order of the layers of a Flax model, determined from its variables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jacrot._utils.warnings import warn
from jacrot.layers import Activation, Flatten
from jacrot.layers._names import is_automatic, only_order
from jacrot.layers._weights import ActivationLike

Entry = dict[str, Any]


class _Kernel(NamedTuple):
    """Kernel of a convolution or a dense layer."""

    name: str
    is_convolution: bool
    # For a convolution, the number for each group.
    n_inputs: int
    n_outputs: int
    prefix: str
    number: int

    def reads(self, width: int) -> bool:
        """Check whether the layer accepts a number of features; a convolution may have groups."""
        if not self.is_convolution:
            return self.n_inputs == width
        n_groups, rest = divmod(width, self.n_inputs)
        return rest == 0 and n_groups > 0 and self.n_outputs % n_groups == 0

    def follows(self, other: _Kernel) -> bool:
        """Check whether the layer accepts the outputs of another one."""
        if self.is_convolution == other.is_convolution:
            return self.reads(other.n_outputs)
        # A dense layer of flattened images.
        return other.is_convolution and self.n_inputs % other.n_outputs == 0


def default_chain(
    entries: dict[str, Entry],
    activation: ActivationLike,
    image_shape: tuple[int, int, int] | None = None,
) -> list[Any]:
    """Return Dense and Conv entries in order, each followed by its activation.

    Parameters
    ----------
    entries : dict of str to dict
        The variables of every module by its path.
    activation : str, callable or sequence of them
        Activation after all entries, or one for each.
    image_shape : tuple of int, default=None
        Height, width and channels of the inputs.

    Returns
    -------
    list
        Names, activations and :mod:`jacrot.layers`.

    Raises
    ------
    ValueError
        If names and widths do not determine the order, or `activation` has the wrong length.

    Warns
    -----
    UserWarning
        If a module with an automatic name may be called several times.
    """

    def order_error(reason: str) -> ValueError:
        return ValueError(
            f"params does not determine the order of its entries, {join_names(entries)}: {reason}. "
            "Pass the order in which they are called, with activations, and jacrot.layers for "
            "operations without parameters: chain=['Dense_0', 'relu', 'Dense_1']."
        )

    if len({name.rpartition("/")[0] for name in entries}) != 1:
        nested = next((name for name in entries if "/" in name), "nothing")
        raise order_error(f"{nested!r} is nested")
    kernels = []
    for name, entry in entries.items():
        shape = np.shape(entry.get("kernel", 0))
        if not entry.keys() <= {"kernel", "bias"} or len(shape) not in (2, 4) or 0 in shape:
            raise order_error(f"{name!r} is not a Dense or a Conv")
        prefix, number = re.fullmatch(r"(.*?)(\d*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
        kernels.append(
            _Kernel(name, len(shape) == 4, shape[-2], shape[-1], prefix, int(number or 0))
        )
    if any(is_automatic(kernel.name) for kernel in kernels):
        follows = [
            [index for index, kernel in enumerate(kernels) if kernel.follows(other)]
            for other in kernels
        ]
        first = [
            index
            for index, kernel in enumerate(kernels)
            if image_shape is None or kernel.reads(image_shape[2])
        ]
        order = only_order(follows, first)
        if order is None:
            raise order_error(
                "the numbers in automatic names count constructions, not calls, and by their "
                "widths the entries do not chain in exactly one order"
            )
        kernels = [kernels[index] for index in order]
        if again := [kernel.name for kernel in kernels if kernel.n_inputs == kernel.n_outputs]:
            warn(
                f"{again[0]!r} of params has as many outputs as inputs, so that the model may call "
                "it several times, which its variables do not show; the network applies it once. "
                "Otherwise pass chain=['Dense_0', 'relu', 'Dense_0'], all entries in the order in "
                "which they are called."
            )
    else:
        families = {(kernel.is_convolution, kernel.prefix) for kernel in kernels}
        numbers = {(kernel.is_convolution, kernel.prefix, kernel.number) for kernel in kernels}
        kinds = {kernel.is_convolution for kernel in kernels}
        if len(families) > len(kinds) or len(numbers) < len(kernels):
            raise order_error("they are not numbered alike")
        in_one_list = len({kernel.prefix for kernel in kernels}) == 1
        kernels.sort(
            key=lambda kernel: (not in_one_list and not kernel.is_convolution, kernel.number)
        )
    n_convolutions = sum(kernel.is_convolution for kernel in kernels)
    if any(kernel.is_convolution for kernel in kernels[n_convolutions:]):
        raise order_error("a Conv comes after a Dense")
    if isinstance(activation, str) or callable(activation):
        activation = [activation] * len(kernels)
    if len(activation) != len(kernels):
        raise ValueError(
            f"activation lists {len(activation)} activations for {len(kernels)} layers; pass one "
            "for each layer ('identity' where there is none)."
        )
    chain: list[Any] = []
    for index, (kernel, function) in enumerate(zip(kernels, activation, strict=True)):
        if index == n_convolutions > 0:
            chain.append(Flatten())
        module = str(getattr(function, "__module__", ""))
        of_jax = isinstance(function, (str, partial)) or module.startswith("jax")
        chain += [kernel.name, function if of_jax else Activation(function)]
    return chain


def join_names(names: Iterable[str]) -> str:
    """Join names for a message.

    Parameters
    ----------
    names : iterable of str
        The names.

    Returns
    -------
    str
        The quoted names, separated by commas, or ``"none"``.
    """
    return ", ".join(map(repr, names)) or "none"
