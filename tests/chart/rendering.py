"""Runs helm over the chart and gives back its objects."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.fixtures.requirements import needs_binary

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "canary-bot"
VALUE_SETS = sorted((CHART / "ci").glob("*-values.yaml"))
RELEASE, NAMESPACE = "canary", "ops"
TIMEOUT_S = 60.0


def run_helm(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Runs helm with `home` for its caches, so that nothing of the user's helm set-up is read or written."""
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    command = [needs_binary("helm"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment)


def template(values: Path, *arguments: str, home: Path) -> list[dict[str, Any]]:
    """The objects that helm would send to the API server for `values`."""
    done = run_helm("template", RELEASE, str(CHART), "-n", NAMESPACE, "-f", str(values), *arguments, home=home)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def only(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The one object of `kind`."""
    found = [item for item in objects if item["kind"] == kind]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]
