"""Rotate the channels of a trained ResNet: one convolution, one block, the blocks of a stage.

    python examples/resnet.py --weights resnet20_cifar10.npz

reads a ResNet-20 for CIFAR-10 (its PyTorch state dict as an ``.npz`` file), evaluates it on 32 × 32
crops of photographs, and rotates the input channels of (1) one convolution, (2) one residual block
and (3) all blocks of a stage. Block and stage have a tied basis, that of their residual stream.
Prints the mean Hoyer sparsity of the Jacobians between channels, and how much the logits of the
whole network change when the rotation is folded in.
"""

import argparse
import time
import warnings
from collections.abc import Mapping

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.exceptions import ConvergenceWarning

from jacrot import JacobianSparsityRotation, Network
from jacrot.display import JacobianDisplay
from jacrot.layers import (
    Activation,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Layer,
    Residual,
    Sequential,
    fused,
)

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
BLOCKS = 3


def resnet(arrays: Mapping[str, np.ndarray]) -> Network:
    """Build the network: a convolution, three stages of three blocks, and a linear layer."""

    def conv_norm(conv: str, norm: str, stride: int = 1) -> list[Layer]:
        statistics = (arrays[f"{norm}.running_{name}"] for name in ("mean", "var"))
        scales = (arrays[f"{norm}.{name}"] for name in ("weight", "bias"))
        kernel = arrays[f"{conv}.weight"]
        return [
            Conv2d(kernel, activation="identity", stride=stride, padding=1),
            BatchNorm(*statistics, *scales),
        ]

    def block(name: str, stride: int) -> Layer:
        first = conv_norm(f"{name}.conv1", f"{name}.bn1", stride)
        second = conv_norm(f"{name}.conv2", f"{name}.bn2")
        branch = fused([*first, Activation("relu"), *second])
        n_out, n_in = branch[-1].n_outputs, branch[0].n_inputs
        shortcut = None
        if n_out != n_in:
            # Every other pixel; the new channels, half before and half after, are zero.
            kernel = np.eye(n_out, n_in, -(n_out - n_in) // 2, dtype=np.float32)[:, :, None, None]
            shortcut = Conv2d(kernel, activation="identity", stride=stride)
        return Sequential([Residual(branch, shortcut), Activation("relu")])

    layers = fused([*conv_norm("conv1", "bn1"), Activation("relu")])
    for stage in (1, 2, 3):
        for index in range(BLOCKS):
            layers.append(block(f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1))
    logits = Dense(arrays["linear.weight"], arrays["linear.bias"], "identity")
    return Network([*layers, AvgPool2d(), Flatten(), logits])


def photographs(n_crops: int, seed: int) -> np.ndarray:
    """Return random crops of scikit-learn's two photographs, normalised as in the training."""
    rng = np.random.default_rng(seed)
    images = load_sample_images().images
    crops = []
    for index in range(n_crops):
        image = images[index % len(images)]
        top, left = (rng.integers(extent - 32) for extent in image.shape[:2])
        crops.append((image[top : top + 32, left : left + 32] / 255 - MEAN) / DEVIATION)
    return np.array(crops).transpose(0, 3, 1, 2)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help=".npz file of the state dict")
    parser.add_argument("--stage", type=int, default=3, choices=(1, 2, 3))
    parser.add_argument("--crops", type=int, default=100, help="crops for the fit")
    parser.add_argument("--held-out", type=int, default=50, help="held-out crops for the score")
    parser.add_argument("--max-iter", type=int, default=300, help="steps of the search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", default="resnet.png", help="file of the figure")
    options = parser.parse_args(arguments)
    # The search is meant to stop at max_iter, close to its end.
    warnings.simplefilter("ignore", ConvergenceWarning)

    with np.load(options.weights) as file:
        network = resnet(dict(file))
    X = photographs(options.crops + options.held_out, options.seed)
    # The second block of the stage, which reads and writes the residual stream.
    first = 2 + BLOCKS * (options.stage - 1)
    hidden = {site: network[:site](X) for site in range(first, first + BLOCKS - 1)}
    block = network[first : first + 1]
    convolution = Network([block.layers[0].layers[0].branch.layers[0]])
    stream = [network[site : site + 1] for site in hidden]
    print(f"stage {options.stage}: {hidden[first].shape[1]} channels")
    print("mean Hoyer sparsity of the Jacobians between channels, held-out photographs")
    print(
        f"{'':<34}{'given':>8}{'rotated':>9}{'held out':>10}{'seconds':>9}{'logits differ by':>18}"
    )

    figure = plt.figure(figsize=(9, 12.5), layout="constrained")
    panels = figure.subfigures(3, 1)
    whole = slice(None, options.crops), slice(options.crops, None)
    for index, (title, parts, rotate_output) in enumerate(
        (
            ("one convolution, both sides", convolution, True),
            ("one block, tied", block, "tied"),
            (f"the stream of {len(stream)} blocks, tied", stream, "tied"),
        )
    ):
        train, test = ([x[part] for x in hidden.values()] for part in whole)
        if parts is not stream:
            train, test = train[0], test[0]
        rotation = JacobianSparsityRotation(
            rotate_output=rotate_output, max_iter=options.max_iter, random_state=options.seed
        )
        start = time.perf_counter()
        rotation.fit(parts, train)
        seconds = time.perf_counter() - start
        print(f"{title:<34}{rotation.sparsity_before_:>8.3f}{rotation.sparsity_:>9.3f}", end="")
        print(f"{rotation.score(test):>10.3f}{seconds:>9.1f}", end="")
        # Fold the rotation of the inputs of these parts into the whole network.
        sites = [*hidden] if parts is stream else [first]
        turned = network.rotated(dict.fromkeys(sites, rotation.rotation_))
        print(f"{np.abs(turned(X) - network(X)).max():>18.1e}", flush=True)
        one_crop = [x[:1] for x in test] if parts is stream else test[:1]
        JacobianDisplay.from_estimator(rotation, one_crop, ax=panels[index].subplots(1, 2))
        panels[index].suptitle(f"{title}: mean over the positions of a held-out photograph")
    figure.savefig(options.picture, dpi=120)
    print(f"\nJacobians between channels, before and after: {options.picture}")


if __name__ == "__main__":
    main()
