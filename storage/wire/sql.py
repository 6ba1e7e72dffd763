"""Text of commands: statements of a query string, words of a command, values put into one.

Lexical rules are PostgreSQL's ("SQL Syntax", "Lexical Structure"): semicolons separate statements
except inside quotes, dollar quotes and comments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from storage.errors import BadRequest

_TOKEN = re.compile(
    r"""
      (?P<escape_string> \b[eE]'(?:[^'\\]|\\.|'')*' )
    | (?P<string>        '(?:[^']|'')*' )
    | (?P<identifier>    "(?:[^"]|"")*" )
    | (?P<dollar>        (?<![\w$])\$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$ )
    | (?P<line_comment>  --[^\n]* )
    | (?P<comment>       /\* )
    | (?P<parameter>     (?<![\w$])\$\d+ )
    | (?P<semicolon>     ; )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_PLAIN = re.compile(r"[A-Za-z0-9_./:+-]+\Z")
_WORD = re.compile(r"""\s*(?:'((?:[^']|'')*)'|([^\s']+))""")


def _comment_end(sql: str, start: int) -> int:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)


def _tokens(sql: str) -> list[tuple[str, int, int]]:
    """(group, start, end) of everything that is not plain text, in order."""
    tokens: list[tuple[str, int, int]] = []
    position = 0
    while match := _TOKEN.search(sql, position):
        kind = match.lastgroup
        # The dollar quote's tag is a group of its own inside it.
        name = "dollar" if kind == "tag" else str(kind)
        end = _comment_end(sql, match.start()) if name == "comment" else match.end()
        tokens.append((name, match.start(), end))
        position = end
    return tokens


def split_statements(sql: str) -> list[str]:
    """Statements of a query string, stripped, without their semicolons and without empty ones."""
    statements = []
    start = 0
    for kind, at, end in _tokens(sql):
        if kind == "semicolon":
            statements.append(sql[start:at])
            start = end
    statements.append(sql[start:])
    return [statement.strip() for statement in statements if not _is_blank(statement)]


def _is_blank(statement: str) -> bool:
    position = 0
    for kind, at, end in _tokens(statement):
        if kind not in ("line_comment", "comment") or statement[position:at].strip():
            return False
        position = end
    return not statement[position:].strip()


def split_words(command: str) -> list[str]:
    """Words of a command at white space; a word in single quotes may hold anything.

    ``put 1 'it''s'`` → ``["put", "1", "it's"]``. Raises ``BadRequest`` for an unfinished quote.
    """
    words = []
    position = 0
    command = command.rstrip()
    while position < len(command):
        match = _WORD.match(command, position)
        if match is None:
            raise BadRequest(f"unfinished quote in command: {command[position:][:60]!r}")
        quoted = match[1]
        words.append(match[2] if quoted is None else quoted.replace("''", "'"))
        position = match.end()
    return words


def parameter_count(sql: str) -> int:
    """How many parameters a statement has: the highest ``$n`` outside of quotes."""
    numbers = [int(sql[at + 1 : end]) for kind, at, end in _tokens(sql) if kind == "parameter"]
    return max(numbers, default=0)


def bind_values(sql: str, values: Sequence[str | None]) -> str:
    """Put the values of ``$1`` … into the statement, quoted unless they are plain words."""
    parts = []
    position = 0
    for kind, at, end in _tokens(sql):
        if kind == "parameter":
            number = int(sql[at + 1 : end])
            if not 1 <= number <= len(values):
                raise BadRequest(f"no value for parameter ${number}: {len(values)} were bound")
            parts += [sql[position:at], quote(values[number - 1])]
            position = end
    return "".join((*parts, sql[position:]))


def quote(value: str | None) -> str:
    """A value as a word of a command: as it is if plain, else in single quotes; NULL for None."""
    if value is None:
        return "NULL"
    return value if _PLAIN.match(value) else "'" + value.replace("'", "''") + "'"
