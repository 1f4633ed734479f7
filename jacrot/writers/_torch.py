"""PyTorch modules."""

from __future__ import annotations

from typing import Any

import numpy as np

from jacrot._utils.optional import import_optional
from jacrot.network import Network
from jacrot.writers._common import dispatch_on_class


@dispatch_on_class
def layer_to_torch(layer: Any, ndims: frozenset[int], dtype: np.dtype[Any]) -> Any:
    """Convert one layer to a PyTorch module, by the converter registered for its class.

    :func:`to_torch` calls it for every layer. ``@layer_to_torch.register(MyLayer)`` before a
    function of the same arguments registers that function for layers of the class ``MyLayer``,
    and not for those of classes derived from it.

    Parameters
    ----------
    layer : BaseLayer
        The layer.
    ndims : frozenset of int
        Numbers of dimensions of the batches that the module may be called with: 2 for rows, 3 for
        sequences, 4 for images.
    dtype : numpy.dtype
        Precision of the parameters.

    Returns
    -------
    torch.nn.Module
        A new module.

    Raises
    ------
    ValueError
        If no converter is registered for the class of the layer.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from jacrot import Network
    >>> from jacrot.layers import BaseLayer, identity_tangents
    >>> from jacrot.writers import layer_to_torch, to_torch
    >>> class Sine(BaseLayer):
    ...     def __call__(self, x):
    ...         return np.sin(x)
    ...
    ...     def jvp(self, x, tangents):
    ...         tangents = identity_tangents(x) if tangents is None else tangents
    ...         return self(x), np.cos(x)[..., None] * tangents
    >>> class SineModule(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.sin(x)
    >>> @layer_to_torch.register(Sine)
    ... def convert(layer, ndims, dtype):
    ...     return SineModule()
    >>> to_torch(Network([Sine()]))
    Sequential(
      (0): SineModule()
    )
    """
    # Registers the converters of the package's own layers.
    from jacrot.writers import _torch_layers  # noqa: F401

    if type(layer) in layer_to_torch.registry:
        return layer_to_torch(layer, ndims, dtype)
    raise ValueError(
        f"{layer!r} is your own Python code, for which no converter is registered; register one "
        "with jacrot.writers.layer_to_torch.register."
    )


def to_torch(network: Network) -> Any:
    """Convert a network to a PyTorch module that computes the same function.

    Layers become ``Linear``, ``Conv2d``, ``LayerNorm``, ``MultiheadAttention`` and so on where
    PyTorch has them, and small modules of this package otherwise. Rotations that are not folded
    into weights are ``Linear`` too, or a 1 × 1 ``Conv2d``. A bias of zeros is left out. The module
    reads what the network reads: rows, sequences ``(n, positions, features)`` or images ``(n,
    channels, height, width)``.

    Parameters
    ----------
    network : Network
        The network. Functions cannot be converted; your own layers can if you register a
        converter, see :func:`layer_to_torch`.

    Returns
    -------
    torch.nn.Sequential
        One module for each layer, so that ``module[:site]`` computes the activations at a site, as
        ``network[:site]`` does. In its evaluation mode, on the CPU, its parameters copied, in
        float32 if all arrays of the network are, else in float64. A rotated network is in float64;
        ``module.float()`` takes it to float32.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError
        If `network` is not a ``Network``.
    ValueError
        If a layer or an activation cannot be converted; the message names it.

    Notes
    -----
    :func:`jacrot.readers.from_torch` reads the module back, except modules that PyTorch does not
    have: attention with a causal mask, a scale or a frozen pattern, or of other widths inside than
    outside; padding that differs from side to side; norms, softmax and bases where the network
    could also read images, batch norm where it could read both rows and sequences; norms without
    parameters; softplus in double precision, which PyTorch's default rounds above 20.

    Examples
    --------
    A network in a new basis, back in PyTorch:

    >>> import numpy as np
    >>> import torch
    >>> from jacrot.readers import from_torch
    >>> from jacrot.writers import to_torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    >>> rotated = from_torch(model).rotated({1: [[0.6, 0.8], [-0.8, 0.6]]})
    >>> module = to_torch(rotated)
    >>> module
    Sequential(
      (0): Sequential(
        (linear): Linear(in_features=3, out_features=2, bias=True)
        (activation): ReLU()
        (rotation): Linear(in_features=2, out_features=2, bias=False)
      )
      (1): Linear(in_features=2, out_features=1, bias=True)
    )
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(module.float()(x), model(x), atol=1e-6)
    True
    """
    import_optional("torch", "to_torch", "torch")
    from jacrot.writers._torch_layers import to_sequential

    return to_sequential(network)
