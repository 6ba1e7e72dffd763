"""Slips: bugs of our own invention, beside those that really happened."""

from __future__ import annotations

from harness.bug import Bug, Replacement

FAMILY = "own"


def slip(bug_id: str, oracles: str, applies: str, *replacements: tuple[object, str, object]) -> Bug:
    """A bug that replaces each ``(owner, name, new)``.

    ``oracles``, as in ``"O1 O2"``, should see it; ``applies`` is what a run must contain for that.
    """
    return Bug(
        bug_id, FAMILY, "own", tuple(oracles.split()), "our own",
        replacements=tuple(Replacement(*each) for each in replacements),  # type: ignore[arg-type]
        applies=applies,
    )  # fmt: skip
