"""Every benchmark runs, on small settings, with or without the peers that it compares with."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
BENCHMARKS = (
    "ablation",
    "hostile_files",
    "inspection",
    "kernel",
    "mutation",
    "recombination",
    "recovery",
    "scaling",
    "solver",
)


def test_every_benchmark_is_tested():
    scripts = {path.stem for path in FOLDER.glob("*.py")}
    assert scripts - {"_common", "peers"} == set(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_it_prints_a_table(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.delenv("JACROT_DATA", raising=False)
    try:
        importlib.import_module(name).main(["--quick"])
    finally:
        for module in (name, "_common", "peers"):
            sys.modules.pop(module, None)
    lines = capsys.readouterr().out.splitlines()
    assert any("cores" in line and "numpy" in line for line in lines)
    header = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    cells = lines[header + 1].split("|")
    assert len(cells) == len(lines[header].split("|"))
    assert "nan" not in cells[-2]
