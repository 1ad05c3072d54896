"""What the code may not do with data from outside, looked for in the code itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import bot
from bot.catalog import CatalogErrors, Reloading, load

SOURCES = {
    path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(Path(bot.__file__).parent.rglob("*.py"))
}
UNPICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "jsonpickle", "shelve", "marshal", "joblib"}
RUNNING = {"eval", "exec", "compile", "__import__", "execfile"}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def faults(tree: ast.AST) -> list[str]:
    """What a file does that no file may."""
    found = [f"imports {name}" for name in imported(tree) if name.partition(".")[0] in UNPICKLING]
    for name, call in calls(tree):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if name in RUNNING:
            found.append(f"calls {name}")
        if name in ("os.system", "os.popen") or keywords.get("shell") == "True":
            found.append(f"{name} runs a shell")
        if name.startswith("yaml.") and name.rpartition(".")[2] in ("load", "load_all", "unsafe_load", "full_load"):
            found.append(f"calls {name}")
        if keywords.get("verify") == "False" or keywords.get("ssl") == "False":
            found.append(f"{name} does not look at certificates")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base) for base in node.bases}
            if bases & {"yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader"}:
                found.append(f"{node.name} is a loader that makes objects")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from marshal import loads",
        "eval(x)",
        "os.system(x)",
        "subprocess.run(x, shell=True)",
        "yaml.load(x)",
        "session.get(x, verify=False)",
        "class L(yaml.FullLoader): pass",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    """Each of the forbidden things is found when it is there."""
    assert len(faults(ast.parse(source))) == 1


def test_no_data_becomes_code() -> None:
    """No pickle, no eval, no shell, no YAML that makes objects, no TLS without certificates, anywhere in the bot."""
    assert len(SOURCES) > 100
    found = {str(path): faults(tree) for path, tree in SOURCES.items()}
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


def test_random_ids_are_not_guessable() -> None:
    """What names rollouts, requests and leases comes from `secrets`; `random` is for jitter and the sandbox only."""
    ours = {path.name: set(imported(tree)) for path, tree in SOURCES.items() if "sandbox" not in path.parts}
    users = {name for name, modules in ours.items() if "random" in modules}
    assert users <= {"kubernetes.py", "judging.py"}, users


TAGS = (
    "!!python/object/apply:os.system ['touch /tmp/never']",
    "!!python/object/new:subprocess.Popen [['true']]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!binary aGVsbG8=",
    "!!set {a, b}",
    "!!timestamp 2027-01-01",
    "!local x",
)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("place", ["services: {}", "services: {{payments: {{namespace: {}}}}}", "{}", "{}: x"])
def test_a_catalog_makes_no_objects(tag: str, place: str) -> None:
    """Tags are refused wherever they stand, with the line; only plain text survives."""
    text = place.format(tag)
    with pytest.raises(CatalogErrors) as caught:
        load(text)
    assert caught.value.errors[0].line == 1


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x]\nb: [*a, *a]",
        "a: &a {b: *a}",
        "services: " + "[" * 2000,
        "services: " + "{a: " * 2000,
        "x" * 1_000_001,
        "services: {payments: {namespace: 1, namespace: 2}}",
        "\x00",
        "--- a\n--- b",
        "? [a, b]\n: c",
    ],
    ids=["aliases", "loop", "deep list", "deep map", "long", "twice", "zero", "two documents", "odd key"],
)
def test_a_hostile_catalog_is_refused_in_words(text: str) -> None:
    """Aliases (which multiply), depth, size and what YAML cannot mean are errors with a place, never exceptions."""
    with pytest.raises(CatalogErrors) as caught:
        load(text)
    assert caught.value.errors
    assert len(str(caught.value)) < 5000


def test_a_catalog_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are an error of the file, not of ours."""
    path = tmp_path / "catalog.yaml"
    path.write_bytes(b"services: {\xff\xfe: 1}")
    with pytest.raises(CatalogErrors):
        Reloading(path)


def test_the_safe_loader_would_have_let_aliases_through() -> None:
    """Why the loader is our own: PyYAML's safe one multiplies."""
    assert yaml.safe_load("a: &a [x]\nb: [*a, *a]") == {"a": ["x"], "b": [["x"], ["x"]]}
