"""`start`: begin a rollout, now or later; `--dry-run` only says what would happen; alone, how it is used."""

from dataclasses import dataclass, replace

from bot.errors import Refused, Transient, UserError
from bot.handlers.asking import AlreadyRunning
from bot.handlers.command import Command
from bot.handlers.grammar import Line, Word, nearest
from bot.handlers.moment import EXPECTED, is_moment, moment
from bot.rollout.gate import GateSpec, parse_gate
from bot.rollout.plan import parse_steps
from bot.usecases import reading
from bot.usecases.desk import Desk
from bot.usecases.permission import require
from bot.usecases.start import StartAsk, Started, start
from bot.usecases.who import Who
from bot.views import Rendered, answers
from bot.views.dry_run import dry_run

KEYWORDS = ("to", "plan", "steps", "at", "in", "--adopt", "--dry-run")
EXAMPLE = "start payments v2 steps 5%:10m,50%:30m:approve,100%:10m p99<250ms"


@dataclass(frozen=True, slots=True)
class Args:
    """What was typed; `at` is read in the person's time zone later, "" for now."""

    ask: StartAsk
    at: str = ""


def parse(line: Line) -> Args | None:
    """The arguments; None for `start` alone."""
    if line.ended():
        return None
    args = Args(StartAsk(line.take("a service").text))
    while not line.ended():
        args = _next(line, args)
    if args.ask.plan and args.ask.steps:
        raise line.missing("either `plan` or `steps`, not both:")
    return args


def _next(line: Line, args: Args) -> Args:
    ask = args.ask
    if line.take_key("--dry-run"):
        return replace(args, ask=replace(ask, dry_run=True))
    if line.take_key("--adopt"):
        return replace(args, ask=replace(ask, adopt=True))
    if line.take_key("plan"):
        return replace(args, ask=replace(ask, plan=line.take("the name of a plan").text))
    if line.take_key("in"):
        return replace(args, ask=replace(ask, namespace=line.take("a namespace").text))
    if line.take_key("at"):
        word = line.take(EXPECTED)
        if not is_moment(word.text):
            raise line.wrong(word, f"Expected {EXPECTED}.")
        return replace(args, at=word.text)
    if line.take_key("steps"):
        return replace(args, ask=replace(ask, steps=_steps(line)))
    if line.take_key("to"):
        return replace(args, ask=replace(ask, subset=_only(line, ask.subset, line.take("a subset"))))
    word = line.take("a word")
    if word.key.startswith("--"):
        raise line.wrong(word, "There is no such flag: `--adopt` and `--dry-run` are known.")
    if _opens_gate(line, word):
        return replace(args, ask=replace(ask, gates=(*ask.gates, _gate(line, word, ask.gates))))
    return replace(args, ask=replace(ask, subset=_only(line, ask.subset, word)))


def _only(line: Line, subset: str, word: Word) -> str:
    if subset:
        near = nearest(word.text, KEYWORDS)
        guess = f" Did you mean `{near}`?" if near else ""
        raise line.wrong(word, f"Expected plan, steps, a gate, at, in or a flag after the subset `{subset}`.{guess}")
    return word.text


def _opens_gate(line: Line, word: Word) -> bool:
    following = line.peek()
    return "<" in word.text or (following is not None and following.text.startswith("<"))


def _gate(line: Line, first: Word, so_far: tuple[GateSpec, ...]) -> GateSpec:
    text, last = first.text, first
    while text.endswith(("<", "<=")) or "<" not in text:
        last = line.take("a limit, as in `error-rate<1%`")
        text += last.text
    whole = Word(text, first.start, last.end)
    try:
        gate = parse_gate(text)
    except UserError as error:
        raise line.wrong(whole, error.message) from error
    if any(other.name == gate.name for other in so_far):
        raise line.wrong(whole, f"`{gate.name}` is limited twice.")
    return gate


def _steps(line: Line) -> str:
    first = line.take("the steps, as in `5%:10m,50%:30m:approve,100%:10m`")
    text, last = first.text, first
    while (following := line.peek()) and (text.endswith(",") or following.text.startswith(",")):
        last = line.take("the next step")
        text += last.text
    try:
        parse_steps(text)
    except UserError as error:
        raise line.wrong(Word(text, first.start, last.end), error.message) from error
    return text


async def run(desk: Desk, args: Args | None, who: Who) -> Rendered:
    """Start, or say what a start would do."""
    if args is None:
        return await _usage(desk, who)
    ask = args.ask
    if args.at:
        ask = replace(ask, at=moment(args.at, desk.clock.now(), await _timezone(desk, who)))
    try:
        return _told(await start(desk, ask, who), ask)
    except Refused:
        raise
    except UserError as error:
        running = [one.id for one in await desk.rollouts.outlines() if one.service == ask.service]
        raise (AlreadyRunning(error, running[0]) if running else error) from error


def _told(outcome: Started, ask: StartAsk) -> Rendered:
    if outcome.rollout is None:
        return dry_run(
            ask.service,
            outcome.survey,
            outcome.plan,
            outcome.gates,
            outcome.findings,
            outcome.queries,
            outcome.expected,
            outcome.shows_s,
        )
    return answers.started(outcome.rollout, outcome.findings)


async def _timezone(desk: Desk, who: Who) -> str:
    try:
        return (await desk.directory.person(who.user_id)).timezone
    except Transient as error:
        raise UserError(
            "Slack cannot tell your time zone right now. Nothing was started.",
            "Give the time with its zone: `at 2026-11-20T14:30Z`.",
        ) from error


async def _usage(desk: Desk, who: Who) -> Rendered:
    startable: list[tuple[str, str, tuple[str, ...], str]] = []
    for view in await reading.services(desk):
        try:
            await require(desk, "start", view.service, who, view.namespace)
        except UserError:
            continue
        startable.append((view.service, view.namespace, view.subsets, view.active))
    return answers.start_usage(COMMAND.line, COMMAND.example, startable)


COMMAND = Command(
    verb="start",
    usage="<service> [[to] <subset>] [plan <name>] [steps 5%:10m,100%:10m] [error-rate<1%] [p99<250ms] [at 14:30] "
    "[in <namespace>] [--adopt] [--dry-run]",
    summary="Begin a canary: preflight, announce, then the weights in steps. `--dry-run` only tells what would happen.",
    example=EXAMPLE,
    parse=parse,
    run=run,
    permission="start",
    changes=True,
)
