"""Rotate the MLPs of a trained transformer, and the same MLPs with shuffled weights.

    python examples/transformer_mlp.py --model FOLDER

reads all-MiniLM-L6-v2 (6 layers, width 384, MLP width 1536) from a folder with its
``model.safetensors``, ``config.json`` and ``tokenizer.json``, or from the Hugging Face hub, and
evaluates each layer's MLP, ``W₂ gelu(W₁ x + b₁) + b₂``, at tokens of English sentences. Prints the
mean Hoyer sparsity of its Jacobians on held-out tokens in the given basis, in the singular basis
and in the rotated basis, for the trained weights and for the same weights with their entries
shuffled. The difference between the two is due to training.
"""

import argparse
import time
import warnings

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from _bert import (
    BASES,
    HUB_NAME,
    WEIGHTS,
    Bert,
    draw_sparsities,
    find_model,
    mean_hoyer,
    shuffled,
    singular_bases,
)
from sklearn.exceptions import ConvergenceWarning

from jacrot import JacobianSparsityRotation, Network
from jacrot.display import JacobianDisplay
from jacrot.layers import Dense


def shuffled_mlp(mlp: Network, rng: np.random.Generator) -> Network:
    """Shuffle the entries of both matrices."""
    return Network(
        [Dense(shuffled(layer.weight, rng), layer.bias, layer.activation) for layer in mlp.layers]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=HUB_NAME, help="folder, or name on the hub")
    parser.add_argument("--layers", type=int, nargs="*", help="which layers; default: all")
    parser.add_argument("--tokens", type=int, default=256, help="tokens for the fit")
    parser.add_argument("--held-out", type=int, default=128, help="held-out tokens for the score")
    parser.add_argument("--length", type=int, default=32, help="tokens of a sentence")
    parser.add_argument("--max-iter", type=int, default=100, help="steps of the search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", default="transformer_mlp.png", help="file of the figure")
    options = parser.parse_args(arguments)
    # The search is meant to stop at max_iter, close to its end.
    warnings.simplefilter("ignore", ConvergenceWarning)

    model = Bert(find_model(options.model))
    n_tokens = options.tokens + options.held_out
    X = model.embed(4 * n_tokens // options.length + 1, options.length)
    layers = range(model.n_layers) if options.layers is None else options.layers
    rng = np.random.default_rng(options.seed)
    tokens = rng.permutation(X.shape[0] * X.shape[1])[:n_tokens]
    print(f"{model.n_layers} layers, width {X.shape[2]}; {options.tokens} tokens to fit on")
    print("mean Hoyer sparsity of the MLP's Jacobian, held-out tokens (0: dense)")
    print(f"{'layer':<7}{'weights':<10}" + "".join(f"{name:>10}" for name in BASES), end="")
    print(f"{'training':>10}{'seconds':>9}")

    sparsities = np.zeros((len(layers), 2, len(BASES)))
    shown = None
    for index, layer in enumerate(layers):
        hidden = model.encoder[: 2 * layer + 1](X).reshape(-1, X.shape[2])[tokens]
        A_train, A_test = hidden[: options.tokens], hidden[options.tokens :]
        trained = model.mlp(layer)
        for which, mlp in enumerate((trained, shuffled_mlp(trained, rng))):
            rotation = JacobianSparsityRotation(
                rotate_output=True, max_iter=options.max_iter, random_state=options.seed
            )
            start = time.perf_counter()
            rotation.fit(mlp, A_train)
            seconds = time.perf_counter() - start
            J = mlp.jacobians(A_test)
            P, Q = rotation.output_rotation_, rotation.rotation_
            bases = ((None, None), singular_bases(mlp.jacobians(A_train)), (P, Q))
            sparsities[index, which] = [mean_hoyer(J, *pair) for pair in bases]
            print(f"{layer:<7}{WEIGHTS[which]:<10}", end="")
            print("".join(f"{value:>10.3f}" for value in sparsities[index, which]), end="")
            print(f"{rotation.sparsity_:>10.3f}{seconds:>9.1f}", flush=True)
            same = rotation.rotated_network()(rotation.transform(A_test))
            difference = np.abs(same - mlp(A_test) @ P.T).max()
            if difference > 1e-4:
                raise SystemExit(f"the rotated network computes another function: {difference:.1e}")
            if shown is None:
                shown = J, P @ J @ Q.T

    figure = plt.figure(figsize=(15, 4.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 2])
    ax = left.subplots()
    draw_sparsities(ax, layers, sparsities)
    ax.set_ylabel("mean Hoyer sparsity, held out")
    ax.set_title("MLP Jacobians of all tokens")
    JacobianDisplay.from_jacobians(*shown, rotated_output=True, ax=right.subplots(1, 2))
    right.suptitle(f"MLP of layer {layers[0]}, mean over tokens")
    figure.savefig(options.picture, dpi=150)
    print(f"\ngiven, singular and rotated bases by layer: {options.picture}")


if __name__ == "__main__":
    main()
