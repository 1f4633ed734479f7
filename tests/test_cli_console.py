"""The command and its streams: what is printed never costs a result."""

import errno
import io
import subprocess
import sys
from pathlib import Path

import pytest
from command import MIDDLE, Text, fit, python

from jacrot._cli.console import Console, _Lines
from jacrot._utils.text import replace_unencodable
from jacrot.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:the search did not converge")
QUICK = [*MIDDLE, "--max-iter", "1"]


class Stream(io.TextIOWrapper):
    """A stream in an encoding, which is strict as standard output is."""

    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", newline="\n")

    def text(self):
        return self.buffer.getvalue().decode(self.encoding)


class Unwritable(io.StringIO):
    """A stream to a closed pipe or a full disk, or a closed stream."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


UNWRITABLE = [
    BrokenPipeError(errno.EPIPE, "Broken pipe"),
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("I/O operation on closed file."),
]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp437", "ascii", "cp932", "utf-8"])
def test_an_encoding_without_arrows(encoding, digits_folder, monkeypatch):
    out, err = Stream(encoding), Stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert fit(*QUICK) == 0
    assert Path("out.npz").exists()
    arrow = "→" if encoding in ("utf-8", "cp932") else "->"
    assert out.text().startswith(f"layer 1 of digits.npz: Network(64 {arrow} 64; relu)\n")
    assert out.text().endswith("written: out.npz\n")
    assert main(["info", "digits.npz"]) == 0
    assert f"network: Network(64 {arrow} 64 {arrow} 64 {arrow} 10;" in out.text()
    assert main(["fit", "жук.npz", "inputs.npy", "-o", "o.npz"]) == 2
    beetle = r"\u0436\u0443\u043a" if encoding not in ("utf-8", "cp932") else "жук"
    assert err.text().endswith(f"jacrot: error: path='{beetle}.npz' does not exist.\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "utf-16", "shift-jis"])
@pytest.mark.parametrize("text", ["", "a\nb", "64 → 10", "±×ℓ…", "\udcff", "ж\U0001f600"])
def test_what_is_encodable(encoding, text):
    shown = replace_unencodable(text, encoding)
    assert shown.encode(encoding).decode(encoding) == shown
    assert shown.isascii() or encoding != "ascii"
    if encoding == "utf-8" and text != "\udcff":
        assert shown == text


def test_results_are_saved_before_anything_is_printed(digits_folder, monkeypatch):
    seen = []

    class Watching(io.StringIO):
        def write(self, text):
            seen.append((Path("out.npz").exists(), Path("rotated.npz").exists()))
            return super().write(text)

    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Watching())
    assert fit(*QUICK, "--network", "rotated.npz") == 0
    assert seen
    assert all(seen[0])


@pytest.mark.parametrize("error", UNWRITABLE, ids=lambda error: type(error).__name__)
def test_printing_that_fails_loses_nothing(error, digits_folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Unwritable(error))
    assert fit(*QUICK, "--report", "r.html", "--nulls", "0") == 0
    assert "Sparsity in this basis and in others" in Text("r.html").words
    err = capsys.readouterr().err
    assert ("warning: not all could be printed" in err) == (not isinstance(error, BrokenPipeError))
    # What info prints is its result.
    assert main(["info", "out.npz"]) == (1 if isinstance(error, BrokenPipeError) else 2)


@pytest.mark.parametrize("error", UNWRITABLE, ids=lambda error: type(error).__name__)
def test_errors_and_progress_that_cannot_be_printed(error, digits_folder, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Unwritable(error))
    assert fit(*QUICK, "-v") == 0
    assert Path("out.npz").exists()
    assert main(["info", "missing.npz"]) == 2


@pytest.mark.parametrize("options", [[], ["-v"]])
def test_streams_that_are_closed(options, digits_folder, monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert fit(*QUICK, *options) == 0
    assert Path("out.npz").exists()
    assert main(["info", "missing.npz"]) == 2


def test_names_that_no_encoding_has(digits_folder, capsys):
    # What Python makes of bytes that are not UTF-8.
    names = {name: f"\udcff{name}" for name in ("digits.npz", "inputs.npy", "out.npz", "r.html")}
    try:
        for name in ("digits.npz", "inputs.npy"):
            Path(name).rename(names[name])
    except OSError:
        pytest.skip("this file system has no such names")
    report = ["--report", names["r.html"], "--nulls", "0"]
    arguments = [*QUICK, *report]
    status = fit(
        *arguments, weights=names["digits.npz"], activations=names["inputs.npy"], out="o.npz"
    )
    assert status == 0
    assert capsys.readouterr().out.startswith("layer 1 of \\udcffdigits.npz: ")
    report = Text(names["r.html"])
    assert "\\udcffdigits.npz" in report.words
    exec(report.codes[0], {})


def test_nothing_is_printed_after_a_failure(monkeypatch):
    console = Console()
    monkeypatch.setattr(sys, "stdout", Unwritable(UNWRITABLE[0]))
    console.show("lost")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    console.show("after a hole")
    assert sys.stdout.getvalue() == ""
    assert console.failure is UNWRITABLE[0]


def test_progress_in_a_file_is_lines(digits_folder, capsys):
    assert fit(*MIDDLE, "-v") == 0
    err = capsys.readouterr().err
    assert "rotation: " in err
    assert all(character.isprintable() or character == "\n" for character in err)
    assert all(line.strip() for line in err.splitlines())
    assert "jacrot: warning: the search did not converge" in err


def test_a_progress_bar_as_lines():
    now = 0.0
    stream = io.StringIO()
    lines = _Lines(stream, lambda: now)
    lines.write("\rbar 0")
    for now in (1.0, 5.0, 11.0, 12.0):
        lines.write(f"\rbar {now:.0f}   \x1b[A")
    lines.write("\n")
    lines.write("a warning\nand half")
    lines.write(" a line")
    lines.end()
    lines.end()
    assert stream.getvalue().splitlines() == [
        "bar 0",
        "bar 11   \\x1b[A",
        "bar 12   \\x1b[A",
        "a warning",
        "and half a line",
    ]


def test_nothing_is_drawn_without_a_report(digits_folder, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("jacrot.")]:
        if name.split(".")[1] in ("report", "display"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert fit(*QUICK) == 0
    Path("out.npz").unlink()
    # That it cannot be drawn is found out before the search.
    monkeypatch.setattr("jacrot._estimators.base.solve", None)
    assert fit(*QUICK, "--report", "r.html") == 2
    assert not Path("out.npz").exists()


@pytest.mark.slow
def test_a_pipe_that_is_closed(digits_folder):
    command = [sys.executable, "-m", "jacrot", "info", "digits.npz"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_descriptors_that_are_closed_are_opened():
    # The next file would be standard output, and hold what libraries print there.
    code = (
        "import os, sys\n"
        "from jacrot._cli.console import open_descriptors\n"
        "os.close(0); os.close(1)\n"
        "open_descriptors()\n"
        "assert os.path.samestat(os.fstat(1), os.stat(os.devnull))\n"
        "assert open(os.devnull).fileno() > 2\n"
    )
    result = python(code)
    assert result.returncode in (0, 120), result.stderr
    assert "AssertionError" not in result.stderr
