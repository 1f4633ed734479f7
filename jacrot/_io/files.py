"""Atomic writes, and checks that files do not change while they are read."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

# A short name of its own, so that it is valid however long the name of the target is.
PARTIAL = ".jacrot-{}.partial"


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file atomically: afterwards it has all of the new content or all of the old one.

    An existing file keeps its permissions. A symbolic link is kept, and its target is written. If
    two processes write to the same path, the file has the content of one of them.

    Parameters
    ----------
    path : str or path-like
        The file.

    Yields
    ------
    file
        A temporary file in the same folder, open for binary writing, that replaces the target at
        the end of the block.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    PermissionError
        If the file or its folder may not be written.
    OSError
        If the name is too long, the links form a loop, or the disk is full.
    ValueError
        If `path` is a folder, a device, a pipe or a socket.
    """
    name = f"path={os.fspath(path)!r}"
    target = _find_target(Path(path), name)
    with _partial(target, name) as (partial, file):
        try:
            yield file
            file.flush()
            if target.status is not None:
                _copy_permissions(target.status, partial)
            os.fsync(file.fileno())
            file.close()
            os.replace(partial, target.file)
        except OSError as error:
            raise OSError(
                error.errno, f"{name} could not be written ({error.strerror or error})."
            ) from error
        _sync_folder(target.file.parent)


def check_writable(path: Path, name: str) -> None:
    """Check that :func:`atomic_write` can write a file, by creating a temporary one.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        Name of the file in error messages.

    Raises
    ------
    OSError, ValueError
        As :func:`atomic_write` does.
    """
    with _partial(_find_target(path, name), name):
        pass


def sha256(path: Path) -> str:
    """Return the SHA-256 of the content of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def check_unchanged(path: Path, name: str) -> Iterator[str]:
    """Check that a file does not change while the block reads it.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        Name of the file in error messages.

    Yields
    ------
    str
        The SHA-256 of the content that the block reads, in hexadecimal digits.

    Raises
    ------
    ValueError
        If the file was replaced or changed in the block.
    """
    before = sha256(path)
    failure = None
    try:
        yield before
    except Exception as error:
        failure = error
    if not path.is_file() or sha256(path) != before:
        raise ValueError(
            f"{name} changed while it was read; run again when nothing writes to it."
        ) from failure
    if failure is not None:
        raise failure


class _Target(NamedTuple):
    """The file to which a path leads."""

    # With symbolic links resolved.
    file: Path
    # As in the path, unless the path itself is a link.
    folder: Path
    # None if the file does not exist yet.
    status: os.stat_result | None


def _find_target(path: Path, name: str) -> _Target:
    """Resolve a path, and check that its file can be written."""
    found = None
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        # Also for a link to a file that does not exist yet.
        pass
    except OSError as error:
        raise OSError(error.errno, f"{name} cannot be written ({error.strerror}).") from error
    target = Path(os.path.realpath(path))
    if found is not None:
        if stat.S_ISDIR(found.st_mode):
            raise ValueError(f"{name} is a folder; pass the path of a file.")
        # /dev/stdout is a regular file if redirected, but its resolved path does not exist.
        if not stat.S_ISREG(found.st_mode) or not target.exists():
            raise ValueError(
                f"{name} is not a regular file but a device, a pipe or a socket; pass the path of "
                "a file."
            )
        if not os.access(target, os.W_OK) or _belongs_to_another(target, found):
            raise PermissionError(
                f"{name} is write-protected; change the permissions of the file, or pass another "
                "path."
            )
    folder = target.parent if path.is_symlink() else path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: the folder {str(folder)!r} does not exist.")
    return _Target(target, folder, found)


def _belongs_to_another(target: Path, found: os.stat_result) -> bool:
    """Check whether the sticky bit of the folder, as of /tmp, forbids replacing the file."""
    folder = os.stat(target.parent)
    if not folder.st_mode & stat.S_ISVTX or not hasattr(os, "geteuid"):
        return False
    return os.geteuid() not in (0, found.st_uid, folder.st_uid)


@contextmanager
def _partial(target: _Target, name: str) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a temporary file in the folder of the target, and remove it at the end."""
    partial = target.file.with_name(PARTIAL.format(secrets.token_hex(8)))
    # The content of a private file is never readable for others, not even temporarily.
    mode = 0o666 if target.status is None else stat.S_IMODE(target.status.st_mode) & 0o600

    def opener(path: str, flags: int) -> int:
        return os.open(path, flags, mode)

    try:
        try:
            # "x": never open an existing file.
            file = open(partial, "xb", opener=opener)  # noqa: SIM115
        except OSError as error:
            raise OSError(
                error.errno,
                f"{name}: the folder {str(target.folder)!r} is not writable ({error.strerror}).",
            ) from error
        try:
            yield partial, file
        finally:
            # If the disk is full, closing fails too.
            with suppress(OSError):
                file.close()
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _copy_permissions(old: os.stat_result, partial: Path) -> None:
    # The owner first, since changing it clears permissions. Only root may change the owner.
    if hasattr(os, "chown"):
        with suppress(OSError):
            os.chown(partial, old.st_uid, old.st_gid)
    os.chmod(partial, stat.S_IMODE(old.st_mode))


def _sync_folder(folder: Path) -> None:
    """Flush the directory entry to the disk, where the system supports it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
