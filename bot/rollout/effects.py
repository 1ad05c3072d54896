"""What a decision asks of the world: a change of the route, and messages for people."""

from enum import StrEnum

from bot.rollout.events import Reply
from bot.rollout.model import Direction, Rollout
from bot.rollout.route import Mark
from bot.values import dataclass

__all__ = ["Audit", "Decision", "Direction", "Effect", "Message", "MessageKind", "Page", "SetWeight", "Tone"]


@dataclass(frozen=True, slots=True)
class SetWeight:
    """Write the canary's weight and our mark to the route.

    RAISE tests object, route, destinations, `expected` (revision of the mark last written, None for none of ours) and
    the old weights: `from_percent`, and `from_stable` where stable has not the rest of the total (an edit by hand).
    ZERO tests object, route and destinations only, takes what the canary has and gives it to stable. MARK writes the
    mark and tests `expected`. `remove_canary` takes our inserted destination out. `over` names another rollout whose
    mark ZERO may replace although that has not ended: the store has lost it.
    """

    direction: Direction
    weight_percent: int
    mark: Mark
    from_percent: int = 0
    expected: int | None = None
    remove_canary: bool = False
    from_stable: int | None = None
    over: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Tell people beyond Slack; `resolved` closes it. `key` identifies the alert."""

    key: str
    summary: str
    detail: str = ""
    resolved: bool = False


Effect = SetWeight | Page


class Tone(StrEnum):
    """How a sentence is meant; never shown by colour alone."""

    GOOD = "good"
    BAD = "bad"
    WAIT = "wait"
    INFO = "info"


class MessageKind(StrEnum):
    """What delivery does with a message.

    CARD posts the card once and edits it afterwards, latest state only. NOTE replies in the card's thread. ASK is a
    new channel message that mentions the group and carries buttons; ASKED edits it once decided. ALERT is a new
    channel message without buttons (ended badly, cannot roll back). ANSWER goes to one person. FINAL replies in the
    thread when a rollout has ended. NODE is the one message of a node and NOTICE a plain channel message; both belong
    to no rollout.
    """

    CARD = "card"
    NOTE = "note"
    ASK = "ask"
    ASKED = "asked"
    ALERT = "alert"
    ANSWER = "answer"
    FINAL = "final"
    NODE = "node"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to say: plain sentences, escaped where they are rendered.

    `urgent` goes first, `channel` "" is the rollout's. An ASK with `step` is an approval, without it a hold that
    wants a person (drift, no-data, redeployed, stable-unhealthy). `offer` is the verb of a button that comes with an
    ANSWER, drawn for the state at its delivery.
    """

    kind: MessageKind
    text: str = ""
    detail: str = ""
    tone: Tone = Tone.INFO
    urgent: bool = False
    reply: Reply | None = None
    step: int | None = None
    channel: str = ""
    offer: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """One record of who or what did what, kept in the audit stream."""

    at: float
    rollout: str
    what: str
    by: str
    text: str
    weight_percent: int


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of `decide`: the next rollout (the same object when nothing changed), what to do, what to say, and
    when to wake next (epoch seconds, None when final).

    `save` says that something changed that may not be lost; progress of a bake alone can be measured again. `look`
    asks for the gates in this same wake-up: what was just decided waits for a look.
    """

    rollout: Rollout
    effects: tuple[Effect, ...] = ()
    messages: tuple[Message, ...] = ()
    audit: tuple[Audit, ...] = ()
    wake_at: float | None = None
    save: bool = False
    look: bool = False
