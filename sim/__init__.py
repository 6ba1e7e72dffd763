"""The deterministic world."""
