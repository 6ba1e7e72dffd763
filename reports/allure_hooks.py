"""Makes Allure results of scenarios readable: names, parameters, verdict, replay line, evidence.

A pytest plugin (``-p reports.allure_hooks``) that does nothing without ``--alluredir``. With
``--records`` and ``--artifacts`` it says how the run ended and attaches the logs of runs that are
not green. Only ``allure``'s public functions are used.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from harness.verdict import RunRecord, RunSettings, Verdict
from reports.scenario_ids import ScenarioId, scenario_id

TAIL_BYTES = 200_000
"""How far from its end a file of records is searched: other workers write to it too."""


def pytest_configure(config: pytest.Config) -> None:
    """Watch scenarios if Allure results are written."""
    if config.getoption("--alluredir", None):
        config.pluginmanager.register(ScenarioResults(config))


class ScenarioResults:
    """Completes the Allure result of each scenario when its run has ended."""

    def __init__(self, config: pytest.Config) -> None:
        self._records = Path(config.getoption("--records", "") or "")
        self._artifacts = Path(config.getoption("--artifacts", "") or "")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Whatever the call raises, its result is completed first."""
        try:
            return (yield)
        finally:
            parts = scenario_id(item.nodeid)
            call = getattr(item, "callspec", None)
            settings = call.params.get("world") if call is not None else None
            if parts is not None and isinstance(settings, RunSettings):
                self._complete(item, parts, settings)

    def _complete(self, item: pytest.Item, parts: ScenarioId, settings: RunSettings) -> None:
        allure = _allure()
        where = f"{settings.world} · {settings.compute}"
        name = parts.nodeid.split("::")[-1]
        allure.dynamic.title(f"{name} · {where} · seed {settings.seed}")
        allure.dynamic.sub_suite(where)
        allure.dynamic.tag(settings.world, settings.compute)
        for parameter in ("world", "compute", "seed", "policy"):
            allure.dynamic.parameter(parameter, getattr(settings, parameter))
        record = last_record(self._records, parts.nodeid, settings)
        story = inspect.getdoc(getattr(item, "obj", None)) or ""
        allure.dynamic.description(_description(story, settings.replay(parts.nodeid), record))
        if record is not None and record.verdict is not Verdict.PASSED:
            self._attach(record)

    def _attach(self, record: RunRecord) -> None:
        allure = _allure()
        directory = self._artifacts / record.artifacts
        kinds = {
            "log.txt": allure.attachment_type.TEXT,
            "events.jsonl": allure.attachment_type.TEXT,
            "effects.json": allure.attachment_type.JSON,
        }
        for name, kind in kinds.items():
            if record.artifacts and (directory / name).is_file():
                allure.attach.file(directory / name, name=name, attachment_type=kind)


def _allure() -> Any:
    """Imported at first use: the module needs no Allure where no results are written."""
    return importlib.import_module("allure")


def _description(story: str, replay: str, record: RunRecord | None) -> str:
    """Markdown: what the scenario tells, how it ended, how to run it again."""
    parts = [story] if story else []
    if record is not None:
        parts.append(f"Verdict: **{record.verdict}** {record.message}".rstrip())
    parts.append(f"Replay: `{replay}`")
    if record is not None and record.digest:
        parts.append(f"Digest: `{record.digest}` over {record.events} events")
    return "\n\n".join(parts)


def last_record(path: Path, nodeid: str, settings: RunSettings) -> RunRecord | None:
    """The newest record of a run, or ``None`` if it left none (no ``--records``, skipped)."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        if f'"seed": {settings.seed}' not in line:
            continue
        try:
            record = RunRecord.from_json(line)
        except (ValueError, KeyError, TypeError):
            continue
        if (record.nodeid, record.settings) == (nodeid, settings):
            return record
    return None
