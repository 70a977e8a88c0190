"""The lock files hold all that the requirements name, and all that those need, with hashes."""

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.servers import ROOT

LOCKS = {
    "requirements.lock": ["requirements.txt"],
    "requirements-test.lock": ["requirements.txt", "requirements-test.txt"],
}


def read(name: str) -> list[str]:
    """Return the requirements of a file as lines, without remarks."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def locked(name: str) -> dict[str, Requirement]:
    """Return what a lock file names, by the names of the packages."""
    found = {}
    for line in read(name):
        requirement = Requirement(line.partition("--hash")[0])
        found[canonicalize_name(requirement.name)] = requirement
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_lock_holds_the_direct_packages_in_their_version(name):
    versions = {each: str(one.specifier) for each, one in locked(name).items()}

    for file in LOCKS[name]:
        for line in read(file):
            direct = Requirement(line)
            assert versions.get(canonicalize_name(direct.name)) == str(direct.specifier), direct


@pytest.mark.parametrize("name", LOCKS)
def test_lock_holds_what_its_packages_need(name):
    found = locked(name)

    for package in found:
        try:
            needed = metadata.requires(package) or []
        except metadata.PackageNotFoundError:  # for another system
            continue
        for requirement in map(Requirement, needed):
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                assert canonicalize_name(requirement.name) in found, f"{package}: {requirement}"


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_one_version_with_hashes_of_each_package(name):
    for line in read(name):
        assert re.fullmatch(r"[\w.-]+==\S+( ; [^-]+)?( +--hash=sha256:[0-9a-f]{64})+", line), line


@pytest.mark.parametrize("name", LOCKS)
def test_lock_names_no_host(name):
    text = (ROOT / name).read_text(encoding="utf-8")

    assert "://" not in text and "--index" not in text and "--find-links" not in text


def test_both_locks_agree():
    tests = locked("requirements-test.lock")

    assert {package: tests.get(package) for package in locked("requirements.lock")} == locked(
        "requirements.lock"
    )
