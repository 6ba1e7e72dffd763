import pytest

from harness.errors import HarnessError
from real.postgres import binaries


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.delenv(binaries.VARIABLE, raising=False)
    monkeypatch.setattr(binaries, "_places", lambda: iter([]))


def fake_installation(directory, version):
    """A bin directory whose server only tells its version."""
    directory.mkdir()
    for name in binaries.NEEDED:
        (directory / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (directory / name).chmod(0o755)
    return directory


@pytest.fixture
def as_this_user(monkeypatch):
    """Test directories are closed to the unprivileged user."""
    monkeypatch.setattr(binaries, "as_user", dict)


def test_none_at_all_names_the_variable(nothing_installed):
    with pytest.raises(HarnessError, match=r"no PostgreSQL 15, 16 or 18 found .*SEAWALL_PG_BIN"):
        binaries.find()


def test_places_are_searched_in_order(monkeypatch, tmp_path, as_this_user):
    monkeypatch.delenv(binaries.VARIABLE, raising=False)
    first = fake_installation(tmp_path / "first", "16.4")
    second = fake_installation(tmp_path / "second", "15.9")
    monkeypatch.setattr(binaries, "_places", lambda: iter([("a", first), ("b", second)]))
    assert binaries.find() == binaries.Binaries(first, "16.4", 16)
    assert binaries.find(15) == binaries.Binaries(second, "15.9", 15)
    with pytest.raises(HarnessError, match=r"no PostgreSQL 18 found \(a: .*first is version 16.4;"):
        binaries.find(18)


def test_the_variable_wins_and_is_not_passed_over(monkeypatch, tmp_path, as_this_user):
    other = fake_installation(tmp_path / "other", "15.1")
    monkeypatch.setattr(binaries, "_places", lambda: iter([("a", other)]))
    monkeypatch.setenv(binaries.VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(HarnessError, match=r"SEAWALL_PG_BIN: .*missing has no 'postgres'"):
        binaries.find()


def test_unsupported_versions_are_told(tmp_path, as_this_user):
    old = fake_installation(tmp_path / "old", "9.6.24")
    assert "supported are 15, 16 and 18" in str(binaries.inspect(old))
    odd = fake_installation(tmp_path / "odd", "17beta1")
    assert "supported are 15, 16 and 18" in str(binaries.inspect(odd))


def test_missing_program_is_named(tmp_path, as_this_user):
    bare = fake_installation(tmp_path / "bare", "15.1")
    found = binaries.inspect(bare)
    with pytest.raises(HarnessError, match="has no 'pgbench'; install PostgreSQL's client"):
        found.program("pgbench")


def test_this_machine_has_a_server_for_each_supported_version():
    """One comes with the wheel, so at least that must be found."""
    majors = [found.major for found in binaries.find_all()]
    assert {16, 18} <= set(majors)
