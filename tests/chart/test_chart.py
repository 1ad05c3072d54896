"""What the chart promises to whoever installs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.chart.rendering import CHART, NAMESPACE, RELEASE, VALUE_SETS, only, run_helm, template

DEFAULT = CHART / "ci" / "default-values.yaml"
NOT_CORE = {"ServiceMonitor"}
"""Kinds of the Prometheus operator: kubernetes-validate knows Kubernetes' own kinds only."""


def by_name(path: Path) -> str:
    return path.name.removesuffix("-values.yaml")


def test_the_bare_chart_passes_strict_lint(tmp_path: Path) -> None:
    """A chart with nothing filled in has no lint warning."""
    done = run_helm("lint", "--strict", str(CHART), home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize("values", VALUE_SETS, ids=by_name)
def test_every_value_set_passes_strict_lint(values: Path, tmp_path: Path) -> None:
    """Lint has no warning for any supported way to install."""
    done = run_helm("lint", "--strict", str(CHART), "-f", str(values), home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", VALUE_SETS, ids=by_name)
def test_every_object_is_one_that_kubernetes_knows(values: Path, tmp_path: Path) -> None:
    """Each rendered object fits Kubernetes' own schema with no unknown field."""
    objects = template(values, home=tmp_path)
    checked = [item for item in objects if item["kind"] not in NOT_CORE]
    assert checked
    for item in checked:
        kubernetes_validate.validate(item, "1.37", strict=True)


@pytest.mark.parametrize("values", VALUE_SETS, ids=by_name)
def test_the_container_is_as_restricted_as_the_strictest_pod_security_level(values: Path, tmp_path: Path) -> None:
    """Pod Security `restricted` admits the pod, and its root file system is read-only."""
    pod = only(template(values, home=tmp_path), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod.keys().isdisjoint({"hostNetwork", "hostPID", "hostIPC"})
    (container,) = pod["containers"]
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert "emptyDir" in volumes["tmp"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/tmp", "/etc/canary-bot/catalog"}


@pytest.mark.parametrize("values", VALUE_SETS, ids=by_name)
def test_no_secret_stands_in_the_deployment(values: Path, tmp_path: Path) -> None:
    """Tokens and passwords reach the pod by reference only."""
    given = yaml.safe_load(values.read_text())
    deployment = json.dumps(only(template(values, home=tmp_path), "Deployment"))
    slack, prometheus = given.get("slack", {}), given["prometheus"]
    secrets = [slack.get(key) for key in ("botToken", "appToken", "signingSecret")]
    secrets += [prometheus.get("token"), prometheus.get("password")]
    if "existingSecret" not in given:
        secrets.append(given["redis"]["url"])
    for secret in filter(None, secrets):
        assert f'"{secret}"' not in deployment


def environment(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return {item["name"]: item for item in container["env"]}


def test_socket_mode_asks_for_the_app_token_and_http_mode_for_the_signing_secret(tmp_path: Path) -> None:
    """The transport is chosen by which of the two the bot is given, and it is given one."""
    socket = environment(template(DEFAULT, home=tmp_path))
    http = environment(template(CHART / "ci" / "http-values.yaml", home=tmp_path))
    assert "SLACK_APP_TOKEN" in socket
    assert "SLACK_SIGNING_SECRET" not in socket
    assert "SLACK_SIGNING_SECRET" in http
    assert "SLACK_APP_TOKEN" not in http


def test_an_existing_secret_is_used_and_none_is_made(tmp_path: Path) -> None:
    """With `existingSecret` and `existingConfigMap` the chart makes neither and refers to both."""
    objects = template(CHART / "ci" / "existing-values.yaml", home=tmp_path)
    assert {item["kind"] for item in objects} == {"Deployment", "Service"}
    names = environment(objects)
    assert names["SLACK_BOT_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "canary-bot-tokens"
    assert names["CANARY_BOT_REDIS_URL"]["value"] == "redis://redis.data:6379/0"
    volumes = only(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "catalog", "configMap": {"name": "canary-bot-catalog"}} in volumes


def test_the_catalog_arrives_as_it_was_written(tmp_path: Path) -> None:
    """The ConfigMap holds the same catalog that the values hold."""
    values = CHART / "ci" / "namespaces-values.yaml"
    config = only(template(values, home=tmp_path), "ConfigMap")
    assert yaml.safe_load(config["data"]["catalog.yaml"]) == yaml.safe_load(values.read_text())["catalog"]


def test_a_changed_catalog_rolls_the_pods(tmp_path: Path) -> None:
    """The pod template differs when, and only when, the catalog does."""

    def pod_template(*arguments: str) -> Any:
        return only(template(DEFAULT, *arguments, home=tmp_path), "Deployment")["spec"]["template"]

    assert pod_template() == pod_template()
    assert pod_template() != pod_template("--set", "catalog.defaults.plan=slow")


def test_replicas_bring_a_disruption_budget(tmp_path: Path) -> None:
    """A budget exists with two replicas and not with one, which it would only keep from being drained."""
    alone = template(DEFAULT, home=tmp_path)
    together = template(CHART / "ci" / "replicas-values.yaml", home=tmp_path)
    assert "PodDisruptionBudget" not in {item["kind"] for item in alone}
    budget = only(together, "PodDisruptionBudget")
    pods = only(together, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= pods.items()


@pytest.mark.parametrize("values", VALUE_SETS, ids=by_name)
def test_the_selectors_find_the_pods_and_the_probes_their_port(values: Path, tmp_path: Path) -> None:
    """Service and Deployment select the pods, and every probe and the Service name a port that is there."""
    objects = template(values, home=tmp_path)
    deployment, service = only(objects, "Deployment")["spec"], only(objects, "Service")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    (container,) = deployment["template"]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert {service["ports"][0]["targetPort"]} <= ports
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert {container[name]["httpGet"]["port"] for name in paths} <= ports


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("replica=2", "replica"),
        ("replicas=0", "replicas"),
        ("slack.mode=webhook", "mode"),
        ("slack.botToken=xoxp-1", "botToken"),
        ("redis.url=localhost", "url"),
        ("namespaces[0]=Shop", "namespaces"),
        ("http.port=70000", "port"),
        ("rbac.clusterWide=true", "clusterWide"),
        ("image.digest=latest", "digest"),
    ],
)
def test_the_schema_refuses_a_wrong_value_and_names_it(setting: str, named: str, tmp_path: Path) -> None:
    """A value that is unknown, out of range or of the wrong form stops helm with the value's name."""
    done = run_helm("template", RELEASE, str(CHART), "-f", str(DEFAULT), "--set", setting, home=tmp_path)
    assert done.returncode != 0
    assert named in done.stderr


@pytest.mark.parametrize(
    ("emptied", "asked"),
    [
        ("slack.botToken", "slack.botToken is needed"),
        ("slack.appToken", "slack.appToken is needed"),
        ("redis.url", "redis.url is needed"),
        ("prometheus.url", "prometheus.url is needed"),
    ],
)
def test_a_missing_required_value_is_asked_for_by_name(emptied: str, asked: str, tmp_path: Path) -> None:
    """Nothing is rendered without what the bot cannot start without."""
    done = run_helm("template", RELEASE, str(CHART), "-f", str(DEFAULT), "--set", f"{emptied}=", home=tmp_path)
    assert done.returncode != 0
    assert asked in done.stderr


def test_every_value_is_in_the_schema_and_in_the_readme(tmp_path: Path) -> None:
    """`values.yaml`, the schema and the README speak of the same values."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    readme = (CHART / "README.md").read_text()
    assert set(schema["properties"]) - {"global"} == set(values)
    assert [name for name in values if f"`{name}" not in readme] == []


def test_everything_namespaced_is_made_in_the_release_namespace_or_a_steered_one(tmp_path: Path) -> None:
    """Only Roles and their bindings stand outside the release's own namespace."""
    objects = template(CHART / "ci" / "namespaces-values.yaml", home=tmp_path)
    outside = {item["kind"] for item in objects if item["metadata"].get("namespace", NAMESPACE) != NAMESPACE}
    assert outside == {"Role", "RoleBinding"}
