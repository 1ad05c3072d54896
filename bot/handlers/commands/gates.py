"""`gates`: judge now, or with `--since` over the past; privately."""

from bot.errors import UserError
from bot.handlers.command import Command
from bot.handlers.grammar import Line
from bot.rollout.duration import parse_duration, spoken
from bot.usecases import reading
from bot.usecases.backtest import BacktestAsk, backtest
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered, answers
from bot.views.backtest import backtest as backtested


def parse(line: Line) -> BacktestAsk:
    """A service, its namespace ("" when not said), and how far back (0 for now)."""
    service = line.take("a service").text
    namespace, since_s, every_s = "", 0.0, 0.0
    while not line.ended():
        if line.take_key("in"):
            namespace = line.take("a namespace").text
        elif line.take_key("--since"):
            since_s = _duration(line, "how far back, as in `24h`")
        elif line.take_key("--every"):
            every_s = _duration(line, "how often, as in `15m`")
        else:
            line.end()
    if every_s and not since_s:
        raise line.missing("`--since`, as in `--since 24h`,")
    return BacktestAsk(service, since_s, namespace, every_s=every_s)


def _duration(line: Line, expected: str) -> float:
    word = line.take(expected)
    try:
        found = parse_duration(word.text)
    except UserError as error:
        raise line.wrong(word, error.message) from error
    if found <= 0:
        raise line.wrong(word, f"Expected {expected}.")
    return found


def waiting(ask: BacktestAsk) -> str:
    """A backtest takes its time."""
    return f"Looking at {spoken(ask.since_s)} of {ask.service}; this takes up to a minute." if ask.since_s else ""


async def run(desk: Desk, ask: BacktestAsk, who: Who) -> Rendered:
    """Read only."""
    if ask.since_s:
        return backtested(await backtest(desk, ask))
    look = await reading.gates(desk, ask.service, ask.namespace)
    return answers.gates(look.target, look.assessment, look.active.id if look.active else "", look.queries)


COMMAND = Command(
    verb="gates",
    usage="<service> [in <namespace>] [--since 24h] [--every 15m]",
    summary="Judge now: value, limit, samples, stable beside canary, the query. With `--since`: how often the gates "
    "would have failed over the past, with stable in the canary's place.",
    example="gates payments --since 24h",
    parse=parse,
    run=run,
    waiting=waiting,
)
