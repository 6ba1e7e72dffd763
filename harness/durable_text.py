"""Text files that a crash leaves either as they were or as they were to be."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import HarnessError


def replace_text(path: Path, text: str) -> None:
    """Write a file anew, its directory made if need be; ``HarnessError`` if it cannot be."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise HarnessError(f"{path} cannot be written ({error.strerror}); name another") from error
