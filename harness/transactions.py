"""Workloads of transactions that read what they change: lists that grow, and a bank.

Both are :class:`harness.workload.Workload`; :class:`Mixed` gives each client of a load one of
several. What they share (which lists are open, whether the bank is) lives in :class:`Lists` and
:class:`Bank`, so loads on several computes of one timeline work on the same keys when they are made
from the same options.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.endpoint import Client
from harness.errors import HarnessError
from harness.workload import LoadOptions, Worker, Workload

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Lists:
    """Which lists are appended to now: ``width`` of them; one that was asked to take ``length``
    elements makes room for a fresh one, so no value outgrows its page."""

    def __init__(self, first_key: int = 4096, *, width: int = 4, length: int = 24) -> None:
        if width < 2 or length < 1:
            raise HarnessError(f"{width} lists of {length} elements; 2 of 1 are needed at least")
        self._length = length
        self._open = {first_key + number: 0 for number in range(width)}
        self._next_key = first_key + width
        self._elements = 0

    def keys(self) -> list[int]:
        """The lists that are open."""
        return list(self._open)

    def element_for(self, key: int) -> str:
        """A new element, like no other; perhaps the last of its list."""
        count = self._open.get(key)
        if count is not None:
            self._open[key] = count + 1
            if count + 1 >= self._length:
                del self._open[key]
                self._open[self._next_key] = 0
                self._next_key += 1
        self._elements += 1
        return in_base_36(self._elements)


def in_base_36(number: int) -> str:
    """A positive number in few characters."""
    text = ""
    while number:
        number, digit = divmod(number, len(DIGITS))
        text = DIGITS[digit] + text
    return text


@dataclass(frozen=True)
class ListAppendOptions:
    """Transactions of one to ``steps_max`` steps that append to lists and read others;
    ``read_fraction`` of the operations read all open lists at once."""

    clients: int = 4
    steps_max: int = 4
    read_fraction: float = 0.3
    think_s: float = 0.01
    retry_s: float = 0.1
    lists: Lists = field(default_factory=Lists, compare=False)

    def worker(self, client: Client, number: int, entropy: random.Random) -> Worker:
        """A client that appends and reads."""
        return ListWorker(client, self, entropy)

    def writing_only(self) -> ListAppendOptions:
        """The same lists, read only by who appends."""
        return dataclasses.replace(self, read_fraction=0.0)


class ListWorker:
    """One client of the lists."""

    def __init__(self, client: Client, options: ListAppendOptions, entropy: random.Random) -> None:
        self._client = client
        self._options = options
        self._entropy = entropy

    async def operate(self) -> bool:
        """See :class:`harness.workload.Worker`."""
        lists = self._options.lists
        keys = lists.keys()
        if self._entropy.random() < self._options.read_fraction:
            await self._client.scan(min(keys), max(keys) + 1)
            return False
        count = self._entropy.randint(1, self._options.steps_max)
        touched = [self._entropy.choice(keys) for _ in range(count)]
        writes = [self._entropy.random() < 0.5 for _ in touched]
        writes[self._entropy.randrange(count)] = True
        steps = [
            ("append", key, lists.element_for(key)) if is_write else ("read", key)
            for key, is_write in zip(touched, writes, strict=True)
        ]
        await self._client.transact(steps)
        return True


class Bank:
    """Accounts ``first_key`` … with ``balance`` each at the beginning; they may be overdrawn."""

    def __init__(self, first_key: int = 2048, *, accounts: int = 8, balance: int = 100) -> None:
        if accounts < 2:
            raise HarnessError(f"a bank of {accounts} accounts; at least 2 are needed")
        self.accounts = range(first_key, first_key + accounts)
        self._balance = balance
        self._opened: set[str] = set()

    async def open(self, client: Client) -> bool:
        """Open every account, unless that is done; whether it was to do. Opening twice, because
        nobody knew the outcome, sets every balance anew and so keeps the total."""
        if client.recorded_timeline in self._opened:
            return False
        lsn = await client.txn(dict.fromkeys(self.accounts, str(self._balance)))
        self._opened.add(client.recorded_timeline)
        client.conserve(self.accounts, self._balance * len(self.accounts), lsn)
        return True


@dataclass(frozen=True)
class BankOptions:
    """Transfers between two accounts; ``read_fraction`` of the operations read all of them."""

    clients: int = 4
    read_fraction: float = 0.3
    think_s: float = 0.01
    retry_s: float = 0.1
    bank: Bank = field(default_factory=Bank, compare=False)

    def worker(self, client: Client, number: int, entropy: random.Random) -> Worker:
        """A client that transfers and audits."""
        return BankWorker(client, self, entropy)

    def writing_only(self) -> BankOptions:
        """The same bank without audits."""
        return dataclasses.replace(self, read_fraction=0.0)


class BankWorker:
    """One client of the bank."""

    def __init__(self, client: Client, options: BankOptions, entropy: random.Random) -> None:
        self._client = client
        self._options = options
        self._entropy = entropy

    async def operate(self) -> bool:
        """See :class:`harness.workload.Worker`."""
        bank = self._options.bank
        if await bank.open(self._client):
            return True
        if self._entropy.random() < self._options.read_fraction:
            await self._client.scan(bank.accounts.start, bank.accounts.stop)
            return False
        source, target = self._entropy.sample(bank.accounts, 2)
        amount = self._entropy.randint(1, 20)
        await self._client.transact([("add", source, -amount), ("add", target, amount)])
        return True


@dataclass(frozen=True)
class Mixed:
    """``clients`` clients, who do the work of ``parts`` in turn."""

    parts: Sequence[Workload]
    clients: int = 4
    think_s: float = 0.01
    retry_s: float = 0.1

    def __post_init__(self) -> None:
        if not self.parts:
            raise HarnessError("a mixed load without parts; name at least one workload")

    def worker(self, client: Client, number: int, entropy: random.Random) -> Worker:
        """A client of the part whose turn it is."""
        return self.parts[number % len(self.parts)].worker(client, number, entropy)

    def writing_only(self) -> Mixed:
        """The same parts, none of which only reads."""
        return dataclasses.replace(self, parts=[part.writing_only() for part in self.parts])


WORKLOADS = ("registers", "few_registers", "transactions")
"""What the clients of a campaign may do; see :func:`workload_named`."""


def workload_named(name: str, *, clients: int, think_s: float) -> Workload:
    """``registers``; ``few_registers``, mostly written; or ``transactions``: clients of lists, a
    bank and registers in turn."""
    if name == "registers":
        return LoadOptions(clients=clients, think_s=think_s)
    if name == "few_registers":
        return LoadOptions(clients=clients, think_s=think_s, keys=16, read_fraction=0.2)
    if name == "transactions":
        parts = (ListAppendOptions(), BankOptions(), LoadOptions(clients=clients))
        return Mixed(parts, clients=clients, think_s=think_s)
    raise HarnessError(f"no workload {name!r}; there are: {', '.join(WORKLOADS)}")
