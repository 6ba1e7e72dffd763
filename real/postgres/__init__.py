"""Unmodified PostgreSQL as a compute: found, initialised, imported, rebuilt at an LSN, run."""
