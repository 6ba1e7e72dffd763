"""Directories that a run makes for itself below the temporary directory, and removes again."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.errors import HarnessError


def fresh_directory(prefix: str) -> Path:
    """A new, empty, private directory; ``HarnessError`` where none can be made."""
    named = os.environ.get("TMPDIR")
    if named and not (os.path.isdir(named) and os.access(named, os.W_OK | os.X_OK)):
        # Python would quietly take another one, which may be small, shared or backed up.
        raise HarnessError(f"TMPDIR={named!r} is not a directory you can write to; name another")
    try:
        return Path(tempfile.mkdtemp(prefix=prefix))
    except OSError as error:
        where = f" below {os.path.dirname(error.filename)!r}" if error.filename else ""
        raise HarnessError(
            f"cannot make a temporary directory{where}: {error.strerror}; set TMPDIR to a "
            "directory you can write to"
        ) from error


@contextlib.contextmanager
def scratch_directory(prefix: str) -> Iterator[Path]:
    """A fresh directory that is removed on exit."""
    directory = fresh_directory(prefix)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
