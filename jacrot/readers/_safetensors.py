"""Reading ``.safetensors`` files, single or as shards that an index lists."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jacrot._io.archive import HEADER
from jacrot._utils.arrays import Array
from jacrot._utils.optional import import_optional
from jacrot.readers import _npz
from jacrot.readers._limits import check_readable_file, check_size, count_bytes
from jacrot.readers._names import order_by_numbers, select_names

_DTYPES = {"BF": "bfloat", "F": "float", "I": "int", "U": "uint"}
# Limit for the bytes of an index: a hundred thousand tensors.
_LONGEST_INDEX = 2**24
_INDEX = re.compile(r"\.index(\.[^.]+)?\.json$", re.IGNORECASE)
_PART = re.compile(r"(?<!\d)(\d+)([-_. ]?of[-_. ]?0*([2-9]|[1-9]\d+))(?!\d)", re.IGNORECASE)
# Names that transformers and accelerate give to shards, and nothing else.
_SHARD = re.compile(r"-\d{5}-of-\d{5}$", re.IGNORECASE)


class ArrayInfo(NamedTuple):
    """Shape and dtype of an array in a file."""

    shape: tuple[int, ...]
    dtype: str


class _Stored(NamedTuple):
    """Location of an array: its file, and its name in the file."""

    path: Path
    file: Any
    name: str


class Safetensors:
    """The arrays of a file, or of the shards that an index lists.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file, or an index of such files.
    caller : str
        Function that reads it, for the error if safetensors is not installed.

    Attributes
    ----------
    info : dict of str to ArrayInfo
        Shape and dtype of every array. Tensors that share memory are stored once; their further
        names, which ``safetensors.torch.save_model`` lists in the metadata, are included.
    header : str or None
        Description of an object that was written by ``save`` of jacrot.

    Raises
    ------
    FileNotFoundError, ImportError
        If a file, or the package, is missing.
    ValueError
        If a file is damaged, or index and shards contradict each other.
    """

    def __init__(self, path: Path, caller: str) -> None:
        self.path = path
        self.info: dict[str, ArrayInfo] = {}
        self.header: str | None = None
        # Bytes of the files, and the location of each array.
        self._size = 0
        self._stored: dict[str, _Stored] = {}
        if is_index(path):
            metadata = self._add_shards(caller)
        else:
            metadata = self._add(path, caller)
            self.header = metadata.get(HEADER)
        for alias, name in metadata.items():
            if isinstance(name, str) and name in self._stored and alias not in self._stored:
                self.info[alias] = self.info[name]
        self._stored |= {
            alias: self._stored[metadata[alias]] for alias in self.info.keys() - self._stored.keys()
        }

    def _add_shards(self, caller: str) -> dict[str, Any]:
        """Add the arrays of all shards; return the metadata of all of them."""
        index = _read_index(self.path)
        if index is None:
            raise ValueError(
                f"path={str(self.path)!r} is damaged, or not an index of shards; pass a "
                "model.safetensors.index.json of save_pretrained of transformers."
            )
        places, metadata = index
        for name in sorted(set(places.values())):
            if Path(name).name != name or not name.lower().endswith(".safetensors"):
                raise ValueError(
                    f"path={str(self.path)!r} lists the shard {name!r}; only .safetensors files "
                    "in the folder of the index are read."
                )
            metadata |= self._add(check_readable_file(self.path.parent / name), caller)
        known = {alias for alias, name in metadata.items() if name in self._stored}
        wrong = [name for name in places if name not in self._stored and name not in known]
        wrong += [name for name, at in self._stored.items() if places.get(name) != at.path.name]
        if wrong:
            raise ValueError(
                f"path={str(self.path)!r} and its shards contradict each other about "
                f"{', '.join(map(repr, wrong[:4]))}; save the model again."
            )
        return metadata

    def _add(self, path: Path, caller: str) -> dict[str, Any]:
        """Add the arrays of one file; return its metadata."""
        file = _open(path, caller)
        self._size += path.stat().st_size
        for name in file.keys():  # noqa: SIM118
            view = file.get_slice(name)
            kind = view.get_dtype()
            letters = kind.rstrip("0123456789")
            dtype = _DTYPES.get(letters, letters.lower()) + kind[len(letters) :]
            self.info[name] = ArrayInfo(tuple(view.get_shape()), dtype)
            self._stored[name] = _Stored(path, file, name)
        return dict(file.metadata() or {})

    def order(self) -> list[str]:
        """Return the arrays in layer order, according to the numbers in their names.

        Returns
        -------
        list of str
            The name of every matrix, followed by that of its bias.

        Raises
        ------
        ValueError
            If the names do not determine the order.
        """
        return order_by_numbers({name: array.shape for name, array in self.info.items()}, self.path)

    def arrays(self, names: Sequence[str] | None) -> dict[str, Array]:
        """Read arrays.

        Parameters
        ----------
        names : sequence of str or None
            Names of the arrays, ``None`` for all.

        Returns
        -------
        dict of str to ndarray
            The arrays by name.

        Raises
        ------
        ValueError
            If an array does not exist or has a dtype that NumPy does not have, or if the arrays
            are too large for the file.
        """
        names = select_names(names, self.info, self.path)
        # An alias takes a few bytes, and may refer to an array of any size.
        n_bytes = sum(count_bytes(self.info[name].shape, 1) for name in names)
        check_size(n_bytes, self._size, f"path={str(self.path)!r}")
        read: dict[_Stored, Array] = {}
        arrays = {}
        for name in names:
            stored, (shape, dtype) = self._stored[name], self.info[name]
            if stored in read:
                pass
            elif dtype == "bfloat16":
                read[stored] = _read_bfloat16(stored).reshape(shape)
            elif dtype not in np.sctypeDict:
                raise ValueError(
                    f"{name!r} in path={str(stored.path)!r} has dtype {dtype}, which NumPy does "
                    "not have; save it as float32."
                )
            else:
                read[stored] = stored.file.get_tensor(stored.name)
            arrays[name] = read[stored]
        return arrays


def is_index(path: Path) -> bool:
    """Check whether a file has the name of an index of shards.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bool
        Whether the name ends in ``.index.json``, ``.index.fp16.json`` or similar.
    """
    return _INDEX.search(path.name) is not None


def check_not_shard(path: Path) -> None:
    """Check that a file holds a whole model and is not one of several shards.

    A file is a shard if an index in its folder lists it, if its name is ``...-00001-of-00003`` as
    transformers writes it, or if its name has another ``1_of_3`` and the folder another part of
    the same name. A file ``run_1_of_3.npz`` alone is not.

    Parameters
    ----------
    path : Path
        The file, of any format.

    Raises
    ------
    ValueError
        If the file is a shard.
    """
    if is_index(path):
        return
    index = _find_index(path)
    if index is not None:
        advice = (
            f"pass {index.name!r} in the same folder, which lists all shards"
            if path.suffix.lower() == ".safetensors"
            else f"join the shards that {index.name!r} lists into one file"
        )
    elif _has_shard_name(path):
        advice = "join the shards into one file, or pass their model.safetensors.index.json"
    else:
        return
    raise ValueError(
        f"path={str(path)!r} is one of several shards of a model; {advice}, or pass names=[...] to "
        "read arrays of this shard only."
    )


def _find_index(path: Path) -> Path | None:
    """Find an index of several shards in the folder of a file that lists the file."""
    for file in path.parent.glob("*.json"):
        index = _read_index(file) if is_index(file) else None
        if index is not None and path.name in index[0].values() and len({*index[0].values()}) > 1:
            return file
    return None


def _has_shard_name(path: Path) -> bool:
    """Check whether a file is named as one of several shards are."""
    part = _PART.search(path.name)
    if part is None:
        return False
    before, after = path.name[: part.start(1)], path.name[part.end(1) :]
    others = re.compile(rf"{re.escape(before)}\d+{re.escape(after)}", re.IGNORECASE)
    return _SHARD.search(path.stem) is not None or any(
        file.name != path.name and others.fullmatch(file.name) for file in path.parent.iterdir()
    )


def _read_index(path: Path) -> tuple[dict[str, str], dict[str, Any]] | None:
    """Return the file of every array, and the metadata; ``None`` if the file is not an index."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_LONGEST_INDEX + 1))
        places, metadata = content["weight_map"], content.get("metadata") or {}
        if all(isinstance(name, str) for name in places.values()) and places:
            return dict(places), dict(metadata)
    # RecursionError is a RuntimeError.
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError):
        pass
    return None


def _open(path: Path, caller: str) -> Any:
    safetensors = import_optional("safetensors", caller, "safetensors")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if _npz.LONGEST < header < path.stat().st_size:
        raise ValueError(
            f"path={str(path)!r} has a header of {header:,} bytes, more than the limit of "
            f"{_npz.LONGEST:,}; save fewer tensors in a file."
        )
    try:
        return safetensors.safe_open(path, framework="numpy")
    # MemoryError if a file is longer than the memory that can be mapped.
    except (safetensors.SafetensorError, MemoryError, OSError) as error:
        lines = str(error).splitlines()
        raise ValueError(
            f"path={str(path)!r} is not a .safetensors file or is damaged "
            f"({type(error).__name__}: {lines[0] if lines else 'no message'})."
        ) from error


def _read_bfloat16(stored: _Stored) -> Array:
    """Read an array in bfloat16, which NumPy does not have, as float32."""
    with stored.path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        begin, end = json.loads(file.read(size))[stored.name]["data_offsets"]
        file.seek(8 + size + begin)
        # The upper halves of float32 numbers.
        halves = np.frombuffer(file.read(end - begin), "<u2")
    return (halves.astype(np.uint32) << 16).view(np.float32)
