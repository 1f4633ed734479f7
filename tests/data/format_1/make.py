"""Build the files of this folder, which version 0.1.0 wrote once; they must not be rewritten.

    python tests/data/format_1/make.py FOLDER

Each model has beside it, in ``expected.npz``, what it computed when it was saved.
"""

import sys
import warnings
from pathlib import Path

import numpy as np

from jacrot import JacobianSparsityRotation, Network, NetworkRotation
from jacrot.layers import (
    Activation,
    Attention,
    AvgPool2d,
    Basis,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    GatedDense,
    LayerNorm,
    MaxPool2d,
    Residual,
    RMSNorm,
    Softmax,
)


def main(folder: Path) -> None:
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape)

    images = [
        Conv2d(normal(3, 2, 3, 3), normal(3), "relu", padding=1),
        BatchNorm(normal(3), np.abs(normal(3)) + 0.5, normal(3), normal(3)),
        MaxPool2d(2),
        Activation("gelu"),
        AvgPool2d(2, padding=1, count_padding=False),
        Flatten(),
        Dense(normal(5, 12), normal(5), "identity"),
        Softmax(),
    ]
    tokens = [
        LayerNorm(normal(6), normal(6)),
        Residual(
            [Attention(*normal(4, 6, 6), n_heads=2, query_bias=normal(6), output_bias=normal(6))]
        ),
        RMSNorm(np.abs(normal(6)) + 0.5),
        Residual(
            [GatedDense(normal(8, 6), normal(8, 6), normal(8)), Dense(normal(6, 8), None, "tanh")]
        ),
        Basis(normal(6, 6), normal(6)),
    ]
    rows = [
        Dense(normal(8, 6) / 2, normal(8) / 2, "relu"),
        Dense(normal(8, 8) / 2, normal(8) / 2, "tanh"),
        Dense(normal(4, 8) / 2, normal(4) / 2, "identity"),
    ]
    inputs = {"images": normal(3, 2, 6, 6), "tokens": normal(3, 5, 6), "rows": normal(40, 6)}
    expected = {f"{name}.X": X for name, X in inputs.items()}
    for name, layers in (("images", images), ("tokens", tokens), ("rows", rows)):
        network = Network(layers)
        network.save(folder / f"{name}.npz")
        expected[f"{name}.network"] = network(inputs[name])
    network, X = Network(rows), inputs["rows"]
    hidden = network[:1](X)
    few = {"max_iter": 20, "random_state": 0}
    functional = {"criterion": "log", "coordinates": "functional", **few}
    estimators = {
        "one_sided": JacobianSparsityRotation(n_components=5, **few).fit(network[1:], hidden),
        "two_sided": JacobianSparsityRotation(rotate_output=True, **few).fit(network[1:], hidden),
        "functional": JacobianSparsityRotation(
            rotate_output=True, readout=network[2:], **functional
        ).fit(network[1:2], hidden),
        "tied": JacobianSparsityRotation(network[1:2], rotate_output="tied", **few).fit(hidden),
        "network": NetworkRotation(network, rotate_input=True, **few).fit(X),
        "functional_network": NetworkRotation(**functional).fit(network, X),
    }
    for name, estimator in estimators.items():
        estimator.save(folder / f"{name}.npz")
        read = X if isinstance(estimator, NetworkRotation) else hidden
        expected[f"{name}.X"] = read
        expected[f"{name}.transform"] = estimator.transform(read)
        expected[f"{name}.score"] = np.array(estimator.score(read))
    network.save(folder / "rows.safetensors")
    np.savez(folder / "expected.npz", **expected)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(Path(sys.argv[1]))
