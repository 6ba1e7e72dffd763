"""The house style holds, and its list of exceptions only shrinks."""

import ast
import json
from pathlib import Path

import pytest

from harness.tidy import rules
from harness.tidy.checks import Source, function_lines, functions, offences, sources

ROOT = Path(__file__).resolve().parents[2]
EXCEPTIONS = ROOT / "harness" / "tidy" / "exceptions.json"
MOST_EXCEPTIONS = 0


def source(text: str, path: str = "storage/example.py") -> Source:
    return Source(path, text, ast.parse(text))


def rules_broken(text: str, path: str = "storage/example.py") -> set[str]:
    return {offence.rule for offence in offences(source(text, path))}


def test_no_offence_but_the_listed_ones():
    found = {offence.key: offence for file in sources(ROOT) for offence in offences(file)}
    listed = set(json.loads(EXCEPTIONS.read_text(encoding="utf-8")))

    new = [
        f"{offence.key}: {offence.detail}" for key, offence in found.items() if key not in listed
    ]
    assert not new, "\n".join(["new offences:", *sorted(new)])
    gone = sorted(listed - set(found))
    assert not gone, "\n".join(["take these off the list, they are mended:", *gone])


def test_list_of_exceptions_only_shrinks():
    listed = json.loads(EXCEPTIONS.read_text(encoding="utf-8"))

    assert len(listed) <= MOST_EXCEPTIONS
    assert len(set(listed)) == len(listed)


def test_ninety_percent_of_functions_are_short():
    lengths = sorted(
        function_lines(node)
        for file in sources(ROOT)
        if not file.is_test
        for _, node in functions(file)
    )

    assert lengths[int(len(lengths) * 0.9)] <= rules.LINES_PER_FUNCTION_P90


@pytest.mark.parametrize(
    ("path", "text", "rule"),
    [
        ("storage/x.py", '"""x."""\nimport simpy\n', "import"),
        ("storage/x.py", '"""x."""\nfrom sim import loop\n', "import"),
        ("sim/x.py", '"""x."""\nfrom storage.safekeeper import state\n', "import"),
        ("scenarios/x.py", '"""x."""\nfrom storage.wire.client import connect\n', "import"),
        ("storage/wal/x.py", '"""x."""\nfrom storage.safekeeper import state\n', "layer"),
        ("storage/x.py", '"""x."""\nnow = time.time()\n', "ban"),
        ("scenarios/x.py", '"""x."""\nawait_ = asyncio.sleep(1)\n', "sleep"),
        ("storage/helpers.py", '"""x."""\n', "module-name"),
        ("storage/x.py", '"""x."""\ndef public():\n    pass\n', "docstring"),
        ("storage/x.py", '"""x."""\n' + "\n" * 400, "file-size"),
        ("storage/x.py", '"""x."""\nx = "' + "x" * 100 + '"\n', "columns"),
        ("storage/x.py", '"""x."""\ndef _f():\n' + "    x = 1\n" * 60, "function-size"),
    ],
)
def test_each_rule_fires(path, text, rule):
    assert rule in rules_broken(text, path)


def test_clean_file_breaks_no_rule():
    text = '"""x."""\nimport random\nfrom storage.lsn import Lsn\n_r: random.Random\n'

    assert rules_broken(text) == set()
