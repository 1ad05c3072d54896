"""The Dockerfile can be built from what is in the tree, and starts what the package installs."""

from __future__ import annotations

import json
import re
import tomllib

from tests.bench.load import AS_THE_IMAGE
from tests.chart.rendering import CHART, ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions(name: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name}\s+(.*)$", joined, flags=re.MULTILINE)


def test_everything_copied_is_in_the_tree_and_not_ignored() -> None:
    """Each source of a COPY exists and is let through by .dockerignore."""
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line for line in instructions("COPY") if not line.startswith("--from=")]
    sources = {source for line in copied for source in line.split()[:-1]}
    assert sources == let_through
    assert all((ROOT / source).exists() for source in sources)


def test_what_the_build_reads_is_copied() -> None:
    """The files that pyproject.toml names for the wheel are among those copied."""
    copied = {source for line in instructions("COPY") for source in line.split()[:-1]}
    assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "bot"} <= copied


def test_the_entry_point_is_the_console_script_that_is_installed() -> None:
    """ENTRYPOINT names the package's script in the exec form, and CMD the command that the chart runs too."""
    (entrypoint,) = instructions("ENTRYPOINT")
    (command,) = instructions("CMD")
    assert json.loads(entrypoint) == ["canary-bot"]
    assert "canary-bot" in PROJECT["scripts"]
    assert f"args: {command}" in (CHART / "templates" / "deployment.yaml").read_text()


def test_the_image_runs_as_the_user_that_the_chart_demands() -> None:
    """The numeric user is the same in both, so that runAsNonRoot can be verified."""
    assert instructions("USER") == ["10001:10001"]
    assert "runAsUser: 10001" in (CHART / "templates" / "deployment.yaml").read_text()


def test_the_image_holds_neither_test_nor_demo_dependencies() -> None:
    """No extra is installed into the image."""
    assert not re.search(r"pip install[^&]*\[", DOCKERFILE)


def test_chart_and_package_have_the_same_version() -> None:
    """A chart installs the bot of its own version."""
    chart = (CHART / "Chart.yaml").read_text()
    assert f'appVersion: "{PROJECT["version"]}"' in chart


def test_the_load_is_measured_with_the_memory_settings_of_the_image() -> None:
    """What the bench tells of a bot's memory holds for the image."""
    image = dict(re.findall(r"(MALLOC_\w+)=(\S+)", DOCKERFILE))
    assert image == AS_THE_IMAGE
