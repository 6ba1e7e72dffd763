"""The nemesis carries a plan out: keeps its budget, measures each fault, and undoes it."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass

from harness.errors import UnsupportedFault
from harness.faulting.atlas import Atlas
from harness.faulting.fault import Damage, Fault, Undo
from harness.faulting.plan import Plan, Step
from harness.faulting.stage import Stage
from harness.faulting.triggers import Triggers
from harness.faulting.vocabulary import fault_of
from storage.events import Field


class Fate(enum.StrEnum):
    """What became of a step."""

    WAITING = "its trigger did not come"
    ACTIVE = "active"
    OVER = "over"
    REFUSED = "refused"
    UNSUPPORTED = "this world cannot do it"


@dataclass
class StepRecord:
    """One step of a run: ``effect`` is how far its counters rose while it lasted."""

    number: int
    step: Step
    fault: Fault
    fate: Fate = Fate.WAITING
    why: str = ""
    effect: int = 0
    undo: Undo | None = None
    ending: bool = False

    def __str__(self) -> str:
        why = f" ({self.why})" if self.why else ""
        return f"{self.number}: {self.step} – {self.fate}{why}, effect {self.effect}"


def _plain(record: StepRecord) -> dict[str, Field]:
    """A strike's options as fields of an event, which know no fractions."""
    options = record.step.strike.options
    return {
        name: str(value) if isinstance(value, float) else value for name, value in options.items()
    }


class Nemesis:
    """One run of one plan on a stage."""

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self._stage = stage
        self._plan = plan
        self._atlas = Atlas(plan.cast())
        self._claimed: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.records = [
            StepRecord(number, step, fault_of(step.fault)) for number, step in enumerate(plan.steps)
        ]

    async def run(self) -> None:
        """Let every step wait for its trigger and strike, for ``duration_s``."""
        triggers = Triggers(self._stage.world)
        loop = asyncio.get_running_loop()
        deadline = loop.create_task(self._stage.pass_time(self._plan.duration_s))
        self._tasks = [
            loop.create_task(self._play(record, triggers), name=f"step {record.number}")
            for record in self.records
        ]
        try:
            while not deadline.done():
                waiting = [task for task in self._tasks if not task.done()]
                await asyncio.wait([deadline, *waiting], return_when=asyncio.FIRST_COMPLETED)
                self._raise_failures()
        finally:
            deadline.cancel()
            triggers.close()
        await self._break_off()

    async def _break_off(self) -> None:
        for record, task in zip(self.records, self._tasks, strict=True):
            if not record.ending:  # An undo that is cancelled half way is never made up for.
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._raise_failures()

    def _raise_failures(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def _play(self, record: StepRecord, triggers: Triggers) -> None:
        await triggers.wait(record.step.when)
        if not self._admit(record):
            return
        fault, strike = record.fault, record.step.strike
        hosts = [host for target in strike.targets for host in self._stage.hosts(target)]
        counters = fault.counters(hosts)
        before = self._stage.measure(counters)
        self._note(record, fault.name)
        try:
            record.undo = await fault.cause(self._stage, strike)
            if record.step.for_s:
                await self._stage.pass_time(record.step.for_s)
        except UnsupportedFault as error:
            record.fate, record.why = Fate.UNSUPPORTED, str(error)
        finally:
            record.effect = self._stage.measure(counters) - before
        await self._finish(record)

    def _admit(self, record: StepRecord) -> bool:
        fault, strike = record.fault, record.step.strike
        busy = [claim for claim in fault.claims(strike) if claim in self._claimed]
        refusal = self._atlas.refusal(fault, strike)
        if fault.needs is not None and fault.needs not in self._stage.backend.abilities:
            record.fate, record.why = Fate.UNSUPPORTED, f"it cannot {fault.needs.value}"
        elif busy:
            record.fate, record.why = Fate.REFUSED, f"{busy[0]} is taken"
        elif refusal is not None:
            record.fate, record.why = Fate.REFUSED, refusal
        else:
            record.fate = Fate.ACTIVE
            self._atlas.note(fault, strike)
            self._claimed.update(dict.fromkeys(fault.claims(strike), record.number))
        return record.fate is Fate.ACTIVE

    async def _finish(self, record: StepRecord) -> None:
        """Undo a step and give up its claims."""
        record.ending = True
        undo, record.undo = record.undo, None
        if undo is not None:
            await undo()
        for claim in record.fault.claims(record.step.strike):
            if self._claimed.get(claim) == record.number:
                del self._claimed[claim]
        if record.fate is Fate.ACTIVE:
            record.fate = Fate.OVER
        self._note(record, "end")

    def _note(self, record: StepRecord, verb: str) -> None:
        fields: dict[str, Field] = {"verb": verb, "step": record.number}
        if verb == "end":
            fields |= {"fault": record.fault.name, "effect": record.effect}
        targets = record.step.strike.targets
        if targets:
            fields["target"] = " ".join(targets)
        if record.fault.damage is Damage.WRONG:
            fields["damage"] = record.fault.damage.value  # Oracles ask no more of these disks.
        self._stage.backend.note("fault", {**fields, **_plain(record)})

    def active(self) -> list[StepRecord]:
        """Steps whose fault holds now."""
        return [record for record in self.records if record.fate is Fate.ACTIVE]

    async def heal(self, core: tuple[str, ...] | None = None) -> None:
        """Undo, newest first, every fault that concerns the core; ``None``: every one."""
        for record in reversed(self.active()):
            if core is None or self._concerns(record, core):
                await self._finish(record)

    def _concerns(self, record: StepRecord, core: tuple[str, ...]) -> bool:
        """Whether a fault hinders the core from within: strikes one of it, or a link inside it."""
        for claim in record.fault.claims(record.step.strike):
            kind, _, who = claim.partition(":")
            if kind == "link":
                source, target = who.split(">")
                if source in core and target in core:
                    return True
            elif not who or who in core:
                return True
        return not record.fault.claims(record.step.strike)
