"""What the tests of the command line share."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from sklearn.model_selection import train_test_split

from jacrot.cli import main
from jacrot.datasets import load_digits_mlp

DIGITS = load_digits_mlp()
NETWORK, INPUTS = DIGITS.network, DIGITS.X[:150]
ACTIVATION = ["--activation", "relu,relu,identity"]
MIDDLE = ["--from-inputs", "--layers", "1:2", *ACTIVATION]
# Searches that are short, and say so.
SHORT = ["--tol", "1e-1", "--max-iter", "20"]
OPTIONS = {"tol": 1e-1, "max_iter": 20, "random_state": 0}


def save_digits():
    """Save the network and its inputs where the test runs."""
    arrays = {}
    for number, layer in enumerate(NETWORK.layers):
        arrays |= {f"W{number}": layer.weight, f"b{number}": layer.bias}
    np.savez("digits.npz", **arrays)
    np.save("inputs.npy", INPUTS)


def fit(*options, weights="digits.npz", activations="inputs.npy", out="out.npz"):
    return main(["fit", weights, activations, "-o", out, *SHORT, *options])


def python(code, **environment):
    """Run code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def halves(seed=0, held_out=0.2):
    return train_test_split(INPUTS, test_size=held_out, random_state=seed)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


class Text:
    """The text of a report and the cells of its tables, by another parser's eyes."""

    def __init__(self, path):
        content = Path(path).read_text(encoding="utf-8").removeprefix("<!doctype html>\n")
        # HTML leaves these open; XML does not.
        for tag in ("meta", "img"):
            before, *parts = content.split(f"<{tag} ")
            parts = [part.replace(">", "/>", 1) for part in parts]
            content = f"<{tag} ".join([before, *parts])
        root = ElementTree.fromstring(content)
        self.words = " ".join("".join(root.find("body").itertext()).split())
        self.codes = ["".join(code.itertext()) for code in root.iter("code")]
        self.images = [image.get("src") for image in root.iter("img")]
