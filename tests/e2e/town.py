"""A whole world with the real bot for a module of tests: in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import aiohttp

from bot.sandbox.demo.clients import Clients
from bot.sandbox.demo.telling import end_of_log
from bot.sandbox.kube.world import manifests
from bot.sandbox.redis import start_redis
from bot.sandbox.world import Options, World, new_world

MARK = "canary-bot.dev/rollout"
ADA, GRACE, LINUS, GUEST = "U0ADA", "U0GRACE", "U0LINUS", "U0GUEST"
PATIENCE_S = 90.0
FINAL = ("Promoted", "RolledBack", "Cancelled")

T = TypeVar("T")
Json = dict[str, Any]


class Town:
    """The world's processes, people in Slack, and what the API server and Envoy saw.

    Stories are coroutines that run in the town's own loop: `town.play(story)` waits for one from a test.
    """

    def __init__(self, options: Options) -> None:
        self.world: World = new_world(options)
        self.clients: Clients
        self._typing: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._mending: list[Callable[[], Awaitable[None]]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="town", daemon=True)

    def open(self, *, bot: bool = True) -> None:
        """Start everything; what came up is stopped again when something does not."""
        self._thread.start()
        try:
            self.play(self._open(bot))
        except BaseException:
            self.close()
            raise

    async def _open(self, bot: bool) -> None:
        await self.world.start()
        world = self.world
        session = aiohttp.ClientSession()
        self.clients = Clients(session, world.url("slack"), world.kube_url, world.url("mesh"), world.prometheus_url)
        if bot:
            await world.start_bot()

    def close(self) -> None:
        """End everything that was started, and the loop."""
        self.play(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        if hasattr(self, "clients"):
            await self.clients.session.close()
        await self.world.stop()

    def begin(self, story: Coroutine[Any, Any, T]) -> Callable[[], T]:
        """Begin a story in the town's loop; what is returned waits for its end."""
        return asyncio.run_coroutine_threadsafe(story, self._loop).result

    def play(self, story: Coroutine[Any, Any, T]) -> T:
        """Play a story to its end."""
        return self.begin(story)()

    async def say(self, text: str, user: str = ADA, channel: str = "C0DEPLOYS", wait_s: float = 20.0) -> str:
        """Type `/canary <text>`; the private answer's text."""
        return await self.act("command", user, channel=channel, text=f"/canary {text}", wait_s=wait_s)

    async def act(self, what: str, user: str, **more: object) -> str:
        """Do something in Slack as a person, who does one thing after the other; the private answer's text."""
        async with self._typing[user]:
            outcome = await self.clients.act(what, user=user, **more)
        assert outcome["ok"], outcome
        return "\n".join(spelled(message) for message in outcome["ephemeral"])

    async def start(
        self, service: str, words: str = "v2", *, user: str = ADA, channel: str = "#deploys", route: str = ""
    ) -> Run:
        """`/canary start <service> <words>`; the rollout that began.

        `channel` is where the catalog announces it, `route` the VirtualService when it has another name.
        """
        since = time.time()
        answer = await self.say(f"start {service} {words}", user)
        found = re.search(rf"`({re.escape(service)}-[0-9a-f]+)`", answer)
        assert found, answer
        return Run(self, service, found[1], channel, route or service, since)

    async def kube_control(self, method: str, path: str, body: Json | None = None) -> Any:
        """Call the API server's `/_sandbox/<path>`."""
        async with self.clients.session.request(method, f"{self.world.kube_url}/_sandbox/{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def patch_route(self, name: str, patch: list[Json], manager: str = "kubectl-edit") -> None:
        """Patch a VirtualService of the shop as somebody else does."""
        url = f"{self.world.kube_url}/apis/networking.istio.io/v1/namespaces/shop/virtualservices/{name}"
        headers = {
            "Authorization": f"Bearer {self.world.kube_token}",
            "Content-Type": "application/json-patch+json",
        }
        async with self.clients.session.patch(
            url, data=json.dumps(patch), headers=headers, params={"fieldManager": manager}
        ) as answer:
            assert answer.status == 200, await answer.text()

    async def route(self, name: str) -> Json:
        """A VirtualService of the shop as it is."""
        url = f"{self.world.kube_url}/apis/networking.istio.io/v1/namespaces/shop/virtualservices/{name}"
        headers = {"Authorization": f"Bearer {self.world.kube_token}"}
        async with self.clients.session.get(url, headers=headers) as answer:
            found: Json = await answer.json()
            return found

    def afterwards(self, mend: Callable[[], Awaitable[None]]) -> None:
        """Have something mended when the present story ends, however it ends (`play_alone`)."""
        self._mending.append(mend)

    async def play_alone(self, story: Callable[[Town], Awaitable[None]]) -> None:
        """Play a story whose faults everyone feels, and mend them."""
        try:
            await story(self)
        finally:
            while self._mending:
                await self._mending.pop()()

    async def restart_redis(self, port: int) -> None:
        """Start Redis again where it was, with the data it had."""
        former = self.world.redis
        assert former is not None
        self.world.redis = await asyncio.to_thread(start_redis, port=port, folder=former.folder)

    async def bot_answers(self, path: str) -> tuple[int, str]:
        """Status and text of a GET on the bot's own port."""
        async with self.clients.session.get(f"{self.world.bot_url}{path}") as answer:
            return answer.status, await answer.text()


@dataclass(frozen=True, slots=True)
class Run:
    """One rollout of a town, watched from outside: by the API server's history and by what Slack shows."""

    town: Town
    service: str
    id: str
    channel: str
    route: str
    since: float

    async def writes(self) -> list[Json]:
        """Writes that carry this rollout's mark: `at` (epoch seconds), `mark`, the route `before` and `after`."""
        found = []
        for write in await self.town.clients.route_writes(self.route):
            mark = mark_of(write["after"])
            if mark.get("rollout") == self.id and write["field_manager"] == "canary-bot":
                found.append({**write, "at": datetime.fromisoformat(write["time"]).timestamp(), "mark": mark})
        return found

    async def weights(self) -> list[int]:
        """The canary's weights in the order in which they were written, without repetition."""
        weights = [write["mark"]["weight"] for write in await self.writes()]
        return [weight for before, weight in zip([None, *weights], weights, strict=False) if weight != before]

    async def phase(self) -> str:
        """The phase in the route's mark, "" when there is none of this rollout."""
        mark = mark_of(await self.town.route(self.route))
        return str(mark.get("phase", "")) if mark.get("rollout") == self.id else ""

    async def ended(self, phase: str, within_s: float = PATIENCE_S) -> None:
        """Wait until the route's mark is final, and check which."""
        await self.eventually(self._is_final, within_s)
        assert await self.phase() == phase, await self.story()

    async def _is_final(self) -> bool:
        return await self.phase() in FINAL

    async def reaches(self, weight: int, within_s: float = PATIENCE_S) -> None:
        """Wait until the route's mark says this weight."""

        async def there() -> bool:
            mark = mark_of(await self.town.route(self.route))
            return mark.get("rollout") == self.id and mark["weight"] == weight

        await self.eventually(there, within_s)

    async def messages(self) -> list[Json]:
        """Everything public about this rollout: its card, its thread, and what was posted in the channel for it."""
        everything = await self.town.clients.messages(self.channel)
        card = next((one for one in everything if self._is_top(one)), None)
        return [
            one
            for one in everything
            if self._is_top(one) or (card and one["thread_ts"] == card["ts"] and not one["ephemeral_to"])
        ]

    def _is_top(self, message: Json) -> bool:
        return not message["thread_ts"] and not message["ephemeral_to"] and self.id in json.dumps(message["blocks"])

    async def card(self) -> Json:
        """The card, posted by now or soon."""
        return (await self.eventually(self.messages))[0]

    async def thread(self) -> list[str]:
        """Texts of the replies to the card."""
        return [one["text"] for one in await self.messages() if one["thread_ts"]]

    async def says(self, words: str, within_s: float = PATIENCE_S) -> Json:
        """Wait for a message of this rollout (its newest version) that says something; `words` is a pattern."""

        async def said() -> Json | None:
            return next((one for one in await self.messages() if re.search(words, spelled(one))), None)

        found = await self.eventually(said, within_s)
        assert found
        return found

    async def asked(self, verb: str, words: str = "", within_s: float = PATIENCE_S) -> Json:
        """Wait for a message in the channel, below the card, with a button of this verb and these words."""

        async def there() -> Json | None:
            offers = [one for one in (await self.messages())[1:] if button(one, verb) and words in one["text"]]
            return offers[-1] if offers else None

        found = await self.eventually(there, within_s)
        assert found
        return found

    async def click(self, verb: str, user: str = ADA, message: Json | None = None, stale: bool = False) -> str:
        """Use a button of a message (the card when None); the private answer's text."""
        shown = message or await self.card()
        element = button(shown, verb)
        assert element, f"no button {verb} in {spelled(shown)}"
        return await self.town.act(
            "click",
            user,
            channel=shown["channel"],
            ts=shown["ts"],
            action_id=element["action_id"],
            stale=stale,
            wait_s=20.0,
        )

    async def eventually(self, ask: Callable[[], Awaitable[T]], within_s: float = PATIENCE_S) -> T:
        """The first true answer; fails with the rollout's story when there is none in time."""
        deadline = time.monotonic() + within_s
        while not (found := await ask()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within_s:g} s: {ask.__qualname__}\n{await self.story()}")
            await asyncio.sleep(0.1)
        return found

    async def story(self) -> str:
        """What is known, for a failing test."""
        said = [f"  {one['ts']} {'  ' if one['thread_ts'] else ''}{one['text']}" for one in await self.messages()]
        wrote = [f"  {write['time']} {write['mark']}" for write in await self.writes()]
        log = end_of_log(line for line in self.town.world.bot_lines if line.get("rollout", self.id) == self.id)
        return "\n".join([self.id, *wrote, *said, *log])


def mark_of(manifest: Json | None) -> Json:
    """Our annotation of a route, {} when it has none."""
    text = ((manifest or {}).get("metadata", {}).get("annotations") or {}).get(MARK)
    found: Json = json.loads(text) if text else {}
    return found


def spelled(message: Json) -> str:
    """Everything a message says: its text, and the words of its blocks."""
    words = [message["text"]]

    def walk(value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, dict):
            if isinstance(value.get("text"), str):
                words.append(value["text"])
            for item in value.values():
                walk(item)

    walk(message["blocks"])
    return "\n".join(dict.fromkeys(words))


def button(message: Json, verb: str) -> Json | None:
    """The button of a message whose action begins with a verb."""
    for block in message["blocks"]:
        for element in block.get("elements", []) if block["type"] == "actions" else []:
            if element["type"] == "button" and str(element["action_id"]).startswith(verb):
                found: Json = element
                return found
    return None


def another(service: str, *, like: str = "checkout", node: str = "node-3") -> list[Json]:
    """The manifests of one more service of the shop, made after one of the world's; its canary runs on `node`."""
    found = []
    for manifest in manifests():
        if manifest["metadata"].get("namespace") != "shop" or like not in json.dumps(manifest):
            continue
        text = json.dumps(manifest).replace(like, service).replace('"node-2"', f'"{node}"')
        copied = json.loads(text)
        copied["metadata"]["uid"] = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{service}/{copied['metadata']['uid']}"))
        found.append(copied)
    return found
