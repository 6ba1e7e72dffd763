"""The deterministic world: asyncio programs on virtual time, with seeded faults.

``sim.run(main, seed=7)`` runs an unmodified asyncio program: same seed, same run. Nodes are
contexts (``with loop.nodes.acting_as("a"): …``), links break with ``loop.network.cut("a", "b")``.
"""

from __future__ import annotations

from harness.errors import ScenarioFailed
from sim.errors import Deadlock, Livelock, Nondeterminism, UnsupportedApi
from sim.latency import Constant, LogNormal, Skewed, Uniform
from sim.link import LinkOptions
from sim.loop import LoopOptions, SimLoop
from sim.node import current_node
from sim.policy import POLICIES, Fifo, Pct, Policy, SeededRandom
from sim.run import run, run_on
from sim.seeds import Seeds
from sim.trace import Trace, TraceOptions

__all__ = [
    "POLICIES",
    "Constant",
    "Deadlock",
    "Fifo",
    "LinkOptions",
    "Livelock",
    "LogNormal",
    "LoopOptions",
    "Nondeterminism",
    "Pct",
    "Policy",
    "ScenarioFailed",
    "SeededRandom",
    "Seeds",
    "SimLoop",
    "Skewed",
    "Trace",
    "TraceOptions",
    "Uniform",
    "UnsupportedApi",
    "current_node",
    "run",
    "run_on",
]
