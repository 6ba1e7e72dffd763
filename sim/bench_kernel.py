"""Benchmark: two tasks on two nodes play ping-pong over asyncio streams, trace on.

Each one-way message counts once; the messages have 32 bytes and the links their default latency.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Mapping
from functools import partial
from typing import Any

from sim.bench_figures import PeerFigure, best_slice, measure_peer, table
from sim.bench_programs import pingpong
from sim.loop import LoopOptions, SimLoop
from sim.policy import POLICIES
from sim.run import run_on

AIM_PER_S = 165_000
_ROUNDS = 4_000


def run_once(policy: str, rounds: int = _ROUNDS) -> int:
    """Play in a fresh world; returns how many messages were delivered one way."""
    loop = SimLoop(1, LoopOptions(policy=POLICIES[policy]))

    async def main() -> int:
        with loop.nodes.acting_as("b"):
            server = loop.create_task(pingpong.serve("b"))
        await asyncio.sleep(1)
        with loop.nodes.acting_as("a"):
            messages: int = await loop.create_task(pingpong.play("b", rounds))
        assert not server.done(), "the server ended"
        return messages

    messages = run_on(loop, main)
    assert len(loop.trace) > messages, "the trace was not on"
    assert loop.trace.digest(), "the run has no identity"
    return messages


def bench() -> Mapping[str, Any]:
    """Measure, print the table with the peers, and return the figures."""
    ours = {f"seawall {policy}": best_slice(partial(run_once, policy)) for policy in POLICIES}
    peers = [
        measure_peer("pingpong", "simloop", _ROUNDS // 4),
        PeerFigure("seedloop", None, "has no streams"),
    ]
    print(table("messages/s", ours, peers))
    per_s = ours["seawall fifo"]
    return {
        "bench": "kernel",
        "unit": "stream messages per second",
        "messages_per_s": round(per_s),
        "us_per_message": round(1e6 / per_s, 3),
        "aim": AIM_PER_S,
        "policies": {name.split()[1]: round(figure) for name, figure in ours.items()},
        "peers": {peer.name: peer.per_s or peer.reason for peer in peers},
        "python": platform.python_version(),
    }
