"""Rollouts of every shape, with the worst names and reasons that a cluster or a person can come up with."""

from __future__ import annotations

from hypothesis import strategies as st

from bot.rollout.effects import Message, MessageKind, Tone
from bot.rollout.gate import Assessment, Blame, Cause, GateReport, Share, Verdict
from bot.rollout.model import (
    Actor,
    Approval,
    ApprovalPolicy,
    Bake,
    Destination,
    Direction,
    Entry,
    Hold,
    HoldReason,
    OnSilence,
    Phase,
    Rollout,
    RouteRef,
    Rules,
    Side,
    Source,
    Target,
    Write,
)
from bot.rollout.plan import Plan, Step
from bot.rollout.route import RouteState

HOSTILE = (
    "<!channel>",
    "<!here|now>",
    "<@U0ADA>",
    "<!subteam^S0LEADS>",
    "```",
    "`",
    "a`b```c",
    "<https://evil.example|click>",
    "&lt;!channel&gt;",
    "line\nline",
    "x" * 5000,
    "<" * 400,
    "&" * 4000,
    "\u202egnp",
    "🐤" * 800,
    "",
    " ",
)
texts = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=60))
moments = st.floats(1.7e9, 1.9e9, allow_nan=False)
ids = st.one_of(st.sampled_from(("U0ADA", "U0GRACE", "<!channel>", "")), st.text(max_size=10))
actors = st.builds(Actor, st.sampled_from(Source), ids, texts, st.sampled_from(("slash", "button", "")))
numbers = st.one_of(st.none(), st.floats(0, 1e6, allow_nan=False))
reports = st.builds(
    GateReport,
    gate=st.one_of(st.sampled_from(("error-rate", "p99", "pods", "missing-responses")), texts),
    verdict=st.sampled_from(Verdict),
    detail=texts,
    value=numbers,
    stable_value=numbers,
    limit=numbers,
    unit=st.sampled_from(("", "%", "ms", "x", "ready pods", "<!channel>")),
    samples=st.one_of(st.none(), st.integers(0, 10**9)),
    needed_samples=st.one_of(st.none(), st.integers(0, 1000)),
    query=texts,
)
assessments = st.builds(
    Assessment,
    at=moments,
    step=st.integers(0, 3),
    weight_percent=st.integers(0, 100),
    reports=st.lists(reports, max_size=12).map(tuple),
    share=st.builds(Share, st.one_of(st.none(), st.floats(0, 100)), st.integers(0, 10**7), st.none(), texts),
    nodes_critical=st.lists(texts, max_size=3).map(tuple),
    cause=st.one_of(st.none(), st.builds(Cause, st.sampled_from(Blame), texts, st.lists(texts, max_size=2).map(tuple))),
)
found = st.builds(
    RouteState,
    st.just("u"),
    st.just("1"),
    stable_weight=st.integers(0, 100),
    canary_weight=st.one_of(st.none(), st.integers(0, 100)),
    last_manager=texts,
    changed=texts,
    stable_lost=texts,
    canary_lost=texts,
)
steps = st.lists(st.integers(1, 99), unique=True, max_size=30).map(
    lambda weights: tuple(Step(weight, 600.0, weight % 2 == 0) for weight in (*sorted(weights), 100))
)


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    """Any rollout that a view may be given, also ones that the machine would never make."""
    name, canary, stable = draw(texts), draw(texts), draw(texts)
    plan = Plan(draw(texts), draw(steps))
    step = draw(st.integers(-1, len(plan.steps) - 1))
    host = draw(texts)
    target = Target(
        service=name,
        namespace=draw(texts),
        host=host,
        route=RouteRef("istio", draw(texts), draw(texts), "http", draw(texts)),
        stable=Side(stable, Destination(host, stable)),
        canary=Side(canary, Destination(host, canary, 8080)),
    )
    approval = st.builds(
        Approval,
        step=st.integers(0, len(plan.steps) - 1),
        asked_at=moments,
        expires_at=moments,
        approved_by=st.lists(actors, max_size=3).map(tuple),
    )
    write = st.builds(
        Write,
        weight_percent=st.integers(0, 100),
        revision=st.integers(0, 99),
        direction=st.sampled_from(Direction),
        reason=texts,
        by=actors,
        decided_at=moments,
        attempts=st.integers(0, 99),
    )
    return Rollout(
        id=draw(texts) or "payments-7f3a",
        revision=draw(st.integers(0, 10**6)),
        target=target,
        plan=plan,
        gates=(),
        rules=Rules(
            channel="#deploys",
            mention=draw(st.sampled_from(("", "S0LEADS", "U0GRACE", "@release-leads", "<!channel>"))),
            approval=ApprovalPolicy(quorum=draw(st.integers(1, 3)), on_expiry=draw(st.sampled_from(OnSilence))),
        ),
        phase=draw(st.sampled_from(Phase)),
        created_at=draw(moments),
        started_by=draw(actors),
        scheduled_at=draw(moments),
        step=step,
        weight_percent=draw(st.integers(0, 100)),
        write=draw(st.one_of(st.none(), write)),
        bake=Bake(
            confirmed_at=draw(st.one_of(st.none(), moments)),
            arrived_at=draw(st.one_of(st.none(), moments)),
            covered_s=draw(st.floats(0, 1e5)),
        ),
        holds=tuple(draw(st.lists(st.builds(Hold, st.sampled_from(HoldReason), moments, texts, actors), max_size=10))),
        approval=draw(st.one_of(st.none(), approval)),
        assessment=draw(st.one_of(st.none(), assessments)),
        hurry=draw(st.sampled_from(("", "step", "full"))),
        undo_of=draw(texts),
        started_at=draw(st.one_of(st.none(), moments)),
        ended_at=draw(st.one_of(st.none(), moments)),
        reason=draw(texts),
        history=tuple(
            draw(st.lists(st.builds(Entry, moments, texts, texts, actors, st.integers(0, 100)), max_size=20))
        ),
        found=draw(st.one_of(st.none(), found)),
        gone=draw(texts),
        write_failures=draw(st.integers(0, 5)),
        card_at=draw(moments),
    )


messages = st.builds(
    Message,
    kind=st.sampled_from(MessageKind),
    text=texts,
    detail=texts,
    tone=st.sampled_from(Tone),
    step=st.one_of(st.none(), st.just(0)),
)
