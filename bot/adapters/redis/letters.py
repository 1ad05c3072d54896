"""How a letter lies in Redis."""

import json
from collections.abc import Sequence

from bot.ports.store import Letter
from bot.rollout.effects import Message, MessageKind
from bot.rollout.record import dump, load_message


def queued(rollout_id: str, messages: Sequence[Message], now: float) -> list[str]:
    """Lane and body of each message, one after the other, as `queue.lua` takes them."""
    return [part for message in messages for part in (_lane(message), _body(rollout_id, now, 0, 0.0, message))]


def body(letter: Letter) -> str:
    """A letter's body, to be written over the one that lies there."""
    return _body(letter.rollout, letter.created_at, letter.attempts, letter.due, letter.message)


def queue_of(letter: Letter) -> str:
    """The queue a letter waits in: its rollout's, or that of the rollout's answers."""
    return answers_of(letter.rollout) if letter.message.kind is MessageKind.ANSWER else letter.rollout


def answers_of(rollout_id: str) -> str:
    """The queue of a rollout's answers, as `queue.lua` names it."""
    return f"{rollout_id}:answers"


def opened(letter_id: str, text: str) -> Letter:
    """The letter of a body.

    Raises:
        Unreadable: the message in it is not one that this version knows.
    """
    rollout_id, created_at, attempts, due, message = json.loads(text)
    return Letter(letter_id, rollout_id, load_message(message), created_at, attempts, due)


def _body(rollout_id: str, created_at: float, attempts: int, due: float, message: Message) -> str:
    return json.dumps([rollout_id, created_at, attempts, due, dump(message)], separators=(",", ":"))


def _lane(message: Message) -> str:
    if message.kind is MessageKind.ANSWER:
        return "answer"
    if message.urgent:
        return "urgent"
    return "card" if message.kind is MessageKind.CARD else "plain"
