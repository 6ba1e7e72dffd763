"""The key-value relation of the deterministic compute: its pages and its WAL records."""
