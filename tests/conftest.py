"""Fixtures shared by all tests live in `tests/fixtures`, one file for each part of the world."""

pytest_plugins = [
    "tests.fixtures.kube",
    "tests.fixtures.mesh",
    "tests.fixtures.patience",
    "tests.fixtures.phases",
    "tests.fixtures.redis",
    "tests.fixtures.slack",
]
