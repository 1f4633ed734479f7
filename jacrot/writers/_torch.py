"""PyTorch modules."""

from __future__ import annotations

from typing import Any

from jacrot._utils.optional import require
from jacrot.network import Network


def to_torch(network: Network) -> Any:
    """Make a PyTorch module that computes the same function.

    Layers become ``Linear``, ``Conv2d``, ``LayerNorm``, ``MultiheadAttention`` and the like where
    PyTorch has them, else small modules of their own. Rotations that are not folded into weights
    are ``Linear`` too, or a 1 × 1 ``Conv2d``. A bias of zeros is left out. The module reads what
    the network reads: rows, sequences ``(n, positions, features)`` or images ``(n, channels,
    height, width)``.

    Parameters
    ----------
    network : Network
        The network. Functions and layers of one's own cannot be written.

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
        If `network` is no ``Network``.
    ValueError
        If a layer or an activation is a user's own; the message names it.

    Notes
    -----
    :func:`jacrot.readers.from_torch` reads the module back, except modules that PyTorch does not
    have: attention with a causal mask, a scale or a frozen pattern, or of other widths inside than
    outside; padding that differs from side to side; norms, softmax and bases where the network does
    not tell that they are given no images, batch norm where it does not tell rows from sequences;
    norms without parameters; softplus in double precision, which PyTorch's default rounds above 20.

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
    require("torch", "to_torch", "torch")
    from jacrot.writers._modules import module_of

    return module_of(network)
