"""Figures of other simulators, measured beside ours with the same programs.

They need Python ≥ 3.12, so they may live in another interpreter: name it in the environment
variable ``SEAWALL_BENCH_PYTHON``; without it the running interpreter is asked.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sim.bench_programs.peers import SLICES

INTERPRETER_VARIABLE = "SEAWALL_BENCH_PYTHON"
_NOT_INSTALLED = 3
_SCRIPT = Path(__file__).parent / "bench_programs" / "peers.py"


@dataclass(frozen=True)
class PeerFigure:
    """``per_s`` of a peer, or ``None`` and the reason why there is no figure."""

    name: str
    per_s: float | None
    reason: str = ""


def measure_peer(program: str, peer: str, count: int) -> PeerFigure:
    """Run a bench program in another simulator; ``count`` messages or seeds make one slice."""
    interpreter = os.environ.get(INTERPRETER_VARIABLE, sys.executable)
    command = [interpreter, str(_SCRIPT), program, peer, str(count)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except OSError as error:
        return PeerFigure(peer, None, f"{INTERPRETER_VARIABLE}={interpreter}: {error}")
    if done.returncode == _NOT_INSTALLED:
        hint = f"set {INTERPRETER_VARIABLE} to an interpreter (3.12 or newer) that has it"
        return PeerFigure(peer, None, f"not installed in {interpreter}; {hint}")
    if done.returncode != 0:
        return PeerFigure(peer, None, f"failed: {done.stderr.strip().splitlines()[-1:]}")
    return PeerFigure(peer, float(done.stdout.split()[-1]))


def best_slice(work: Callable[[], int]) -> float:
    """What ``work`` gets done per second in the best of some short slices, as with the peers."""
    best = 0.0
    for _ in range(SLICES):
        started_s = time.perf_counter()
        done = work()
        best = max(best, done / (time.perf_counter() - started_s))
    return best


def table(unit: str, ours: dict[str, float], peers: list[PeerFigure]) -> str:
    """The figures side by side, for people."""
    lines = [f"{name:<28} {per_s:>12,.0f} {unit}" for name, per_s in ours.items()]
    for peer in peers:
        figure = f"{peer.per_s:>12,.0f} {unit}" if peer.per_s is not None else peer.reason
        lines.append(f"{peer.name:<28} {figure}")
    return "\n".join(lines)
