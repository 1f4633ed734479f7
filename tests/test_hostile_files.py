"""Readers refuse damaged, contradictory and malicious files with an error that names the file.

The files are built in ``corpus``; ``fuzz_files.py`` reads many more in a watched process.
"""

import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from builders import framework
from corpus import PACKAGES, SUFFIXES, good_files, hostile_cases, write
from corpus.mutation import mutate
from corpus.numpy_files import npy, one
from corpus.onnx_files import graph, onnx_graphs, outside
from hypothesis import given, settings
from hypothesis import strategies as st

from jacrot import Network
from jacrot.readers import from_onnx, list_arrays, load, metadata

CASES = {
    kind: {
        name: case
        for name, case in hostile_cases(kind).items()
        # Some seconds to make, or a hundred megabytes.
        if not name.startswith("slow")
    }
    for kind in SUFFIXES
}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    # Where a command would leave its trace.
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        # PyTorch's, of what is odd in a file.
        warnings.simplefilter("ignore", UserWarning)
        yield
    assert not (tmp_path / "executed").exists()


def needs(kind):
    if kind in PACKAGES:
        framework(PACKAGES[kind])


def refusal(read, path, *args):
    """Call a reader; return the message of its error, or ``None``."""
    error = None
    try:
        read(path, *args)
    except Exception as raised:
        error = raised
    if error is None:
        return None
    # Not a class derived from them, as those of other packages are.
    assert type(error) in (ValueError, TypeError, FileNotFoundError), repr(error)
    assert repr(str(path)) in str(error)
    assert str(error).isprintable()
    return str(error)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, listed in CASES.items() for name in listed]
)
def test_case(kind, name, tmp_path):
    needs(kind)
    path = tmp_path / "folder" / f"model{SUFFIXES[kind]}"
    path.parent.mkdir()
    write(CASES[kind][name], path)
    assert (refusal(load, path) is None) == name.startswith("good")
    refusal(list_arrays, path)
    if path.suffix in (".npz", ".safetensors"):
        refusal(metadata, path)


EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["set", "insert", "delete", "cut"]),
        st.binary(min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("kind", SUFFIXES)
def test_changed_bytes(kind, tmp_path_factory):
    needs(kind)
    path = tmp_path_factory.mktemp("changed") / f"model{SUFFIXES[kind]}"
    goods = good_files(kind)

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(goods), EDITS)
    def check(content, edits):
        content = bytearray(content)
        for place, edit, new in edits:
            place = int(place * len(content))
            size = {"set": len(new), "insert": 0, "delete": len(new), "cut": len(content)}[edit]
            content[place : place + size] = new if edit in ("set", "insert") else b""
        path.write_bytes(content)
        refusal(load, path)
        refusal(list_arrays, path)

    check()


@pytest.mark.parametrize("kind", SUFFIXES)
def test_changed_parts(kind, tmp_path_factory):
    """Members of zip files, JSON and protobuf messages that are whole, but not what they were."""
    needs(kind)
    path = tmp_path_factory.mktemp("changed") / f"model{SUFFIXES[kind]}"
    goods = good_files(kind)

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def check(seed):
        path.write_bytes(mutate(kind, goods, np.random.default_rng(seed)))
        refusal(load, path)
        refusal(list_arrays, path)

    check()


@pytest.mark.parametrize("kind", SUFFIXES)
def test_good_files_are_read(kind, tmp_path):
    needs(kind)
    path = tmp_path / f"model{SUFFIXES[kind]}"
    for content in good_files(kind):
        path.write_bytes(content)
        names = list(list_arrays(path))
        if any(name.startswith("model.") for name in names):
            # A checkpoint that holds more than the weights.
            assert isinstance(load(path, names=names), Network)
        else:
            assert isinstance(load(path), Network)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt", ".onnx"])
def test_content_of_another_format(suffix, tmp_path):
    for kind in SUFFIXES:
        needs(kind)
    framework("torch")
    path = tmp_path / f"model{suffix}"
    for kind, other in SUFFIXES.items():
        if other != suffix:
            path.write_bytes(good_files(kind)[0])
            assert refusal(load, path) is not None
            assert refusal(list_arrays, path) is not None


@pytest.mark.parametrize("path", [None, 5, b"model.npz", np.array(["model.npz"])])
def test_what_is_no_path(path):
    for read in (load, list_arrays, metadata):
        with pytest.raises(TypeError, match=r"path is a .*; pass the path of a file"):
            read(path)


def test_file_of_another_user(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    np.savez(path, W=np.ones((2, 2)))
    # Not by the permissions themselves, which do not bind the superuser.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    for read in (load, list_arrays, metadata):
        with pytest.raises(PermissionError, match=r"model\.npz' cannot be read"):
            read(path)


def test_message_does_not_command_a_terminal(tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, **{"W\x1b[2J": np.array(3.0)})
    assert r"\x1b[2J" in refusal(load, path)
    np.savez(path, **{"n" * 50_000: np.array(3.0)})
    assert len(refusal(load, path)) < 2100


def test_models_in_memory():
    framework("onnx")
    graphs = onnx_graphs()
    for name in ("cycle", "function of itself", "functions of functions", "sums of the two before"):
        with pytest.raises(ValueError, match="model"):
            from_onnx(graphs[name]())
    with pytest.raises(ValueError, match="model stores tensor 'W' in another file"):
        from_onnx(graph(["MatMul x W > y"], {"W": outside(location="/etc/passwd")}))


def test_links_to_files_are_followed(tmp_path):
    (tmp_path / "weights").write_bytes(one(npy()))
    (tmp_path / "model.npz").symlink_to("weights")
    assert isinstance(load(tmp_path / "model.npz"), Network)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("resource") is None, reason="limits the memory of a process")
def test_files_are_read_within_bounds_by_a_process_that_is_watched(tmp_path):
    script = Path(__file__).with_name("fuzz_files.py")
    run = subprocess.run(
        [sys.executable, script, "--quick"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    rows = [line for line in run.stdout.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(SUFFIXES)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed")
def test_coverage_guided_target_runs(tmp_path):
    script = Path(__file__).with_name("fuzz_atheris.py")
    command = [sys.executable, script, "npz", "-runs=200"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "Done 200 runs" in run.stderr
