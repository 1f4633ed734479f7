"""Utilities: arrays, threads, random state, optional imports, results as tables."""
