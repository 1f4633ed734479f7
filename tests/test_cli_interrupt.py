"""Ctrl-C, and what fails after the search, lose nothing that was found."""

import importlib
import sys

import pytest
from builders import interrupting
from command import MIDDLE, Text, files, fit, python

from jacrot import JacobianSparsityRotation
from jacrot.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:the search did not converge")


def test_ctrl_c_keeps_the_best_so_far(digits_folder, monkeypatch, capsys):
    interrupting(monkeypatch, 10)
    monkeypatch.setattr("jacrot._cli.fit.null_baseline", None)
    status = main(["fit", "digits.npz", "inputs.npy", "-o", "o.npz", *MIDDLE, "--report", "r.html"])
    assert status == 130
    out, err = capsys.readouterr()
    assert "interrupted: the rotation that was written is the best found by then." in err
    assert "written: o.npz, r.html" in out
    found = JacobianSparsityRotation.load("o.npz")
    assert not found.converged_
    assert found.sparsity_ > found.sparsity_before_
    report = Text("r.html").words
    assert "the search was interrupted" in report
    assert "No null baseline was fitted" in report


@pytest.mark.parametrize("stage", ["null_baseline", "axis_stability"])
def test_ctrl_c_after_the_search_leaves_the_rest_out(stage, digits_folder, monkeypatch, capsys):
    original = getattr(importlib.import_module("jacrot._cli.fit"), stage)

    def interrupted(*arguments, **options):
        # In the middle of a fit, of which nothing may be kept.
        interrupting(monkeypatch, 3)
        return original(*arguments, **options)

    monkeypatch.setattr(f"jacrot._cli.fit.{stage}", interrupted)
    assert fit(*MIDDLE, "--report", "r.html", "--nulls", "2", "--n-init", "2") == 130
    out, err = capsys.readouterr()
    assert "written: out.npz, r.html" in out
    assert "interrupted: the rotation that was written is whole, the rest left out." in err
    report = Text("r.html").words
    assert "interrupted: what had not been computed by then is left out" in report
    assert ("No null baseline was fitted" in report) == (stage == "null_baseline")
    assert "This was not computed" in report
    found = JacobianSparsityRotation.load("out.npz")
    assert found.rotation_.shape == (64, 64)
    assert found.on_interrupt == "keep"


def test_ctrl_c_before_there_is_a_rotation(digits_folder, monkeypatch, capsys):
    def frame(*arguments):
        raise KeyboardInterrupt

    before = files(digits_folder)
    monkeypatch.setattr("jacrot._estimators.rotation.Frame", frame)
    assert fit(*MIDDLE) == 130
    out, err = capsys.readouterr()
    assert (out, err) == ("", "jacrot: interrupted.\n")
    assert files(digits_folder) == before


def test_files_written_before_an_error_are_listed(digits_folder, monkeypatch, capsys):
    def failing(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr("jacrot.report.write_report", failing)
    assert fit(*MIDDLE, "--report", "r.html", "--nulls", "0") == 2
    out, err = capsys.readouterr()
    assert out.endswith("written: out.npz\n")
    assert err.endswith("jacrot: error: disk full\n")


@pytest.mark.parametrize("hidden", [False, True])
def test_ctrl_c_while_modules_are_imported(hidden, monkeypatch, capsys):
    def interrupted(name):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            if hidden:
                raise ImportError("initialization failed") from error
            raise

    monkeypatch.setattr("jacrot.cli.importlib.import_module", interrupted)
    assert main(["info", "digits.npz"]) == 130
    assert capsys.readouterr() == ("", "jacrot: interrupted.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_ends_a_process_that_imports():
    code = (
        "import signal, time\n"
        "from jacrot._cli.interrupts import exit_on_interrupt\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with exit_on_interrupt():\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        print('an extension hid it')\n"
    )
    result = python(code)
    assert (result.returncode, result.stdout) == (130, "")
    assert result.stderr == "jacrot: interrupted.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_that_a_callback_swallows_is_raised_again():
    code = (
        "import signal, time\n"
        "from jacrot._cli.interrupts import repeat_swallowed_interrupts\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "repeat_swallowed_interrupts()\n"
        "class Swallowing:\n"
        "    def __del__(self):\n"
        "        raise KeyboardInterrupt\n"
        "try:\n"
        "    Swallowing()\n"
        "    deadline = time.monotonic() + 60\n"
        "    while time.monotonic() < deadline:\n"
        "        pass\n"
        "except KeyboardInterrupt:\n"
        "    print('raised')\n"
    )
    result = python(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "raised\n", "")
