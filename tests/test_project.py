"""The rules that machines check do check something: a contract over a misspelt library is kept for ever."""

from __future__ import annotations

import configparser
import importlib.util
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def contracts() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser


def housed() -> set[str]:
    found = contracts()
    homes = [name for name in found.sections() if ":home-of-" in name]
    return {library for name in homes for library in found[name]["forbidden_modules"].split()}


def distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[;~! ]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def test_every_library_with_a_home_is_one_that_can_be_imported() -> None:
    """No contract names a module that does not exist, under which it could never be broken."""
    assert {name for name in housed() if importlib.util.find_spec(name) is None} == set()


def test_every_dependency_has_a_home() -> None:
    """Each library that the bot or its demo needs may be imported in one place only."""
    wanted = distributions(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["demo"])
    wanted |= distributions(PROJECT["optional-dependencies"]["charts"])
    homes = housed()
    served = {
        distribution.lower().replace("_", "-")
        for module, owners in packages_distributions().items()
        if module in homes
        for distribution in owners
    }
    assert wanted - served == set()
