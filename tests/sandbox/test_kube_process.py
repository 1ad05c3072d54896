"""The API server as a process: its options, its ready line and its end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import kubernetes_validate
import pytest

from bot.sandbox.kube import world
from bot.sandbox.process import Part


def _get(part: Part, path: str, token: str) -> tuple[int, bytes]:
    request = urllib.request.Request(part.url + path, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_options_shape_the_server(tmp_path: Path) -> None:
    """--empty, --seed, --without, --serve, --rules and --user do what they say."""
    seed = tmp_path / "seed.yaml"
    seed.write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: seeded, namespace: default}}", encoding="utf-8")
    rules = tmp_path / "rules.yaml"
    rules.write_text("deny: [{verb: list, resource: nodes, user: bob}]", encoding="utf-8")
    options = ["--token", "t", "--empty", "--seed", str(seed), "--without", "flagger.app", "--rules", str(rules)]
    part = Part.module("kube", *options, "--serve", "networking.istio.io=v1beta1", "--user", "bob=b")
    try:
        ready = part.wait_ready(30)
        assert ready["token"] == "t"
        assert _get(part, "/api/v1/namespaces/default/configmaps/seeded", "t")[0] == 200
        assert json.loads(_get(part, "/api/v1/pods", "t")[1])["items"] == []
        assert _get(part, "/apis/flagger.app/v1beta1/canaries", "t")[0] == 404
        assert _get(part, "/apis/networking.istio.io/v1/virtualservices", "t")[0] == 404
        assert _get(part, "/apis/networking.istio.io/v1beta1/virtualservices", "t")[0] == 200
        assert _get(part, "/api/v1/nodes", "t")[0] == 200
        assert _get(part, "/api/v1/nodes", "b")[0] == 403
    finally:
        part.stop()


def test_sigterm_ends_it_while_a_watch_is_open() -> None:
    """The process ends by itself on SIGTERM, with status 0, although a client still watches."""
    part = Part.module("kube", "--token", "t")
    try:
        part.wait_ready(30)
        request = urllib.request.Request(
            f"{part.url}/api/v1/namespaces/shop/pods?watch=true", headers={"Authorization": "Bearer t"}
        )
        with urllib.request.urlopen(request, timeout=10) as watching:
            assert json.loads(watching.readline())["type"] == "ADDED"
            assert part.stop(grace_s=10) == 0
    finally:
        part.stop()


def test_a_watch_from_before_a_restart_has_expired() -> None:
    """A new process knows nothing of the old one's resourceVersions: a watch from there is a 410, never silence."""
    path = "/api/v1/namespaces/shop/pods"
    part = Part.module("kube", "--token", "t")
    try:
        part.wait_ready(30)
        version = json.loads(_get(part, path, "t")[1])["metadata"]["resourceVersion"]
    finally:
        part.stop()
    part = Part.module("kube", "--token", "t")
    try:
        part.wait_ready(30)
        code, body = _get(part, f"{path}?watch=true&resourceVersion={version}", "t")
        event = json.loads(body)
        assert (code, event["type"], event["object"]["code"]) == (200, "ERROR", 410)
    finally:
        part.stop()


def test_it_ends_with_its_parent() -> None:
    """When the process that started it is killed, the server does not stay behind."""
    script = (
        "import sys, time; from bot.sandbox.process import Part; "
        "part = Part.module('kube'); part.wait_ready(30); print(part.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
    state = subprocess.run(
        ["timeout", "10", "tail", f"--pid={child}", "-f", "/dev/null"], check=False, capture_output=True
    )
    assert state.returncode == 0


_BUILT_IN = [item for item in world.manifests() if "istio.io" not in item["apiVersion"]]


@pytest.mark.parametrize("manifest", _BUILT_IN, ids=lambda item: f"{item['kind']}-{item['metadata']['name']}")
def test_the_world_is_valid(manifest: dict[str, object]) -> None:
    """Every built-in object of the world fits its schema, without unknown fields."""
    kubernetes_validate.validate(manifest, "1.34", strict=True)
