"""Layers: a forward function, and how a stack of tangents passes through it.

Every layer is an immutable object with

- ``n_inputs`` and ``n_outputs`` (``None`` where any width fits),
- ``layer(x)``: outputs ``(n_samples, n_outputs)`` for inputs ``(n_samples, n_inputs)``,
- ``layer.push(x, tangents)``: the outputs and ``J @ tangents``, ``J`` the Jacobian at every
  sample; ``tangents`` is ``(n_samples, n_inputs, k)``, or ``None`` for the identity,
- ``layer.reading(Q)``: the layer that reads ``z = Q x`` in place of ``x``,
- ``layer.writing(P)``: the layer that writes ``P y`` in place of ``y``.
"""

from jacrot.layers._protocol import Layer
from jacrot.layers.dense import Dense
from jacrot.layers.function import Function

__all__ = ["Dense", "Function", "Layer"]
