"""PyTorch's modules and state dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jacrot._utils.optional import require
from jacrot.layers import fused
from jacrot.layers._weights import ActivationLike
from jacrot.network import Network
from jacrot.readers._torch_calls import Reading
from jacrot.readers._torch_example import check
from jacrot.readers._torch_model import check_forwards, evaluation_copies
from jacrot.readers._torch_state import dense_arrays


def from_torch(model: Any, activation: ActivationLike = "relu") -> Network:
    """Read a network from a PyTorch module or from a state dict.

    A module is read as what it computes after ``model.eval()``: batch norms use their running
    statistics, dropouts do nothing. It may nest others and have a ``forward`` of its own, as long
    as `torch.fx` can trace it and it is made of

    - ``Linear``, ``Conv2d``, ``BatchNorm1d`` (of rows), ``BatchNorm2d``, ``LayerNorm`` and
      ``RMSNorm`` of the last axis, ``MultiheadAttention`` of one sequence with itself,
      ``TransformerEncoderLayer`` and ``TransformerEncoder``;
    - ``Embedding`` of the inputs: the network reads one-hot rows in the place of token ids, and
      computes ``network(np.eye(n_tokens)[ids])``, in the first layer the embeddings. What follows
      reads the embeddings themselves: ``network[1:](embeddings)``;
    - ``AvgPool2d``, ``MaxPool2d``, ``AdaptiveAvgPool2d(1)``, ``Flatten``, strided slices of
      images and zero channels beside them;
    - ``ReLU``, ``ReLU6``, ``LeakyReLU``, ``PReLU`` of one slope, ``ELU``, ``SELU``, ``GELU``,
      ``SiLU``, ``Tanh``, ``Hardtanh``, ``Sigmoid``, ``Softplus``, ``Softmax``, or the functions
      of these names;
    - sums of two tensors (residual blocks), products ``f(W x + b) * (V x + c)`` (SwiGLU), also of
      the chunks of one ``Linear``, and products with a parameter of one factor for each feature;
    - images whose channels are permuted to be last, and then back;
    - of transformers: ``Conv1D``, the activations but xIELU, the root-mean-square norms, the
      attentions of GPT-2, of BERT and its relatives, of ViT, CLIP and DistilBERT. Of timm: the
      norms, ``LayerScale`` and ``Attention``. What these libraries make of them is read if it can
      be traced, such as their transformer blocks, without a mask of padding. The outputs of each
      such module are compared with those of its layer.

    Of a module that returns an output and an attention pattern, the output is read. Whole language
    models, which return several results and depend on values, are not; their blocks are:
    ``from_torch(torch.nn.Sequential(*model.h, model.ln_f))``. Attention whose scores depend on the
    positions, as with rotary embeddings, is not.

    Anything else is refused by name; :func:`jacrot.readers.capture` takes any module. So are
    hooks, a ``forward`` put into an instance, and compiled, scripted and lazy modules.

    A network finds the features on the last axis of rows and sequences, and on axis 1 of all
    arrays of four axes. So a ``Softmax`` or ``BatchNorm1d`` over axis 1 is read as one over
    features: of rows, or of images, not of sequences. And of a module without a dense layer or
    a convolution before it is flattened, a norm of the last axis, a scale or a ``Softmax`` is
    read as one of rows or sequences: do not pass arrays of four axes to the network.

    Parameters
    ----------
    model : torch.nn.Module or mapping of str to Tensor
        A module, which stays as it is; or the state dict of one that is a chain of ``Linear``,
        in the order in which they are computed.
    activation : str, callable or sequence of them, default="relu"
        Applied after every layer of a state dict, the last one included; a sequence gives one
        per layer. A module knows its own.

    Returns
    -------
    Network
        The same function with the arrays copied, in float32 (of lower precisions too) or
        float64. Batch norms and activations are folded into the layers before them.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError
        If `model` is neither.
    ValueError
        If the module computes something else, or the state dict is not one of dense layers.

    Notes
    -----
    Changes in place (``relu_``, ``x += y``) are followed wherever the same tensor is read later. A
    tensor that is read after a change of a view of it, or of what may be a view depending on
    strides, is refused.

    What is read, and run, is a copy of the module in evaluation mode. Where its first layer fits
    rows, sequences or images of a common size, the network is compared with the module on a random
    batch, and refused if their outputs differ.

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
    torch = require("torch", "from_torch", "torch")
    if isinstance(model, Mapping):
        return Network(dense_arrays(model), activation)
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"model is a {type(model).__name__}; pass a torch.nn.Module or a state dict."
        )
    if activation != "relu":
        raise ValueError(
            "activation describes the layers of a state dict, but model is a module, which knows "
            "its own; leave activation out."
        )
    check_forwards(torch, model)
    with evaluation_copies(torch, model) as copied:
        network = Network(fused(Reading(torch, copied()).layers()))
        check(torch, copied, network)
    return network
