"""The pageserver: turns WAL into versioned pages, keeps them in layers, serves them at any LSN."""
