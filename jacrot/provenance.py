"""Whether a rotation was found on these data: the hash that ``provenance_`` has of an array."""

from jacrot._io.fingerprints import fingerprint

__all__ = ["fingerprint"]
