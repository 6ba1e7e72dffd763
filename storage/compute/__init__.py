"""Deterministic computes: the primary ``walgen`` and the read-only node pinned at an LSN."""
