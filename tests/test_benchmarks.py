"""Every benchmark runs, on small settings, with or without the peers that it compares with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[1] / "benchmarks"
BENCHMARKS = (
    "ablation",
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
def test_it_prints_a_table(name, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "JACROT_DATA"}
    run = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py", "--quick"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert any("cores" in line and "numpy" in line for line in lines)
    header = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    cells = lines[header + 1].split("|")
    assert len(cells) == len(lines[header].split("|"))
    assert "nan" not in cells[-2]
