"""Commands that stock clients send by themselves and that no node has an opinion on.

BEGIN and COMMIT (psycopg2 wraps everything in them), SET, SHOW of our parameters, ``set_config``.
Our commands take effect at once, so a ROLLBACK after any warns that it undid nothing; as in
PostgreSQL, a failed transaction block takes no command but its end.
"""

from __future__ import annotations

import re

from storage.errors import BadRequest
from storage.wire.session import Session
from storage.wire.values import TransactionStatus

PARAMETERS = {
    # Not newer than any client we support: pg_receivewal refuses servers newer than itself.
    "server_version": "15.0",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "is_superuser": "on",
    "in_hot_standby": "off",
    "default_transaction_read_only": "off",
}
"""ParameterStatus of every session: what psql, psycopg2 and replication clients look at."""

_SHOWN = {
    **{name.lower(): value for name, value in PARAMETERS.items()},
    "server_version_num": "150000",
    "transaction_isolation": "read committed",
    "search_path": "",
    # pg_receivewal and pg_basebackup ask for it to choose the mode of what they write.
    "data_directory_mode": "0700",
}

_BEGIN = re.compile(r"(begin|start\s+transaction)\b", re.I)
_COMMIT = re.compile(r"(commit|end)\b", re.I)
_ROLLBACK = re.compile(r"(rollback|abort)\b", re.I)
_SET = re.compile(r"set\s+(?:session\s+|local\s+)?([\w.]+)\s*(?:=|\bto\b)?\s*(.*)", re.I | re.S)
_SHOW = re.compile(r"show\s+([\w.]+)\Z", re.I)
_FORGET = re.compile(r"(discard\s+all|reset\s+\w+|deallocate\b.*)\Z", re.I)
_SET_CONFIG = re.compile(r"select\s+(?:pg_catalog\.)?set_config\('search_path',\s*'',.*\Z", re.I)


class InFailedTransaction(BadRequest):
    """The block has failed; only its end is accepted."""

    sqlstate = "25P02"


class EncodingRefused(BadRequest):
    """Only UTF-8 is spoken."""

    sqlstate = "22023"


class SessionCommands:
    """The transaction block and the harmless commands of one session."""

    def __init__(self) -> None:
        self.status = TransactionStatus.IDLE
        self._commands_in_block = 0

    @property
    def in_block(self) -> bool:
        """Whether a transaction block is open."""
        return self.status is not TransactionStatus.IDLE

    def failed(self) -> None:
        """A command failed; a block that is open can only be ended now."""
        if self.status is TransactionStatus.IN_BLOCK:
            self.status = TransactionStatus.FAILED

    async def answer(self, session: Session, command: str) -> bool:
        """Answer the command if it is one of ours; false leaves it to the handler."""
        if await self._answer_transaction(session, command):
            return True
        if self.status is TransactionStatus.FAILED:
            raise InFailedTransaction(
                "current transaction is aborted, commands ignored until end of transaction block"
            )
        if await self._answer_setting(session, command):
            return True
        self._commands_in_block += 1
        return False

    async def _answer_transaction(self, session: Session, command: str) -> bool:
        if _BEGIN.match(command):
            if self.status is TransactionStatus.IDLE:
                self.status = TransactionStatus.IN_BLOCK
                self._commands_in_block = 0
            await session.complete("BEGIN")
        elif _COMMIT.match(command):
            undone = self.status is TransactionStatus.FAILED
            await self._end_block(session, "ROLLBACK" if undone else "COMMIT", undone=undone)
        elif _ROLLBACK.match(command):
            await self._end_block(session, "ROLLBACK", undone=True)
        else:
            return False
        return True

    async def _end_block(self, session: Session, tag: str, *, undone: bool) -> None:
        if undone and self.status is not TransactionStatus.IDLE and self._commands_in_block:
            await session.warning("commands take effect at once; nothing was rolled back")
        self.status = TransactionStatus.IDLE
        self._commands_in_block = 0
        await session.complete(tag)

    async def _answer_setting(self, session: Session, command: str) -> bool:
        if (show := _SHOW.match(command)) and show[1].lower() in _SHOWN:
            await session.rows([show[1].lower()], [(_SHOWN[show[1].lower()],)], "SHOW")
        elif assignment := _SET.match(command):
            _check_assignment(assignment[1].lower(), assignment[2].strip("' \""))
            await session.complete("SET")
        elif forget := _FORGET.match(command):
            await session.complete(forget[1].split()[0].upper())
        elif _SET_CONFIG.match(command):
            await session.rows(["set_config"], [("",)], "SELECT 1")
        else:
            return False
        return True


def _check_assignment(name: str, value: str) -> None:
    if name in ("client_encoding", "names") and value.upper().replace("-", "") not in (
        "UTF8",
        "UNICODE",
        "DEFAULT",
    ):
        raise EncodingRefused(f"client_encoding {value!r} is not spoken here; use UTF8")
