"""One decision while it is being made: the next rollout, and what is to be done and said about it."""

from dataclasses import fields
from operator import attrgetter

from bot.rollout.effects import Audit, Decision, Effect, Message, MessageKind, Page, SetWeight, Tone
from bot.rollout.events import CARD_EVERY_S, Request
from bot.rollout.model import Actor, Bake, Direction, Entry, Hold, HoldReason, Phase, Rollout, Source, Write
from bot.rollout.route import Mark
from bot.rollout.wake import wake_at
from bot.values import replace

BOT = Actor(Source.BOT, name="canary-bot")
GATES = Actor(Source.GATES, name="the gates")
CLOCK = Actor(Source.CLOCK, name="the clock")

PAGE_EVERY_S = 300.0
_KEPT = attrgetter(
    *(
        field.name
        for field in fields(Rollout)
        if field.name not in ("assessment", "evidence", "fresh_after", "tallies", "holds", "bake")
    )
)
_KEPT_OF_BAKE = attrgetter(*(field.name for field in fields(Bake) if field.name not in ("covered_s", "covered_until")))
_HISTORY = 200
_MARK_REASON = 200


class Draft:
    """Collects one decision. Handlers change it through its methods; `decision` closes it.

    `card_every_s` is how often the card follows numbers that nobody acts upon; what people see change is shown at once.
    The revision rises at most once in a decision, and does so for every change that people or the route can see.
    """

    __slots__ = ("_audit", "_effects", "_look", "_messages", "_said", "before", "card_every_s", "now", "rollout")

    def __init__(self, rollout: Rollout, now: float) -> None:
        self.before = rollout
        self.rollout = rollout
        self.now = now
        self._effects: list[Effect] = []
        self._messages: list[Message] = []
        self._audit: list[Audit] = []
        self._look = False
        self._said = False
        self.card_every_s = CARD_EVERY_S

    def set(self, **changes: object) -> None:
        """Change fields of the rollout; the same values leave the same object."""
        for name, value in changes.items():
            if getattr(self.rollout, name) != value:
                self.rollout = self.rollout.with_(**changes)
                return

    def say(
        self,
        kind: MessageKind,
        text: str = "",
        *,
        detail: str = "",
        tone: Tone = Tone.INFO,
        urgent: bool = False,
        step: int | None = None,
    ) -> None:
        """Add a message for the channel."""
        # The next question may not overtake the end of the last one: they are told apart by their order alone.
        first = urgent or kind is MessageKind.ASKED
        self._messages.append(Message(kind, text, detail, tone, first, step=step))

    def note(self, text: str, *, detail: str = "", tone: Tone = Tone.INFO, urgent: bool = False) -> None:
        """Add a reply in the card's thread."""
        self.say(MessageKind.NOTE, text, detail=detail, tone=tone, urgent=urgent)

    def answer(self, request: Request, text: str, *, tone: Tone = Tone.INFO, offer: str = "") -> None:
        """Answer the person who asked, and nobody else; `offer` is the verb of a button to come with it."""
        told = Message(MessageKind.ANSWER, text, tone=tone, urgent=True, reply=request.reply, offer=offer)
        self._messages.append(told)

    def record(self, what: str, text: str, by: Actor, *, weight_percent: int | None = None) -> None:
        """Add a line to the history and to the audit, at the rollout's present weight unless another is given."""
        weight = self.rollout.weight_percent if weight_percent is None else weight_percent
        entry = Entry(self.now, what, text, by, weight)
        self.rollout = self.rollout.with_(history=(*self.rollout.history, entry)[-_HISTORY:])
        who = by.id or by.name or by.source.value
        self._audit.append(Audit(self.now, self.rollout.id, what, who, text, weight))

    def page(self, key: str, summary: str, *, detail: str = "", resolved: bool = False) -> None:
        """Tell people beyond the chat; `key` is made the rollout's own."""
        self._effects.append(Page(f"{self.rollout.id}:{key}", summary, detail, resolved))

    def look(self) -> None:
        """Ask for the gates in this same wake-up."""
        self._look = True

    def next_revision(self) -> int:
        """The revision that this decision ends with when it changes something visible."""
        return self.before.revision + 1 if self.rollout.revision == self.before.revision else self.rollout.revision

    def send(
        self,
        direction: Direction,
        weight_percent: int,
        reason: str,
        by: Actor,
        *,
        step: int,
        from_percent: int | None = None,
        promotes: bool = False,
        repin: str = "",
    ) -> None:
        """Decide a change of the route and ask for it."""
        revision = self.next_revision()
        found = self.rollout.weight_percent if from_percent is None else from_percent
        write = Write(
            weight_percent, revision, direction, reason, by, self.now, step, found, promotes=promotes, repin=repin
        )
        self.set(write=write, touched=True, revision=revision)
        self.resend()

    def resend(self) -> None:
        """Ask once more for the change under way."""
        if self.rollout.write is not None:
            self._effects = [effect for effect in self._effects if isinstance(effect, Page)]
            self._effects.append(change(self.rollout, self.rollout.write))

    def settle(self) -> None:
        """Make the phase of a running rollout say what it waits for."""
        if self.rollout.phase in (Phase.PROGRESSING, Phase.AWAITING_APPROVAL, Phase.HOLDING):
            if self.rollout.approval is not None and not self.rollout.granted:
                self.set(phase=Phase.AWAITING_APPROVAL)
            else:
                self.set(phase=Phase.HOLDING if self.rollout.holds else Phase.PROGRESSING)

    def decision(self) -> Decision:
        """The decision as collected; the rollout object stays the same when nothing changed."""
        self.settle()
        face_changed = _face(self.rollout) != _face(self.before)
        if face_changed and self.rollout.revision == self.before.revision:
            self.set(revision=self.before.revision + 1)
        if face_changed or (
            self.now - self.rollout.card_at >= self.card_every_s and _numbers(self.rollout) != _numbers(self.before)
        ):
            self.set(card_at=self.now)
            urgent = self.rollout.phase is not self.before.phase and self.rollout.phase is not Phase.PROGRESSING
            self._messages.append(Message(MessageKind.CARD, urgent=urgent))
        save = bool(self._messages or self._audit) or any(isinstance(effect, SetWeight) for effect in self._effects)
        return Decision(
            self.rollout,
            tuple(self._effects),
            tuple(self._messages),
            tuple(self._audit),
            wake_at(self.rollout, self.now),
            save=save or (self.rollout is not self.before and _durable(self.rollout) != _durable(self.before)),
            look=self._look and not self.rollout.phase.final,
        )


def change(rollout: Rollout, write: Write) -> SetWeight:
    """The effect that performs a write, with the mark it leaves on the route."""
    target = rollout.target
    ends = write.direction is Direction.ZERO and rollout.phase is Phase.ROLLING_BACK
    phase = Phase.PROMOTED if write.promotes else Phase.ROLLED_BACK if ends else Phase.PROGRESSING
    mark = Mark(
        rollout.id,
        write.revision,
        write.weight_percent,
        phase.value,
        target.service,
        target.stable.destination.text,
        target.canary.destination.text,
        target.route.route,
        target.canary_inserted,
        write.reason[:_MARK_REASON],
    )
    return SetWeight(
        write.direction,
        write.weight_percent,
        mark,
        write.from_percent,
        rollout.marked,
        remove_canary=ends and target.canary_inserted,
        from_stable=_stable_found(rollout, write),
    )


def _stable_found(rollout: Rollout, write: Write) -> int | None:
    """What stable was found at where a write repairs drift; None where it has the rest of the total."""
    if not write.raising or rollout.found is None:
        return None
    found = rollout.found.stable_weight
    return None if found == rollout.target.total - write.from_percent else found


def _shown(hold: Hold) -> bool:
    return hold.reason is not HoldReason.CANNOT_MEASURE or hold.said > 0


def _face(rollout: Rollout) -> tuple[object, ...]:
    """What people act upon. A measurement that fails for a moment is not among it: it would make every button stale."""
    waits = rollout.phase in (Phase.PROGRESSING, Phase.HOLDING)
    return (
        Phase.PROGRESSING if waits else rollout.phase,
        rollout.step,
        rollout.weight_percent,
        rollout.write and rollout.write.revision,
        frozenset(hold.reason for hold in rollout.holds if _shown(hold)),
        rollout.approval and (rollout.approval.step, rollout.approval.approved_by),
        rollout.hurry,
        rollout.override,
        rollout.bake.extra_s,
        rollout.gone,
        rollout.found and rollout.found.essence,
        rollout.target.route.uid,
    )


def _numbers(rollout: Rollout) -> tuple[object, ...]:
    look = rollout.assessment
    if look is None:
        return (rollout.holds,)
    return (
        rollout.holds,
        look.reports,
        look.share,
        look.stable_ready,
        look.canary_ready,
        look.cause,
        rollout.bake.covered_s,
    )


def _durable(rollout: Rollout) -> object:
    """What may not be lost, to be compared: not the words of a hold, nor what Prometheus can tell again, nor since when
    samples are fresh for this holder (the next has its own moment)."""
    return (
        _KEPT(rollout),
        [tally for tally in rollout.tallies if tally.total],
        [replace(hold, detail="") for hold in rollout.holds],
        _KEPT_OF_BAKE(rollout.bake),
    )
