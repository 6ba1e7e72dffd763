"""Data directories rebuilt by a pageserver, judged against stock recovery of the same WAL."""
