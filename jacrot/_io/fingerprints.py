"""Hashes of the bytes of arrays."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike

# Bytes hashed at a time, so that a memory map is never read as a whole.
BLOCK_BYTES = 2**24


def fingerprint(array: ArrayLike) -> str:
    """Compute the SHA-256 of the dtype, the shape and the values of an array.

    Equal arrays have equal fingerprints, independently of memory layout and machine. Compare with
    ``rotation.provenance_["data"]`` to check whether a rotation was fitted to given data.

    Parameters
    ----------
    array : array-like
        The array; a memory map is read block by block.

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
    # Little-endian on every machine.
    little = array.dtype.newbyteorder("<")
    digest = hashlib.sha256(f"{little.str} {array.shape}".encode())
    rows = array.reshape(1) if array.ndim == 0 else array
    size = max(1, BLOCK_BYTES // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), size):
        digest.update(rows[start : start + size].astype(little, copy=False).tobytes())
    return digest.hexdigest()
