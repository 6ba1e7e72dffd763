"""Texts of the protocol: options of the start-up packet, statements, words, bound values."""

from __future__ import annotations

import random

import pytest

from storage.errors import BadRequest, ProtocolError
from storage.wire.sql import bind_values, parameter_count, quote, split_statements, split_words
from storage.wire.startup import format_options, parse_options, split_options


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("", {}),
        ("   ", {}),
        ("-c a=b", {"a": "b"}),
        ("-ca=b", {"a": "b"}),
        ("--a=b", {"a": "b"}),
        ("--tenant-id=x", {"tenant_id": "x"}),
        ("-c  a=b\t-c c=d", {"a": "b", "c": "d"}),
        ("-c a=b=c", {"a": "b=c"}),
        (r"-c a=b\ c", {"a": "b c"}),
        (r"-c a=\\", {"a": "\\"}),
        (r"-c a=x\-c\ b=y", {"a": "x-c b=y"}),
        ("-c a=1 -c a=2", {"a": "2"}),
        ("-c a=", {"a": ""}),
    ],
)
def test_options_as_postgres_reads_them(options: str, settings: dict[str, str]) -> None:
    assert parse_options(options) == settings


@pytest.mark.parametrize("options", ["-x", "a=b", "-c", "-c a", "--a", "-c =b", "-c a=b junk"])
def test_options_that_are_none_are_refused_by_name(options: str) -> None:
    with pytest.raises(ProtocolError, match="options: "):
        parse_options(options)


def test_what_is_formatted_is_parsed_back() -> None:
    generator = random.Random(1)
    alphabet = "ab \t\\=-'\"ü;"
    for _ in range(300):
        settings = {
            f"name_{number}": "".join(generator.choices(alphabet, k=generator.randrange(8)))
            for number in range(generator.randrange(4))
        }
        assert parse_options(format_options(settings)) == settings


def test_a_backslash_at_the_end_is_dropped() -> None:
    assert split_options("a\\") == ["a"]


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("", []),
        (" ; ;; ", []),
        ("-- nothing\n", []),
        ("/* nothing; */ ;", []),
        ("a", ["a"]),
        ("a;b", ["a", "b"]),
        ("a; b ;", ["a", "b"]),
        ("put 1 'x;y'; get 1", ["put 1 'x;y'", "get 1"]),
        ("put 1 'it''s;'; b", ["put 1 'it''s;'", "b"]),
        ('put "a;""b"; c', ['put "a;""b"', "c"]),
        (r"put E'\';' ; b", [r"put E'\';'", "b"]),
        (r"put '\'; b", [r"put '\'", "b"]),
        ("put $$a;b$$; c", ["put $$a;b$$", "c"]),
        ("put $x$a;$$;$x$; c", ["put $x$a;$$;$x$", "c"]),
        ("a -- b;c\n; d", ["a -- b;c", "d"]),
        ("a /* ; /* ; */ ; */ b; c", ["a /* ; /* ; */ ; */ b", "c"]),
        ("a /* unfinished ; b", ["a /* unfinished ; b"]),
        ("get $1; get $2", ["get $1", "get $2"]),
        ("put 'unfinished; b", ["put 'unfinished", "b"]),
    ],
)
def test_statements_are_split_outside_of_quotes_and_comments(
    sql: str, statements: list[str]
) -> None:
    assert split_statements(sql) == statements


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("put 1 abc", ["put", "1", "abc"]),
        ("  put\t1\n", ["put", "1"]),
        ("put 1 'a b'", ["put", "1", "a b"]),
        ("put 1 'it''s'", ["put", "1", "it's"]),
        ("put 1 ''", ["put", "1", ""]),
        ("", []),
        ("pagestream aa bb", ["pagestream", "aa", "bb"]),
    ],
)
def test_words_of_a_command(command: str, words: list[str]) -> None:
    assert split_words(command) == words


def test_unfinished_quotes_are_refused() -> None:
    with pytest.raises(BadRequest, match="unfinished quote"):
        split_words("put 1 'abc")


@pytest.mark.parametrize(
    ("sql", "values", "bound"),
    [
        ("get $1", ["5"], "get 5"),
        ("put $2 $1", ["a b", "7"], "put 7 'a b'"),
        ("put $1 '$2'", ["x"], "put x '$2'"),
        ("put $1", ["it's; put"], "put 'it''s; put'"),
        ("put $1", [None], "put NULL"),
        ("put $1", [""], "put ''"),
        ("put $10 $1", [str(n) for n in range(10)], "put 9 0"),
        ("price$1 $1", ["x"], "price$1 x"),
    ],
)
def test_values_are_bound_outside_of_quotes(sql: str, values: list[str | None], bound: str) -> None:
    assert bind_values(sql, values) == bound


def test_bound_values_come_out_as_single_words() -> None:
    generator = random.Random(2)
    for _ in range(300):
        value = "".join(generator.choices("ab '\";$1-/*\n", k=generator.randrange(10)))
        assert split_words(bind_values("put $1", [value])) == ["put", value]
        assert split_words(quote(value)) == [value]


def test_missing_values_are_named() -> None:
    assert parameter_count("put $1 '$7' $3") == 3
    with pytest.raises(BadRequest, match=r"no value for parameter \$3: 2 were bound"):
        bind_values("put $3", ["a", "b"])
