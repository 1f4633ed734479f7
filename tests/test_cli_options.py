"""The options: their types, their defaults, and the help."""

import importlib
import re
import subprocess
import sys
import tomllib
from dataclasses import MISSING, fields
from inspect import cleandoc
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from command import python

from jacrot import JacobianSparsityRotation, NetworkRotation, __version__
from jacrot._cli.options import (
    COMMANDS,
    DEFAULT_NULLS,
    FitOptions,
    InfoOptions,
    InputOptions,
    OutputOptions,
    SearchOptions,
)
from jacrot._cli.parser import parse
from jacrot.cli import main
from jacrot.criteria._minimised import CRITERIA
from jacrot.readers import _files

LEAST = ["fit", "w.npz", "x.npy", "-o", "o.npz"]


@pytest.fixture
def help_of(capsys, monkeypatch):
    """Return the help of a command, without line breaks in a text."""
    monkeypatch.setenv("COLUMNS", "10000")

    def help_of(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--help"])
        assert ended.value.code == 0
        return capsys.readouterr().out

    return help_of


def test_defaults_are_those_of_the_classes():
    expected = FitOptions(Path("w.npz"), Path("x.npy"), out=Path("o.npz"))
    assert parse(LEAST) == ("fit", expected)
    assert parse(["info", "f.npz"]) == ("info", InfoOptions(Path("f.npz")))


def test_all_options():
    words = (
        "--report r.html --network n.npz --force -v --activation relu,tanh --activation gelu "
        "--layout in_out --names a,b --names c --layers 1: --from-inputs --array a "
        "--held-out t.npy --rotate-output tied --n-components 0.5 --criterion log "
        "--coordinates functional --n-init 2 --tol 1e-3 --max-iter 7 --seed 3 --nulls 4"
    )
    expected = FitOptions(
        weights=Path("w.npz"),
        activations=Path("x.npy"),
        out=Path("o.npz"),
        report=Path("r.html"),
        network=Path("n.npz"),
        force=True,
        verbose=True,
        activation=["relu", "tanh", "gelu"],
        layout="in_out",
        names=["a", "b", "c"],
        layers=(1, None),
        from_inputs=True,
        array="a",
        held_out=Path("t.npy"),
        rotate_output="tied",
        n_components=0.5,
        criterion="log",
        coordinates="functional",
        n_init=2,
        tol=1e-3,
        max_iter=7,
        seed=3,
        nulls=4,
    )
    assert parse([*LEAST, *words.split()]) == ("fit", expected)
    named = {word[2:].replace("-", "_") for word in words.split() if word.startswith("--")}
    named |= {"out", "weights", "activations", "verbose", "quiet", "whole_network"}
    assert named == {field.name for field in fields(FitOptions)}
    assert parse([*LEAST, "--whole-network", "-q"])[1].whole_network


def test_numbers_keep_their_type():
    _, options = parse([*LEAST, "--n-components", "9", "--held-out", "0.25", "--layers", ":2"])
    assert (options.n_components, type(options.n_components)) == (9, int)
    assert (options.held_out, options.layers) == (0.25, (None, 2))


@pytest.mark.parametrize(
    ("options", "n_nulls"), [("", 0), ("--report r.html", DEFAULT_NULLS), ("--nulls 5", 5)]
)
def test_number_of_nulls(options, n_nulls):
    assert parse([*LEAST, *options.split()])[1].n_nulls == n_nulls


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_in_the_help(command, help_of):
    shown = " ".join(help_of(command).split())
    docstrings = "".join(cleandoc(cls.__doc__) + "\n" for cls in COMMANDS[command].__mro__[:-1])
    for field in fields(COMMANDS[command]):
        flag = f"--{field.name.replace('_', '-')}" if field.kw_only else field.name.upper()
        _, _, documented = docstrings.partition(f"\n{field.name} : ")
        text = re.match(r".*\n((?:    .*\n)+)", documented)[1]
        if field.default not in (MISSING, None, False, (None, None)):
            text += f" (default: {field.default})"
        assert re.search(rf" {flag} (\S+ )?{re.escape(' '.join(text.split()))}", shown)


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["info", "--help"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: jacrot")
    # Not every terminal has more.
    assert out.isascii()


@pytest.mark.parametrize(
    ("heading", "options"),
    [
        ("What is written", OutputOptions),
        ("What is read", InputOptions),
        ("What is searched for", SearchOptions),
    ],
)
def test_groups_of_the_help(heading, options, help_of):
    group = help_of("fit").partition(f"\n{heading}:\n")[2].partition("\n\n")[0]
    flags = re.findall(r"^  (?:-\w.*, )?--([\w-]+)", group, re.MULTILINE)
    assert [flag.replace("-", "_") for flag in flags] == [field.name for field in fields(options)]


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"jacrot {__version__}\n"


@pytest.mark.parametrize("estimator", [JacobianSparsityRotation, NetworkRotation])
def test_defaults_are_those_of_the_estimators(estimator):
    parameters = estimator().get_params()
    # The command line has words for these, and a seed.
    special = {"rotate_output", "random_state", "verbose"}
    shared = [
        attribute
        for attribute in fields(SearchOptions)
        if attribute.name in parameters.keys() - special
    ]
    assert len(shared) >= 5
    assert all(attribute.default == parameters[attribute.name] for attribute in shared)


def test_the_help_knows_criteria_and_formats(help_of):
    criteria = get_args(get_type_hints(FitOptions)["criterion"])
    assert list(criteria) == sorted(CRITERIA)
    shown = help_of("fit")
    assert all(f"{suffix}," in shown or f"{suffix} or" in shown for suffix in _files.SUFFIXES)
    assert f"(default: {DEFAULT_NULLS} with --report" in shown


def test_parsing_without_docstrings():
    code = (
        "import sys\n"
        "sys.flags.optimize == 2 or sys.exit('docstrings are there')\n"
        "from jacrot._cli.parser import parse\n"
        "print(parse(['info', 'f.npz', '--json'])[1].json)\n"
        "parse(['fit', '--help'])\n"
    )
    result = python(code, PYTHONOPTIMIZE="2")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("True\nusage: jacrot fit")


def test_help_imports_nothing_large_and_needs_no_backend():
    code = "\n".join(
        [
            "import sys",
            "from jacrot.cli import main",
            "for arguments in (['--version'], ['--help'], ['fit', '--help'], ['fit', 'x']):",
            "    try:",
            "        main(arguments)",
            "    except SystemExit as ended:",
            "        assert ended.code == 0",
            "assert not {'numpy', 'sklearn', 'matplotlib'} & set(sys.modules)",
            "from jacrot._cli.fit import draw_to_files",
            "with draw_to_files():",
            "    import matplotlib",
            "print(matplotlib.get_backend())",
            "import os; print(os.environ['MPLBACKEND'])",
        ]
    )
    result = python(code, MPLBACKEND="module://not_installed.backend_inline")
    assert result.returncode == 0, result.stderr
    *_, backend, environment = result.stdout.splitlines()
    assert backend.lower() == "agg"
    assert environment == "module://not_installed.backend_inline"


def test_python_dash_m():
    command = [sys.executable, "-m", "jacrot", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("usage: jacrot ")
    assert "fit" in result.stdout
    assert result.stderr == ""


def test_the_command_that_is_installed_is_this_one():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    module, _, name = project["project"]["scripts"]["jacrot"].partition(":")
    assert getattr(importlib.import_module(module), name) is main
