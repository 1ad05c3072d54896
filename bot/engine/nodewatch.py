"""The node watch: one message per node, edited as its health changes and closed when it clears."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from bot.analysis.facts import NodeFacts
from bot.analysis.nodes import (
    Level,
    NodeHealth,
    judge_node_history,
    judge_nodes,
    node_history_questions,
    node_questions,
)
from bot.engine.world import World
from bot.errors import Permanent, Transient
from bot.rollout.effects import Message, MessageKind, Tone
from bot.rollout.gate import Cause
from bot.rollout.model import Rollout

WORDS = {Level.OK: "healthy", Level.WARN: "degraded", Level.CRITICAL: "critical"}
TONES = {Level.OK: Tone.GOOD, Level.WARN: Tone.WAIT, Level.CRITICAL: Tone.BAD}
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Touched:
    """An active rollout with pods on a bad node, as it is told, and what its slowness is put down to."""

    rollout: Rollout
    told: str

    @property
    def cause(self) -> Cause | None:
        """None while no latency gate of it fails."""
        return self.rollout.assessment.cause if self.rollout.assessment is not None else None


class NodeWatch:
    """Judges every node as often as the catalog's defaults check gates; `healths` is the newest judgement.

    `active` finds the rollouts to be named, `speaks` says whether it is this process that tells of nodes.
    """

    def __init__(
        self,
        world: World,
        active: Callable[[], Awaitable[Sequence[Rollout]]],
        ring: Callable[[], None],
        speaks: Callable[[], bool] = lambda: True,
    ) -> None:
        self._world = world
        self._active = active
        self._ring = ring
        self._speaks = speaks
        self._healths: Mapping[str, NodeHealth] = {}
        self._begun = False
        self._said: dict[str, tuple[object, ...]] = {}
        self._looked = False

    def forget(self) -> None:
        """Another process decides now, and says what there is to say."""
        self._said.clear()
        self._looked = False

    def healths(self) -> Mapping[str, NodeHealth]:
        """Nodes by name."""
        return self._healths

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            try:
                await self.round()
            except (Transient, Permanent) as error:
                self._world.telemetry.line("nodes-unread", error=str(error))
            await self._world.clock.sleep(self._world.catalog().fallback.rules.check_every_s)

    async def round(self) -> None:
        """Judge once, and say what has changed."""
        facts = await self._world.cluster.nodes()
        now = self._world.clock.now()
        if not self._begun:
            self._healths = await self._past(facts, now)
            self._begun = True
        answers = await self._world.metrics.ask(node_questions(now))
        self._healths = judge_nodes(self._healths, facts, answers, self._world.clock.now(), self._world.catalog().nodes)
        if not self._speaks():
            self.forget()
            return
        bad = {name for name, health in self._healths.items() if health.level > Level.OK}
        closing = set() if self._looked else await self._standing(bad)
        self._looked = True
        if not bad and not self._said and not closing:
            return
        touched = await self._touched(bad)
        for name in sorted(bad | self._said.keys() | closing):
            await self._say(name, self._healths.get(name, NodeHealth(name)), touched.get(name, ()))

    async def _past(self, facts: Sequence[NodeFacts], now: float) -> Mapping[str, NodeHealth]:
        """What the nodes were like before this process watched: levels need samples one after the other."""
        answers = await self._world.metrics.ask(node_history_questions())
        return judge_node_history(facts, answers, now, self._world.catalog().nodes)

    async def _say(self, name: str, health: NodeHealth, touched: Sequence[Touched]) -> None:
        """Post or edit the node's message when level, kinds of reason, rollouts, or what they suffer from changed."""
        bad_signals = tuple(sorted((kind, one.level) for kind, one in health.signals.items() if one.level > Level.OK))
        rollouts = tuple(dict.fromkeys(one.told for one in touched))
        causes = {one.rollout.id: one.cause for one in touched if one.cause is not None}
        face = (health.level, bad_signals, rollouts, tuple((name, one.verdict) for name, one in causes.items()))
        if self._said.get(name) == face:
            return
        message = Message(
            MessageKind.NODE,
            text=_headline(name, health, rollouts),
            detail=_detail(health, rollouts, causes),
            tone=TONES[health.level],
            urgent=health.level is Level.CRITICAL,
            channel=self._world.catalog().fallback.rules.channel,
        )
        await self._world.outbox.add(f"node:{name}", [message], self._world.clock.now())
        self._world.telemetry.line("node", node=name, level=health.level.name.lower(), reasons=health.reasons)
        self._ring()
        if health.level is Level.OK:
            self._said.pop(name, None)
        else:
            self._said[name] = face

    async def _standing(self, bad: set[str]) -> set[str]:
        """Healthy nodes whose message a former holder left open."""
        names = [name for name in self._healths if name not in bad]
        posted = await asyncio.gather(*(self._world.outbox.posted(f"node:{name}") for name in names))
        return {name for name, one in zip(names, posted, strict=True) if one is not None and one.ts}

    async def _touched(self, names: set[str]) -> dict[str, list[Touched]]:
        """Active rollouts whose canary or stable pods run on these nodes, with the side."""
        found: dict[str, list[Touched]] = {}
        for rollout in await self._active() if names else ():
            for word, side in (("canary", rollout.target.canary), ("stable", rollout.target.stable)):
                try:
                    pods = await self._world.cluster.pods(rollout.target.namespace, side.selector)
                except (Transient, Permanent) as error:
                    self._world.telemetry.line("pods-unread", rollout=rollout.id, side=side.label, error=str(error))
                    continue
                for node in sorted({pod.node for pod in pods} & names):
                    found.setdefault(node, []).append(Touched(rollout, f"{rollout.id} ({word} {side.label})"))
        return found


def _headline(name: str, health: NodeHealth, rollouts: Sequence[str]) -> str:
    if health.level is Level.OK:
        return f"Node {name} is healthy again."
    touched = f" It carries {', '.join(rollouts)}." if rollouts else " No active rollout has pods on it."
    return f"Node {name} is {WORDS[health.level]}: {' '.join(health.reasons)}{touched}"


def _detail(health: NodeHealth, rollouts: Sequence[str], causes: Mapping[str, Cause]) -> str:
    if health.level is Level.OK:
        return ""
    told = [f"Lately: {health.measured}."] if health.measured else []
    if rollouts and health.level is Level.CRITICAL:
        told.append("No weight of these rollouts goes up while their canary's node is critical.")
    if causes:
        told += [f"{name}: {cause.sentence}" for name, cause in sorted(causes.items())[:SHOWN]]
    elif rollouts:
        told.append("A slow p99 with a flat p50 there is likely the machine, not the release.")
    return "\n".join(told)
