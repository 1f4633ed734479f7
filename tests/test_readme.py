"""The README's examples run."""

import re
from pathlib import Path

import numpy as np
import pytest
from builders import framework

pytestmark = pytest.mark.search

README = Path(__file__).parents[1] / "README.md"


def examples():
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_first_example_runs_and_says_what_the_text_says(capsys):
    names = {}
    exec(examples()[0], names)
    before, after, held_out = map(float, capsys.readouterr().out.split())
    assert before + 0.3 < held_out <= after
    X = names["digits"].X_test
    np.testing.assert_allclose(names["same"](X), names["network"](X), atol=1e-5)


def test_any_pytorch_model_goes_to_a_rotation():
    torch = framework("torch")

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = torch.nn.Conv1d(7, 7, 3, padding=1)
            self.norm = torch.nn.LayerNorm(6)
            self.mlp = torch.nn.Sequential(
                torch.nn.Linear(6, 9), torch.nn.Mish(), torch.nn.Linear(9, 6)
            )

        def forward(self, x):
            x = x + torch.sigmoid(x) * self.mix(x)
            return x + self.mlp(self.norm(x))

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.ModuleList(Block() for _ in range(5))

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x.mean(1)

    torch.manual_seed(0)
    model = Model()
    names = {"model": model, "inputs": torch.randn(20, 7, 6)}
    code = examples()[1]
    assert len([line for line in code.splitlines() if line]) <= 5
    exec("from jacrot import JacobianSparsityRotation\n" + code, names)
    X, rotation = names["captured"].X, names["rotation"]
    assert X.shape == (140, 6)
    assert rotation.sparsity_ > rotation.sparsity_before_ + 0.02
    expected = torch.func.vmap(torch.func.jacrev(model.blocks[3].mlp))(torch.as_tensor(X))
    np.testing.assert_allclose(names["captured"].jacobians, expected.detach(), atol=1e-5)


@pytest.mark.slow
def test_fewest_connections_are_those_of_the_functional_coordinates(capsys):
    names = {}
    exec(examples()[0], names)
    capsys.readouterr()
    exec(examples()[2], names)
    given, pca, interaction, functional = map(int, capsys.readouterr().out.split())
    assert functional < pca < given
    assert functional <= 1.2 * interaction


def test_pictures_exist():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / path).stat().st_size > 10_000
