"""Every example runs, on small settings."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from sklearn.datasets import load_digits

from jacrot.readers import load

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(argument) for argument in arguments])


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"mnist_jacobian", "train_digits_mlp"}


SMALL = ("--hidden", 12, "--epochs", 30, "--samples", 40, "--max-iter", 500)


def tables(output):
    """Read the two tables: sparsities by basis, and functions by network."""
    result = []
    for line in output.splitlines():
        name, columns = line[:42].strip(), line[42:].split()
        if name in ("basis", "network"):
            result.append({})
        elif result and columns and not line.startswith("before and after"):
            result[-1][name] = columns
    return result


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_digits(tmp_path, capsys):
    picture = tmp_path / "picture.png"
    run("mnist_jacobian", *SMALL, "--picture", picture)
    sparsities, functions = tables(capsys.readouterr().out)
    held_out = {basis: float(columns[1]) for basis, columns in sparsities.items()}
    assert held_out["jacrot"] > held_out["given"] + 0.1
    assert held_out["jacrot, outputs rotated too"] > held_out["jacrot"]
    assert set(functions) == {"given", "rotated", "rotated, outputs too"}
    assert {tuple(columns[:4]) for columns in functions.values()} == {
        (functions["given"][0], "500", "of", "500")
    }
    assert imread(picture).std() > 0.1


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_idx_files_and_foreign_weights(tmp_path, capsys):
    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.uint8).reshape(-1, 8, 8)
    for name, array in (("images-idx3", images), ("labels-idx1", labels.astype(np.uint8))):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        content = header + array.tobytes()
        (tmp_path / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    rng = np.random.default_rng(0)
    shapes = {"W0": (12, 64), "W1": (12, 12), "W2": (10, 12), "b0": 12, "b1": 12, "b2": 10}
    weights = tmp_path / "weights.npz"
    np.savez(weights, **{name: rng.normal(size=shape) for name, shape in shapes.items()})
    picture = tmp_path / "picture.png"
    run(
        "mnist_jacobian",
        *("--data", tmp_path, "--weights", weights, "--picture", picture),
        *("--samples", 40, "--held-out", 50),
    )
    output = capsys.readouterr().out
    assert "Network(64 → 12 → 12 → 10; relu, relu, identity), 269 test images" in output
    assert picture.exists()


def test_missing_idx_files_are_named(tmp_path):
    with pytest.raises(SystemExit, match="neither t10k-images-idx3-ubyte nor"):
        run("mnist_jacobian", "--data", tmp_path)


def test_missing_extra_is_named(monkeypatch):
    def without_pandas(*arguments, **options):
        raise ImportError("parser='auto' requires pandas")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", without_pandas)
    with pytest.raises(SystemExit, match=r"pip install '\.\[examples\]'"):
        run("mnist_jacobian", "--data", "openml")


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_train_digits_mlp(tmp_path, capsys):
    path = tmp_path / "network.npz"
    run("train_digits_mlp", path, "--hidden", 10, "--max-iter", 3)
    assert repr(load(path)) == "Network(64 → 10 → 10 → 10; relu, relu, identity)"
    assert "500 held-out digits" in capsys.readouterr().out
