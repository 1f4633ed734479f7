"""Measure the share of small changes of the code that the tests detect.

mutmut changes the functions of the modules on which the mathematics is based, one place at a
time, and runs those of their tests that call the changed function. A mutant that makes no test
fail survives. Everything runs in a copy of the source tree; survivors are listed with their
lines. This takes a quarter of an hour on one core; ``--quick`` changes one function, for one test.

    python benchmarks/mutation.py
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import chdir
from importlib.metadata import version
from pathlib import Path

from _common import machine, missing, options, table

ROOT = Path(__file__).parents[1]
MODULES = (
    "_search/objective",
    "criteria/_measures",
    "criteria/_minimised",
    "_jacobians/base",
    "_jacobians/dense",
    "_jacobians/layer",
    "_jacobians/matrix",
    "network",
)
TESTS = ("objective", "criteria", "jacobians", "network")
SETTINGS = """
[tool.mutmut]
source_paths = ["jacrot"]
only_mutate = {modules}
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {tests}
"""
# Exit codes of a mutant's tests in mutmut's results: failed, or stopped because they took more than
# fifteen times as long.
CAUGHT = (1, 3, 24, -24, 36)


def mutate(folder, modules, tests, names):
    """Run tests on the mutants of some modules, in a separate folder."""
    for part in ("jacrot", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    paths = [f"jacrot/{name}.py" for name in modules]
    settings = SETTINGS.format(modules=paths, tests=tests)
    given = (ROOT / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(given + settings)
    # CI: hypothesis draws the same examples for every mutant.
    environment = {**os.environ, "CI": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *names]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"mutmut failed:\n{(run.stdout + run.stderr)[-3000:]}")


def results(folder, module):
    """Return which of the mutants of a module were caught."""
    text = (folder / "mutants" / "jacrot" / f"{module}.py.meta").read_text()
    codes = json.loads(text)["exit_code_by_key"]
    return {name: code in CAUGHT for name, code in codes.items() if code is not None}


def survivor(folder, module, name):
    """Return the place of a mutant, the original code and the changed code."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    path = f"jacrot/{module}.py"
    with chdir(folder):
        diff = get_diff_for_mutant(name, path=path).splitlines()[2:]
        lines = function_lines(Path(path).read_text())
    start = lines[name.rpartition(".")[2].rpartition("__mutmut_")[0]]
    line = start + int(re.match(r"@@ -(\d+)", diff[0])[1]) - 1
    # Skip the lines of context before the first change; the diff includes decorators.
    line += next(number for number, text in enumerate(diff[1:]) if text[0] in "+-")
    before, after = (
        " ".join(text[1:].strip() for text in diff[1:] if text[0] == sign) for sign in "-+"
    )
    return [f"{module}.py:{line}", *(f"`{text}`".replace("|", "\\|") for text in (before, after))]


def function_lines(source):
    """Return the first line of every function, by the name that mutmut gives it."""
    lines = {}
    for node in ast.parse(source).body:
        for part in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(part, ast.FunctionDef):
                owner = f"xǁ{node.name}ǁ" if isinstance(node, ast.ClassDef) else "x_"
                first = min([part.lineno, *(mark.lineno for mark in part.decorator_list)])
                lines[owner + part.name] = first
    return lines


def main(argv=None):
    """Print the tables."""
    arguments = options(__doc__.splitlines()[0], argv)
    modules, names = MODULES, ()
    tests = [f"tests/test_{name}.py" for name in TESTS]
    if arguments.quick:
        modules = ("criteria/_minimised",)
        names = ("jacrot.criteria._minimised.x_get_criterion__*",)
        tests = ["tests/test_criteria.py::test_unknown_name"]
    rows, survivors = [], []
    try:
        importlib.import_module("mutmut")
        title = f"Mutants of mutmut {version('mutmut')} that the tests catch"
    except ModuleNotFoundError as error:
        title = "Mutants that the tests catch"
        rows = [[module, missing(error), "", ""] for module in modules]
        modules = ()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if modules:
            mutate(folder, modules, tests, names)
        for module in modules:
            caught = results(folder, module)
            count = sum(caught.values())
            rows.append([module, len(caught), count, f"{100 * count / len(caught):.1f} %"])
            survivors += [survivor(folder, module, key) for key in caught if not caught[key]]
    print(machine())
    table(title, ["module", "mutants", "caught", "share"], rows)
    if survivors:
        table("Surviving mutants", ["where", "code", "mutant"], survivors)


if __name__ == "__main__":
    main()
