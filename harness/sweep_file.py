"""What a sweep leaves on disk while it runs, so that nothing is lost and it can be resumed.

``FILE.jsonl`` gets each record as its run ends; ``FILE.summary.json`` beside it says what was to be
run, with which code, and is written again at the end.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from harness.durable_text import replace_text
from harness.errors import HarnessError
from harness.verdict import RunRecord, append_record, check_file

CODE = ("storage", "harness", "sim", "scenarios")
"""Packages that decide how a simulated run goes."""

SWEEPS = Path(".seawall/sweeps")
"""Where results go if nobody names a file."""


class SweepFile:
    """The results of one sweep; ``about`` are the settings that identify it."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.summary_path = path.with_suffix(".summary.json")
        self.about = {**about, "code": code_version()}
        self._locked: BinaryIO | None = None

    def begin(self, *, resume: bool, fresh: bool) -> list[RunRecord]:
        """Make ready to append; returns the records there are if the sweep is resumed.

        ``fresh``: what an earlier sweep left in the file goes. ``HarnessError`` if the results are
        not of this sweep or this code: runs of other code say nothing of this one.
        """
        check_file(self.path, "--records")
        self._lock()
        if resume:
            self._check_same()
            return self._read()
        if fresh:
            self.path.write_text("", encoding="utf-8")
        self.write({})
        return []

    def _lock(self) -> None:
        """One sweep at a time; the lock ends with the process."""
        self._locked = self.path.open("rb")
        try:
            fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HarnessError(
                f"another sweep writes to {self.path}; wait for it, or name another file with "
                "--records"
            ) from None

    def close(self) -> None:
        """Let others write there."""
        if self._locked is not None:
            self._locked.close()

    def _check_same(self) -> None:
        try:
            found = json.loads(self.summary_path.read_text(encoding="utf-8"))["about"]
        except (OSError, ValueError, KeyError) as error:
            raise HarnessError(
                f"nothing to resume: {self.summary_path} tells of no sweep ({error}); "
                "leave out --resume"
            ) from error
        for name, wanted in self.about.items():
            if found.get(name) != wanted:
                raise HarnessError(
                    f"{self.path} has results of {name} {found.get(name)!r}, this sweep is of "
                    f"{wanted!r}; leave out --resume to begin anew"
                )

    def _read(self) -> list[RunRecord]:
        """Whole lines only: the last may be cut by what ended the sweep."""
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            with self.path.open("r+", encoding="utf-8") as file:
                file.truncate(len(whole.encode()))
        try:
            return [RunRecord.from_json(line) for line in whole.splitlines()]
        except (ValueError, KeyError, TypeError) as error:
            raise HarnessError(f"{self.path} holds no records ({error!r}); name another") from error

    def code_is_the_same(self) -> bool:
        """Whether the code is what it was when the sweep began."""
        return bool(code_version() == self.about["code"])

    def append(self, record: RunRecord) -> None:
        """Keep one record."""
        append_record(self.path, record)

    def write(self, summary: Mapping[str, Any]) -> None:
        """Say how far the sweep is."""
        data = {"about": self.about, **summary}
        replace_text(self.summary_path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def file_for(nodeids: Sequence[str], seeds: range, policy: str) -> Path:
    """A readable name for the results of a sweep."""
    first = re.sub(r"[^A-Za-z0-9]+", "-", nodeids[0].partition("::")[2]).strip("-")
    more = f"+{len(nodeids) - 1}" if len(nodeids) > 1 else ""
    return SWEEPS / f"{first}{more}-{seeds.start}-{seeds.stop}-{policy}.jsonl"


def code_version() -> str:
    """The commit that is checked out, if any, and a checksum of the code as it is on the disk."""
    command = ["git", "describe", "--always", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        commit = found.stdout.strip() if found.returncode == 0 else ""
    except OSError:
        commit = ""
    content = hashlib.sha256()
    for path in sorted([*Path().glob("*.py"), *(f for p in CODE for f in Path(p).rglob("*.py"))]):
        content.update(f"{path} ".encode() + path.read_bytes())
    return f"{commit}+{content.hexdigest()[:12]}"
