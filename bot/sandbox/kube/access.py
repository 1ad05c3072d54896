"""Who may do what: bearer tokens, and rules in the words of RBAC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bot.sandbox.kube import status
from bot.sandbox.kube.status import Json

BOT = "system:serviceaccount:canary-bot:canary-bot"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as RBAC sees it."""

    user: str
    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str | None = None
    name: str = ""

    @property
    def path(self) -> str:
        """Resource and subresource as rules spell them."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def _fits(stated: Any, asked: str | None) -> bool:
    if stated is None:
        return True
    choices = stated if isinstance(stated, list) else [stated]
    return "*" in choices or asked in choices


@dataclass(slots=True)
class Access:
    """Tokens and rules.

    `deny` holds objects with any of user, verb, group, resource, namespace, name (a string, a list or `*`; absent
    means any). `allow`, when it is a list, holds PolicyRules (apiGroups, resources, verbs, resourceNames, and
    optionally namespaces): what none of them names is denied, so the rules of a ClusterRole can be tried as they are.
    """

    tokens: dict[str, str]
    deny: list[Json]
    allow: list[Json] | None = None

    def user(self, authorization: str | None) -> str:
        """Whose bearer token this is, or a 401."""
        scheme, _, token = (authorization or "").partition(" ")
        user = self.tokens.get(token.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise status.unauthorized()
        return user

    def allows(self, asked: Asked) -> bool:
        """Whether the rules let this request through."""
        for rule in self.deny:
            if (
                _fits(rule.get("user"), asked.user)
                and _fits(rule.get("verb"), asked.verb)
                and _fits(rule.get("group"), asked.group)
                and _fits(rule.get("resource"), asked.path)
                and _fits(rule.get("namespace"), asked.namespace)
                and _fits(rule.get("name"), asked.name)
            ):
                return False
        if self.allow is None:
            return True
        return any(
            _fits(rule.get("apiGroups", []), asked.group)
            and _fits(rule.get("resources", []), asked.path)
            and _fits(rule.get("verbs", []), asked.verb)
            and _fits(rule.get("resourceNames") or None, asked.name)
            and _fits(rule.get("namespaces"), asked.namespace)
            for rule in self.allow
        )

    def require(self, asked: Asked) -> None:
        """Raise a 403 when the rules do not let this request through."""
        if not self.allows(asked):
            raise status.forbidden(
                asked.user, asked.verb, asked.resource, asked.group, asked.namespace, asked.name, asked.subresource
            )

    def access_review(self, user: str, body: Json) -> Json:
        """Answer a SelfSubjectAccessReview."""
        spec = body.get("spec") or {}
        attributes = spec.get("resourceAttributes")
        if attributes is None and spec.get("nonResourceAttributes") is None:
            cause = {
                "reason": "FieldValueInvalid",
                "message": "Invalid value: exactly one of nonResourceAttributes and resourceAttributes is needed",
                "field": "spec.resourceAttributes",
            }
            raise status.invalid("", "authorization.k8s.io", "SelfSubjectAccessReview", [cause])
        allowed = attributes is None or self.allows(
            Asked(
                user,
                attributes.get("verb", ""),
                attributes.get("group", ""),
                attributes.get("resource", ""),
                attributes.get("subresource", ""),
                attributes.get("namespace") or None,
                attributes.get("name", ""),
            )
        )
        answer: Json = {"allowed": allowed}
        if allowed:
            answer["reason"] = f'RBAC: allowed by ClusterRoleBinding "canary-bot" to {user.rpartition(":")[2]}'
        return {**body, "metadata": {}, "status": answer}

    def rules_review(self, body: Json) -> Json:
        """Answer a SelfSubjectRulesReview; denials are not rules, so they make the answer incomplete."""
        everything = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
        rules = everything if self.allow is None else self.allow
        answer = {
            "resourceRules": rules,
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*"]}],
            "incomplete": bool(self.deny),
        }
        return {**body, "metadata": {}, "status": answer}
