"""Who else writes the route: progressive delivery controllers that own it, and GitOps that would put it back."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bot.adapters.mesh.choosing import refused
from bot.adapters.mesh.virtualservice import Manifest
from bot.ports.mesh import Finding, Severity

ARGO_TRACKING = "argocd.argoproj.io/tracking-id"
ARGO_INSTANCES = ("argocd.argoproj.io/instance", "app.kubernetes.io/instance")
FLUX_KUSTOMIZE = "kustomize.toolkit.fluxcd.io"
FLUX_HELM = "helm.toolkit.fluxcd.io"
RESPECT = "RespectIgnoreDifferences=true"

_WEIGHTS = re.compile(r"\.spec(\.http|\.tcp|\.tls)?(\[\d*\])?(\.route(\[\d*\])?(\.weight)?)?")
_POINTER = re.compile(r"/spec(/(?P<protocol>http|tcp|tls)(/(?P<index>\d+)(/route(/\d+(/weight)?)?)?)?)?")


def owned_by_controller(
    manifest: Manifest,
    service: str,
    workloads: Sequence[str],
    canaries: Sequence[Manifest],
    rollouts: Sequence[Manifest],
    unknown: Sequence[str],
) -> Finding:
    """No Flagger Canary and no Argo Rollout owns the route. `unknown` names what could not be read."""
    name = manifest["metadata"]["name"]
    for owner in manifest["metadata"].get("ownerReferences") or ():
        if owner.get("kind") == "Canary":
            return _flagger(str(owner.get("name")))
    for canary in canaries:
        spec = canary.get("spec") or {}
        target = str((spec.get("targetRef") or {}).get("name") or "")
        of_service = str((spec.get("service") or {}).get("name") or target)
        if of_service in (service, name) or target in workloads:
            return _flagger(str(canary["metadata"]["name"]))
    for rollout in rollouts:
        istio = (
            ((rollout.get("spec") or {}).get("strategy") or {})
            .get("canary", {})
            .get("trafficRouting", {})
            .get("istio", {})
        )
        steered = [istio.get("virtualService") or {}, *(istio.get("virtualServices") or ())]
        if any(str(one.get("name") or "").rpartition("/")[2] == name for one in steered if one):
            return refused(
                "owner",
                f"Argo Rollout {rollout['metadata']['name']} sets the weights of this VirtualService",
                "take its trafficRouting.istio out, or leave the release to Argo Rollouts",
            )
    if unknown:
        return Finding(
            "owner",
            Severity.WARN,
            f"could not look for {' and '.join(unknown)} (not allowed to list them)",
            "give the bot's role `list` on them",
        )
    return Finding("owner", Severity.OK, "neither Flagger nor Argo Rollouts owns the route")


def argo_application(manifest: Manifest) -> tuple[str, str, bool] | None:
    """(namespace or "", name, certain) of the Argo CD application an object says it belongs to.

    Not certain: `app.kubernetes.io/instance` is Helm's label as well.
    """
    metadata = manifest["metadata"]
    tracking = str((metadata.get("annotations") or {}).get(ARGO_TRACKING) or "")
    if tracking:
        namespace, _, name = tracking.partition(":")[0].rpartition("_")
        return namespace, name, True
    labels = metadata.get("labels") or {}
    for key in ARGO_INSTANCES:
        if labels.get(key):
            return "", str(labels[key]), key != "app.kubernetes.io/instance"
    return None


def reverted_by_argo(
    manifest: Manifest,
    application: Manifest | None,
    name: str,
    *,
    protocol: str,
    index: int,
    inserted: bool,
    field_manager: str,
) -> Finding:
    """Argo CD leaves the weights alone; `application` None could not be read."""
    setting = _argo_setting(manifest, protocol, field_manager)
    if application is None:
        return Finding(
            "gitops",
            Severity.WARN,
            f"Argo CD application {name} owns the object and could not be read: its next sync may put the weights back",
            f"make sure that it has {setting}",
        )
    spec = application.get("spec") or {}
    ignores = any(
        _ignored(entry, manifest, protocol, index, inserted, field_manager)
        for entry in spec.get("ignoreDifferences") or ()
    )
    policy = spec.get("syncPolicy") or {}
    respects = RESPECT in (policy.get("syncOptions") or ())
    if ignores and respects:
        return Finding("gitops", Severity.OK, f"Argo CD application {name} ignores the weights")
    when = "its next automatic sync" if policy.get("automated") is not None else "its next sync"
    what = "does not ignore the weights" if not ignores else "ignores the weights in its diff but not when it syncs"
    return refused("gitops", f"Argo CD application {name} {what}: {when} would put them back", f"add to it {setting}")


def reverted_by_flux(manifest: Manifest, kustomization: Manifest | None, release: Manifest | None) -> Finding | None:
    """Flux leaves the object alone; None when Flux has nothing to do with it."""
    metadata = manifest["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    name = labels.get(f"{FLUX_KUSTOMIZE}/name")
    if name:
        said = {**labels, **annotations}
        if str(said.get(f"{FLUX_KUSTOMIZE}/reconcile", "")).lower() == "disabled":
            return Finding("gitops", Severity.OK, f"Flux Kustomization {name} does not reconcile the object")
        if str(said.get(f"{FLUX_KUSTOMIZE}/ssa", "")).lower() in ("ifnotpresent", "ignore"):
            return Finding("gitops", Severity.OK, f"Flux Kustomization {name} leaves the object as it is")
        if ((kustomization or {}).get("spec") or {}).get("suspend") is True:
            return Finding(
                "gitops",
                Severity.WARN,
                f"Flux Kustomization {name} is suspended: resuming it would put the weights back",
                f"annotate the object in Git: {FLUX_KUSTOMIZE}/reconcile: disabled",
            )
        return refused(
            "gitops",
            f"Flux Kustomization {name} would put the weights back at its next reconciliation",
            f"annotate the object in Git: {FLUX_KUSTOMIZE}/ssa: IfNotPresent (or {FLUX_KUSTOMIZE}/reconcile: disabled)",
        )
    name = labels.get(f"{FLUX_HELM}/name")
    if not name:
        return None
    if str({**labels, **annotations}.get(f"{FLUX_HELM}/driftDetection", "")).lower() == "disabled":
        return Finding("gitops", Severity.OK, f"Flux HelmRelease {name} does not correct this object")
    detection = ((release or {}).get("spec") or {}).get("driftDetection") or {}
    if release is not None and str(detection.get("mode") or "disabled") != "enabled":
        return Finding("gitops", Severity.OK, f"Flux HelmRelease {name} does not correct drift")
    way_on = f"annotate the object in its chart: {FLUX_HELM}/driftDetection: disabled"
    if release is None:
        text = f"Flux HelmRelease {name} could not be read: its drift detection may put the weights back"
        return Finding("gitops", Severity.WARN, text, way_on)
    return refused("gitops", f"Flux HelmRelease {name} corrects drift and would put the weights back", way_on)


def _ignored(
    entry: Mapping[str, Any], manifest: Manifest, protocol: str, index: int, inserted: bool, field_manager: str
) -> bool:
    """True when one entry of ignoreDifferences covers the weights (and, when inserted, the list of destinations)."""
    metadata = manifest["metadata"]
    if str(entry.get("group") or "") not in ("networking.istio.io", "*"):
        return False
    if str(entry.get("kind") or "") not in ("VirtualService", "*"):
        return False
    if entry.get("name") and entry["name"] != metadata["name"]:
        return False
    if entry.get("namespace") and entry["namespace"] != metadata.get("namespace"):
        return False
    if field_manager in (entry.get("managedFieldsManagers") or ()):
        return True
    pointers = [str(one) for one in entry.get("jsonPointers") or ()]
    return (
        any(_jq_covers(str(one), protocol, index, inserted) for one in entry.get("jqPathExpressions") or ())
        or any(_pointer_covers(one, protocol, index, inserted) for one in pointers)
        or _both_weights(pointers, protocol, index, inserted)
    )


def _jq_covers(expression: str, protocol: str, index: int, inserted: bool) -> bool:
    plain = re.sub(r"\|?select\([^)]*\)\|?", "", re.sub(r"[\s?]", "", expression)).replace("|", "")
    found = _WEIGHTS.fullmatch(plain)
    if found is None:
        return False
    if found.group(1) and found.group(1) != f".{protocol}":
        return False
    if found.group(2) and found.group(2) not in ("[]", f"[{index}]"):
        return False
    if found.group(4) and found.group(4) != "[]":
        return False
    return not (inserted and (found.group(5) or found.group(4)))


def _pointer_covers(pointer: str, protocol: str, index: int, inserted: bool) -> bool:
    found = _POINTER.fullmatch(pointer)
    if found is None or re.search(r"/route/\d+", pointer):
        return False
    if found["protocol"] and found["protocol"] != protocol:
        return False
    return found["index"] is None or int(found["index"]) == index


def _both_weights(pointers: Sequence[str], protocol: str, index: int, inserted: bool) -> bool:
    """True when the weights of the first two destinations are each pointed at."""
    if inserted:
        return False
    base = f"/spec/{protocol}/{index}/route"
    weights = {one for one in pointers if re.fullmatch(rf"{re.escape(base)}/\d+(/weight)?", one)}
    return len(weights) >= 2


def _argo_setting(manifest: Manifest, protocol: str, field_manager: str) -> str:
    return (
        "`syncPolicy: {syncOptions: [RespectIgnoreDifferences=true]}` and `ignoreDifferences: [{group: "
        f"networking.istio.io, kind: VirtualService, name: {manifest['metadata']['name']}, "
        f"jsonPointers: [/spec/{protocol}]}}]`"
    )


def _flagger(name: str) -> Finding:
    return refused(
        "owner",
        f"Flagger Canary {name} owns this route and rewrites it",
        "delete the Canary, or leave the release to Flagger",
    )
