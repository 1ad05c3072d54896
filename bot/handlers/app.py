"""The Bolt app: the same listeners for Socket Mode and HTTP. Acknowledged at once; the work is a tracked task.

A delivery is done once: slash commands and clicks by their trigger, events by their id, signed requests also by their
signature. When the store cannot tell, what changes something is refused, and only a rollback is done all the same.
"""

import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse

from bot.errors import CanaryError, Permanent, Refused, Transient, UserError
from bot.handlers import actions, speech
from bot.handlers.actions import REJECT, URGENT
from bot.handlers.asking import AlreadyRunning, Asked, untaken
from bot.handlers.grammar import decode
from bot.handlers.intake import Intake
from bot.handlers.unreadable import UNREADABLE
from bot.ports.chat import Block, Chat
from bot.ports.telemetry import Telemetry
from bot.rollout.effects import Audit
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered, answers
from bot.views.modal import REASON_ACTION, REASON_BLOCK, rejection

COMMAND = "/canary"
EVENTS = ("app_mention", "message.im")
"""What the manifest has to subscribe to."""
PATIENCE_S = 5.0
Ack = Callable[..., Awaitable[Any]]
Body = dict[str, Any]
Perform = Callable[[Who], Awaitable[Rendered | Asked | None]]


class Screen(Chat, Protocol):
    """A chat that can also open a modal, within 3 s of the click that carries `trigger_id`."""

    async def open_view(self, trigger_id: str, view: Block) -> None: ...


@dataclass(frozen=True, slots=True)
class Doors:
    """What the listeners reach."""

    desk: Desk
    chat: Screen
    intake: Intake
    telemetry: Telemetry

    async def once(self, key: str, who: Who, about: str, perform: Perform, *, changes: bool, urgent: bool) -> None:
        """Do one delivery, once, and answer the person. The edge: nothing gets out of here.

        `about` says in a few words what was asked, for the audit of refusals.
        """
        try:
            if not await self._new(key, changes=changes, urgent=urgent):
                return
            answer = await perform(who)
        except Refused as error:
            answer = speech.explained(error)
            await self._audit(who, about, error)
        except AlreadyRunning as error:
            answer = speech.explained(error, await self._card_of(error.rollout_id))
        except UserError as error:
            answer = speech.explained(error)
        except Transient as error:
            self.telemetry.line("slack-request-unreachable", via=who.via, error=str(error))
            answer = answers.unreachable()
        except Permanent as error:
            answer = answers.said(f"That was refused: {error}. Nothing was changed.")
        except Exception as error:
            error_id = self.desk.new_id()[:8]
            self.telemetry.failed("slack-request", error, error_id=error_id, via=who.via)
            answer = answers.failed(error_id)
        if isinstance(answer, Asked):
            self.intake.watch(self._patience(answer, who))
        elif answer is not None:
            await self.tell(who, answer)

    async def _audit(self, who: Who, about: str, refusal: Refused) -> None:
        self.telemetry.count("slack_refusals")
        line = Audit(self.desk.clock.now(), "", "refused", who.user_id, f"{about}: {refusal.message}"[:500], 0)
        try:
            await self.desk.rollouts.note([line])
        except CanaryError as error:
            self.telemetry.failed("audit-refusal", error)

    async def _card_of(self, rollout_id: str) -> str:
        """The address of a rollout's card, "" when it cannot be told."""
        try:
            posted = await self.desk.outbox.posted(f"card:{rollout_id}")
            return await self.chat.permalink(posted.channel, posted.ts) if posted else ""
        except CanaryError:
            return ""

    async def _new(self, key: str, *, changes: bool, urgent: bool) -> bool:
        try:
            return await self.intake.first_time(key)
        except Transient:
            if changes and not urgent:
                raise
            return True

    async def _patience(self, asked: Asked, who: Who) -> None:
        await self.desk.clock.sleep(PATIENCE_S)
        answer = await untaken(self.desk, asked)
        if answer is not None:
            self.telemetry.count("slack_requests_waiting")
            await self.tell(who, answer)

    async def tell(self, who: Who, answer: Rendered) -> None:
        """Whisper; an answer that cannot be given is a log line, the work is done. An edge as well."""
        try:
            await self.chat.whisper(
                who.channel, who.user_id, answer.text, answer.blocks, thread=who.thread, response_url=who.response_url
            )
        except Exception as error:
            self.telemetry.failed("slack-answer", error, via=who.via)

    def complain(self, error: UserError, key: str, who: Who) -> None:
        """Answer what could not be understood, once."""

        async def raised(person: Who) -> None:
            raise error

        self.intake.begin(self.once(key, who, "", raised, changes=False, urgent=False))

    def said(self, text: str, key: str, who: Who) -> None:
        """A command, typed behind the slash or a mention."""
        try:
            understood = speech.understand(text)
        except UserError as error:
            self.complain(error, key, who)
            return
        command = understood.command
        self.intake.begin(
            self.once(
                key,
                who,
                decode(text)[:200],
                lambda person: self._run(understood, person),
                changes=command.changes,
                urgent=command.urgent,
            )
        )

    async def _run(self, understood: speech.Understood, who: Who) -> Rendered | Asked:
        first = understood.command.waiting(understood.args)
        if first:
            await self.tell(who, answers.said(first))
        return await understood.command.run(self.desk, understood.args, who)

    def clicked(self, click: actions.Click, key: str, who: Who, reason: str = "") -> None:
        """A button, or the modal behind it."""
        self.intake.begin(
            self.once(
                key,
                who,
                f"{click.verb} {click.rollout}",
                lambda person: actions.perform(self.desk, click, person, reason),
                changes=click.verb != "queries",
                urgent=click.verb in URGENT,
            )
        )


def build_app(
    desk: Desk,
    chat: Screen,
    intake: Intake,
    telemetry: Telemetry,
    *,
    signing_secret: str,
    bot_user: str,
    bot_id: str = "",
) -> AsyncApp:
    """The app with all listeners; `bot_user` and `bot_id` are the bot's own, from one `auth.test` at the start.

    Without a signing secret (Socket Mode) no HTTP request can be signed rightly: all are refused.
    """

    async def authorize(enterprise_id: str | None, team_id: str | None) -> AuthorizeResult:
        return AuthorizeResult(
            enterprise_id=enterprise_id, team_id=team_id, bot_user_id=bot_user, bot_id=bot_id or None, bot_token=""
        )

    log = logging.getLogger("slack_bolt.AsyncApp")
    log.addFilter(_says_something)
    try:
        app = AsyncApp(
            name="canary-bot",
            signing_secret=signing_secret or secrets.token_hex(32),
            authorize=authorize,
            ssl_check_enabled=False,
        )
    finally:
        log.removeFilter(_says_something)
    doors = Doors(desk, chat, intake, telemetry)
    _refuse_replays(app, doors)
    _refuse_what_cannot_be_read(app, doors)
    _commands(app, doors)
    _messages(app, doors, bot_user)
    _buttons(app, doors)
    return app


def _says_something(record: logging.LogRecord) -> bool:
    """False for Bolt's warning that it will not use SLACK_BOT_TOKEN: the chat's adapter does."""
    return "SLACK_BOT_TOKEN env variable" not in record.getMessage()


def _refuse_replays(app: AsyncApp, doors: Doors) -> None:
    @app.middleware
    async def once_signed(req: AsyncBoltRequest, next: Callable[[], Awaitable[BoltResponse]]) -> BoltResponse | None:
        signature = req.headers.get("x-slack-signature", [""])[0]
        if req.mode == "http" and signature and await doors.intake.replayed(f"signature:{signature}"):
            doors.telemetry.count("slack_refused", reason="replayed")
            return BoltResponse(status=401, body="replayed request")
        if req.mode == "http" and req.body.get("ssl_check") == "1":
            # Slack looks at our certificate. Bolt's own answer is switched off: it needs no signature.
            return BoltResponse(status=200)
        return await next()


def _refuse_what_cannot_be_read(app: AsyncApp, doors: Doors) -> None:
    """Listeners only read and hand over, so what breaks in one, or in Bolt before it, is the payload.

    They acknowledge at their end, without having waited for anything: Bolt forgets an acknowledgement when what follows
    it raises, and waits 3 s for another.
    """

    @app.error
    async def unread(error: Exception, response: BoltResponse | None) -> BoltResponse | None:
        if isinstance(error, UNREADABLE):
            doors.telemetry.count("slack_refused", reason="malformed")
            doors.telemetry.line("slack-payload-unread", error=type(error).__name__)
            answer = BoltResponse(status=400, body="malformed request")
        else:
            doors.telemetry.failed("slack-listener", error)
            answer = BoltResponse(status=500, body="something went wrong")
        return answer if response is not None else None


def _commands(app: AsyncApp, doors: Doors) -> None:
    @app.command(COMMAND)
    async def slash(ack: Ack, body: Body) -> None:
        who = Who(
            user_id=str(body["user_id"]),
            channel=str(body["channel_id"]),
            response_url=str(body.get("response_url", "")),
            via="slash",
            name=str(body.get("user_name", "")),
        )
        doors.said(str(body.get("text", "")), f"command:{body.get('trigger_id', '')}", who)
        await ack()


def _messages(app: AsyncApp, doors: Doors, bot_user: str) -> None:
    def heard(body: Body) -> None:
        event = body["event"]
        if event.get("bot_id") or event.get("subtype") or event.get("edited") or not event.get("user"):
            return
        who = Who(
            user_id=str(event["user"]),
            channel=str(event["channel"]),
            thread=str(event.get("thread_ts") or ""),
            via="mention",
        )
        text = re.sub(rf"^\s*<@{re.escape(bot_user)}(\|[^>]*)?>[\s,:]*", "", str(event.get("text", "")))
        text = re.sub(rf"^{COMMAND}\b\s*", "", text)
        doors.said(text, f"event:{body.get('event_id', '')}", who)

    @app.event("app_mention")
    async def mention(ack: Ack, body: Body) -> None:
        heard(body)
        await ack()

    @app.event("message")
    async def direct(ack: Ack, body: Body) -> None:
        if body["event"].get("channel_type") == "im":
            heard(body)
        await ack()


def _buttons(app: AsyncApp, doors: Doors) -> None:
    def clicked(body: Body) -> None:
        who, key = _clicker(body), f"click:{body.get('trigger_id', '')}"
        try:
            click = actions.click(body["actions"][0])
        except UserError as error:
            doors.complain(error, key, who)
            return
        doors.clicked(click, key, who)

    @app.action(re.compile(f"^(?!{REJECT}$)"))
    async def button(ack: Ack, body: Body) -> None:
        clicked(body)
        await ack()

    @app.action(REJECT)
    async def reject(ack: Ack, body: Body) -> None:
        doors.intake.begin(_open_rejection(doors, body, _clicker(body)))
        await ack()

    @app.view(REJECT)
    async def rejected(ack: Ack, body: Body) -> None:
        view = body["view"]
        reason = str(view["state"]["values"][REASON_BLOCK][REASON_ACTION].get("value") or "").strip()
        if not reason:
            await ack(response_action="errors", errors={REASON_BLOCK: "The reason is recorded: say why."})
            return
        kept = json.loads(view["private_metadata"])
        who = Who(
            user_id=str(body["user"]["id"]),
            channel=kept["channel"],
            thread=kept["thread"],
            response_url=kept["response_url"],
            via="button",
            name=str(body["user"].get("name", "")),
        )
        click = actions.pointed(REJECT, "", kept["value"])
        doors.clicked(click, f"view:{view['id']}:{view.get('hash', '')}", who, reason)
        await ack()


async def _open_rejection(doors: Doors, body: Body, who: Who) -> None:
    async def opened(person: Who) -> None:
        click = actions.click(body["actions"][0])
        kept = {
            "value": body["actions"][0]["value"],
            "channel": person.channel,
            "thread": person.thread,
            "response_url": person.response_url,
        }
        await doors.chat.open_view(str(body["trigger_id"]), rejection(click.rollout, json.dumps(kept)))

    await doors.once(f"click:{body.get('trigger_id', '')}", who, "reject", opened, changes=False, urgent=False)


def _clicker(body: Body) -> Who:
    container = body.get("container", {})
    return Who(
        user_id=str(body["user"]["id"]),
        channel=str(body.get("channel", {}).get("id") or container.get("channel_id", "")),
        thread=str(container.get("thread_ts") or ""),
        response_url=str(body.get("response_url", "")),
        via="button",
        name=str(body["user"].get("name", "")),
    )
