"""The command as a process: its streams, its help, and what it imports."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jacrot import __version__
from jacrot.cli import main


def test_python_dash_m(digits_folder):
    command = [sys.executable, "-m", "jacrot", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("usage: jacrot ")
    assert "fit" in result.stdout
    assert result.stderr == ""


def test_a_reader_that_has_enough(digits_folder):
    command = [sys.executable, "-m", "jacrot", "info", "digits.npz"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["info", "--help"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "usage: jacrot" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"jacrot {__version__}\n"


def test_the_command_that_is_installed_is_this_one():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    module, _, name = project["project"]["scripts"]["jacrot"].partition(":")
    assert getattr(importlib.import_module(module), name) is main
