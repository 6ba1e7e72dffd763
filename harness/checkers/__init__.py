"""Oracles: each reads evidence of a run and raises ``CheckFailed``; none knows the workload."""
