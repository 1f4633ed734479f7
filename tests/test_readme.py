"""The README's first example runs."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parents[1] / "README.md"


def test_first_example_runs_and_says_what_the_text_says(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    exec(code, names)
    before, after, held_out = map(float, capsys.readouterr().out.split())
    assert before + 0.3 < held_out <= after
    X = names["digits"].X_test
    np.testing.assert_allclose(names["same"](X), names["network"](X), atol=1e-5)


def test_pictures_exist():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / path).stat().st_size > 10_000
