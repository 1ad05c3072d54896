"""The stand-in as one HTTP server: the Web API, the sockets, the human side and what tests may look at."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from bot.sandbox.slack.blocks import Json
from bot.sandbox.slack.deliver import Delivery
from bot.sandbox.slack.people import COMMAND, People
from bot.sandbox.slack.sockets import Sockets
from bot.sandbox.slack.web import WebApi
from bot.sandbox.slack.workspace import ApiError, Workspace

Act = Callable[[Json], Awaitable[Json]]


class Slack:
    """All of it; `app` is to be served."""

    def __init__(self, *, mode: str, bot_url: str | None, rate_limits: bool, signing_secret: str) -> None:
        self.world = Workspace()
        self.sockets = Sockets(self.world)
        self.delivery = Delivery(self.sockets, mode=mode, bot_url=bot_url, signing_secret=signing_secret)
        self.web = WebApi(self.world, self.sockets, rate_limits=rate_limits)
        self.people = People(self.world, self.delivery)
        self.people.app_scopes = self.web.scopes
        self._rate_limits = rate_limits
        self.app = web.Application(client_max_size=16 * 1024 * 1024)
        self.app.add_routes(self.web.routes())
        acts: dict[str, Act] = {
            "command": self.people.command,
            "message": self.people.message,
            "mention": self.people.mention,
            "dm": self.people.direct,
            "home": self.people.home,
            "click": self.people.click,
            "submit": self.people.submit,
            "close": self.people.close,
        }
        self.app.add_routes(
            [
                web.get("/link/", self.sockets.link),
                *(web.post(f"/_sandbox/act/{name}", _acting(act)) for name, act in acts.items()),
                web.get("/_sandbox/messages", self._messages),
                web.get("/_sandbox/files", self._files),
                web.get("/_sandbox/files/{file_id}/{name}", self._file),
                web.get("/_sandbox/views", self._views),
                web.get("/_sandbox/calls", self._calls),
                web.get("/_sandbox/world", self._world),
                web.get("/_sandbox/stream", self._stream),
                web.get("/_sandbox/faults", self._get_faults),
                web.put("/_sandbox/faults", self._put_faults),
                web.get("/_sandbox/settings", self._get_settings),
                web.put("/_sandbox/settings", self._put_settings),
                web.delete("/_sandbox/state", self._reset),
            ]
        )
        self.app.on_shutdown.append(self._shut)

    def set_address(self, url: str) -> None:
        """Tell all parts the address the stand-in is reached at."""
        self.people.base_url = url

    async def _shut(self, app: web.Application) -> None:
        del app
        self.world.publish("end", {})
        await self.sockets.close()
        await self.delivery.close()

    async def _messages(self, request: web.Request) -> web.Response:
        wanted = request.query.get("channel", "").removeprefix("#")
        rooms = {room.id for room in self.world.channels.values() if wanted in ("", room.id, room.name)}
        found = [message.as_state() for message in self.world.messages.values() if message.channel in rooms]
        return web.json_response({"messages": found})

    async def _files(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"files": [file.as_state() for file in self.world.files.values()]})

    async def _file(self, request: web.Request) -> web.Response:
        file = self.world.files.get(request.match_info["file_id"])
        if file is None or not file.uploaded:
            raise web.HTTPNotFound
        kind = "image/png" if file.content.startswith(b"\x89PNG") else "text/plain"
        return web.Response(body=file.content, content_type=kind, headers={"X-Content-Type-Options": "nosniff"})

    async def _views(self, request: web.Request) -> web.Response:
        del request
        open_views = [view.as_state() for view in self.world.views.values()]
        return web.json_response(
            {"views": open_views, "homes": {user: home.as_state() for user, home in self.world.homes.items()}}
        )

    async def _calls(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"calls": list(self.world.calls)})

    def _snapshot(self) -> Json:
        return {
            "users": [{**user.as_json(), "kind": user.kind, "title": user.title} for user in self.world.users.values()],
            "channels": [self.world.channel_state(channel) for channel in self.world.channels.values()],
            "groups": [group.as_json(True) for group in self.world.groups.values()],
            "commands": [COMMAND],
            "connections": self.sockets.count,
            "messages": [message.as_state(with_history=False) for message in self.world.messages.values()],
            "views": [view.as_state() for view in self.world.views.values()],
            "stacks": self.world.stacks,
            "homes": {user: home.as_state() for user, home in self.world.homes.items()},
            "files": [file.as_state() for file in self.world.files.values()],
            "faults": self._faults(),
        }

    async def _world(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(self._snapshot())

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: first `snapshot`, then each change as it happens."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        changes = self.world.subscribe()
        try:
            await response.prepare(request)
            await _event(response, "snapshot", self._snapshot())
            while True:
                try:
                    change = await asyncio.wait_for(changes.get(), 15.0)
                except TimeoutError:
                    await response.write(b": still here\n\n")
                    continue
                if change["kind"] == "end":
                    return response
                if change["kind"] == "reset":
                    await _event(response, "snapshot", self._snapshot())
                else:
                    await _event(response, change["kind"], change)
        except (ConnectionError, asyncio.CancelledError):
            return response
        finally:
            self.world.unsubscribe(changes)

    def _faults(self) -> Json:
        return self.web.faults.as_json()

    async def _get_faults(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(self._faults())

    async def _put_faults(self, request: web.Request) -> web.Response:
        changes = await _object(request)
        try:
            self.web.faults = faults = self.web.faults.merged(changes)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        self.delivery.duplicate = faults.duplicate
        self.sockets.refuse = faults.offline
        if faults.disconnect:
            self.web.faults = faults.merged({"disconnect": False})
            self.delivery.later(self.sockets.refresh())
        if changes.get("offline"):
            self.delivery.later(self.sockets.refresh("link_disabled"))
        self.world.publish("faults", {"faults": self._faults()})
        return web.json_response(self._faults())

    def _settings(self) -> Json:
        return {
            "mode": self.delivery.mode,
            "bot_url": self.delivery.bot_url,
            "ack_s": self.delivery.ack_s,
            "retry_delays_s": list(self.delivery.retry_delays_s),
            "trigger_s": self.world.trigger_s,
            "response_url_s": self.world.response_url_s,
            "rate_limits": self.web.rate_limits_on,
            "scopes": sorted(self.web.scopes),
        }

    async def _get_settings(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(self._settings())

    async def _put_settings(self, request: web.Request) -> web.Response:
        """Change the way to the bot, the scopes, and limits (which can only be made tighter than Slack's)."""
        changes = await _object(request)
        tightest = {"ack_s": self.delivery, "trigger_s": self.world, "response_url_s": self.world}
        for name, value in changes.items():
            if name in tightest:
                setattr(tightest[name], name, min(float(value), getattr(tightest[name], name)))
            elif name == "mode" and value in ("socket", "http"):
                self.delivery.mode = value
            elif name == "bot_url":
                self.delivery.bot_url = value
            elif name == "retry_delays_s":
                self.delivery.retry_delays_s = tuple(float(each) for each in value)
            elif name == "rate_limits":
                self.web.rate_limits_on = bool(value)
            elif name == "scopes":
                self.web.scopes = self.people.app_scopes = frozenset(value)
            else:
                return web.json_response({"error": f"no setting {name!r}; see GET"}, status=400)
        return web.json_response(self._settings())

    async def _reset(self, request: web.Request) -> web.Response:
        """Back to the state at the start, but for open sockets."""
        del request
        self.delivery.clear()
        self.web.clear()
        self.web.rate_limits_on = self._rate_limits
        self.sockets.refuse = False
        self.people.app_scopes = self.web.scopes
        self.world.clear()
        return web.json_response({"ok": True})


def _acting(act: Act) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            return web.json_response(await act(await _object(request)))
        except ApiError as refusal:
            return web.json_response({"ok": False, "error": refusal.code, **refusal.extra}, status=400)
        except KeyError as missing:
            return web.json_response({"ok": False, "error": f"missing {missing}"}, status=400)

    return handle


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError as error:
        raise web.HTTPBadRequest(text="not JSON") from error
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="not a JSON object")
    return body


async def _event(response: web.StreamResponse, kind: str, data: Json) -> None:
    await response.write(f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode())
