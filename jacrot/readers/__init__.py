"""Readers: exported weights in a file become a ``Network``."""

from jacrot.readers.npz import load

__all__ = ["load"]
