"""The state machine of a rollout: one table of what may happen in which phase, and `decide`, which follows it.

An event that the table does not have raises IllegalEvent and changes nothing. The state diagram of the docs is drawn
from the table (`diagram.py`).
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, assert_never

from bot.rollout import approval, looking, people, start, writes
from bot.rollout.draft import Draft
from bot.rollout.effects import Decision
from bot.rollout.events import (
    VERBS,
    Clocked,
    Due,
    Event,
    Looked,
    Request,
    RouteGone,
    TookOver,
    WriteFailed,
    Written,
)
from bot.rollout.model import Phase, Rollout
from bot.values import dataclass

HEARD = 20


class IllegalEvent(Exception):
    """The event cannot happen in this phase; nothing was changed."""


class Kind(StrEnum):
    """What can happen, as the table knows it; a person's request is of the kind of its verb."""

    DUE = "due"
    TOOK_OVER = "took-over"
    LOOKED = "looked"
    CLOCKED = "clocked"
    WRITTEN = "written"
    WRITE_FAILED = "write-failed"
    ROUTE_GONE = "route-gone"
    PROMOTE = "promote"
    HOLD = "hold"
    RESUME = "resume"
    CANCEL = "cancel"
    ROLLBACK = "rollback"
    APPROVE = "approve"
    REJECT = "reject"
    EXTEND = "extend"
    DRIFT = "drift"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Transition:
    """What an event does in a phase, and the phases it may lead to."""

    handle: Callable[[Draft, Any], None]
    to: frozenset[Phase]


_FINAL = (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.CANCELLED)
_BACK = (Phase.ROLLING_BACK, Phase.CANCELLED)
_PEOPLE = tuple(Kind(verb) for verb in VERBS)


def _to(handle: Callable[[Draft, Any], None], *phases: Phase) -> Transition:
    return Transition(handle, frozenset(phases))


def _running(phase: Phase) -> Mapping[tuple[Phase, Kind], Transition]:
    asking, held = phase is Phase.AWAITING_APPROVAL, phase is Phase.HOLDING
    stays = (phase,)
    waits = stays if asking else (Phase.HOLDING,)
    moves = (Phase.PROGRESSING, Phase.HOLDING, *(stays if asking else ()))
    found = (Phase.ROLLING_BACK, Phase.PROMOTED, Phase.ROLLED_BACK)
    expires = (Phase.CANCELLED,) if asking else ()
    return {
        (phase, Kind.TOOK_OVER): _to(writes.took_over, *moves, *found),
        (phase, Kind.LOOKED): _to(looking.looked, *moves, Phase.AWAITING_APPROVAL, *found, *expires),
        (phase, Kind.CLOCKED): _to(looking.clocked, *moves, *found, *expires),
        (phase, Kind.WRITTEN): _to(writes.written, *(stays if asking else (*moves, Phase.PROMOTED))),
        (phase, Kind.WRITE_FAILED): _to(writes.write_failed, *moves, *found),
        (phase, Kind.ROUTE_GONE): _to(writes.route_gone, *waits),
        (phase, Kind.PROMOTE): _to(people.promote, *stays),
        (phase, Kind.HOLD): _to(people.hold, *waits),
        (phase, Kind.RESUME): _to(people.resume, *(moves if held else stays)),
        (phase, Kind.CANCEL): _to(people.cancel, *stays, Phase.CANCELLED),
        (phase, Kind.ROLLBACK): _to(people.rollback, *stays, *_BACK),
        (phase, Kind.APPROVE): _to(approval.approve, *(moves if asking else stays)),
        (phase, Kind.REJECT): _to(approval.reject, *stays, *((Phase.HOLDING,) if asking else ())),
        (phase, Kind.EXTEND): _to(people.extend, *stays),
        (phase, Kind.DRIFT): _to(people.settle_drift, *(moves if asking or held else stays)),
        (phase, Kind.RESTART): _to(people.restart, *(moves if held else stays)),
    }


def _answers(
    phase: Phase, kinds: Iterable[Kind], handle: Callable[[Draft, Request], None]
) -> Mapping[tuple[Phase, Kind], Transition]:
    return {(phase, kind): _to(handle, phase) for kind in kinds}


TABLE: Mapping[tuple[Phase, Kind], Transition] = {
    (Phase.SCHEDULED, Kind.DUE): _to(start.due, Phase.PROGRESSING, Phase.HOLDING, Phase.CANCELLED),
    (Phase.SCHEDULED, Kind.TOOK_OVER): _to(writes.took_over, Phase.SCHEDULED),
    (Phase.SCHEDULED, Kind.CLOCKED): _to(looking.waited, Phase.SCHEDULED),
    (Phase.SCHEDULED, Kind.ROUTE_GONE): _to(writes.route_gone, Phase.SCHEDULED),
    **_answers(Phase.SCHEDULED, _PEOPLE, people.not_begun),
    (Phase.SCHEDULED, Kind.HOLD): _to(people.hold, Phase.SCHEDULED),
    (Phase.SCHEDULED, Kind.RESUME): _to(people.resume, Phase.SCHEDULED),
    (Phase.SCHEDULED, Kind.CANCEL): _to(people.cancel_scheduled, Phase.CANCELLED),
    (Phase.SCHEDULED, Kind.ROLLBACK): _to(people.cancel_scheduled, Phase.CANCELLED),
    **_running(Phase.PROGRESSING),
    **_running(Phase.AWAITING_APPROVAL),
    **_running(Phase.HOLDING),
    (Phase.ROLLING_BACK, Kind.TOOK_OVER): _to(writes.took_over, Phase.ROLLING_BACK, Phase.ROLLED_BACK),
    (Phase.ROLLING_BACK, Kind.LOOKED): _to(looking.tried_again, Phase.ROLLING_BACK),
    (Phase.ROLLING_BACK, Kind.CLOCKED): _to(looking.tried_again, Phase.ROLLING_BACK),
    (Phase.ROLLING_BACK, Kind.WRITTEN): _to(writes.written, Phase.ROLLED_BACK),
    (Phase.ROLLING_BACK, Kind.WRITE_FAILED): _to(writes.write_failed, Phase.ROLLING_BACK, Phase.ROLLED_BACK),
    (Phase.ROLLING_BACK, Kind.ROUTE_GONE): _to(writes.route_gone, Phase.ROLLING_BACK, Phase.ROLLED_BACK),
    **_answers(Phase.ROLLING_BACK, _PEOPLE, people.going_back),
    (Phase.ROLLING_BACK, Kind.ROLLBACK): _to(people.back_again, Phase.ROLLING_BACK, Phase.ROLLED_BACK),
    **{entry: one for phase in _FINAL for entry, one in _answers(phase, _PEOPLE, people.ended).items()},
}


def kind_of(event: Event) -> Kind:
    """The kind under which the table knows an event; raises IllegalEvent for a verb it does not have."""
    match event:
        case Due():
            return Kind.DUE
        case TookOver():
            return Kind.TOOK_OVER
        case Looked():
            return Kind.LOOKED
        case Clocked():
            return Kind.CLOCKED
        case Written():
            return Kind.WRITTEN
        case WriteFailed():
            return Kind.WRITE_FAILED
        case RouteGone():
            return Kind.ROUTE_GONE
        case Request(verb=verb):
            if verb not in VERBS:
                raise IllegalEvent(f"no request is called {verb!r}")
            return Kind(verb)
        case _:
            assert_never(event)


def decide(rollout: Rollout, event: Event, now: float) -> Decision:
    """The answer to one event at `now` (epoch seconds): next state, what to do, what to say, when to wake.

    A request that comes a second time (its inbox was not cleared) changes and says nothing: its answer was saved with
    what it changed. Raises IllegalEvent when the event cannot happen in this phase, or answers no write under way.
    """
    kind = kind_of(event)
    transition = TABLE.get((rollout.phase, kind))
    if transition is None:
        raise IllegalEvent(f"{kind.value} cannot happen to {rollout.id} in {rollout.phase.value}")
    if isinstance(event, Written | WriteFailed) and (rollout.write is None or rollout.write.revision != event.revision):
        raise IllegalEvent(f"{kind.value} of revision {event.revision} answers no write of {rollout.id}")
    if isinstance(event, Request) and event.rollout != rollout.id:
        raise IllegalEvent(f"a request for {event.rollout} was put to {rollout.id}")
    draft = Draft(rollout, now)
    if isinstance(event, Request) and event.id in rollout.heard:
        return draft.decision()
    if isinstance(event, Request) and not rollout.phase.final and people.stale(rollout, event):
        people.answer_stale(draft, event)
    else:
        transition.handle(draft, event)
    if isinstance(event, Request) and draft.rollout is not rollout:
        draft.set(heard=(*rollout.heard, event.id)[-HEARD:])
    decision = draft.decision()
    if decision.rollout.phase not in transition.to and decision.rollout.phase is not rollout.phase:
        raise AssertionError(
            f"{kind.value} led {rollout.id} from {rollout.phase.value} to {decision.rollout.phase.value}, "
            "which the table does not have"
        )
    return decision
