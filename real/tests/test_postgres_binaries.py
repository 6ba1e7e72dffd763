import shutil
import tempfile
from pathlib import Path

import pytest

from harness.errors import HarnessError
from real.postgres import binaries, template


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


def test_none_at_all_names_the_variable(nothing_installed):
    with pytest.raises(HarnessError, match=r"no PostgreSQL 15, 16 or 18 found .*SEAWALL_PG_BIN"):
        binaries.find()


def test_places_are_searched_in_order(monkeypatch, tmp_path):
    monkeypatch.delenv(binaries.VARIABLE, raising=False)
    first = fake_installation(tmp_path / "first", "16.4")
    second = fake_installation(tmp_path / "second", "15.9")
    monkeypatch.setattr(binaries, "_places", lambda: iter([("a", first), ("b", second)]))
    assert binaries.find() == binaries.Binaries(first, "16.4", 16)
    assert binaries.find(15) == binaries.Binaries(second, "15.9", 15)
    with pytest.raises(HarnessError, match=r"no PostgreSQL 18 found \(a: .*first is version 16.4;"):
        binaries.find(18)


def test_the_variable_wins_and_is_not_passed_over(monkeypatch, tmp_path):
    other = fake_installation(tmp_path / "other", "15.1")
    monkeypatch.setattr(binaries, "_places", lambda: iter([("a", other)]))
    monkeypatch.setenv(binaries.VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(HarnessError, match=r"SEAWALL_PG_BIN: .*missing has no 'postgres'"):
        binaries.find()


def test_unsupported_versions_are_told(tmp_path):
    old = fake_installation(tmp_path / "old", "9.6.24")
    assert "supported are 15, 16 and 18" in str(binaries.inspect(old))
    odd = fake_installation(tmp_path / "odd", "17beta1")
    assert "supported are 15, 16 and 18" in str(binaries.inspect(odd))


def test_missing_program_is_named(tmp_path):
    bare = fake_installation(tmp_path / "bare", "15.1")
    found = binaries.inspect(bare)
    with pytest.raises(HarnessError, match="has no 'pgbench'; install PostgreSQL's client"):
        found.program("pgbench")


@pytest.mark.skipif(binaries.server_user() is None, reason="only root gives up its rights")
def test_installation_in_a_closed_directory_is_copied_for_the_unprivileged_user(tmp_path):
    """The wheel lies in root's home when the repository does."""
    source = next(found for found in binaries.find_all() if "pginstall" in str(found.directory))
    package = source.directory.parents[1]
    closed = tmp_path / "closed"
    installation = closed / package.name / source.directory.parent.name
    shutil.copytree(source.directory.parent, installation, symlinks=True)
    libraries = f"{package.name}.libs"
    shutil.copytree(package.with_name(libraries), closed / libraries)
    closed.chmod(0o700)
    cache = Path(tempfile.mkdtemp(prefix="seawall-test-"))
    cache.chmod(0o711)
    try:
        found = binaries.inspect(installation / "bin")
        assert found.major == source.major
        usable = found.for_server_user(cache)
        assert usable.directory.is_relative_to(cache)
        made = template.template(found, template.MIB, cache)
        assert made.pg_version == source.major
        assert usable.for_server_user(cache) is usable
    finally:
        shutil.rmtree(cache)


@pytest.mark.skipif(binaries.server_user() is None, reason="only root gives up its rights")
def test_cache_that_the_unprivileged_user_cannot_enter_is_named(tmp_path):
    tmp_path.chmod(0o700)
    with (
        pytest.raises(HarnessError, match=r"may not enter .*; set TMPDIR or SEAWALL_CACHE_DIR"),
        binaries.locked(tmp_path / "cache", "x"),
    ):
        pass


@pytest.mark.skipif(binaries.server_user() is None, reason="only root gives up its rights")
def test_open_installation_behind_a_closed_link_is_copied_too(tmp_path):
    """A virtual environment may be a link, which the unprivileged user cannot even follow."""
    cache = Path(tempfile.mkdtemp(prefix="seawall-test-"))
    cache.chmod(0o711)
    try:
        installation = cache / "package" / "pginstall"
        installation.mkdir(parents=True)
        fake_installation(installation / "bin", "15.1")
        for path in (cache / "package", installation, installation / "bin"):
            path.chmod(0o755)
        tmp_path.chmod(0o700)
        (tmp_path / "package").symlink_to(cache / "package")
        linked = tmp_path / "package" / "pginstall" / "bin"

        assert binaries.inspect(installation / "bin").for_server_user(cache).directory == (
            installation / "bin"
        )
        usable = binaries.inspect(linked).for_server_user(cache)
        assert usable.directory.is_relative_to(cache)
    finally:
        shutil.rmtree(cache)


def test_this_machine_has_a_server_for_each_supported_version():
    """One comes with the wheel, so at least that must be found."""
    majors = [found.major for found in binaries.find_all()]
    assert {16, 18} <= set(majors)
