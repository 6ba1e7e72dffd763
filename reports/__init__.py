"""Reports: what people read after a run."""
