"""Health of the machines underneath: CPU steal, iowait, conditions, a silent exporter; with hysteresis.

Steal and iowait are fractions of a core-second: what the counters of all cores grew between two samples, divided by
the seconds between them and the number of cores. A level is reached when 3 of the last 5 samples are at it, and left
when 3 of the last 5 are below and a minute has passed since it last held. Pressure (PSI: the share of time in which
some task waited for CPU, disk or memory) has no level of its own, for a busy node waits as well; it is shown beside.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from math import isnan

from bot.analysis.facts import NodeFacts
from bot.analysis.promql import over, selector
from bot.analysis.samples import Answer, Query, Series
from bot.analysis.sentences import duration, percent
from bot.errors import CannotMeasure

CPU = "node_cpu_seconds_total"
MODES = ("steal", "iowait")
KEPT = 5
NEEDED = 3
CONDITION_S = 30.0
CALM_S = 60.0
PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")

TIME_LOST = Query(f'sum by (instance, node, mode) ({CPU}{{mode=~"iowait|steal"}})')
CORES = Query(f"count by (instance, node) ({selector(CPU, {'mode': 'idle'})})")
SAMPLED = Query(f"timestamp({selector(CPU, {'mode': 'idle', 'cpu': '0'})})")
UP = Query('up{job=~".*node.*"}')
PRESSURE = {
    f"{what} pressure": Query(f"node_pressure_{series}_waiting_seconds_total")
    for what, series in (("CPU", "cpu"), ("I/O", "io"), ("memory", "memory"))
}
HISTORY_S = 360
HISTORY_STEP_S = 15


class Level(IntEnum):
    """How bad it is."""

    OK = 0
    WARN = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True)
class Threshold:
    """Fractions of a core-second at which a signal warns and is critical."""

    warn: float
    critical: float

    def level(self, value: float) -> Level:
        """The level of one sample."""
        return Level.CRITICAL if value >= self.critical else Level.WARN if value >= self.warn else Level.OK


@dataclass(frozen=True, slots=True)
class NodeLimits:
    """Defaults of product.md's node table; `condition_s` how long a condition must be bad, `calm_s` good."""

    steal: Threshold = Threshold(0.02, 0.10)
    iowait: Threshold = Threshold(0.10, 0.30)
    condition_s: float = CONDITION_S
    calm_s: float = CALM_S


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal of one node: its level, since when, when it last held, why, and its last samples (newest last).

    `worst` is the highest mean of three samples since it left OK, 0 while it is OK.
    """

    level: Level = Level.OK
    since: float = 0.0
    held_at: float = 0.0
    reason: str = ""
    samples: tuple[float, ...] = ()
    worst: float = 0.0

    @property
    def lately(self) -> float | None:
        """The mean of the newest three samples, None when there are none."""
        newest = self.samples[-NEEDED:]
        return sum(newest) / len(newest) if newest else None


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """One node as judged: `level` is the worst of its signals, `reasons` sentences for all that are not OK.

    `since` is when the present level began (epoch seconds). `signals` by name, `counters` the last reading by mode
    and `sampled_at` its moment on Prometheus' clock: the state that the next judging goes on from.
    """

    name: str
    level: Level = Level.OK
    reasons: tuple[str, ...] = ()
    since: float = 0.0
    signals: Mapping[str, Signal] = field(default_factory=dict)
    counters: Mapping[str, float] = field(default_factory=dict)
    sampled_at: float | None = None

    def value(self, mode: str) -> float | None:
        """The newest sample of `steal`, `iowait` or a pressure, a fraction; None when there is none."""
        signal = self.signals.get(mode)
        return signal.samples[-1] if signal and signal.samples else None

    def lately(self, mode: str) -> float | None:
        """The mean of its newest three samples, a fraction; None when there is none."""
        signal = self.signals.get(mode)
        return signal.lately if signal else None

    @property
    def lost(self) -> float | None:
        """The share of CPU time that was taken away or waited for disks, the larger; None when not known.

        Lately, or at its worst while the node is not called well again: requests of that time are still looked at.
        """
        known = [signal for mode in MODES if (signal := self.signals.get(mode)) is not None and signal.samples]
        return max((max(signal.worst, signal.lately or 0.0) for signal in known), default=None)

    @property
    def measured(self) -> str:
        """`steal 15%, iowait 0.4%, CPU pressure 14%`: what is known in numbers, without pressures under 1%."""
        told = []
        for name in (*MODES, *PRESSURE):
            signal = self.signals.get(name)
            value = signal.lately if signal else None
            if signal is None or value is None or (name in PRESSURE and value < 0.01):
                continue
            better = f" ({percent(signal.worst)} at worst)" if signal.worst > 1.5 * value else ""
            told.append(f"{name} {percent(value)}{better}")
        return ", ".join(told)

    @property
    def ailments(self) -> tuple[str, ...]:
        """The reasons that are no number: bad conditions, a silent exporter."""
        bad = (one for name, one in sorted(self.signals.items()) if name not in MODES and one.level > Level.OK)
        return tuple(one.reason for one in bad)

    @property
    def starved(self) -> bool:
        """Steal or iowait is at a level."""
        return any(self.signals[mode].level > Level.OK for mode in MODES if mode in self.signals)


def node_questions(now: float) -> tuple[Query, ...]:
    """The node series, a handful of numbers per node; the same for every rollout."""
    return (TIME_LOST, CORES, SAMPLED, UP, *PRESSURE.values())


def node_history_questions() -> tuple[Query, ...]:
    """The same over the last minutes, for one who begins to watch: a level needs samples one after the other."""
    return tuple(_history(query) for query in node_questions(0))


def judge_node_history(
    facts: Sequence[NodeFacts],
    answers: Mapping[Query, Answer | CannotMeasure],
    now: float,
    limits: NodeLimits = NodeLimits(),
) -> dict[str, NodeHealth]:
    """Judge as one who had watched all along: the answers to `node_history_questions`, moment by moment."""
    known = {
        query: answer for query in node_questions(now) if isinstance(answer := answers.get(_history(query)), Answer)
    }
    moments = {at for answer in known.values() for series in answer.series for at, _ in series.points}
    healths: dict[str, NodeHealth] = {}
    for moment in sorted(moments):
        then = {query: _at(answer, moment) for query, answer in known.items()}
        healths = judge_nodes(healths, facts, then, min(moment, now), limits)
    return judge_nodes(healths, facts, {}, now, limits)


def _history(query: Query) -> Query:
    return Query(over(query.promql, HISTORY_S, HISTORY_STEP_S))


def _at(answer: Answer, moment: float) -> Answer:
    cut = (Series(one.labels, tuple(point for point in one.points if point[0] == moment)) for one in answer.series)
    return Answer(tuple(series for series in cut if series.points), answer.server_time)


def judge_nodes(
    previous: Mapping[str, NodeHealth],
    facts: Sequence[NodeFacts],
    answers: Mapping[Query, Answer | CannotMeasure],
    now: float,
    limits: NodeLimits = NodeLimits(),
) -> dict[str, NodeHealth]:
    """Judge every node of the cluster; unanswered questions leave the signals that need them as they were."""
    names = _names(facts)
    lost = _by_node(answers.get(TIME_LOST), names)
    cores = {name: rows[0][1] for name, rows in _by_node(answers.get(CORES), names).items()}
    sampled = {name: rows[0][1] for name, rows in _by_node(answers.get(SAMPLED), names).items()}
    up = _by_node(answers.get(UP), names)
    waiting = {name: _by_node(answers.get(query), names) for name, query in PRESSURE.items()}
    judged: dict[str, NodeHealth] = {}
    for node in facts:
        before = previous.get(node.name, NodeHealth(node.name, since=now))
        signals = {name: one for name, one in before.signals.items() if name in (*MODES, *PRESSURE, "exporter")}
        counters = {labels.get("mode", ""): value for labels, value in lost.get(node.name, ())}
        waited = {name: rows[node.name][0][1] for name, rows in waiting.items() if node.name in rows}
        at = sampled.get(node.name)
        health = before
        if at is not None and node.name in cores and counters:
            if before.sampled_at is not None and at > before.sampled_at:
                elapsed_s = at - before.sampled_at
                for mode in MODES:
                    value = _grown(before.counters, counters, mode, elapsed_s * max(1.0, cores[node.name]))
                    if value is not None:
                        threshold = limits.steal if mode == "steal" else limits.iowait
                        signals[mode] = _sampled(signals.get(mode, Signal()), mode, value, threshold, now, limits)
                for name in PRESSURE:
                    value = _grown(before.counters, waited, name, elapsed_s)
                    if value is not None:
                        kept = signals.get(name, Signal())
                        signals[name] = replace(kept, samples=(*kept.samples, value)[-KEPT:])
            if before.sampled_at is None or at > before.sampled_at:
                health = replace(before, counters=counters | waited, sampled_at=at)
        if node.name in up:
            gone = all(value == 0 for _, value in up[node.name])
            reason = "Its node exporter does not answer, so steal and iowait are not known."
            signals["exporter"] = _held(
                signals.get("exporter", Signal()), Level.WARN if gone else Level.OK, reason, now, limits
            )
        for kind, level, reason in _conditions(node, now, limits):
            signals[kind] = _held(before.signals.get(kind, Signal()), level, reason, now, limits)
        judged[node.name] = _summed(health, signals, now)
    return judged


def node_of(instance: str, facts: Sequence[NodeFacts]) -> str | None:
    """The node that an `instance` (name or address, with or without port) means."""
    return _names(facts).get(_host(instance))


def _grown(before: Mapping[str, float], after: Mapping[str, float], name: str, elapsed_s: float) -> float | None:
    """The fraction of `elapsed_s` by which a counter grew; None when it is not known or began anew."""
    if name not in before or name not in after or after[name] < before[name]:
        return None
    return min(1.0, (after[name] - before[name]) / elapsed_s)


def _summed(before: NodeHealth, signals: dict[str, Signal], now: float) -> NodeHealth:
    level = max((signal.level for signal in signals.values()), default=Level.OK)
    bad = sorted((one for one in signals.values() if one.level > Level.OK), key=lambda one: (-one.level, one.reason))
    since = before.since if level == before.level else now
    return replace(before, level=level, reasons=tuple(one.reason for one in bad), since=since, signals=signals)


def _sampled(before: Signal, mode: str, value: float, threshold: Threshold, now: float, limits: NodeLimits) -> Signal:
    samples = (*before.samples, value)[-KEPT:]
    levels = sorted((threshold.level(sample) for sample in samples), reverse=True)
    reached = levels[NEEDED - 1] if len(levels) >= NEEDED else Level.OK
    what = (
        "CPU steal (another machine's work on the same host)" if mode == "steal" else "iowait (CPUs waiting for disks)"
    )
    limit = threshold.critical if max(reached, before.level) is Level.CRITICAL else threshold.warn
    reason = f"{what} is {percent(value)} of each core, limit {percent(limit)}."
    after = replace(_held(before, reached, reason, now, limits), samples=samples)
    return replace(after, worst=max(before.worst, after.lately or 0.0) if after.level > Level.OK else 0.0)


def _held(before: Signal, reached: Level, reason: str, now: float, limits: NodeLimits) -> Signal:
    """Up at once; down only when the level has not held for `calm_s`."""
    if reached >= before.level:
        since = before.since if reached == before.level and before.since else now
        return replace(before, level=reached, since=since, held_at=now, reason=reason if reached else "")
    if now - before.held_at < limits.calm_s:
        return before
    return replace(before, level=reached, since=now, held_at=now, reason=reason if reached else "")


def _conditions(node: NodeFacts, now: float, limits: NodeLimits) -> Iterable[tuple[str, Level, str]]:
    for kind, status, since in node.conditions:
        if kind == "Ready":
            bad, level = status != "True", Level.CRITICAL
            told = "is not ready" if status == "False" else "has stopped reporting (Ready is Unknown)"
        elif kind in PRESSURES:
            bad, level, told = status == "True", Level.WARN, f"reports {kind}"
        else:
            continue
        lasted_s = now - since
        holds = bad and lasted_s >= limits.condition_s
        yield kind, level if holds else Level.OK, f"The node {told} for {duration(lasted_s)}."


def _names(facts: Sequence[NodeFacts]) -> dict[str, str]:
    names = {address: node.name for node in facts for address in node.addresses}
    return names | {node.name: node.name for node in facts}


def _host(instance: str) -> str:
    if instance.startswith("["):
        return instance[1:].partition("]")[0]
    host, colon, port = instance.rpartition(":")
    return host if colon and port.isdigit() and ":" not in host else instance


def _by_node(
    answer: Answer | CannotMeasure | None, names: Mapping[str, str]
) -> dict[str, list[tuple[Mapping[str, str], float]]]:
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    if isinstance(answer, Answer):
        for series in answer.series:
            host = _host(series.labels.get("instance", ""))
            name = names.get(series.labels.get("node", "")) or names.get(host) or names.get(host.partition(".")[0])
            if name and series.points and not isnan(series.points[-1][1]):
                found.setdefault(name, []).append((series.labels, series.points[-1][1]))
    return found
