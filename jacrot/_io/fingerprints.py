"""Hashes of the bytes of arrays."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike

# Bytes hashed at a time, so that a memory map is never read whole.
BLOCK_BYTES = 2**24


def fingerprint(array: ArrayLike) -> str:
    """Hash the dtype, the shape and the numbers of an array: SHA-256, in hexadecimal digits.

    Equal for equal arrays, however they lie in memory and on whatever machine. It tells whether a
    rotation was found on these data: ``rotation.provenance_["data"]`` has that of `X`.

    Parameters
    ----------
    array : array-like
        Numbers; a memory map is read block by block.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.provenance import fingerprint
    >>> X = np.arange(6.0).reshape(2, 3)
    >>> fingerprint(X)[:8]
    '4fca5755'
    >>> fingerprint(X) == fingerprint(np.asfortranarray(X)) != fingerprint(X.T)
    True
    """
    array = np.asanyarray(array)
    # The same numbers on a machine that writes them the other way round.
    little = array.dtype.newbyteorder("<")
    digest = hashlib.sha256(f"{little.str} {array.shape}".encode())
    rows = array.reshape(1) if array.ndim == 0 else array
    size = max(1, BLOCK_BYTES // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), size):
        digest.update(rows[start : start + size].astype(little, copy=False).tobytes())
    return digest.hexdigest()
