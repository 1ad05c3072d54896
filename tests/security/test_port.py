"""What a stranger can do to the HTTP port with bytes: nothing breaks, and nothing is held for long."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource

import pytest

from tests.security.doorway import SECRET, Doorway, doorway, request, signed, slash

MIB = 1024 * 1024
JSON = "application/json"
DEEP = 100_000


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


BROKEN = {
    "deep array": b"[" * DEEP,
    "deep object": nested(DEEP),
    "array": b"[]",
    "number": b"1",
    "null": b"null",
    "text": b'"x"',
    "cut off": b'{"type": "block_actions"',
    "team is no object": b'{"team": 1}',
    "authorizations are none": b'{"authorizations": [1]}',
    "no text": b"\xff\xfe\x00",
    "endless number": b'{"a": ' + b"9" * 10_000 + b"}",
}


async def alive(made: Doorway) -> bool:
    return await made.status(b"GET /healthz HTTP/1.1\r\nHost: bot\r\nConnection: close\r\n\r\n") == 200


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("right", [False, True], ids=["unsigned", "signed"])
async def test_a_payload_that_cannot_be_read_is_a_bad_request(body: bytes, right: bool) -> None:
    """Whoever sends it and however it is broken: 400, counted, no error of ours, no effect."""
    async with doorway() as made:
        assert await made.status(request(body, signed(body) if right else None, content_type=JSON)) == 400
        assert made.telemetry.counts["slack_refused:malformed"] == 1
        assert made.unhandled == []
        assert made.untouched


SHAPES = {
    "no type": {"event": 1},
    "event is no object": {"type": "event_callback", "event": []},
    "mention without user": {"type": "event_callback", "event": {"type": "app_mention"}},
    "no actions": {"type": "block_actions", "actions": []},
    "action is no object": {"type": "block_actions", "actions": [1], "user": {"id": "U0ADA"}},
    "nobody clicked": {"type": "block_actions", "actions": [{"action_id": "hold", "block_id": "b", "value": "{}"}]},
    "empty view": {"type": "view_submission", "view": {"callback_id": "reject"}, "user": {"id": "U0ADA"}},
    "view of another": {
        "type": "view_submission",
        "user": {"id": "U0ADA"},
        "view": {
            "type": "modal",
            "callback_id": "reject",
            "id": "V1",
            "private_metadata": "[]",
            "state": {"values": {"reason": {"text": {"value": "x"}}}},
        },
    },
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_a_signed_payload_of_another_shape_changes_nothing(shape: dict[str, object]) -> None:
    """What Slack might send one day is refused or ignored; it breaks neither a task nor a listener."""
    async with doorway() as made:
        body = json.dumps(shape).encode()
        assert await made.status(request(body, signed(body), content_type=JSON)) in (200, 400, 404)
        await made.intake.idle()
        assert made.unhandled == []
        assert made.untouched


VALUES = ("x", "[]", "1", "null", "{}", '{"rollout":"p","revision":1e999,"step":0}', "[" * 1990, "9" * 1990)


@pytest.mark.parametrize("action_id", ["hold", "approve", "more", "reject", "<!channel>"])
async def test_a_button_that_was_tampered_with_is_answered_and_does_nothing(action_id: str) -> None:
    """Whoever has the bot token can draw buttons of ours with any value behind them: each click gets an answer."""
    async with doorway() as made:
        for number, value in enumerate(VALUES):
            action = {"action_id": action_id, "block_id": "b", "value": value, "selected_option": {"value": value}}
            click = {
                "type": "block_actions",
                "user": {"id": "U0ADA"},
                "channel": {"id": "C0PAYMENTS"},
                "trigger_id": str(number),
                "actions": [{**action, "type": "button"}],
            }
            body = json.dumps(click).encode()
            assert await made.status(request(body, signed(body), content_type=JSON)) == 200
        await made.intake.idle()
        assert [said.text for said in made.stage.chat.whispers] == [
            "This button is not known any more. Nothing was changed. `/canary help`"
        ] * len(VALUES)
        assert made.unhandled == []
        assert not made.stage.store.rollouts.records
        assert not made.stage.mesh.writes


CHUNKED = b"POST /slack/events HTTP/1.1\r\nHost: bot\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
GARBAGE = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "no header": b"\r\n\r\n\r\n",
    "no method": b"POST\r\n\r\n",
    "chunk of no size": CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
    "chunk of less than nothing": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "chunk of 2^80 bytes": CHUNKED + b"1" + b"0" * 20 + b"\r\nhello\r\n",
    "chunk that runs over": CHUNKED + b"2\r\nhello\r\n0\r\n\r\n",
    "two lengths": b"POST /slack/events HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunks": CHUNKED[:-2] + b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    "length below nothing": b"POST /slack/events HTTP/1.1\r\nHost: b\r\nContent-Length: -1\r\n\r\n{}",
    "ten thousand headers": request(b"{}", {f"X-{number}": "y" for number in range(10_000)}),
    "header of a mebibyte": request(b"{}", {"X-Long": "y" * MIB}),
    "path of a mebibyte": request(b"{}", path="/" + "y" * MIB),
    "header split": request(b"{}", {"X-Slack-Signature": "v0=\r\n\tfolded"}),
    "zero byte": request(b"{}", {"X-Slack-Signature": "v0=\x00"}),
    "not compressed": request(b"{}", {"Content-Encoding": "gzip"}),
    "compressed by what nobody knows": request(b"{}", {"Content-Encoding": "br, gzip, x"}),
    "codec that is none": request(b"{}", content_type="text/plain; charset=hex"),
    "codec with a zero byte": request(b"{}", content_type='text/plain; charset="utf\\0"'),
    "expectation that is no text": request(b"{}", {"Expect": "\udcff"}),
    "expectation elsewhere": request(b"{}", {"Expect": "\udcff"}, path="/nowhere"),
    "upgrade": request(b"{}", {"Upgrade": "websocket", "Connection": "Upgrade"}, close=False),
}


async def test_a_client_that_waits_for_leave_to_send_gets_it_and_then_its_answer() -> None:
    """`Expect: 100-continue` is answered with 100, and the request after it as any other."""
    async with doorway() as made:
        answer = await made.send(request(b"{}", {"Expect": "100-continue"}))
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401 ")


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
async def test_bytes_that_are_no_request_break_nothing(data: bytes) -> None:
    """They get 4xx or a closed connection, and the next request is answered."""
    async with doorway(idle_s=0.6, slowest_s=0.6) as made:
        assert await made.status(data) in (0, 400, 401, 404, 405, 408, 413, 417, 431)
        assert await alive(made)
        assert made.unhandled == []
        assert made.untouched


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
async def test_ten_mebibytes_are_not_read(chunked: bool) -> None:
    """A body over the limit gets 413 as soon as it is over it."""
    async with doorway() as made:
        if chunked:
            data = CHUNKED + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 160 + b"0\r\n\r\n"
        else:
            data = request(b"x" * 10 * MIB)
        assert await made.status(data) in (0, 413)
        assert await alive(made)
        assert made.unhandled == []


async def test_a_bomb_is_not_unpacked() -> None:
    """A mebibyte that unpacks to a gibibyte costs no more memory than the limit."""
    async with doorway() as made:
        bomb = gzip.compress(b"\0" * 64 * MIB, 9) * 16
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert await made.status(request(bomb, {"Content-Encoding": "gzip"})) in (0, 400, 413)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
        assert await alive(made)
        assert made.unhandled == []


SLOW = {
    "nothing": b"",
    "half a head": b"POST /slack/events HTTP/1.1\r\nHost: bot\r\nX-Slack-",
    "half a body": b"POST /slack/events HTTP/1.1\r\nHost: bot\r\nConnection: close\r\nContent-Length: 99\r\n\r\n{",
}


@pytest.mark.parametrize("beginning", SLOW.values(), ids=SLOW)
async def test_who_never_finishes_is_sent_away(beginning: bytes) -> None:
    """A connection that goes on dribbling bytes and never completes a request is closed from our side."""
    async with doorway(idle_s=1.0, slowest_s=1.0) as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(beginning)
        async with asyncio.timeout(20):
            reading = asyncio.create_task(reader.read())
            while not reading.done():
                await asyncio.wait((reading,), timeout=0.05)
                if beginning and not writer.transport.is_closing():
                    writer.write(b"a")
        writer.close()
        assert await alive(made)
        assert made.unhandled == []


async def test_a_crowd_leaves_room_for_redis_and_the_api_server() -> None:
    """Connections beyond the limit are closed at once; when the others have gone, there is room again."""
    async with doorway(connections=5) as made:
        crowd = [await asyncio.open_connection("127.0.0.1", made.port) for _ in range(5)]
        while made.door.connected < 5:
            await asyncio.sleep(0.01)
        assert await made.status(request(b"{}")) == 0
        assert made.telemetry.counts["slack_refused:crowded"] == 1
        for _, writer in crowd:
            writer.close()
        while made.door.connected:
            await asyncio.sleep(0.01)
        assert await alive(made)


async def test_a_refusal_says_nothing_about_us() -> None:
    """Neither secrets, nor paths, nor names of libraries stand in an answer to a stranger."""
    async with doorway() as made:
        body = slash("status")
        for data in (request(body), request(b"{", content_type=JSON), request(b"x", path="/nowhere"), b"\x00\r\n\r\n"):
            answer = (await made.send(data)).decode(errors="replace")
            assert SECRET not in answer
            assert "Traceback" not in answer
            assert "site-packages" not in answer
