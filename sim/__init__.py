"""The deterministic world: asyncio programs on virtual time, with seeded faults.

``sim.run(main, seed=7)`` runs an unmodified asyncio program: same seed, same run. Nodes are
contexts (``with loop.nodes.acting_as("a"): …``), links break with ``loop.network.cut("a", "b")``.
"""

from __future__ import annotations

from sim.latency import Constant, LogNormal, Skewed, Uniform
from sim.link import LinkOptions
from sim.loop import LoopOptions, SimLoop
from sim.node import current_node
from sim.policy import POLICIES, Fifo, Pct, Policy, SeededRandom
from sim.run import run
from sim.seeds import Seeds
from sim.trace import Trace, TraceOptions

__all__ = [
    "POLICIES",
    "Constant",
    "Fifo",
    "LinkOptions",
    "LogNormal",
    "LoopOptions",
    "Pct",
    "Policy",
    "SeededRandom",
    "Seeds",
    "SimLoop",
    "Skewed",
    "Trace",
    "TraceOptions",
    "Uniform",
    "current_node",
    "run",
]
