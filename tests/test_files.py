"""Files appear whole or not at all, and nothing but a regular file is replaced."""

import errno
import hashlib
import os
import socket
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from builders import random_network

from jacrot import Network
from jacrot._io.files import atomic_write, check_unchanged, check_writable, sha256
from jacrot.readers import load

posix = pytest.mark.skipif(sys.platform == "win32", reason="links and permissions are POSIX's")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, content=b"new"):
    with atomic_write(path) as file:
        file.write(content)


def names():
    return sorted(os.listdir("."))


def test_a_file_appears_at_the_end(folder):
    Path("out").write_bytes(b"old")
    with atomic_write("out") as file:
        file.write(b"new")
        file.flush()
        assert Path("out").read_bytes() == b"old"
        assert len(names()) == 2
    assert Path("out").read_bytes() == b"new"
    assert names() == ["out"]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("exists", [True, False])
def test_an_error_leaves_what_was_there(folder, error, exists):
    if exists:
        Path("out").write_bytes(b"old")

    def fail():
        with atomic_write("out") as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert names() == ["out"] * exists
    assert not exists or Path("out").read_bytes() == b"old"


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_disk_that_is_full(folder, function, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    Path("out").write_bytes(b"old")
    monkeypatch.setattr(os, function, fail)
    message = r"path='out' could not be written \(No space left on device\)"
    with pytest.raises(OSError, match=message) as caught:
        write("out")
    assert caught.value.errno == errno.ENOSPC
    assert names() == ["out"]
    assert Path("out").read_bytes() == b"old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
@pytest.mark.parametrize("size", [10, 10**6])
def test_a_write_that_fails(folder, size, monkeypatch):
    # What is written beside the file goes to a full disk: small writes fail when flushed.
    real = os.open

    def full(path, flags, *mode, **options):
        descriptor = real(path, flags, *mode, **options)
        if str(path).endswith(".partial"):
            device = real("/dev/full", os.O_WRONLY)
            os.dup2(device, descriptor)
            os.close(device)
        return descriptor

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match=r"path='out' could not be written \(No space left"):
        write("out", bytes(size))
    assert names() == []


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_permissions_of_a_file_are_kept(folder, mode):
    Path("out").write_bytes(b"old")
    os.chmod("out", mode)
    with atomic_write("out") as file:
        (partial,) = set(names()) - {"out"}
        # Other users cannot read a private file, not even before it is complete.
        assert stat.S_IMODE(os.stat(partial).st_mode) & 0o077 == 0
        file.write(b"new")
    assert stat.S_IMODE(os.stat("out").st_mode) == mode
    assert Path("out").read_bytes() == b"new"


@posix
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_follows_the_umask(folder, umask):
    before = os.umask(umask)
    try:
        write("out")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("out").st_mode) == 0o666 & ~umask


@posix
@pytest.mark.parametrize("exists", [True, False])
def test_links_are_followed(folder, exists):
    Path("elsewhere").mkdir()
    os.symlink("elsewhere", "folder")
    os.symlink("second", "elsewhere/first")
    os.symlink("third", "elsewhere/second")
    if exists:
        Path("elsewhere/third").write_bytes(b"old")
    write("folder/first")
    assert Path("elsewhere/third").read_bytes() == b"new"
    assert sorted(os.listdir("elsewhere")) == ["first", "second", "third"]
    assert os.readlink("elsewhere/first") == "second"
    assert os.readlink("elsewhere/second") == "third"


@posix
def test_links_that_lead_nowhere(folder):
    os.symlink("no/such", "dangling")
    os.symlink("loop", "loop")
    os.symlink("/dev/null", "device")
    os.symlink(".", "here")
    before = names()
    for name, kind, message in (
        ("dangling", FileNotFoundError, "path='dangling': the folder '.*no' does not exist"),
        ("loop", OSError, "path='loop' cannot be written"),
        ("device", ValueError, "path='device' is not a regular file"),
        ("here", ValueError, "path='here' is a folder"),
    ):
        with pytest.raises(kind, match=message):
            write(name)
        with pytest.raises(kind, match=message):
            check_writable(Path(name), f"path={name!r}")
    assert names() == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@posix
def test_what_is_not_a_regular_file_is_refused(folder):
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name in ("pipe", "socket", "/dev/null", "/dev/stdout"):
            if name == "/dev/stdout" and os.path.isfile(name):
                continue
            with pytest.raises(ValueError, match="not a regular file but a device, a pipe or a"):
                write(name)
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    assert names() == ["pipe", "socket"]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="Linux's names of open files")
def test_an_open_file_that_was_removed_is_refused(folder):
    with open("gone", "wb") as file:
        os.unlink("gone")
        with pytest.raises(ValueError, match="not a regular file"):
            write(f"/proc/self/fd/{file.fileno()}")
    assert names() == []


def test_folders(folder):
    Path("file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"path='\.' is a folder; pass the path of a file"):
        write(".")
    for name in ("no/such/out", "file/out"):
        with pytest.raises(FileNotFoundError, match=r"the folder '.*' does not exist"):
            write(name)
    assert names() == ["file"]


def test_names_as_long_as_may_be(folder):
    longest = os.pathconf(".", "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    write("a" * longest)
    write("é" * (longest // 2))
    with pytest.raises(OSError, match="cannot be written"):
        write("a" * (longest + 1))
    assert names() == ["a" * longest, "é" * (longest // 2)]


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write")
def test_permissions_that_are_missing(folder):
    Path("out").write_bytes(b"old")
    os.chmod("out", 0o444)
    with pytest.raises(PermissionError, match="path='out' is write-protected"):
        write("out")
    Path("folder").mkdir(0o555)
    with pytest.raises(PermissionError, match=r"the folder '.*folder' is not writable"):
        write("folder/out")


def test_a_folder_that_may_not_be_written(folder, monkeypatch):
    # Root may write everywhere, so the answer of the system is given here.
    def refuse(path, *arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match=r"folder '.*' is not writable \(Read-only file system\)"):
        check_writable(Path("out"), "-o 'out'")


@posix
def test_a_file_of_somebody_else_in_a_folder_of_all(folder, monkeypatch):
    Path("out").write_bytes(b"old")
    os.chmod("out", 0o666)
    os.chmod(".", 0o1777)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat("out").st_uid + 1)
    with pytest.raises(PermissionError, match="path='out' is write-protected"):
        write("out")
    os.chmod(".", 0o777)
    write("out")
    assert Path("out").read_bytes() == b"new"


def test_a_check_leaves_nothing(folder):
    check_writable(Path("new"), "-o")
    assert names() == []
    Path("old").write_bytes(b"old")
    before = os.stat("old")
    check_writable(Path("old"), "-o")
    assert os.stat("old") == before
    assert names() == ["old"]


def test_threads_that_write_one_path(folder, rng):
    networks = [Network([rng.normal(size=(60, width))]) for width in (30, 60, 90)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda index: networks[index % 3].save("net.npz"), range(60)))
    assert names() == ["net.npz"]
    found = load("net.npz").layers[0].weight
    (same,) = (n for n in networks if n.layers[0].weight.shape == found.shape)
    np.testing.assert_array_equal(found, same.layers[0].weight)


def test_networks_are_saved_so(folder):
    Path("a.npz").mkdir()
    network = random_network([2, 2], ["relu"])
    with pytest.raises(ValueError, match="is a folder"):
        network.save("a.npz")
    with pytest.raises(FileNotFoundError, match="the folder 'no' does not exist"):
        network.save("no/a.npz")


def test_the_hash_is_of_what_was_read(folder):
    Path("file").write_bytes(b"content")
    expected = hashlib.sha256(b"content").hexdigest()
    assert sha256(Path("file")) == expected
    with check_unchanged(Path("file"), "FILE") as found:
        assert found == expected


@pytest.mark.parametrize("change", ["replaced", "in place", "truncated", "removed"])
@pytest.mark.parametrize("failing", [True, False])
def test_a_file_that_changes_while_it_is_read(folder, change, failing):
    path = Path("file")
    path.write_bytes(b"content")
    message = "FILE 'file' changed while it was read; run again when nothing writes to it"

    def read():
        with check_unchanged(path, "FILE 'file'"):
            if change == "replaced":
                write("file")
            elif change == "in place":
                path.write_bytes(b"Content")
            elif change == "truncated":
                os.truncate(path, 3)
            else:
                path.unlink()
            if failing:
                raise TypeError("what a reader makes of that")

    with pytest.raises(ValueError, match=message):
        read()


def test_an_error_of_a_reader_is_its_own(folder):
    Path("file").write_bytes(b"content")
    with pytest.raises(TypeError, match="mine"), check_unchanged(Path("file"), "FILE"):
        raise TypeError("mine")
