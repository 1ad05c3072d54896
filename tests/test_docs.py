"""What the documents say is so: what is drawn from the code is as the code draws it, and what they name is there.

`python -m tests.test_docs` writes the drawn parts anew.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer.main
import yaml

from bot.adapters.instruments import COUNTERS, GAUGES, HISTOGRAMS, PREFIX
from bot.adapters.mesh.annotation import KEY
from bot.catalog import load
from bot.cli import app
from bot.engine.deliver import UNANNOUNCED
from bot.engine.holder import STORE_AWAY
from bot.handlers.commands import COMMANDS
from bot.handlers.speech import understand
from bot.rollout.diagram import mermaid, page
from bot.rollout.invariants import RULES
from bot.rollout.model import Destination, HoldReason, RouteRef, Side, Target
from bot.rollout.retreat import UNAPPLIED
from bot.settings import Settings
from bot.views.byhand import by_hand

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "charts/canary-bot/README.md")]
    + list((ROOT / "docs").rglob("*.md"))
)
HOST = "payments.shop.svc.cluster.local"
EXAMPLE = Target(
    service="payments",
    namespace="shop",
    host=HOST,
    route=RouteRef("istio", "shop", "payments", "http", "primary"),
    stable=Side("v1", Destination(HOST, "v1")),
    canary=Side("v2", Destination(HOST, "v2")),
)


def metrics_table() -> str:
    """Every instrument with the name under which `/metrics` shows it."""
    rows = [
        *((f"{name}_total", "counter", labels, text) for name, (text, labels) in COUNTERS.items()),
        *((name, "gauge", (), text) for name, text in GAUGES.items()),
        *((name, "histogram", (), text) for name, text in HISTOGRAMS.items()),
    ]
    lines = [
        f"| `{PREFIX}_{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {text} |"
        for name, kind, labels, text in rows
    ]
    return "\n".join(["| name | type | labels | meaning |", "|---|---|---|---|", *lines])


def phases() -> str:
    """The state diagram."""
    return f"```mermaid\n{mermaid()}```"


def line_by_hand() -> str:
    """The line to 0 for the sandbox's payments."""
    return f"```console\n{by_hand(EXAMPLE)}\n```"


DRAWN: dict[tuple[str, str], Callable[[], str]] = {
    ("docs/architecture.md", "phases"): phases,
    ("docs/operations.md", "by-hand"): line_by_hand,
    ("docs/operations.md", "metrics"): metrics_table,
}
"""(document, block) to what stands between `<!-- block -->` and `<!-- /block -->`."""


def block(document: str, name: str) -> str:
    """What stands in a block of a document."""
    text = (ROOT / document).read_text()
    found = re.search(rf"<!-- {name} -->\n(.*?)\n *<!-- /{name} -->", text, re.DOTALL)
    assert found, f"{document} has no block {name}"
    return found[1]


def write() -> None:
    """Write every drawn block, and the page of the phases."""
    for (document, name), draw in DRAWN.items():
        path = ROOT / document
        path.write_text(path.read_text().replace(block(document, name), draw(), 1))
    (ROOT / "docs" / "states.md").write_text(page())


def parts(text: str) -> Iterator[str]:
    """Code in a document: each span, and each line of each fenced block."""
    fenced = re.compile(r"^ *```[a-z]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
    for found in fenced.finditer(text):
        yield from found[1].splitlines()
    yield from re.findall(r"`([^`\n]+)`", fenced.sub("", text))


def named(pattern: str) -> Iterator[tuple[str, str]]:
    """(document, first group) of every hit of a pattern in the code of every document."""
    for document in DOCUMENTS:
        for code in parts(document.read_text()):
            for found in re.finditer(pattern, code):
                yield document.name, found[1]


def anchors(path: Path) -> set[str]:
    """What links may lead to in a document: its headings, as they are written in addresses."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("document", "name"), DRAWN)
def test_what_is_drawn_from_the_code_is_as_the_code_draws_it(document: str, name: str) -> None:
    """The block is what its generator gives now; `python -m tests.test_docs` writes it anew."""
    assert block(document, name) == DRAWN[document, name]()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    """Files that are linked exist, and so do the headings."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


def test_every_make_target_that_is_named_exists() -> None:
    """`make x` in a document is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    found = set(named(r"^\s*(?:[A-Z_]+=\S+ )?make ([a-z-]+)"))
    assert {"demo", "test", "check", "bench", "format"} <= {target for _, target in found}
    assert {one for one in found if one[1] not in targets} == set()


def test_every_slack_command_that_is_named_can_be_typed() -> None:
    """The verb is in the table, and what stands without placeholders is understood by the parser."""
    verbs = {name for command in COMMANDS.values() for name in (command.verb, *command.aliases)}
    found = set(named(r"^\s*/canary ([^`]+)"))
    assert {one for one in found if one[1].split()[0] not in verbs | {"<verb>"}} == set()
    whole = {re.split(r" {2,}", text)[0] for _, text in found if not re.search(r"[<\[]|\.\.\.", text)}
    typed = {text for text in whole if len(text.split()) > 1}
    assert typed
    for text in typed:
        understand(text)


def test_every_command_of_the_console_that_is_named_exists() -> None:
    """`canary-bot x` in a document is a command, and its options are known to it."""
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    found = set(named(r"(?:^|[ /])canary-bot ((?:run|check|demo|version|simulate|[a-z]+ --)[^|;&]*)"))
    assert {"run", "check"} <= {text.split()[0] for _, text in found}
    for document, text in found:
        name, *rest = text.split()
        assert name in commands, f"{document}: canary-bot {text}"
        options = {option for one in commands[name].params for option in one.opts}
        assert {word for word in rest if word.startswith("--")} <= options, f"{document}: canary-bot {text}"


def test_the_catalog_of_the_readme_can_be_used() -> None:
    """A newcomer's catalog loads as it stands, with plan, gates and approvers for the first canary."""
    text = re.sub(r"^ {3}", "", block("README.md", "catalog").split("```yaml\n")[1].split("```")[0], flags=re.MULTILINE)
    entry = load(text).entry("payments")
    assert (entry.namespace, entry.route_name, entry.subsets) == ("shop", "payments", ("v1", "v2"))
    assert [step.weight_percent for step in entry.plan.steps if step.approval] == [50]
    assert {gate.name for gate in entry.gates} == {"error-rate", "p99", "pods", "missing-responses", "nodes"}
    assert entry.roles.approvers == ("@release-leads",)


def test_every_value_of_the_chart_that_is_named_exists() -> None:
    """What the documents set with helm, the chart's values have."""
    values = yaml.safe_load((ROOT / "charts" / "canary-bot" / "values.yaml").read_text())
    found = set(named(r"--set '?([A-Za-z.]+)="))
    assert {"existingSecret", "prometheus.url", "namespaces"} <= {name for _, name in found}
    for document, name in found:
        at = values
        for key in name.split("."):
            assert key in at, f"{document}: --set {name}"
            at = at[key]


def test_every_variable_that_is_named_is_a_setting() -> None:
    """Names of the environment in the documents are those that the bot reads."""
    known = {Settings.variable(field) for field in Settings.model_fields}
    found = set(named(r"\b((?:SLACK|CANARY_BOT)_[A-Z_]+)\b"))
    assert {one for one in found if one[1] not in known} == set()


def test_every_metric_that_is_named_exists() -> None:
    """Alerts that the documents propose ask for metrics that the bot has."""
    known = {f"{PREFIX}_{name}{suffix}" for name in COUNTERS for suffix in ("", "_total")}
    known |= {f"{PREFIX}_{name}" for name in (*GAUGES, *HISTOGRAMS)}
    assert {one for one in named(rf"\b({PREFIX}_[a-z_]+)") if one[1] not in known} == set()


def test_every_file_that_is_named_exists() -> None:
    """Paths of the project in the documents lead to files and folders; `foo` stands for a new one."""
    found = set(named(r"(?:^|\s)((?:(?:bot|tests|charts|docs|\.ci)/[\w./-]+|deploy/[\w-]+\.yaml))"))
    assert len(found) > 20
    missing = {one for one in found if not (ROOT / one[1]).exists() and "foo" not in one[1] and "NNNN" not in one[1]}
    assert missing == set()


def test_every_safety_rule_says_where_it_is_kept_and_what_defends_it() -> None:
    """The table has the nine rules, each with code of the bot and tests that exist."""
    rows = [line.strip("| ").split(" | ") for line in block("docs/architecture.md", "rules").splitlines()[2:]]
    assert [int(number) for number, _, _ in rows] == list(RULES)
    for _, kept, defended in rows:
        code, tests = re.findall(r"`([^`]+)`", kept), re.findall(r"`([^`]+)`", defended)
        assert code
        assert tests
        assert [path for path in code if not path.startswith("bot/") or not (ROOT / path).is_file()] == []
        assert [path for path in tests if "/test_" not in path or not (ROOT / path).is_file()] == []


def test_the_person_on_call_finds_every_hold_and_every_page() -> None:
    """The tables have each reason to hold, and each key under which people are paged."""

    def first(name: str) -> list[str]:
        rows = block("docs/operations.md", name).splitlines()[2:]
        return [re.findall(r"`([^`]+)`", row)[0].removeprefix("<rollout>:").removesuffix(":<rollout>") for row in rows]

    assert first("holds") == [reason.value for reason in HoldReason]
    keys = {
        "UNAPPLIED": UNAPPLIED,
        "HoldReason.STABLE_UNHEALTHY.value": HoldReason.STABLE_UNHEALTHY.value,
        "reason.value": HoldReason.STABLE_UNHEALTHY.value,  # the only hold whose end resolves a page
        "STORE_AWAY": STORE_AWAY,
        "UNANNOUNCED": UNANNOUNCED,
        "key": "quarantined",
        "f'{key}:broken'": "broken",
        "f'{rollout_id}:broken'": "broken",
        "f'{name}:lost'": "lost",
        "f'loop:{name}'": "loop:<part>",
        "self._key": "behind:<process>",
    }
    assert {keys.get(key, key) for key in paged()} <= set(first("pages"))


def paged() -> set[str]:
    """The keys of all pages as the code writes them."""
    return {
        ast.unparse(node.args[0])
        for room in ("rollout", "engine")
        for file in (ROOT / "bot" / room).glob("*.py")
        if file.name not in ("draft.py", "book.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in ("draft.page", "Page")
    }


def test_the_annotation_is_named_as_it_is_written() -> None:
    """Whoever cleans up by the documents takes off the annotation that the bot wrote."""
    assert {found for _, found in named(r"\b(canary-bot\.dev/[a-z]+)")} == {KEY}


if __name__ == "__main__":
    write()
