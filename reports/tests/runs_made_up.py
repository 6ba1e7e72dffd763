"""Records, events and files of runs that never ran."""

import json

from harness.verdict import RunRecord, RunSettings, Verdict
from reports.evidence import TraceEvent

LSN = {"tenant": "t", "timeline": "a" * 32, "name": "flush_lsn"}


def record(seed=0, verdict=Verdict.PASSED, world="sim", nodeid="scenarios/test_a.py::test_a"):
    return RunRecord(
        nodeid=nodeid,
        settings=RunSettings(world, "walgen", seed),
        verdict=verdict,
        message="" if verdict is Verdict.PASSED else "CheckFailed: key <1> is gone",
        digest="d1" if world == "sim" else "",
        events=10,
        commits=4,
        virtual_s=2.0,
        wall_s=0.5,
        artifacts=f"run-{world}-{seed}",
    )


def process(at_s, node, state):
    return TraceEvent(at_s, node, "process", {"state": state})


def fault(at_s, verb, source="sk0", target="main", **fields):
    named = {"verb": verb, "source": source, "target": target, "both": True, **fields}
    return TraceEvent(at_s, "harness", "fault", named)


def message(at_s, latency_s=0.0005, source="main", target="sk0", **fields):
    """Arrives at ``at_s``; ``latency_s=None`` makes one without a send time."""
    sent = {} if latency_s is None else {"sent_us": round((at_s - latency_s) * 1e6)}
    fields = {"src": source, "dst": target, "bytes": 100, **sent, **fields}
    return TraceEvent(at_s, target, "message", fields)


def lsn(at_s, value, node="sk0", **fields):
    return TraceEvent(at_s, node, "lsn", {**LSN, "value": value, **fields})


def life(*events, messages=3, gap_s=0.001, latency_s=0.0005):
    """A run of two nodes that exchange messages, and whatever else is to happen in it."""
    found = [process(0.0, "sk0", "started"), process(0.0001, "sk0", "ready"), *events]
    for index in range(messages):
        at_s = 0.001 + index * gap_s
        found += [message(at_s, latency_s), lsn(at_s + 0.0001, 0x100000 + 8 * index)]
    return sorted(found, key=lambda event: event.at_s)


def write_evidence(directory, one, events=None, log=None):
    target = directory / one.artifacts
    target.mkdir(parents=True, exist_ok=True)
    rows = log or [f"    0.1  sk0        WARNING  <strange> line {n}" for n in range(3)]
    (target / "log.txt").write_text("\n".join(rows) + "\n")
    with (target / "events.jsonl").open("w") as file:
        for event in life(process(0.004, "sk0", "killed")) if events is None else events:
            row = {"at_s": event.at_s, "node": event.node, "kind": event.kind}
            file.write(json.dumps({**row, "fields": event.fields}) + "\n")
    (target / "effects.json").write_text('{"network.bytes_cut": 12}')
