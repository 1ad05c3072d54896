"""The shape of the file, as pydantic models: what each key takes. docs/catalog.md lists the keys from here."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from bot.errors import UserError
from bot.rollout.duration import parse_duration

GATE_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
SERVICE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
PLAN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PERSON = re.compile(r"@[\w.-]{1,80}|[UWS][A-Z0-9]{2,20}")
_CHANNEL = re.compile(r"#[^\s#@<>]{1,80}|[CG][A-Z0-9]{2,20}")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*%")


def _duration(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"expected a duration with its unit, such as 15s or 10m, not {_shown(value)}")
    try:
        duration_s = parse_duration(value)
    except UserError as error:
        raise ValueError(error.message) from error
    if duration_s <= 0:
        raise ValueError("has to be longer than nothing")
    return duration_s


def _at_least_a_second(duration_s: float) -> float:
    if duration_s < 1:
        raise ValueError("1s is the shortest")
    return duration_s


def _percent(value: Any) -> Any:
    found = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or not 0 < float(found[1]) <= 100:
        raise ValueError(f"expected a share such as 2%, not {_shown(value)}")
    return float(found[1]) / 100


def _limit(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a limit such as 1%, 250ms, 1.2x or 0.5, not {_shown(value)}")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"expected a limit from 0 up, not {_shown(value)}")
    return _decimal(value)


def _decimal(value: float) -> str:
    return f"{value:.12f}".rstrip("0").rstrip(".")


def _word(pattern: re.Pattern[str], what: str) -> Any:
    def check(value: Any) -> Any:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(f"expected {what}, not {_shown(value)}")
        return value

    return BeforeValidator(check)


def _steps(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(step, str) for step in value):
        return ", ".join(value)
    if not isinstance(value, str):
        raise ValueError(f"expected steps such as `5%:10m, 50%:30m:approve, 100%:10m`, not {_shown(value)}")
    return value


def _on_silence(value: Any) -> Any:
    return re.sub(r"[ -]", "_", value) if isinstance(value, str) else value


def _against(value: Any) -> Any:
    return "yesterday" if value == "same time yesterday" else value


def _distinct(values: list[str]) -> list[str]:
    if len(set(values)) != len(values):
        raise ValueError("names something twice")
    return values


def _shown(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case bool():
            return f"`{str(value).lower()}`"
        case _:
            return f"`{str(value)[:60]}`"


Duration = Annotated[float, BeforeValidator(_duration)]
Percent = Annotated[float, BeforeValidator(_percent)]
Limit = Annotated[str, BeforeValidator(_limit)]
Namespace = Annotated[str, _word(NAMESPACE, "the name of a namespace")]
Name = Annotated[str, _word(SERVICE_NAME, "a name as Kubernetes has them")]
Person = Annotated[str, _word(_PERSON, "a Slack user id (U012ABCDEF), group id (S012ABCDEF) or group (@release-leads)")]
Channel = Annotated[str, _word(_CHANNEL, 'a channel such as "#deploys" (in quotes: # begins a comment) or its id')]
People = Annotated[list[Person], AfterValidator(_distinct)]
Against = Annotated[Literal["stable", "yesterday"], BeforeValidator(_against)]
OnSilence = Annotated[Literal["roll_back", "hold"], BeforeValidator(_on_silence)]


class Shape(BaseModel):
    """No key but these, no value of another kind."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ApprovalShape(Shape):
    """How a step that asks is approved."""

    quorum: int | None = Field(default=None, ge=1, le=20, description="How many have to approve; 1.")
    four_eyes: bool | None = Field(default=None, description="Whoever started cannot approve; true.")
    expires: Duration | None = Field(
        default=None, description="How long is waited; 1h. Reminders at half and at 90% of it."
    )
    on_expiry: OnSilence | None = Field(
        default=None, description="What silence means: `roll_back` (default) or `hold`."
    )


class CommonShape(Shape):
    """What `defaults` and each service can say."""

    plan: str | None = Field(default=None, description="Name of a plan; `default` is 5%, 25%, 50%, 100%, 10m each.")
    channel: Channel | None = Field(
        default=None, description='Where it is announced, as `"#deploys"` in quotes or by id.'
    )
    mention: Person | None = Field(
        default=None, description="Whom approvals and alerts mention; the first of the approvers."
    )
    check_every: Annotated[Duration, AfterValidator(_at_least_a_second)] | None = Field(
        default=None, description="Between two looks at the gates; 15s, at the least 1s."
    )
    no_data_after: Duration | None = Field(
        default=None, description="How long too little data is waited for; twice the bake."
    )
    on_no_data: OnSilence | None = Field(
        default=None, description="What then happens: `hold` (default) or `roll_back`."
    )
    on_machine: OnSilence | None = Field(
        default=None, description="When a gate fails and it is likely the machine: `roll_back` (default) or `hold`."
    )
    arrival: Duration | None = Field(
        default=None, description="How long a new weight is waited for in the traffic before the bake begins; 60s."
    )
    alpha: Percent | None = Field(
        default=None,
        description="How often, over a whole rollout, a release that keeps its limits may be failed; 1%.",
    )
    approval: ApprovalShape | None = Field(default=None, description="See below.")
    starters: People | None = Field(default=None, description="Who may start and promote; empty: every full member.")
    approvers: People | None = Field(default=None, description="Who may approve and reject; empty: every full member.")
    operators: People | None = Field(
        default=None, description="Who may hold, resume, freeze; empty: every full member."
    )
    rollback: People | None = Field(default=None, description="Who may roll back; empty: every full member.")


class DefaultsShape(CommonShape):
    """`defaults`."""

    namespace: Namespace | None = Field(
        default=None, description="Where a service is looked for that says nothing else."
    )


class RouteShape(Shape):
    """Where a service's weights are."""

    name: Name | None = Field(
        default=None, description="The VirtualService (HTTPRoute, TrafficSplit); the service's name."
    )
    http: str | None = Field(
        default=None, min_length=1, description="Name of the http route in it, when it has several."
    )
    tcp: str | None = Field(default=None, min_length=1, description="Name of the tcp route in it.")
    tls: str | None = Field(default=None, min_length=1, description="Name of the tls route in it.")


class ServiceShape(CommonShape):
    """One of `services`; its gates are read apart."""

    namespace: Namespace | None = Field(default=None, description="Its namespace.")
    mesh: Literal["istio", "gateway-api", "smi"] | None = Field(
        default=None, description="`istio`, `gateway-api` or `smi`; found by looking."
    )
    route: RouteShape | None = Field(default=None, description="See below; found by looking.")
    subsets: Annotated[list[Name], Field(min_length=2), AfterValidator(_distinct)] | None = Field(
        default=None, description="The subsets that may take part; which is stable is read from the weights."
    )


class GateShape(Shape):
    """One gate; a service's gate changes only what it says."""

    max: Limit | None = Field(
        default=None,
        description="The limit: `1%` or `2x` (error-rate), `250ms` or `1.2x` (p99), a number or `2x` (custom).",
    )
    min_requests: int | None = Field(
        default=None, ge=1, description="Fewer requests than this since the step began: no PASS."
    )
    fail_after: int | None = Field(
        default=None, ge=1, le=100, description="Consecutive FAIL verdicts that roll back; 2."
    )
    fail_total: int | None = Field(
        default=None, ge=1, le=1000, description="FAIL verdicts in one step that roll back; 4."
    )
    query: str | None = Field(
        default=None,
        min_length=1,
        description="PromQL of a custom gate, one number: see below for what can be filled in.",
    )
    judge: Literal["sequential", "threshold"] | None = Field(
        default=None,
        description="`sequential` (error-rate, p99): evidence from counts; `threshold` (custom): a value over `max`.",
    )
    against: Against | None = Field(
        default=None, description="What `1.2x` multiplies: `stable` (default) or `same time yesterday`."
    )
    unit: str | None = Field(default=None, max_length=20, description="What a custom gate's number is called.")


class PlanShape(Shape):
    """One plan."""

    steps: Annotated[str, BeforeValidator(_steps)] = Field(
        description="`weight:bake[:approve]` with commas between, or a list of them; rising, the last is 100%."
    )


class LevelsShape(Shape):
    """When a node's signal warns and when it is critical."""

    warn: Percent | None = Field(default=None, description="Share of a core-second; 2% steal, 10% iowait.")
    critical: Percent | None = Field(default=None, description="The same; 10% steal, 30% iowait.")


class NodesShape(Shape):
    """`nodes`."""

    steal: LevelsShape | None = Field(default=None, description="CPU time the hypervisor took.")
    iowait: LevelsShape | None = Field(default=None, description="CPU time spent waiting for disks.")
    condition_for: Duration | None = Field(default=None, description="How long a node's condition has to be bad; 30s.")
    clear_after: Duration | None = Field(default=None, description="How long it has to be good again; 60s.")
