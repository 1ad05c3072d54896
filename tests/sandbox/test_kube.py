"""The sandbox's API server through the official client.

Tests that use `api` run against a real API server as well when `KUBECONFIG_TEST` names one (with Istio's
CustomResourceDefinitions installed); they make a namespace of their own and keep to it.
"""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from kubernetes.aio import client, config, watch
from kubernetes.aio.client import ApiClient, ApiException

from tests.fixtures.kube import OTHER_USER, KubeServer

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
ISTIO = "networking.istio.io"
WEIGHT = "/spec/http/1/route/{}/weight"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Api:
    """A client and a namespace of the test's own."""

    client: ApiClient
    namespace: str

    @property
    def core(self) -> client.CoreV1Api:
        return client.CoreV1Api(self.client)

    def where(self, version: str = "v1") -> tuple[str, str, str, str]:
        return ISTIO, version, self.namespace, "virtualservices"

    async def create(self, name: str = "payments", version: str = "v1", **options: Any) -> Json:
        custom = client.CustomObjectsApi(self.client)
        body = virtual_service(name, version)
        made: Json = await custom.create_namespaced_custom_object(*self.where(version), body, **options)
        return made

    async def get(self, name: str = "payments", version: str = "v1") -> Json:
        custom = client.CustomObjectsApi(self.client)
        found: Json = await custom.get_namespaced_custom_object(*self.where(version), name)
        return found

    async def patch(self, body: Any, name: str = "payments", media: str = JSON_PATCH, **options: Any) -> Json:
        custom = client.CustomObjectsApi(self.client)
        after: Json = await custom.patch_namespaced_custom_object(
            *self.where(), name, body, _content_type=media, **options
        )
        return after

    async def replace(self, body: Json, **options: Any) -> Json:
        custom = client.CustomObjectsApi(self.client)
        name = body["metadata"]["name"]
        after: Json = await custom.replace_namespaced_custom_object(*self.where(), name, body, **options)
        return after

    async def delete(self, name: str = "payments", **options: Any) -> Json:
        custom = client.CustomObjectsApi(self.client)
        told: Json = await custom.delete_namespaced_custom_object(*self.where(), name, **options)
        return told

    async def listed(self, **options: Any) -> Json:
        custom = client.CustomObjectsApi(self.client)
        found: Json = await custom.list_namespaced_custom_object(*self.where(), **options)
        return found

    async def events(
        self, count: int, *, then: Callable[[int], Awaitable[None]] | None = None, **options: Any
    ) -> list[Json]:
        """Watch until `count` events have come or the server ends the watch; `then` is told how many have come."""
        custom = client.CustomObjectsApi(self.client)
        seen: list[Json] = []
        response = await custom.list_namespaced_custom_object_without_preload_content(
            *self.where(), watch=True, _request_timeout=20.0, **options
        )
        try:
            while len(seen) < count and (line := await response.content.readline()):
                seen.append(json.loads(line))
                if then is not None:
                    await then(len(seen))
        finally:
            response.close()
        return seen


def virtual_service(name: str, version: str = "v1") -> Json:
    def to(subset: str, weight: int) -> Json:
        return {"destination": {"host": name, "subset": subset}, "weight": weight}

    return {
        "apiVersion": f"{ISTIO}/{version}",
        "kind": "VirtualService",
        "metadata": {"name": name, "labels": {"app": name, "tier": "web"}},
        "spec": {
            "hosts": [name],
            "http": [
                {"name": "legacy", "match": [{"uri": {"prefix": "/old"}}], "route": [{"destination": {"host": name}}]},
                {"name": "primary", "route": [to("v1", 100), to("v2", 0)], "timeout": "5s"},
            ],
        },
    }


def weights(canary: int) -> list[Json]:
    return [
        {"op": "replace", "path": WEIGHT.format(0), "value": 100 - canary},
        {"op": "replace", "path": WEIGHT.format(1), "value": canary},
    ]


def status_of(error: ApiException) -> Json:
    told: Json = json.loads(error.body)
    assert told["kind"] == "Status"
    assert told["apiVersion"] == "v1"
    assert told["status"] == "Failure"
    assert told["code"] == error.status
    return told


def manager_of(manifest: Json, *path: str) -> list[str]:
    """Managers whose managedFields hold this path."""
    names = []
    for entry in manifest["metadata"]["managedFields"]:
        node = entry["fieldsV1"]
        for part in path:
            node = node.get(f"f:{part}") if node is not None else None
        if node is not None:
            names.append(entry["manager"])
    return names


def _params() -> list[Any]:
    return ["sandbox", "real"] if os.environ.get("KUBECONFIG_TEST") else ["sandbox"]


@pytest_asyncio.fixture(params=_params())
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    """A namespace of the test's own on the sandbox's server, or on the one of `KUBECONFIG_TEST`."""
    if request.param == "real":
        configuration = client.Configuration()
        await config.load_kube_config(os.environ["KUBECONFIG_TEST"], client_configuration=configuration)
    else:
        server: KubeServer = request.getfixturevalue("kube_server")
        server.clear_faults()
        configuration = server.configuration()
    name = f"test-{uuid.uuid4().hex[:8]}"
    async with ApiClient(configuration) as opened:
        core = client.CoreV1Api(opened)
        await core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
        yield Api(opened, name)
        await core.delete_namespace(name)


async def test_a_created_object_has_what_the_server_adds(api: Api) -> None:
    """A create answers with uid, generation 1, resourceVersion and creationTimestamp."""
    made = await api.create()
    metadata = made["metadata"]
    assert str(uuid.UUID(metadata["uid"])) == metadata["uid"]
    assert metadata["generation"] == 1
    assert int(metadata["resourceVersion"]) > 0
    assert metadata["creationTimestamp"].endswith("Z")
    assert metadata["namespace"] == api.namespace


async def test_versions_share_one_storage(api: Api) -> None:
    """What is written as v1 is read as v1beta1 and v1alpha3, with that apiVersion and the same resourceVersion."""
    made = await api.create()
    for version in ("v1beta1", "v1alpha3"):
        found = await api.get(version=version)
        assert found["apiVersion"] == f"{ISTIO}/{version}"
        assert found["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        assert found["spec"] == made["spec"]


async def test_a_name_is_taken_once(api: Api) -> None:
    """A second create of a name is a 409 AlreadyExists that names group and kind."""
    await api.create()
    with pytest.raises(ApiException) as caught:
        await api.create()
    told = status_of(caught.value)
    assert (told["code"], told["reason"]) == (409, "AlreadyExists")
    assert told["message"] == 'virtualservices.networking.istio.io "payments" already exists'
    assert told["details"] == {"name": "payments", "group": ISTIO, "kind": "virtualservices"}


async def test_a_missing_object_is_not_found(api: Api) -> None:
    """A get of what is not there is a 404 NotFound."""
    with pytest.raises(ApiException) as caught:
        await api.get("nothing")
    told = status_of(caught.value)
    assert (told["code"], told["reason"]) == (404, "NotFound")
    assert told["message"] == 'virtualservices.networking.istio.io "nothing" not found'


async def test_a_missing_namespace_refuses_a_create(api: Api) -> None:
    """Nothing can be created in a namespace that does not exist."""
    with pytest.raises(ApiException) as caught:
        await Api(api.client, "not-there").create()
    assert status_of(caught.value)["message"] == 'namespaces "not-there" not found'


async def test_json_patch_changes_only_what_it_names(api: Api) -> None:
    """A patch of two weights leaves the rest of spec as it was, and bumps generation and resourceVersion."""
    before = await api.create()
    after = await api.patch(weights(5))
    expected = json.loads(json.dumps(before["spec"]))
    expected["http"][1]["route"][0]["weight"] = 95
    expected["http"][1]["route"][1]["weight"] = 5
    assert after["spec"] == expected
    assert after["metadata"]["generation"] == 2
    assert int(after["metadata"]["resourceVersion"]) > int(before["metadata"]["resourceVersion"])
    assert (await api.get())["spec"] == expected


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": WEIGHT.format(1), "value": 7},
        {"op": "test", "path": "/metadata/annotations/canary-bot~1rollout", "value": "x"},
        {"op": "replace", "path": "/spec/http/9/route", "value": []},
        {"op": "remove", "path": "/spec/nothing"},
        {"op": "add", "path": "/spec/nothing/below", "value": 1},
        {"op": "frobnicate", "path": "/spec"},
    ],
    ids=lambda operation: f"{operation['op']}-{operation['path'].rpartition('/')[2]}",
)
async def test_a_json_patch_that_does_not_apply_changes_nothing(api: Api, operation: Json) -> None:
    """One operation that fails refuses the whole patch with the 422 of the real server."""
    before = await api.create()
    with pytest.raises(ApiException) as caught:
        await api.patch([*weights(5), operation])
    told = status_of(caught.value)
    assert (told["code"], told["reason"]) == (422, "Invalid")
    assert told["message"] == "the server rejected our request due to an error in our request"
    assert await api.get() == before


async def test_a_test_for_null_passes_on_an_absent_member(api: Api) -> None:
    """`test` with null on an annotation that is not there passes, when there are annotations at all."""
    await api.create()
    await api.patch({"metadata": {"annotations": {"a": "b"}}}, media=MERGE_PATCH)
    after = await api.patch([{"op": "test", "path": "/metadata/annotations/other", "value": None}, *weights(5)])
    assert after["spec"]["http"][1]["route"][1]["weight"] == 5


async def test_annotations_with_a_slash_are_reached_by_an_escaped_pointer(api: Api) -> None:
    """`~1` in a pointer is a slash in the annotation's name."""
    await api.create()
    after = await api.patch(
        [
            {"op": "add", "path": "/metadata/annotations", "value": {}},
            {"op": "add", "path": "/metadata/annotations/canary-bot.io~1rollout", "value": "payments-7f3a"},
        ]
    )
    assert after["metadata"]["annotations"] == {"canary-bot.io/rollout": "payments-7f3a"}
    assert after["metadata"]["generation"] == 1


async def test_a_merge_patch_removes_with_null_and_replaces_lists(api: Api) -> None:
    """A merge patch keeps other fields, removes nulls, and replaces a list as a whole."""
    before = await api.create()
    route = [{"name": "only", "route": [{"destination": {"host": "payments"}}]}]
    after = await api.patch({"metadata": {"labels": {"tier": None}}, "spec": {"http": route}}, media=MERGE_PATCH)
    assert after["metadata"]["labels"] == {"app": "payments"}
    assert after["spec"] == {**before["spec"], "http": route}


async def test_custom_resources_take_no_strategic_merge_patch(api: Api) -> None:
    """A strategic merge patch of a custom resource is a 415."""
    await api.create()
    with pytest.raises(ApiException) as caught:
        await api.patch({"spec": {}}, media=STRATEGIC)
    assert status_of(caught.value)["reason"] == "UnsupportedMediaType"


async def test_a_strategic_merge_patch_merges_lists_by_key(api: Api) -> None:
    """Ports of a core Service merge by their number, so a patch of one port keeps the other."""
    ports = [client.V1ServicePort(name="http", port=80), client.V1ServicePort(name="admin", port=81)]
    service = client.V1Service(
        metadata=client.V1ObjectMeta(name="web"), spec=client.V1ServiceSpec(ports=ports, selector={"app": "web"})
    )
    await api.core.create_namespaced_service(api.namespace, service)
    after = await api.core.patch_namespaced_service(
        "web", api.namespace, {"spec": {"ports": [{"port": 81, "name": "ops"}]}}, _content_type=STRATEGIC
    )
    assert [(port.name, port.port) for port in after.spec.ports] == [("http", 80), ("ops", 81)]


async def test_a_patch_that_changes_nothing_is_not_a_write(api: Api) -> None:
    """A patch to the present values keeps resourceVersion, generation and managedFields."""
    before = await api.create()
    assert await api.patch(weights(0), field_manager="another") == before


async def test_a_write_for_an_older_state_conflicts(api: Api) -> None:
    """PUT and patch with an old resourceVersion are a 409 Conflict in the real server's words."""
    old = await api.create()
    await api.patch(weights(5))
    with pytest.raises(ApiException) as put:
        await api.replace(old)
    with pytest.raises(ApiException) as patched:
        await api.patch(
            {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"], "labels": {"a": "b"}}},
            media=MERGE_PATCH,
        )
    for caught in (put, patched):
        told = status_of(caught.value)
        assert (told["code"], told["reason"]) == (409, "Conflict")
        assert told["message"] == (
            'Operation cannot be fulfilled on virtualservices.networking.istio.io "payments": the object has been '
            "modified; please apply your changes to the latest version and try again"
        )


async def test_a_put_of_a_custom_resource_needs_a_resource_version(api: Api) -> None:
    """An unconditional PUT of a custom resource is refused with 422."""
    made = await api.create()
    del made["metadata"]["resourceVersion"]
    with pytest.raises(ApiException) as caught:
        await api.replace(made)
    assert "must be specified for an update" in status_of(caught.value)["message"]


async def test_a_put_replaces_the_object(api: Api) -> None:
    """A PUT with the present resourceVersion stores what was sent, fields left out included."""
    made = await api.create()
    del made["spec"]["http"][0]
    after = await api.replace(made)
    assert [route["name"] for route in after["spec"]["http"]] == ["primary"]
    assert after["metadata"]["generation"] == 2
    assert after["metadata"]["uid"] == made["metadata"]["uid"]


async def test_an_object_of_that_name_made_anew_has_another_uid(api: Api) -> None:
    """Delete and create give a new uid, and a patch that tests the old one fails."""
    old = await api.create()
    await api.delete()
    assert (await api.create())["metadata"]["uid"] != old["metadata"]["uid"]
    with pytest.raises(ApiException) as caught:
        await api.patch([{"op": "test", "path": "/metadata/uid", "value": old["metadata"]["uid"]}, *weights(5)])
    assert caught.value.status == 422


async def test_a_delete_answers_with_the_uid_it_removed(api: Api) -> None:
    """DELETE answers Success with the object's uid; a precondition that does not hold is a 409."""
    made = await api.create()
    wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=str(uuid.uuid4())))
    with pytest.raises(ApiException) as caught:
        await api.delete(body=wrong)
    assert status_of(caught.value)["reason"] == "Conflict"
    told = await api.delete()
    assert (told["status"], told["details"]["uid"]) == ("Success", made["metadata"]["uid"])
    with pytest.raises(ApiException) as gone:
        await api.get()
    assert gone.value.status == 404


async def test_a_dry_run_is_admitted_and_not_stored(api: Api) -> None:
    """`dryRun=All` answers with the patched object and leaves the stored one alone."""
    before = await api.create()
    told = await api.patch(weights(5), dry_run="All")
    assert told["spec"]["http"][1]["route"][1]["weight"] == 5
    assert await api.get() == before


async def test_a_dry_run_is_refused_like_the_write_would_be(api: Api) -> None:
    """A dry run with a failing test or a wrong type is refused."""
    await api.create()
    for operation in (
        {"op": "test", "path": WEIGHT.format(1), "value": 50},
        {"op": "replace", "path": WEIGHT.format(1), "value": "five"},
    ):
        with pytest.raises(ApiException) as caught:
            await api.patch([operation], dry_run="All")
        assert caught.value.status == 422


async def test_a_wrong_type_is_named_with_its_field(api: Api) -> None:
    """A weight that is no integer is a 422 whose causes name the field."""
    await api.create()
    with pytest.raises(ApiException) as caught:
        await api.patch([{"op": "replace", "path": WEIGHT.format(1), "value": "five"}])
    told = status_of(caught.value)
    assert told["reason"] == "Invalid"
    assert [(cause["reason"], cause["field"]) for cause in told["details"]["causes"]] == [
        ("FieldValueTypeInvalid", "spec.http[1].route[1].weight")
    ]


async def test_every_fault_of_an_object_is_named(api: Api) -> None:
    """Several wrong fields are all causes of one 422: a boolean is no integer, a destination needs its host."""
    body = virtual_service("payments")
    body["spec"]["http"][1]["route"][0]["weight"] = True
    del body["spec"]["http"][1]["route"][1]["destination"]["host"]
    body["spec"]["hosts"] = "payments"
    custom = client.CustomObjectsApi(api.client)
    with pytest.raises(ApiException) as caught:
        await custom.create_namespaced_custom_object(*api.where(), body)
    causes = status_of(caught.value)["details"]["causes"]
    assert {(cause["reason"], cause["field"]) for cause in causes} == {
        ("FieldValueTypeInvalid", "spec.http[1].route[0].weight"),
        ("FieldValueRequired", "spec.http[1].route[1].destination.host"),
        ("FieldValueTypeInvalid", "spec.hosts"),
    }


async def test_unnamed_objects_get_a_generated_name(api: Api) -> None:
    """`generateName` gives a fresh name with that prefix; neither name nor prefix is a 422."""
    meta = client.V1ObjectMeta(generate_name="conf-")
    made = await api.core.create_namespaced_config_map(api.namespace, client.V1ConfigMap(metadata=meta))
    assert made.metadata.name.startswith("conf-")
    assert len(made.metadata.name) == len("conf-") + 5
    with pytest.raises(ApiException) as caught:
        await api.core.create_namespaced_config_map(
            api.namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(labels={"a": "b"}))
        )
    assert "name or generateName is required" in status_of(caught.value)["message"]


async def test_the_last_writer_of_the_routes_is_named(api: Api) -> None:
    """spec.http belongs as a whole to whoever changed any part of it last; annotations belong one by one."""
    await api.create(field_manager="kubectl-client-side-apply")
    await api.patch(
        [*weights(5), {"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}}], field_manager="canary-bot"
    )
    assert manager_of(await api.get(), "spec", "http") == ["canary-bot"]
    after = await api.patch(weights(50), field_manager="kubectl-edit")
    assert manager_of(after, "spec", "http") == ["kubectl-edit"]
    assert manager_of(after, "spec", "hosts") == ["kubectl-client-side-apply"]
    assert manager_of(after, "metadata", "annotations", "a") == ["canary-bot"]
    entry = next(entry for entry in after["metadata"]["managedFields"] if entry["manager"] == "kubectl-edit")
    assert (entry["operation"], entry["apiVersion"], entry["fieldsType"]) == ("Update", f"{ISTIO}/v1", "FieldsV1")
    assert entry["fieldsV1"] == {"f:spec": {"f:http": {}}}


async def test_a_manager_without_a_name_is_its_user_agent(api: Api) -> None:
    """Without `fieldManager` the first word of the user agent is the manager."""
    api.client.user_agent = "flagger/1.44.0 (linux)"
    assert manager_of(await api.create(), "spec", "http") == ["flagger"]


async def test_label_selectors_choose(api: Api) -> None:
    """=, ==, !=, in, notin, exists and absence select as in Kubernetes: != and notin include the unlabelled."""
    for name, labels in {"a": {"app": "a", "v": "1"}, "b": {"app": "b"}, "c": {"app": "c", "v": "2"}}.items():
        meta = client.V1ObjectMeta(name=name, labels=labels)
        await api.core.create_namespaced_config_map(api.namespace, client.V1ConfigMap(metadata=meta))
    expected = {
        "app=a": ["a"],
        "app==b": ["b"],
        "app!=a,app": ["b", "c"],
        "app in (a, c)": ["a", "c"],
        "v notin (1),app": ["b", "c"],
        "v": ["a", "c"],
        "!v,app": ["b"],
        "app in (a,b),v=1": ["a"],
    }
    for selector, names in expected.items():
        found = await api.core.list_namespaced_config_map(api.namespace, label_selector=selector)
        assert [item.metadata.name for item in found.items] == names, selector
    with pytest.raises(ApiException) as caught:
        await api.core.list_namespaced_config_map(api.namespace, label_selector="app in")
    assert status_of(caught.value)["reason"] == "BadRequest"


async def test_field_selectors_choose_or_are_refused(api: Api) -> None:
    """metadata.name selects for every kind; a field that cannot select is a 400."""
    await api.create("payments")
    await api.create("checkout")
    found = await api.listed(field_selector="metadata.name=checkout")
    assert [item["metadata"]["name"] for item in found["items"]] == ["checkout"]
    with pytest.raises(ApiException) as caught:
        await api.listed(field_selector="spec.hosts=x")
    assert "field label not supported" in status_of(caught.value)["message"]


async def test_a_list_in_pages_is_one_moment(api: Api) -> None:
    """limit and continue give every object of the first page's moment once, whatever is written between pages."""
    for name in ("a", "b", "c", "d", "e"):
        await api.create(name)
    first = await api.listed(limit=2)
    assert first["metadata"]["remainingItemCount"] == 3
    await api.delete("c")
    await api.create("f")
    names = [item["metadata"]["name"] for item in first["items"]]
    page = first
    while page["metadata"].get("continue"):
        page = await api.listed(limit=2, _continue=page["metadata"]["continue"])
        names += [item["metadata"]["name"] for item in page["items"]]
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert names == ["a", "b", "c", "d", "e"]


async def test_a_watch_goes_on_from_a_list(api: Api) -> None:
    """A watch from a list's resourceVersion sends all later changes in order, and nothing older."""
    await api.create("old")
    version = (await api.listed())["metadata"]["resourceVersion"]
    await api.create("payments")
    await api.patch(weights(5))
    await api.delete()
    events = await api.events(3, resource_version=version, timeout_seconds=10)
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
        ("ADDED", "payments"),
        ("MODIFIED", "payments"),
        ("DELETED", "payments"),
    ]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(versions)
    assert versions[0] > int(version)


async def test_a_watch_from_nothing_begins_with_what_is_there(api: Api) -> None:
    """Without resourceVersion the present objects come as ADDED before the changes, which come as they happen."""
    await api.create("a")
    await api.create("b")

    async def after_both(seen: int) -> None:
        if seen == 2:
            await api.delete("a")

    events = await api.events(3, then=after_both, timeout_seconds=10)
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("DELETED", "a"),
    ]


async def test_a_selective_watch_sees_objects_come_and_go(api: Api) -> None:
    """An object whose label stops matching is DELETED for the watcher, and ADDED when it matches again."""
    await api.create()
    version = (await api.listed())["metadata"]["resourceVersion"]
    for tier in ("batch", "web"):
        await api.patch({"metadata": {"labels": {"tier": tier}}}, media=MERGE_PATCH)
    events = await api.events(2, resource_version=version, label_selector="tier=web", timeout_seconds=10)
    assert [event["type"] for event in events] == ["DELETED", "ADDED"]


async def test_the_official_watch_reads_it(api: Api) -> None:
    """kubernetes.aio's own Watch yields typed objects and ends with timeout_seconds."""
    meta = client.V1ObjectMeta(name="conf", labels={"a": "b"})
    await api.core.create_namespaced_config_map(api.namespace, client.V1ConfigMap(metadata=meta))
    seen = []
    async with watch.Watch() as stream:
        async for event in stream.stream(
            api.core.list_namespaced_config_map, api.namespace, label_selector="a=b", timeout_seconds=1
        ):
            seen.append((event["type"], event["object"].metadata.name))
    assert seen == [("ADDED", "conf")]


async def test_status_is_written_through_its_subresource_only(api: Api) -> None:
    """The main resource ignores status, `/status` ignores the rest, and neither a status bumps generation."""
    made = await api.create()
    await api.patch({"status": {"observedGeneration": 7}}, media=MERGE_PATCH)
    assert "status" not in await api.get()
    custom = client.CustomObjectsApi(api.client)
    after = await custom.patch_namespaced_custom_object_status(
        *api.where(),
        "payments",
        {"status": {"validationMessages": []}, "spec": {"hosts": ["other"]}},
        _content_type=MERGE_PATCH,
    )
    assert after["status"] == {"validationMessages": []}
    assert after["spec"] == made["spec"]
    assert after["metadata"]["generation"] == 1


async def test_discovery_names_the_kinds(api: Api) -> None:
    """Discovery lists groups with their versions and kinds with verbs, short names and status subresources."""
    groups = {group.name: group for group in (await client.ApisApi(api.client).get_api_versions()).groups}
    versions = [version.version for version in groups[ISTIO].versions]
    assert {"v1", "v1beta1", "v1alpha3"} == set(versions)
    assert "v1" in (await client.CoreApi(api.client).get_api_versions()).versions
    listed = await client.CustomObjectsApi(api.client).get_api_resources(ISTIO, "v1")
    resources = {item.name: item for item in listed.resources}
    assert resources["virtualservices"].kind == "VirtualService"
    assert resources["virtualservices"].short_names == ["vs"]
    assert {"get", "list", "patch", "watch"} <= set(resources["virtualservices"].verbs)
    assert "virtualservices/status" in resources
    assert (await client.VersionApi(api.client).get_code()).major == "1"


async def test_access_reviews_answer(api: Api) -> None:
    """A SelfSubjectAccessReview says whether the caller may."""
    review = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(
            resource_attributes=client.V1ResourceAttributes(
                verb="patch", group=ISTIO, resource="virtualservices", namespace=api.namespace
            )
        )
    )
    answer = await client.AuthorizationV1Api(api.client).create_self_subject_access_review(review)
    assert answer.status.allowed is True


# From here on: what only the sandbox's server has.


@pytest_asyncio.fixture
async def kube(kube_server: KubeServer, kube_client: ApiClient) -> Api:
    """The sandbox's world, reset, in the namespace `shop`."""
    return Api(kube_client, "shop")


def headers(server: KubeServer, media: str = "application/json") -> dict[str, str]:
    return {"Authorization": f"Bearer {server.token}", "Content-Type": media}


def path_of(server: KubeServer, name: str = "payments") -> str:
    return f"{server.url}/apis/{ISTIO}/v1/namespaces/shop/virtualservices/{name}"


async def send(server: KubeServer, method: str, url: str, **options: Any) -> tuple[int, str, str]:
    """One request on a connection of its own: status, content type and body."""
    async with aiohttp.ClientSession() as session, session.request(method, url, **options) as answer:
        return answer.status, answer.content_type, await answer.text()


async def test_the_world_is_there(kube: Api) -> None:
    """Three ready nodes and, in shop, both services with two ready pods of each version, v2 on node-2."""
    nodes = (await kube.core.list_node()).items
    assert [node.metadata.name for node in nodes] == ["node-1", "node-2", "node-3"]
    for node in nodes:
        assert {c.type: c.status for c in node.status.conditions}["Ready"] == "True"
    for app in ("payments", "checkout"):
        for version in ("v1", "v2"):
            selector = f"app={app},version={version}"
            pods = (await kube.core.list_namespaced_pod("shop", label_selector=selector)).items
            assert len(pods) == 2
            for pod in pods:
                hashed = pod.metadata.labels["pod-template-hash"]
                assert pod.metadata.name.startswith(f"{app}-{version}-{hashed}-")
                assert [item.name for item in pod.spec.containers] == [app, "istio-proxy"]
                assert all("@sha256:" in item.image_id for item in pod.status.container_statuses)
                if version == "v2":
                    assert pod.spec.node_name == "node-2"
        slices = client.DiscoveryV1Api(kube.client)
        found = await slices.list_namespaced_endpoint_slice("shop", label_selector=f"kubernetes.io/service-name={app}")
        assert [endpoint.conditions.ready for endpoint in found.items[0].endpoints] == [True] * 4
    payments, checkout = await kube.get("payments"), await kube.get("checkout")
    primary = next(route for route in payments["spec"]["http"] if route.get("name") == "primary")
    assert [destination["weight"] for destination in primary["route"]] == [100, 0]
    assert [destination.get("weight") for destination in checkout["spec"]["http"][0]["route"]] == [None]
    deployments = await client.AppsV1Api(kube.client).list_namespaced_deployment("shop")
    assert [(item.metadata.name, item.status.ready_replicas) for item in deployments.items] == [
        ("checkout-v1", 2),
        ("checkout-v2", 2),
        ("payments-v1", 2),
        ("payments-v2", 2),
    ]
    sets = await client.AppsV1Api(kube.client).list_namespaced_replica_set("shop")
    assert len(sets.items) == 4


async def test_pods_of_a_node_are_selected_by_field(kube: Api) -> None:
    """spec.nodeName selects pods, as the node watch needs."""
    pods = await kube.core.list_pod_for_all_namespaces(field_selector="spec.nodeName=node-2")
    assert {pod.metadata.labels["version"] for pod in pods.items} == {"v2"}
    assert len(pods.items) == 4


async def test_no_token_or_a_wrong_one_is_unauthorized(kube: Api, kube_server: KubeServer) -> None:
    """Without a known bearer token every API path is a 401."""
    for token in ("Bearer wrong", "Basic abc", ""):
        code, _, text = await send(kube_server, "GET", path_of(kube_server), headers={"Authorization": token})
        assert (code, json.loads(text)["reason"]) == (401, "Unauthorized")


async def test_a_malformed_patch_is_a_bad_request(kube: Api, kube_server: KubeServer) -> None:
    """A JSON Patch that is no JSON, or no list of operations, is a 400 and changes nothing."""
    before = await kube.get()
    for body in ('{"op": "add"}', '[["add"]]', "not json"):
        code, _, text = await send(
            kube_server, "PATCH", path_of(kube_server), data=body, headers=headers(kube_server, JSON_PATCH)
        )
        assert (code, json.loads(text)["reason"]) == (400, "BadRequest")
    assert await kube.get() == before


async def test_a_group_that_is_not_installed_is_an_unknown_path(kube: Api, kube_server: KubeServer) -> None:
    """Without its CustomResourceDefinition a kind is a plain 404 and absent from discovery."""
    kube_server.faults(without=[ISTIO])
    code, media, text = await send(kube_server, "GET", path_of(kube_server), headers=headers(kube_server))
    assert (code, media, text) == (404, "text/plain", "404 page not found\n")
    groups = await client.ApisApi(kube.client).get_api_versions()
    assert ISTIO not in {group.name for group in groups.groups}


async def test_only_some_versions_of_a_group_can_be_served(kube: Api, kube_server: KubeServer) -> None:
    """A server restricted to v1alpha3 prefers it and answers 404 for v1."""
    kube_server.faults(serve={ISTIO: ["v1alpha3"]})
    groups = {group.name: group for group in (await client.ApisApi(kube.client).get_api_versions()).groups}
    assert groups[ISTIO].preferred_version.version == "v1alpha3"
    assert (await kube.get(version="v1alpha3"))["apiVersion"] == f"{ISTIO}/v1alpha3"
    with pytest.raises(ApiException) as caught:
        await kube.get(version="v1")
    assert caught.value.status == 404


async def test_a_denied_verb_is_forbidden_and_the_review_says_so(kube: Api, kube_server: KubeServer) -> None:
    """A deny rule answers 403 in RBAC's words, changes nothing, and SelfSubjectAccessReview agrees."""
    kube_server.faults(deny=[{"verb": "patch", "group": ISTIO, "resource": "virtualservices"}])
    before = await kube.get()
    with pytest.raises(ApiException) as caught:
        await kube.patch([{"op": "add", "path": "/metadata/annotations", "value": {}}])
    told = status_of(caught.value)
    assert (told["code"], told["reason"]) == (403, "Forbidden")
    assert told["message"] == (
        'virtualservices.networking.istio.io "payments" is forbidden: User '
        '"system:serviceaccount:canary-bot:canary-bot" cannot patch resource "virtualservices" in API group '
        '"networking.istio.io" in the namespace "shop"'
    )
    assert await kube.get() == before
    reviews = client.AuthorizationV1Api(kube.client)
    answers = {}
    for verb in ("get", "patch"):
        attributes = client.V1ResourceAttributes(verb=verb, group=ISTIO, resource="virtualservices", namespace="shop")
        spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        answer = await reviews.create_self_subject_access_review(client.V1SelfSubjectAccessReview(spec=spec))
        answers[verb] = answer.status.allowed
    assert answers == {"get": True, "patch": False}


async def test_policy_rules_allow_only_what_they_name(kube: Api, kube_server: KubeServer) -> None:
    """With `allow` the rules of a ClusterRole are all a caller may do, and the rules review lists them."""
    rules = [{"apiGroups": [ISTIO], "resources": ["virtualservices"], "verbs": ["get", "list"]}]
    kube_server.faults(allow=rules)
    await kube.get()
    with pytest.raises(ApiException) as caught:
        await kube.core.list_node()
    assert caught.value.status == 403
    review = client.V1SelfSubjectRulesReview(spec=client.V1SelfSubjectRulesReviewSpec(namespace="shop"))
    answer = await client.AuthorizationV1Api(kube.client).create_self_subject_rules_review(review)
    assert [(rule.resources, rule.verbs) for rule in answer.status.resource_rules] == [
        (["virtualservices"], ["get", "list"])
    ]


async def test_a_watch_from_compacted_history_has_expired(kube: Api, kube_server: KubeServer) -> None:
    """A watch from before the history that is left is one ERROR event with a 410 Expired."""
    version = (await kube.listed())["metadata"]["resourceVersion"]
    await kube.patch([{"op": "replace", "path": "/spec/http/0/timeout", "value": "9s"}])
    kube_server.faults(compact=True)
    events = await kube.events(2, resource_version=version, timeout_seconds=10)
    assert [event["type"] for event in events] == ["ERROR"]
    assert (events[0]["object"]["code"], events[0]["object"]["reason"]) == (410, "Expired")


async def test_the_history_of_a_kind_is_bounded(kube: Api) -> None:
    """After more writes than the server keeps, an old resourceVersion is 410 while a recent one still works."""
    version = (await kube.listed())["metadata"]["resourceVersion"]
    for number in range(205):
        await kube.patch([{"op": "replace", "path": "/spec/http/0/timeout", "value": f"{number}s"}])
    recent = (await kube.listed())["metadata"]["resourceVersion"]
    await kube.patch([{"op": "replace", "path": "/spec/http/0/timeout", "value": "1h"}])
    assert [event["type"] for event in await kube.events(1, resource_version=version)] == ["ERROR"]
    assert [event["type"] for event in await kube.events(1, resource_version=recent)] == ["MODIFIED"]


async def test_bookmarks_come_when_asked_for(kube: Api, kube_server: KubeServer) -> None:
    """An idle watch with allowWatchBookmarks learns the store's resourceVersion from a BOOKMARK."""
    kube_server.faults(bookmark_s=0.05)
    version = (await kube.listed())["metadata"]["resourceVersion"]
    await kube.core.create_namespaced_config_map("shop", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="x")))
    custom = client.CustomObjectsApi(kube.client)
    response = await custom.list_namespaced_custom_object_without_preload_content(
        *kube.where(), watch=True, allow_watch_bookmarks=True, resource_version=version
    )
    event = json.loads(await response.content.readline())
    response.close()
    assert event["type"] == "BOOKMARK"
    assert event["object"]["kind"] == "VirtualService"
    assert int(event["object"]["metadata"]["resourceVersion"]) > int(version)


async def test_dropped_watches_are_cut(kube: Api, kube_server: KubeServer) -> None:
    """`drop_watches` cuts an open watch in the middle, without an end of stream."""
    custom = client.CustomObjectsApi(kube.client)
    response = await custom.list_namespaced_custom_object_without_preload_content(*kube.where(), watch=True)
    for _ in range(2):
        assert json.loads(await response.content.readline())["type"] == "ADDED"
    kube_server.faults(drop_watches=True)
    with pytest.raises(aiohttp.ClientError):
        await response.content.readline()
    response.close()


@pytest.mark.parametrize(
    ("code", "reason"),
    [(409, "Conflict"), (500, "InternalError"), (503, "ServiceUnavailable"), (504, "Timeout")],
)
async def test_a_fault_answers_in_the_servers_words(kube: Api, kube_server: KubeServer, code: int, reason: str) -> None:
    """A request fault refuses as many matching requests as it says, changes nothing, and leaves others alone."""
    kube_server.faults(requests=[{"verbs": ["patch"], "resource": "virtualservices", "status": code, "times": 1}])
    operations = [{"op": "replace", "path": "/spec/http/0/timeout", "value": "9s"}]
    before = await kube.get()
    with pytest.raises(ApiException) as caught:
        await kube.patch(operations)
    assert (caught.value.status, status_of(caught.value)["reason"]) == (code, reason)
    assert await kube.get() == before
    assert (await kube.patch(operations))["spec"]["http"][0]["timeout"] == "9s"


async def test_a_fault_of_everything_reaches_discovery_and_reviews(kube: Api, kube_server: KubeServer) -> None:
    """A request fault without a resource refuses discovery and access reviews as well."""
    kube_server.faults(requests=[{"status": 503}])
    with pytest.raises(ApiException) as discovered:
        await client.ApisApi(kube.client).get_api_versions()
    spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=client.V1ResourceAttributes(verb="get"))
    review = client.V1SelfSubjectAccessReview(spec=spec)
    with pytest.raises(ApiException) as reviewed:
        await client.AuthorizationV1Api(kube.client).create_self_subject_access_review(review)
    assert (discovered.value.status, reviewed.value.status) == (503, 503)


async def test_weights_are_percentages(kube: Api) -> None:
    """A weight below 0 or above 100 is a 422: nothing in this project writes one."""
    for weight in (-1, 101):
        with pytest.raises(ApiException) as caught:
            await kube.patch([{"op": "add", "path": "/spec/http/1/route/1/weight", "value": weight}])
        assert [c["reason"] for c in status_of(caught.value)["details"]["causes"]] == ["FieldValueInvalid"]


async def test_a_body_beyond_the_limit_is_refused(kube: Api, kube_server: KubeServer) -> None:
    """More than 3 MiB is a 413 and changes nothing."""
    before = await kube.get()
    body = io.BytesIO(b'{"metadata": {"annotations": {"a": "' + b"x" * (3 * 1024 * 1024) + b'"}}}')
    code, _, text = await send(
        kube_server, "PATCH", path_of(kube_server), data=body, headers=headers(kube_server, MERGE_PATCH)
    )
    assert (code, json.loads(text)["reason"]) == (413, "RequestEntityTooLarge")
    assert await kube.get() == before


async def test_too_many_requests_says_when_to_come_again(kube: Api, kube_server: KubeServer) -> None:
    """A 429 is plain text with Retry-After, as priority and fairness sends it."""
    kube_server.faults(requests=[{"verbs": ["get"], "status": 429, "retry_after_s": 3}])
    with pytest.raises(ApiException) as caught:
        await kube.get()
    assert caught.value.status == 429
    assert caught.value.headers["Retry-After"] == "3"
    assert caught.value.body == "Too many requests, please try again later.\n"


async def test_a_lost_reply_is_a_write_that_happened(kube: Api, kube_server: KubeServer) -> None:
    """With lose_reply the caller sees a cut connection and the object is changed."""
    kube_server.faults(requests=[{"verbs": ["patch"], "lose_reply": True, "times": 1}])
    with pytest.raises(aiohttp.ClientError):
        await kube.patch([{"op": "replace", "path": "/spec/http/0/timeout", "value": "9s"}])
    assert (await kube.get())["spec"]["http"][0]["timeout"] == "9s"


async def test_a_hanging_request_is_never_answered(kube: Api, kube_server: KubeServer) -> None:
    """With hang the caller's own time-out is what ends the request, and nothing is written."""
    before = await kube.get()
    kube_server.faults(requests=[{"verbs": ["patch"], "hang": True}])
    with pytest.raises(TimeoutError):
        await kube.patch([{"op": "replace", "path": "/spec/http/0/timeout", "value": "9s"}], _request_timeout=0.2)
    kube_server.clear_faults()
    assert await kube.get() == before


async def test_the_history_tells_who_wrote_what(kube: Api, kube_server: KubeServer) -> None:
    """Every accepted write is told with author, time and differences; refused ones and dry runs are not."""
    operations = [{"op": "replace", "path": "/spec/http/0/timeout", "value": "9s"}]
    await kube.patch(operations, dry_run="All")
    after = await kube.patch(operations, field_manager="canary-bot")
    with pytest.raises(ApiException):
        await kube.patch([{"op": "test", "path": "/kind", "value": "x"}])
    told = kube_server.history(resource="virtualservices")
    assert len(told) == 1
    assert told[0]["verb"] == "patch"
    assert told[0]["name"] == "payments"
    assert told[0]["field_manager"] == "canary-bot"
    assert told[0]["user_agent"] == kube.client.user_agent
    assert told[0]["resource_version"] == after["metadata"]["resourceVersion"]
    assert told[0]["diff"] == [{"path": "/spec/http/0/timeout", "before": "10s", "after": "9s"}]
    whole = kube_server.history(resource="virtualservices", objects="true")
    assert whole[0]["after"]["spec"] == after["spec"]


async def test_requests_are_counted(kube: Api, kube_server: KubeServer) -> None:
    """Counts are by verb, resource and status code."""
    await kube.get()
    await kube.get()
    with pytest.raises(ApiException):
        await kube.get("nothing")
    assert kube_server.requests() == [
        {"verb": "get", "resource": "virtualservices", "code": 200, "count": 2},
        {"verb": "get", "resource": "virtualservices", "code": 404, "count": 1},
    ]


async def test_another_user_is_told_apart(kube: Api, kube_server: KubeServer) -> None:
    """A second token is a second user in the history."""
    async with ApiClient(kube_server.configuration(kube_server.other_token)) as other:
        await Api(other, "shop").patch([{"op": "replace", "path": "/spec/http/0/timeout", "value": "8s"}])
    assert kube_server.history()[-1]["user"] == OTHER_USER


async def test_a_crash_loop_shows_in_pods_endpoints_and_counts(kube: Api, kube_server: KubeServer) -> None:
    """A crash-looping workload has waiting containers with restarts, no ready endpoint and no ready replica."""
    state = kube_server.put_workload("shop", "payments-v2", crash_loop=True)
    assert (state["ready"], state["crash_loop"], state["restarts"]) == (0, True, 1)
    pods = await kube.core.list_namespaced_pod("shop", label_selector="app=payments,version=v2")
    for pod in pods.items:
        app = pod.status.container_statuses[0]
        assert app.state.waiting.reason == "CrashLoopBackOff"
        assert {c.type: c.status for c in pod.status.conditions}["Ready"] == "False"
    slices = client.DiscoveryV1Api(kube.client)
    found = await slices.list_namespaced_endpoint_slice("shop", label_selector="kubernetes.io/service-name=payments")
    ready = {e.target_ref.name: e.conditions.ready for e in found.items[0].endpoints}
    assert [ready[pod.metadata.name] for pod in pods.items] == [False, False]
    assert sorted(ready.values()) == [False, False, True, True]
    deployment = await client.AppsV1Api(kube.client).read_namespaced_deployment("payments-v2", "shop")
    assert deployment.status.ready_replicas == 0
    healed = kube_server.put_workload("shop", "payments-v2", crash_loop=False)
    assert (healed["ready"], healed["crash_loop"], healed["restarts"]) == (2, False, 1)


async def test_a_redeploy_gives_new_pods_under_a_new_hash(kube: Api, kube_server: KubeServer) -> None:
    """A new image replaces pods, template hash and digests, and the Deployment's generation rises."""
    selector = "app=payments,version=v2"
    before = (await kube.core.list_namespaced_pod("shop", label_selector=selector)).items
    kube_server.put_workload("shop", "payments-v2", image="registry.example/shop/payments:v2.0.1")
    after = (await kube.core.list_namespaced_pod("shop", label_selector=selector)).items
    assert len(after) == 2
    for what in (
        lambda pod: pod.metadata.name,
        lambda pod: pod.metadata.uid,
        lambda pod: pod.metadata.labels["pod-template-hash"],
        lambda pod: pod.status.container_statuses[0].image_id,
    ):
        assert not {what(pod) for pod in before} & {what(pod) for pod in after}
    deployment = await client.AppsV1Api(kube.client).read_namespaced_deployment("payments-v2", "shop")
    assert deployment.metadata.generation == 2
    addresses = [pod.status.pod_ip for pod in (await kube.core.list_namespaced_pod("shop")).items]
    assert len(set(addresses)) == len(addresses)


async def test_some_pods_can_stop_being_ready(kube: Api, kube_server: KubeServer) -> None:
    """`ready` and `restarts` set how many pods are ready and how often their containers restarted."""
    state = kube_server.put_workload("shop", "checkout-v2", ready=1, restarts=4)
    assert (state["replicas"], state["ready"], state["restarts"], state["crash_loop"]) == (2, 1, 4, False)


async def test_node_conditions_can_be_set(kube: Api, kube_server: KubeServer) -> None:
    """A NotReady node says so with its reason; the others stay healthy."""
    kube_server.put_node("node-2", Ready="False", MemoryPressure="True")
    node = await kube.core.read_node("node-2")
    conditions = {c.type: (c.status, c.reason) for c in node.status.conditions}
    assert conditions["Ready"] == ("False", "KubeletNotReady")
    assert conditions["MemoryPressure"][0] == "True"
    other = await kube.core.read_node("node-1")
    assert {c.type: c.status for c in other.status.conditions}["Ready"] == "True"


async def test_manifests_can_be_loaded_as_they_are(kube: Api, kube_server: KubeServer) -> None:
    """YAML posted to the store is there with its status, and replaces what had its name under the same uid."""
    kube_server.load(
        """
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: cart, namespace: shop}
spec: {replicas: 1}
status: {phase: Healthy}
"""
    )
    custom = client.CustomObjectsApi(kube.client)
    found = await custom.get_namespaced_custom_object("argoproj.io", "v1alpha1", "shop", "rollouts", "cart")
    assert found["status"] == {"phase": "Healthy"}
    kube_server.load([{**found, "status": {"phase": "Degraded"}}])
    again = await custom.get_namespaced_custom_object("argoproj.io", "v1alpha1", "shop", "rollouts", "cart")
    assert again["status"] == {"phase": "Degraded"}
    assert again["metadata"]["uid"] == found["metadata"]["uid"]


async def test_an_empty_reset_leaves_a_bare_cluster(kube: Api, kube_server: KubeServer) -> None:
    """`reset("empty")` leaves the system namespaces and nothing else."""
    kube_server.reset("empty")
    namespaces = await kube.core.list_namespace()
    assert [item.metadata.name for item in namespaces.items] == [
        "default",
        "kube-node-lease",
        "kube-public",
        "kube-system",
    ]
    assert (await kube.core.list_pod_for_all_namespaces()).items == []
