"""Atomic writes, archives of arrays with a description, and hashes."""
