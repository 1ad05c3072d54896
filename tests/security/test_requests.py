"""Ten thousand requests that Slack never sent in this form: none is accepted, all are counted."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

from tests.security.doorway import FORM, Doorway, doorway, request, signature, signed, slash

TRIES = 10_000
CONNECTIONS = 8
Make = Callable[[random.Random, int], tuple[bytes, dict[str, str]]]


def body_of(dice: random.Random, number: int, **more: str) -> bytes:
    text = dice.choice(("freeze all for 1h forged", "rollback all", "start payments v2", "status", "unfreeze"))
    return slash(text, trigger=f"{number}.{dice.random()}", **more)


def digits(dice: random.Random) -> str:
    return "".join(dice.choice("0123456789abcdef") for _ in range(64))


def without(dice: random.Random, number: int) -> tuple[bytes, dict[str, str]]:
    return body_of(dice, number), {}


def guessed(dice: random.Random, number: int) -> tuple[bytes, dict[str, str]]:
    body = body_of(dice, number)
    return body, {**signed(body), "X-Slack-Signature": f"v0={digits(dice)}"}


def other_secret(dice: random.Random, number: int) -> tuple[bytes, dict[str, str]]:
    body = body_of(dice, number)
    return body, signed(body, secret=digits(dice))


def stale(dice: random.Random, number: int) -> tuple[bytes, dict[str, str]]:
    body = body_of(dice, number)
    return body, signed(body, age_s=dice.choice((-1, 1)) * dice.uniform(302, 10**7))


def moved(dice: random.Random, number: int) -> tuple[bytes, dict[str, str]]:
    """A right signature under another time-stamp."""
    body = body_of(dice, number)
    headers = signed(body, age_s=10)
    return body, {**headers, "X-Slack-Request-Timestamp": str(int(headers["X-Slack-Request-Timestamp"]) + 1)}


def changed(dice: random.Random, number: int) -> tuple[bytes, dict[str, str]]:
    """A right signature over a body in which one byte was changed, added or taken away."""
    body = body_of(dice, number)
    at = dice.randrange(len(body))
    forged = dice.choice((body[:at] + b"x" + body[at:], body[:at] + body[at + 1 :], body + b"&user_id=U0GRACE"))
    return forged, signed(body)


def cut(dice: random.Random, number: int) -> tuple[bytes, dict[str, str]]:
    """Only a part of the right signature, or one in another form."""
    body = body_of(dice, number)
    headers = signed(body)
    right = headers["X-Slack-Signature"]
    wrong = dice.choice(
        (right[: dice.randrange(len(right))], right.upper(), right[3:], f"v1={right[3:]}", f"{right}0", "v0=é", "")
    )
    return body, {**headers, "X-Slack-Signature": wrong}


def odd_stamp(dice: random.Random, number: int) -> tuple[bytes, dict[str, str]]:
    """A time-stamp that is no number of seconds, rightly signed for those who know the secret's use only."""
    body = body_of(dice, number)
    stamp = dice.choice(("abc", "", "nan", "inf", "-1", "1e9", "9" * 5000, "٣٤٥", "0x5f"))
    return body, {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature(body, stamp)}


def certificate_check(dice: random.Random, number: int) -> tuple[bytes, dict[str, str]]:
    """What Bolt answers by itself without looking at the signature, unless that is switched off."""
    return body_of(dice, number, ssl_check="1"), dice.choice(({}, signed(b"")))


FORGERIES: tuple[Make, ...] = (
    without, guessed, other_secret, stale, moved, changed, cut, odd_stamp, certificate_check,
)  # fmt: skip


async def statuses(made: Doorway, payloads: list[bytes]) -> Counter[int]:
    """Send requests over a few connections that stay open; how often each status came back."""
    waiting, found = iter(payloads), Counter[int]()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        for payload in waiting:
            writer.write(payload)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
            await reader.readexactly(length)
            found[int(head.split(b" ", 2)[1])] += 1
        writer.close()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return found


async def test_no_forged_stale_or_replayed_request_is_accepted() -> None:
    """Of 10,000 forged, stale and replayed requests all get 401 and are counted, and none has any effect; of the
    requests that were replayed each original was done once."""
    dice = random.Random(20261120)
    async with doorway() as made:
        replays = 2_000
        originals = []
        for number in range(100):
            body = slash("version", trigger=f"original-{number}")
            originals.append(request(body, signed(body, age_s=number), close=False))
        assert await statuses(made, originals) == {200: 100}
        await made.intake.idle()
        said = len(made.stage.chat.whispers)
        assert said == 100

        payloads = [dice.choice(originals) for _ in range(replays)]
        for number in range(TRIES - replays):
            body, headers = FORGERIES[number % len(FORGERIES)](dice, number)
            payloads.append(request(body, headers, content_type=FORM, close=False))
        dice.shuffle(payloads)
        assert await statuses(made, payloads) == {401: TRIES}
        await made.intake.idle()

        counts = made.telemetry.counts
        assert counts["slack_refused"] == TRIES
        assert (counts["slack_refused:replayed"], counts["slack_refused:unsigned"]) == (replays, TRIES - replays)
        assert len(made.stage.chat.whispers) == said
        assert made.stage.store.calls["freeze"] == made.stage.store.calls["put"] == len(made.stage.mesh.writes) == 0
        assert not made.stage.store.rollouts.records
        assert made.unhandled == []


async def test_a_signed_request_works_from_the_edge_of_its_time() -> None:
    """The door is not shut for everybody: what is rightly signed and not five minutes old is done."""
    async with doorway() as made:
        for number, age_s in enumerate((-290, 0, 290)):
            body = slash("freeze all for 1h right", trigger=str(number))
            assert await made.status(request(body, signed(body, age_s=age_s))) == 200
        await made.intake.idle()
        assert made.stage.store.calls["freeze"] == 3


async def test_slack_may_look_at_our_certificate() -> None:
    """Its check is answered when it is signed, and does nothing."""
    async with doorway() as made:
        body = slash("freeze all for 1h x", ssl_check="1")
        assert await made.status(request(body, signed(body))) == 200
        await made.intake.idle()
        assert made.untouched
