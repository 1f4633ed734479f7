"""Find one basis in which the value–output circuits of all heads of a layer are sparse.

    python examples/transformer_attention.py --model FOLDER

A head moves information from one position to another by a fixed matrix, its value–output circuit
``W_o W_v``. A single matrix is sparse in its singular basis, trained or not; a basis in which the
circuits of all heads are sparse is shared structure. For every layer of all-MiniLM-L6-v2 the
program finds the bases of the residual stream in which the circuits read and write. It prints their
mean Hoyer sparsity in the given, the singular and the rotated basis, and the share of an input
axis's effect that goes through its strongest head, for the trained weights and for the same weights
with their entries shuffled. The circuits do not depend on the inputs, so that no held-out data are
needed.
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
from matplotlib.ticker import MaxNLocator
from sklearn.exceptions import ConvergenceWarning

from jacrot import JacobianSparsityRotation
from jacrot.layers import Attention


def effects(circuits: np.ndarray, Q: np.ndarray | None = None) -> np.ndarray:
    """Compute the share of every head in the effect of every input axis."""
    X = circuits if Q is None else circuits @ Q.T
    energy = np.einsum("hab,hab->hb", X, X)
    return energy / energy.sum(axis=0)


def shuffled_attention(attention: Attention, rng: np.random.Generator) -> Attention:
    """Shuffle the entries of the value and output matrices."""
    sides = {side: shuffled(getattr(attention, side), rng) for side in ("value", "output")}
    return attention.changed(**sides)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=HUB_NAME, help="folder, or name on the hub")
    parser.add_argument("--layers", type=int, nargs="*", help="which layers; default: all")
    parser.add_argument("--max-iter", type=int, default=300, help="steps of the search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", default="transformer_attention.png", help="file of the figure")
    options = parser.parse_args(arguments)
    # The search is meant to stop at max_iter, close to its end.
    warnings.simplefilter("ignore", ConvergenceWarning)

    model = Bert(find_model(options.model))
    layers = range(model.n_layers) if options.layers is None else options.layers
    rng = np.random.default_rng(options.seed)
    print("mean Hoyer sparsity of the value–output circuits; share of the strongest head")
    print(f"{'layer':<7}{'weights':<10}" + "".join(f"{name:>10}" for name in BASES), end="")
    print(f"{'given':>10}{'rotated':>10}{'seconds':>9}")

    sparsities = np.zeros((len(layers), 2, len(BASES)))
    shown = []
    for index, layer in enumerate(layers):
        trained = model.attention(layer)
        for which, attention in enumerate((trained, shuffled_attention(trained, rng))):
            heads = [attention.value_output(head) for head in range(attention.n_heads)]
            # Blocks that share a basis; they are linear, so that one input each is enough.
            inputs = [np.zeros((1, attention.n_inputs), np.float32)] * len(heads)
            rotation = JacobianSparsityRotation(
                rotate_output=True, max_iter=options.max_iter, random_state=options.seed
            )
            start = time.perf_counter()
            rotation.fit(heads, inputs)
            seconds = time.perf_counter() - start
            circuits = np.stack([head.weight for head in heads])
            P, Q = rotation.output_rotation_, rotation.rotation_
            bases = ((None, None), singular_bases(circuits), (P, Q))
            sparsities[index, which] = [mean_hoyer(circuits, *pair) for pair in bases]
            shares = [effects(circuits), effects(circuits, Q)]
            print(f"{layer:<7}{WEIGHTS[which]:<10}", end="")
            print("".join(f"{value:>10.3f}" for value in sparsities[index, which]), end="")
            strongest = [share.max(axis=0).mean() for share in shares]
            print(f"{strongest[0]:>10.2f}{strongest[1]:>10.2f}{seconds:>9.1f}", flush=True)
            if index == 0:
                shown.append(shares)

    figure = plt.figure(figsize=(14, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.7])
    ax = left.subplots()
    draw_sparsities(ax, layers, sparsities)
    ax.set_ylabel("mean Hoyer sparsity")
    ax.set_title("Value–output circuits of all heads")
    panels = right.subplots(2, 2, sharex=True, sharey=True)
    for row, weights in enumerate(("trained", "shuffled")):
        for column, basis in enumerate(("given", "rotated")):
            share = shown[row][column]
            # Axes are ordered by their strongest head, and then by its share.
            order = np.lexsort((-share.max(axis=0), share.argmax(axis=0)))
            image = panels[row, column].imshow(
                share[:, order], aspect="auto", cmap="inferno", vmin=0, vmax=1
            )
            panels[row, column].set_title(f"{weights} weights, {basis} basis")
    for ax in panels[1]:
        ax.set_xlabel("input axis (ordered)")
    for ax in panels[:, 0]:
        ax.set_ylabel("head")
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    right.colorbar(image, ax=panels, label="share of the axis's effect")
    right.suptitle(f"Layer {layers[0]}: heads through which every input axis acts")
    figure.savefig(options.picture, dpi=150)
    print(f"\nsparsity by layer, and heads by input axis: {options.picture}")


if __name__ == "__main__":
    main()
