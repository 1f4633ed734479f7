"""Outputs that cannot be written, or must not be, are refused before the search."""

import errno
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from command import MIDDLE, fit

pytestmark = [
    pytest.mark.filterwarnings("ignore:the search did not converge"),
    pytest.mark.skipif(sys.platform == "win32", reason="links and devices are POSIX's"),
]
FLAGS = {"-o": "out.npz", "--network": "n.npz", "--report": "r.html"}


@pytest.fixture
def no_search(digits_folder, monkeypatch):
    def search(*arguments, **options):
        raise AssertionError("the search began")

    monkeypatch.setattr("jacrot._estimators.base.solve", search)
    return digits_folder


def status_with(flag, path, *options):
    """Fit with one of the outputs elsewhere."""
    if flag == "-o":
        return fit(*MIDDLE, *options, out=path)
    return fit(*MIDDLE, *options, flag, path)


def listed():
    return {name: os.lstat(name).st_mode for name in os.listdir(".")}


def assert_refused(flag, path, message, capsys, *options):
    before = listed()
    assert status_with(flag, path, *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"jacrot: error: {flag} {path!r}")
    assert message in err
    assert err.count("\n") == 1
    assert listed() == before


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_what_is_not_a_regular_file(flag, force, no_search, capsys):
    suffix = Path(FLAGS[flag]).suffix
    os.mkfifo(f"pipe{suffix}")
    os.symlink("/dev/null", f"null{suffix}")
    os.symlink("/dev/full", f"full{suffix}")
    os.mkdir(f"folder{suffix}")
    os.symlink(f"folder{suffix}", f"to_folder{suffix}")
    os.symlink(f"loop{suffix}", f"loop{suffix}")
    os.symlink(f"no/such{suffix}", f"dangling{suffix}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"socket{suffix}")
        for name, message in (
            ("pipe", "is not a regular file"),
            ("null", "is not a regular file"),
            ("full", "is not a regular file"),
            ("socket", "is not a regular file"),
            ("folder", "is a folder; pass the path of a file"),
            ("to_folder", "is a folder; pass the path of a file"),
            ("loop", "cannot be written"),
            ("dangling", "no' does not exist"),
            ("a" * 300, "cannot be written"),
        ):
            if name == "full" and not os.path.exists("/dev/full"):
                continue
            assert_refused(flag, f"{name}{suffix}", message, capsys, *force)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("flag", FLAGS)
def test_a_disk_that_takes_no_file(flag, no_search, monkeypatch, capsys):
    def refuse(path, *arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.open", refuse)
    message = ": the folder '.' is not writable (Read-only file system)."
    # Those before it are checked too.
    assert status_with(flag, FLAGS[flag]) == 2
    assert message in capsys.readouterr().err
    assert set(listed()) == {"digits.npz", "inputs.npy"}


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", ["digits.npz", "inputs.npy"])
def test_inputs_by_another_name(flag, link, name, no_search, capsys):
    path = f"other{Path(FLAGS[flag]).suffix}"
    link(name, path)
    other = "WEIGHTS" if name == "digits.npz" else "ACTIVATIONS"
    assert_refused(flag, path, f"is {other} too; pass another path", capsys, "--force")


def test_outputs_by_another_name(no_search, capsys):
    os.symlink("out.npz", "n.npz")
    assert_refused("--network", "n.npz", "is -o too", capsys)
    Path("folder").mkdir()
    os.symlink("folder", "same")
    before = listed()
    assert fit("--network", "same/a.npz", *MIDDLE, out="folder/a.npz") == 2
    assert "--network 'same/a.npz' is -o too" in capsys.readouterr().err
    assert listed() == before


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_where_the_command_prints(name, no_search, monkeypatch, capsys):
    with open("printed.html", "w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, name, file)
        status = status_with("--report", "printed.html", "--force")
    err = Path("printed.html").read_text() if name == "stderr" else capsys.readouterr().err
    assert status == 2
    assert "--report 'printed.html' is where this command prints to; pass another path" in err


def test_standard_output_of_a_process(digits_folder):
    # As root, replacing the name would replace the device for every process.
    code = (
        "import sys, pathlib\n"
        "from jacrot._cli.outputs import check_outputs\n"
        "from jacrot._cli.options import FitOptions\n"
        "from pathlib import Path\n"
        "options = FitOptions(weights=Path('digits.npz'), activations=Path('inputs.npy'),\n"
        "    out=Path('out.npz'), report=Path('/dev/stdout'), force=True)\n"
        "try:\n"
        "    check_outputs(options)\n"
        "except ValueError as error:\n"
        "    print(error, file=sys.stderr)\n"
    )
    before = os.lstat("/dev/stdout")
    for stdout in (subprocess.PIPE, open("file.txt", "wb")):  # noqa: SIM115
        result = subprocess.run(
            [sys.executable, "-c", code],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
        assert "--report '/dev/stdout' is where this command prints to" in result.stderr
    assert os.lstat("/dev/stdout") == before


def test_links_and_permissions_are_kept(digits_folder):
    Path("results").mkdir()
    for name in FLAGS.values():
        path = Path("results", name)
        path.write_bytes(b"old")
        path.chmod(0o640)
        os.symlink(path, name)
    options = ["--network", "n.npz", "--report", "r.html", "--nulls", "0", "--force"]
    assert fit(*MIDDLE, *options) == 0
    for name in FLAGS.values():
        path = Path("results", name)
        assert os.readlink(name) == str(path)
        assert path.read_bytes() != b"old"
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(os.listdir("results")) == sorted(FLAGS.values())


@pytest.mark.parametrize("flag", FLAGS)
def test_a_disk_that_fills_during_the_fit(flag, digits_folder, monkeypatch, capsys):
    replace = os.replace

    def full(partial, target):
        if Path(target).name == FLAGS[flag]:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(partial, target)

    monkeypatch.setattr("os.replace", full)
    options = ["--network", "n.npz", "--report", "r.html", "--nulls", "0"]
    assert fit(*MIDDLE, *options) == 2
    out, err = capsys.readouterr()
    path = FLAGS[flag]
    message = f"path='{path}' could not be written (No space left on device).\n"
    assert err.endswith(f"jacrot: error: {message}")
    written = list(FLAGS.values())[: list(FLAGS).index(flag)]
    assert set(listed()) == {"digits.npz", "inputs.npy", *written}
    if written:
        assert out.endswith(f"written: {', '.join(written)}\n")
