"""What every part needs: arrays, threads, random state, optional imports, results as tables."""
