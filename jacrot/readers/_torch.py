"""Conversion of PyTorch modules and state dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jacrot._utils.optional import import_optional
from jacrot.layers import fused
from jacrot.layers._weights import ActivationLike
from jacrot.network import Network
from jacrot.readers._torch_calls import TorchReader
from jacrot.readers._torch_example import check
from jacrot.readers._torch_model import check_forwards, evaluation_copies
from jacrot.readers._torch_state import dense_arrays


def from_torch(model: Any, activation: ActivationLike = "relu") -> Network:
    """Convert a PyTorch module or a state dict to a network.

    The network computes the module in evaluation mode: batch norms use their running statistics,
    and dropout has no effect. The module may have nested modules and a custom ``forward``, if
    `torch.fx` can trace it and it consists of

    - ``Linear``, ``Conv2d``, ``BatchNorm1d`` (of rows), ``BatchNorm2d``, ``LayerNorm`` and
      ``RMSNorm`` of the last axis, ``MultiheadAttention`` of one sequence with itself,
      ``TransformerEncoderLayer`` and ``TransformerEncoder``;
    - ``Embedding`` of the inputs: the network has one-hot rows as inputs instead of token ids,
      ``network(np.eye(n_tokens)[ids])``, and its first layer computes the embeddings. The
      following layers can be applied to embeddings directly: ``network[1:](embeddings)``;
    - ``AvgPool2d``, ``MaxPool2d``, ``AdaptiveAvgPool2d(1)``, ``Flatten``, strided slices of
      images, and padding with zero channels;
    - ``ReLU``, ``ReLU6``, ``LeakyReLU``, ``PReLU`` of one slope, ``ELU``, ``SELU``, ``GELU``,
      ``SiLU``, ``Tanh``, ``Hardtanh``, ``Sigmoid``, ``Softplus``, ``Softmax``, or the functions
      of these names;
    - sums of two tensors (residual blocks), products ``f(W x + b) * (V x + c)`` (SwiGLU), also of
      the chunks of one ``Linear``, and products with a parameter that has one factor for each
      feature;
    - images whose channels are permuted to be last, and then back;
    - modules of transformers: ``Conv1D``, the activations except xIELU, the root-mean-square
      norms, and the attention of GPT-2, of BERT and its relatives, of ViT, CLIP and DistilBERT;
      modules of timm: the norms, ``LayerScale`` and ``Attention``. Larger modules of these
      libraries, such as transformer blocks, are supported if they can be traced, without a padding
      mask. The outputs of each such module are compared with those of its layer.

    If a module returns an output and an attention pattern, the output is used. Whole language
    models, which return several results and have data-dependent control flow, are not supported,
    but their blocks are: ``from_torch(torch.nn.Sequential(*model.h, model.ln_f))``. Attention whose
    scores depend on positions, as with rotary embeddings, is not supported.

    The error for any other module names it; :func:`jacrot.readers.capture` works with any module.
    Hooks, a ``forward`` that is assigned to an instance, and compiled, scripted and lazy modules
    raise an error as well.

    The features of a network are on the last axis of rows and sequences, and on axis 1 of arrays
    with four axes. A ``Softmax`` or ``BatchNorm1d`` over axis 1 is therefore one over the features
    of rows or images, not of sequences. In a module without a dense layer or a convolution before
    it is flattened, a norm of the last axis, a scale or a ``Softmax`` is one of rows or sequences:
    do not pass arrays with four axes to the network.

    Parameters
    ----------
    model : torch.nn.Module or mapping of str to Tensor
        A module, which is not modified, or the state dict of a chain of ``Linear`` layers, in the
        order in which they are computed.
    activation : str, callable or sequence of them, default="relu"
        Activation after every layer of a state dict, including the last, or one for each layer.
        Modules contain their activations.

    Returns
    -------
    Network
        The same function with copied arrays, in float32 (also for lower precisions) or float64.
        Batch norms and activations are folded into the layers before them.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError
        If `model` is neither a module nor a mapping.
    ValueError
        If the module is not supported, or the state dict is not one of dense layers.

    Notes
    -----
    In-place operations (``relu_``, ``x += y``) are tracked wherever the same tensor is read later.
    Reading a tensor after an in-place change of a view of it, or of what may be a view depending
    on strides, raises an error.

    A copy of the module in evaluation mode is traced and run. If its first layer accepts rows,
    sequences or images of a common size, the network is compared with the module on a random
    batch, and different outputs raise an error.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from jacrot.readers import from_torch
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Conv2d(3, 8, 3, padding=1, bias=False),
    ...     torch.nn.BatchNorm2d(8),
    ...     torch.nn.ReLU(),
    ...     torch.nn.AdaptiveAvgPool2d(1),
    ...     torch.nn.Flatten(),
    ...     torch.nn.Linear(8, 10),
    ... )
    >>> network = from_torch(model)
    >>> network.n_layers
    4
    >>> images = torch.randn(2, 3, 5, 5)
    >>> np.allclose(network(images), model.eval()(images).detach(), atol=1e-5)
    True
    """
    torch = import_optional("torch", "from_torch", "torch")
    if isinstance(model, Mapping):
        return Network(dense_arrays(model), activation)
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"model is a {type(model).__name__}; pass a torch.nn.Module or a state dict."
        )
    if activation != "relu":
        raise ValueError(
            "activation describes the layers of a state dict, but model is a module, which "
            "contains its activations; do not pass activation."
        )
    check_forwards(torch, model)
    with evaluation_copies(torch, model) as copied:
        network = Network(fused(TorchReader(torch, copied()).layers()))
        check(torch, copied, network)
    return network
