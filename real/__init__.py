"""The world of OS processes."""
