"""Files: written whole or not at all, archives of arrays with a description, and hashes."""
