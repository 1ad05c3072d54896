"""The discovery documents: which groups, versions and kinds there are."""

from __future__ import annotations

from bot.sandbox.kube.resources import AUTHORIZATION, REVIEWS, VERBS, Catalogue, api_version
from bot.sandbox.kube.status import Json

VERSION: Json = {
    "major": "1",
    "minor": "34",
    "gitVersion": "v1.34.0+sandbox",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2025-08-27T00:00:00Z",
    "goVersion": "go1.24.6",
    "compiler": "gc",
    "platform": "linux/amd64",
}


def core_versions(address: str) -> Json:
    """`/api`."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def _group(name: str, versions: tuple[str, ...]) -> Json:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def groups(catalogue: Catalogue) -> Json:
    """`/apis`."""
    listed = [_group(name, versions) for name, versions in catalogue.groups().items()]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def group(catalogue: Catalogue, name: str) -> Json | None:
    """`/apis/<group>`, None when it is not served."""
    versions = catalogue.groups().get(name)
    return None if versions is None else {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)}


def resources(catalogue: Catalogue, name: str, version: str) -> Json | None:
    """`/api/v1` and `/apis/<group>/<version>`, None when it is not served."""
    listed: list[Json] = []
    if name == AUTHORIZATION and version == "v1":
        listed = [
            {"name": plural, "singularName": kind.lower(), "namespaced": False, "kind": kind, "verbs": ["create"]}
            for plural, kind in REVIEWS.items()
        ]
    for resource in catalogue.resources:
        if resource.group != name or version not in catalogue.versions(resource):
            continue
        entry: Json = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(VERBS),
        }
        listed.append({**entry, "shortNames": list(resource.short)} if resource.short else entry)
        if resource.status:
            listed.append(
                {**entry, "name": f"{resource.plural}/status", "singularName": "", "verbs": ["get", "patch", "update"]}
            )
    if not listed:
        return None
    listed.sort(key=lambda entry: str(entry["name"]))
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version(name, version),
        "resources": listed,
    }
