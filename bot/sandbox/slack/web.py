"""The Web API over HTTP: tokens, arguments, rate limits, faults, uploads and response_urls."""

import asyncio
import json
import time
from typing import Any

from aiohttp import web

from bot.sandbox.slack.blocks import Json, problems
from bot.sandbox.slack.faults import Faults
from bot.sandbox.slack.limits import RateLimits
from bot.sandbox.slack.methods import BOOLEAN_ARGUMENTS, DEFAULT_SCOPES, JSON_ARGUMENTS, METHODS, Call, Method
from bot.sandbox.slack.sockets import Sockets
from bot.sandbox.slack.workspace import BOT_USER, ApiError, Message, ResponseUrl, Workspace

BOT_TOKEN = "xoxb-sandbox"
APP_TOKEN = "xapp-sandbox"

RESPONSE_KEYS = {
    "text",
    "blocks",
    "attachments",
    "response_type",
    "replace_original",
    "delete_original",
    "thread_ts",
    "unfurl_links",
    "unfurl_media",
    "metadata",
    "mrkdwn",
}


class WebApi:
    """The HTTP side of the bot's calls; `faults`, `scopes` and `rate_limits_on` may be changed at any time."""

    def __init__(self, world: Workspace, sockets: Sockets, *, rate_limits: bool) -> None:
        self.world = world
        self.sockets = sockets
        self.rate_limits_on = rate_limits
        self.clear()

    def clear(self) -> None:
        """Back to the default scopes, no faults, full buckets."""
        self.faults = Faults()
        self.scopes = frozenset(DEFAULT_SCOPES)
        self.limits = RateLimits()

    def routes(self) -> list[web.RouteDef]:
        """What the bot may call."""
        return [
            web.route("*", "/api/{method}", self.call),
            web.post("/upload/v1/{file_id}", self.upload),
            web.post("/{kind:commands|actions}/{rest:.+}", self.respond),
        ]

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Answer one Web API call."""
        name = request.match_info["method"]
        entry: Json = {"method": name, "at": time.time(), "ok": False, "error": None}
        if self.faults.offline:
            _cut(request)
        if self.faults.slow_s:
            await asyncio.sleep(self.faults.slow_s)
        if self.faults.errors:
            self.faults = self.faults.spend("errors")
            self._log(entry, "http_500")
            return web.Response(status=500, text="Internal Server Error")
        if self.faults.rate_limited:
            self.faults = self.faults.spend("rate_limited")
            self._log(entry, "ratelimited")
            return _too_many(self.faults.retry_after_s)
        try:
            args, token = await _arguments(request)
            entry |= {key: args.get(key) for key in ("channel", "ts", "thread_ts", "user") if args.get(key)}
            method = self._allow(name, args, token)
            channel = str(args.get("channel", ""))
            if self.rate_limits_on and (
                wait_s := self.limits.retry_after_s(name, method.tier, channel, time.monotonic())
            ):
                self._log(entry, "ratelimited")
                return _too_many(wait_s)
            # Addresses in answers are those the caller came by: it may be behind a forwarder.
            base_url = f"http://{request.host}"
            answer = {"ok": True, **method.do(self.world, Call(args, base_url, self.scopes, self.sockets.ticket))}
        except ApiError as refusal:
            answer = {"ok": False, "error": refusal.code, **refusal.extra}
        self._log(entry, answer.get("error"))
        if self.faults.lose_reply and answer["ok"]:
            self.faults = self.faults.spend("lose_reply")
            _cut(request)
        headers = {"X-OAuth-Scopes": ",".join(sorted(self.scopes))}
        return web.json_response(answer, headers=headers)

    def _allow(self, name: str, args: Json, token: str | None) -> Method:
        """The method, when this token may call it with these arguments."""
        method = METHODS.get(name)
        if method is None:
            raise ApiError("unknown_method", req_method=name)
        if name == "api.test":
            return method
        if not token:
            raise ApiError("not_authed")
        if token not in (BOT_TOKEN, APP_TOKEN):
            raise ApiError("invalid_auth")
        if (token == APP_TOKEN) != (method.token == "app"):
            raise ApiError("not_allowed_token_type")
        if method.scope and method.token == "bot" and method.scope not in self.scopes:
            raise ApiError("missing_scope", needed=method.scope, provided=",".join(sorted(self.scopes)))
        missing = [argument for argument in method.required if args.get(argument) in (None, "")]
        if missing:
            raise ApiError("invalid_arguments", *[f"missing required field: {argument}" for argument in missing])
        unknown = [argument for argument in args if argument not in method.known]
        if unknown and not method.any_argument:
            raise ApiError("invalid_arguments", *[f"unknown argument: {argument}" for argument in unknown])
        return method

    def _log(self, entry: Json, error: Any) -> None:
        entry |= {"ok": error is None, "error": error, "ms": round((time.time() - entry["at"]) * 1000, 1)}
        self.world.calls.append(entry)

    async def upload(self, request: web.Request) -> web.Response:
        """Take the bytes of a file whose address was asked for before."""
        file = self.world.files.get(request.match_info["file_id"])
        if file is None or file.uploaded:
            return web.Response(status=404, text="not found")
        body = await request.read()
        if len(body) != file.length:
            return web.Response(status=400, text=f"length {len(body)} is not the announced {file.length}")
        file.content, file.uploaded = body, True
        return web.Response(text=f"OK - {len(body)}")

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """Answer an interaction through its response_url."""
        entry: Json = {"method": "response_url", "at": time.time(), "ok": False, "error": None}
        if self.faults.offline:
            _cut(request)
        if self.faults.slow_s:
            await asyncio.sleep(self.faults.slow_s)
        try:
            body = await request.json()
            if not isinstance(body, dict):
                raise ValueError("not an object")
        except ValueError:
            self._log(entry, "invalid_payload")
            return web.json_response({"ok": False, "error": "invalid_payload"}, status=400)
        try:
            right = self.world.use_response_url(request.path.removeprefix("/"))
        except ApiError as refusal:
            self._log(entry, refusal.code)
            return web.json_response({"ok": False, "error": refusal.code}, status=404)
        try:
            answer_interaction(self.world, right, body)
        except ApiError as refusal:
            self._log(entry, refusal.code)
            return web.json_response({"ok": False, "error": refusal.code, **refusal.extra}, status=400)
        self._log(entry, None)
        return web.json_response({"ok": True})


def answer_interaction(world: Workspace, right: ResponseUrl, body: Json) -> None:
    """Do what a response_url body (or the body of an acknowledgement) asks for."""
    unknown = set(body) - RESPONSE_KEYS
    if unknown:
        raise ApiError("invalid_arguments", *[f"unknown argument: {name}" for name in sorted(unknown)])
    if body.get("delete_original"):
        if right.message is None:
            raise ApiError("message_not_found")
        world.remove(right.message)
        right.message = None
        return
    text, blocks = str(body.get("text") or ""), body.get("blocks") or []
    if not isinstance(blocks, list):
        raise ApiError("invalid_blocks_format")
    if found := problems(blocks):
        raise ApiError("invalid_blocks", *found, errors=found)
    if not text and not blocks and not body.get("attachments"):
        raise ApiError("no_text")
    if body.get("replace_original") and right.message is not None:
        world.edit(right.message, text, blocks)
        return
    kind = body.get("response_type", "ephemeral")
    if kind not in ("ephemeral", "in_channel"):
        raise ApiError("invalid_arguments", "value must be one of: ephemeral, in_channel [json-pointer:/response_type]")
    message = Message(
        right.channel,
        world.next_ts(),
        BOT_USER,
        text,
        blocks,
        thread_ts=body.get("thread_ts") or right.thread_ts,
        ephemeral_to=None if kind == "in_channel" else right.user,
    )
    world.post(message)
    if right.message is None:
        right.message = message


def _too_many(wait_s: int) -> web.Response:
    return web.json_response(
        {"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": str(max(1, wait_s))}
    )


def _cut(request: web.Request) -> None:
    """End the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


async def _arguments(request: web.Request) -> tuple[Json, str | None]:
    """The arguments by name, decoded, and the token from the header or the arguments."""
    args: Json = dict(request.query)
    if request.content_type == "application/json":
        try:
            body = json.loads(await request.read() or b"{}")
        except ValueError as error:
            raise ApiError("invalid_json") from error
        if not isinstance(body, dict):
            raise ApiError("json_not_object")
        args |= body
    elif request.content_type in ("application/x-www-form-urlencoded", "multipart/form-data"):
        args |= {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    elif request.method == "POST" and request.can_read_body:
        raise ApiError("invalid_post_type")
    token = args.pop("token", None)
    header = request.headers.get("Authorization", "")
    if header.startswith("Bearer "):
        token = header.removeprefix("Bearer ").strip()
    for name in JSON_ARGUMENTS & args.keys():
        if isinstance(args[name], str):
            try:
                args[name] = json.loads(args[name])
            except ValueError as error:
                raise ApiError("invalid_blocks_format" if name == "blocks" else "invalid_arguments") from error
    for name in BOOLEAN_ARGUMENTS & args.keys():
        if isinstance(args[name], str):
            args[name] = args[name].lower() in ("1", "true")
    return args, token
