"""What the source server is made to do: a bit of everything that leaves its own kind of record.

A seed decides order and content. Transfers run beside the steps all the time, so that most commits
lie in the middle of something else. A step names what it makes by a number of its own.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg2

from real.rebuild import picture

EXTENSIONS: Final = ("amcheck", "pg_visibility", "bloom")
"""Created where the installation has them: two that check, and an index kind of its own."""

ACCOUNTS: Final = 60
_COMMON_ERRORS: Final = ("40001", "40P01")


Step = Callable[["Work"], None]


class Work:
    """One source server under work."""

    def __init__(self, host: Path, seed: int) -> None:
        self.random = random.Random(f"{seed}/rebuild")
        self.extensions: set[str] = set()
        self._host = host
        self._last_number = 0

    def number(self) -> int:
        """A number that no other step has."""
        self._last_number += 1
        return self._last_number

    @contextmanager
    def session(self, database: str = "postgres") -> Iterator[Any]:
        """A cursor that commits each statement and may make tablespaces in place."""
        with picture.session(self._host, database) as run:
            run.execute("set allow_in_place_tablespaces = on; set statement_timeout = '60s'")
            yield run

    def run(self, steps: Sequence[Step], rounds: int) -> list[str]:
        """All steps in a drawn order, ``rounds`` times; returns their names in that order."""
        done = []
        self._prepare()
        with self._transfers():
            for _ in range(rounds):
                for step in self.random.sample(steps, len(steps)):
                    step(self)
                    done.append(step.__name__)
        with self.session() as run:
            run.execute("checkpoint")  # So that even the last commit is followed by some WAL.
        return done

    def _prepare(self) -> None:
        with self.session() as run:
            run.execute("select name from pg_available_extensions where name = any(%s)",
                        (list(EXTENSIONS),))  # fmt: skip
            self.extensions = {name for (name,) in run.fetchall()}
            for extension in sorted(self.extensions):
                run.execute(f"create extension {extension}")
            run.execute("create tablespace annex location ''")
            run.execute(
                "create table account(id int primary key, balance int not null, note text);"
                f" insert into account select i, 0, '' from generate_series(1, {ACCOUNTS}) i;"
                " create table history(id bigserial, delta int, at timestamptz default now());"
                " create sequence counter increment 7"
            )

    @contextmanager
    def _transfers(self) -> Iterator[None]:
        """Two clients that move amounts about, sometimes in vain."""
        stop = threading.Event()
        failures: list[BaseException] = []
        threads = [
            threading.Thread(target=self._transfer_until, args=(stop, failures, name))
            for name in ("one", "two")
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        if failures:
            raise failures[0]

    def _transfer_until(
        self, stop: threading.Event, failures: list[BaseException], name: str
    ) -> None:
        draw = random.Random(f"{self.random.random()}/{name}")
        try:
            with self.session() as run:
                while not stop.wait(0.01):
                    _transfer(run, draw)
        except BaseException as error:
            failures.append(error)


def _transfer(run: Any, draw: random.Random) -> None:
    """One transaction: locks that others may share, a savepoint, an update, maybe regret."""
    first, second = (draw.randint(1, ACCOUNTS) for _ in range(2))
    delta = draw.randint(-100, 100)
    try:
        run.execute("begin")
        run.execute("select 1 from account where id between %s and %s for key share",
                    (first, first + 3))  # fmt: skip
        run.execute("savepoint s")
        run.execute("update account set balance = balance - %s where id = %s", (delta, first))
        if draw.random() < 0.3:
            run.execute("rollback to s")
        run.execute("update account set balance = balance + %s, note = %s where id = %s",
                    (delta, "n" * draw.randint(0, 300), second))  # fmt: skip
        run.execute("insert into history(delta) values (%s)", (delta,))
        run.execute("rollback" if draw.random() < 0.15 else "commit")
    except psycopg2.Error as error:
        if error.pgcode not in _COMMON_ERRORS:
            raise
        run.execute("rollback")
