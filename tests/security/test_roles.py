"""Every verb and every button with every kind of person: who may is done, who may not is refused and audited."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from slack_bolt.request.async_request import AsyncBoltRequest

from bot.adapters.slack.people import SlackDirectory
from bot.catalog import load
from bot.errors import NotFound, Transient
from bot.handlers.actions import BUTTONS, MORE, REJECT, URGENT
from bot.handlers.app import build_app
from bot.handlers.commands import COMMANDS
from bot.handlers.intake import Intake
from bot.rollout.effects import MessageKind
from bot.rollout.events import Request
from bot.rollout.machine import decide
from bot.rollout.model import Actor, Approval, Freeze, Phase, Source
from bot.rollout.policy import ROLE_OF, Role
from bot.views.buttons import EXTEND_S
from bot.views.modal import REASON_ACTION, REASON_BLOCK
from tests.engine.stage import Stage
from tests.fixtures.rollouts import NOW, ended, rollout
from tests.security.doorway import Lobby, Tally

TEAM = "T0SANDBOX"
ROLES = """
    starters: [U0STARTER, U0REQUESTER]
    approvers: ["@release-leads", U0REQUESTER]
    operators: [U0OPERATOR]
"""
CATALOG = f"""
defaults: {{channel: "#deploys"}}
services:
  payments:
    namespace: shop
    mesh: istio
    route: {{name: payments}}
    subsets: [v1, v2]{ROLES}
  orders:
    namespace: shop
    mesh: istio
    route: {{name: orders}}
    subsets: [v1, v2]{ROLES}
"""
MEMBERS = ("U0STARTER", "U0APPROVER", "U0OPERATOR", "U0REQUESTER", "U0MEMBER", "U0ONCALL")
USERS: dict[str, dict[str, Any]] = {
    **{user: {} for user in MEMBERS},
    "U0GUEST": {"is_restricted": True},
    "U0LONEGUEST": {"is_restricted": True, "is_ultra_restricted": True},
    "U0STRANGER": {"is_stranger": True},
    "U0ELSEWHERE": {"team_id": "T0OTHER"},
    "U0BOT": {"is_bot": True},
    "U0WORKFLOW": {"is_workflow_bot": True},
    "U0GONE": {"deleted": True},
}
GROUPS = {"@release-leads": ["U0APPROVER", "U0GUEST", "U0BOT", "U0GONE", "U0UNKNOWN"], "@oncall": ["U0ONCALL"]}
HOLDERS = {
    Role.STARTER: {"U0STARTER", "U0REQUESTER"},
    Role.APPROVER: {"U0APPROVER", "U0REQUESTER"},
    Role.OPERATOR: {"U0OPERATOR"},
    Role.ROLLBACK: set(MEMBERS),
}


class Workspace:
    """What SlackDirectory asks of the chat; `down` makes Slack silent, `groups_down` only about groups."""

    def __init__(self, down: bool = False, groups_down: bool = False) -> None:
        self.down, self.groups_down = down, groups_down
        self.api = self.groups = self
        self.team_id = TEAM

    async def myself(self) -> Workspace:
        return self

    async def read(self, method: str, **asked: str) -> dict[str, Any]:
        if self.down or (self.groups_down and method != "users.info"):
            raise Transient("Slack does not answer")
        if method == "usergroups.users.list":
            return {"users": GROUPS[asked["usergroup"]]}
        if asked["user"] not in USERS:
            raise NotFound("Slack refused users.info: user_not_found")
        return {"user": {"id": asked["user"], "team_id": TEAM, "name": asked["user"].lower(), **USERS[asked["user"]]}}

    async def channels(self) -> frozenset[str]:
        if self.down:
            raise Transient("Slack does not answer")
        return frozenset({"#payments", "#deploys"})

    async def id_of(self, group: str) -> str:
        if self.down or self.groups_down:
            raise Transient("Slack does not answer")
        return group


@dataclass(slots=True)
class Office:
    stage: Stage
    send: Callable[[dict[str, Any]], Any]

    @property
    def effects(self) -> int:
        """How often anything was changed or asked of the holder."""
        calls = self.stage.store.calls
        return calls["put"] + calls["create"] + calls["freeze"] + calls["unfreeze"] + len(self.stage.mesh.writes)

    @property
    def refusals(self) -> list[str]:
        return [line.by for line in self.stage.store.audits if line.what == "refused"]


async def office(workspace: Workspace, catalog: str = CATALOG) -> Office:
    """A rollout of payments that waits for an approval, orders promoted, payments frozen until somebody lifts it."""
    chat, telemetry = Lobby(), Tally()
    stage = Stage(catalog=load(catalog), chat=chat, telemetry=telemetry)
    await stage.add_service("payments")
    await stage.add_service("orders")
    running = rollout(
        started_by=Actor(Source.PERSON, "U0REQUESTER", "Requester", "slash"),
        phase=Phase.AWAITING_APPROVAL,
        holds=(),
        approval=Approval(1, stage.clock.now(), stage.clock.now() + 3600, revision=3),
    )
    store = stage.store
    await store.rollouts.create(running, NOW, (), ())
    done = ended("orders-1a2b", "orders")
    await store.rollouts.create(done, NOW, (), ())
    lease = await store.leases.acquire("test", 3.0)
    assert lease is not None
    await store.rollouts.save(done, None, (), (), token=lease.token, save_id="s")
    await store.freezes.add(Freeze("f1", "payments", "sale", Actor(Source.PERSON, "U0OPERATOR"), NOW))
    store.calls.clear()
    store.audits.clear()
    desk = replace(stage.desk, directory=SlackDirectory(workspace, stage.clock))  # type: ignore[arg-type]
    intake = Intake(store.seen, telemetry)
    app = build_app(desk, chat, intake, telemetry, signing_secret="", bot_user="U0CANARY", bot_id="B0CANARY")

    async def send(payload: dict[str, Any]) -> None:
        answer = await app.async_dispatch(AsyncBoltRequest(mode="socket_mode", body=payload))
        assert answer.status == 200, (answer.status, payload)
        await intake.idle()
        assert telemetry.failures == []

    return Office(stage, send)


def typed(line: str) -> Callable[[str], dict[str, Any]]:
    """`/canary <line>` by somebody."""
    return lambda user: {
        "command": "/canary", "text": line, "user_id": user, "channel_id": "C1", "team_id": TEAM, "trigger_id": "1",
    }  # fmt: skip


POINTER = json.dumps({"rollout": "payments-7f3a", "revision": 3, "step": 0})
ASKED = json.dumps({"rollout": "payments-7f3a", "revision": 3, "step": 1})


def clicked(action_id: str, value: str) -> Callable[[str], dict[str, Any]]:
    """A click by somebody."""
    action = {"type": "button", "action_id": action_id, "block_id": "b", "value": value}
    return lambda user: {
        "type": "block_actions",
        "user": {"id": user},
        "team": {"id": TEAM},
        "channel": {"id": "C1"},
        "trigger_id": "1",
        "actions": [{**action, "selected_option": {"value": value}}],
    }


def submitted(user: str) -> dict[str, Any]:
    """The reason given in the modal behind Reject."""
    kept = {"value": ASKED, "channel": "C1", "thread": "", "response_url": ""}
    return {
        "type": "view_submission",
        "user": {"id": user},
        "team": {"id": TEAM},
        "view": {
            "type": "modal",
            "id": "V1",
            "callback_id": REJECT,
            "private_metadata": json.dumps(kept),
            "state": {"values": {REASON_BLOCK: {REASON_ACTION: {"value": "no"}}}},
        },
    }


LINES = {
    "start": "start payments v2",
    "promote": "promote payments-7f3a",
    "hold": "hold payments-7f3a why",
    "resume": "resume payments-7f3a",
    "cancel": "cancel payments-7f3a",
    "rollback": "rollback payments-7f3a why",
    "undo": "undo orders",
    "approve": "approve payments-7f3a",
    "reject": "reject payments-7f3a why",
    "freeze": "freeze payments why",
    "unfreeze": "unfreeze payments",
}
READING = {
    "status": "status", "pending": "pending", "history": "history", "gates": "gates payments", "nodes": "nodes",
    "freezes": "freezes", "plans": "plans", "services": "services", "help": "help", "version": "version",
}  # fmt: skip
Act = tuple[str, Callable[[str], dict[str, Any]]]
ACTS: dict[str, Act] = {
    **{f"/{verb}": (verb, typed(line)) for verb, line in LINES.items()},
    **{
        f"[{button}]": (verb, clicked(button, ASKED if verb == "approve" else POINTER))
        for button, (verb, _) in BUTTONS.items()
    },
    "[extend]": ("extend", clicked(MORE, json.dumps(["extend", "payments-7f3a", 3, 0]))),
    "[reject]": ("reject", submitted),
}
EVERYBODY = (*USERS, "U0UNKNOWN")


def test_the_table_leaves_nothing_out() -> None:
    """Every verb of the bot, every verb that policy knows, and every button has its row."""
    assert {*LINES, *READING} == set(COMMANDS)
    assert {verb for verb, _ in ACTS.values()} == set(ROLE_OF)
    assert {f"[{button}]" for button in BUTTONS} <= set(ACTS)
    assert EXTEND_S > 0


async def outcome(made: Office, act: Callable[[str], dict[str, Any]], user: str, *, may: bool, started: bool) -> None:
    await made.send(act(user))
    if may:
        assert made.refusals == []
        assert made.effects == 1 or started, made.stage.chat.whispers
    else:
        assert made.effects == 0
        assert made.refusals == [user]
        (told,) = made.stage.chat.whispers
        assert told.to == user


@pytest.mark.parametrize("user", EVERYBODY)
async def test_only_who_holds_the_role_may(user: str) -> None:
    """Each verb and button is done for those who hold its role, and refused, privately and audited, for all others."""
    for verb, act in ACTS.values():
        made = await office(Workspace())
        await outcome(made, act, user, may=user in HOLDERS[ROLE_OF[verb]], started=verb == "start")


@pytest.mark.parametrize("down", [{"down": True}, {"groups_down": True}], ids=["all of Slack", "groups"])
@pytest.mark.parametrize("user", ["U0APPROVER", "U0MEMBER", "U0STARTER"])
async def test_while_slack_is_silent_only_the_way_back_is_open(user: str, down: dict[str, bool]) -> None:
    """When Slack cannot say who somebody is, rolling back works and the rest does not; when it cannot say who is in a
    group, neither counts as a member nor stops those who are named."""
    for verb, act in ACTS.values():
        made = await office(Workspace(**down))
        role = ROLE_OF[verb]
        named = role is Role.STARTER and user == "U0STARTER" and "down" not in down
        await outcome(made, act, user, may=role is Role.ROLLBACK or named, started=verb == "start")


@pytest.mark.parametrize(("user", "may"), [("U0ONCALL", True), ("U0MEMBER", False), ("U0STARTER", False)])
async def test_rolling_back_can_be_narrowed(user: str, may: bool) -> None:
    """With `rollback` in the catalog only those named may; when Slack cannot tell the group, every full member."""
    catalog = CATALOG.replace(ROLES, f'{ROLES}    rollback: ["@oncall"]\n')
    for workspace, allowed in ((Workspace(), may), (Workspace(groups_down=True), True)):
        for verb, act in ACTS.values():
            if ROLE_OF[verb] is Role.ROLLBACK:
                await outcome(await office(workspace, catalog), act, user, may=allowed, started=False)


@pytest.mark.parametrize("user", ["U0MEMBER", "U0GUEST", "U0STRANGER", "U0GONE", "U0UNKNOWN"])
async def test_looking_changes_nothing(user: str) -> None:
    """Verbs that read, the queries of a card, and the modal of Reject have no effect, whoever asks."""
    looks = [typed(line) for line in READING.values()]
    looks.append(clicked(MORE, json.dumps(["queries", "payments-7f3a", 3, 0])))
    looks.append(clicked(REJECT, ASKED))
    for look in looks:
        made = await office(Workspace())
        await made.send(look(user))
        assert made.effects == 0


async def test_nobody_approves_their_own() -> None:
    """The requester, an approver by name, may ask and is told no; another approver is counted. By button and typed."""
    for act in (ACTS["/approve"][1], ACTS["[approve]"][1]):
        for user, counted in (("U0REQUESTER", 0), ("U0APPROVER", 1)):
            made = await office(Workspace())
            await made.send(act(user))
            (request,) = await made.stage.store.inbox.take("payments-7f3a")
            assert isinstance(request, Request)
            running = await made.stage.store.rollouts.load("payments-7f3a")
            decision = decide(running, request, made.stage.clock.now())
            assert decision.rollout.approval is not None
            assert len(decision.rollout.approval.approved_by) == counted
            answers = [message.text for message in decision.messages if message.kind is MessageKind.ANSWER]
            assert ("you started this rollout" in answers[0]) is (counted == 0)


async def test_who_acts_is_who_slack_says() -> None:
    """Ids and names of others in the words of a request, or in the values of a button, are words."""
    made = await office(Workspace())
    await made.send(typed("hold payments-7f3a user_id=U0OPERATOR <@U0OPERATOR>")("U0MEMBER"))
    forged = json.dumps(
        {"rollout": "payments-7f3a", "revision": 3, "step": 0, "user": "U0OPERATOR", "by": "U0OPERATOR"}
    )
    click = clicked("hold", forged)("U0MEMBER")
    await made.send({**click, "trigger_id": "2"})
    assert made.effects == 0
    assert made.refusals == ["U0MEMBER", "U0MEMBER"]


async def test_what_bots_say_is_not_heard() -> None:
    """Messages of bots, edits, and messages with a subtype are no commands, also with a mention in them."""
    for more in ({"bot_id": "B1"}, {"subtype": "bot_message"}, {"edited": {"user": "U1"}}, {"user": ""}):
        made = await office(Workspace())
        event = {
            "type": "app_mention",
            "user": "U0STARTER",
            "channel": "C1",
            "text": "<@U0CANARY> rollback all",
            **more,
        }
        body = {"type": "event_callback", "team_id": TEAM, "event_id": "E1", "event": event}
        await made.send(body)
        assert made.effects == 0
        assert made.stage.chat.whispers == []


def test_urgent_is_the_way_back_only() -> None:
    """What is done even when it cannot be told from a repeat is rolling back, which may be done twice."""
    assert {"rollback"} == URGENT
    assert {verb for verb, command in COMMANDS.items() if command.urgent} == {"rollback"}
    assert all(COMMANDS[verb].changes for verb in LINES)
