"""Host names as Istio reads them: short names belong to the namespace of the object that uses them."""

CLUSTER_DOMAIN = "cluster.local"


def fqdn(host: str, namespace: str) -> str:
    """A host as the mesh knows it. Only a name without a dot is short (Istio's ResolveShortnameToFQDN)."""
    if not host or "." in host or "*" in host:
        return host
    return f"{host}.{namespace}.svc.{CLUSTER_DOMAIN}"


def covers(pattern: str, host: str) -> bool:
    """True when a host pattern (`*`, `*.shop.svc.cluster.local` or exact) includes a host or a narrower pattern."""
    if pattern == "*" or pattern == host:
        return True
    return pattern.startswith("*.") and host.removeprefix("*").endswith(pattern[1:])


def service_of(host: str) -> tuple[str, str] | None:
    """(service, namespace) of an FQDN inside the cluster, None for any other host."""
    suffix = f".svc.{CLUSTER_DOMAIN}"
    if not host.endswith(suffix):
        return None
    name, _, namespace = host.removesuffix(suffix).partition(".")
    return (name, namespace) if name and namespace and "." not in namespace else None
