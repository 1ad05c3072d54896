"""The people of a run, and what else befalls it: drawn once, then played at their moments."""

from collections.abc import Awaitable, Callable
from random import Random

from bot.errors import CanaryError, UserError
from bot.rollout.events import VERBS
from bot.rollout.model import HoldReason, Phase, Rollout
from bot.usecases.freezing import freeze, unfreeze
from bot.usecases.requests import put
from bot.usecases.rollback import rollback
from bot.usecases.start import StartAsk, start
from bot.usecases.undo import undo
from bot.usecases.who import Who
from tests.simulation.town import Bot, Town

STARTER = "U0ADA"
APPROVERS = ("U0GRACE", "U0LINUS")
PLANS = ("short", "short", "free", "two")
ASKED = (
    *("approve",) * 5, *("hold",) * 2, *("resume",) * 3, *("promote",) * 4, *("rollback",) * 2, "reject", "extend",
    "cancel", "restart", "drift", "stale", "undo", "rollback all", "freeze", "unfreeze", "start",
)  # fmt: skip


class People:
    """Speak to whichever bot answers; every sentence is a task of that bot."""

    def __init__(self, town: Town, random: Random) -> None:
        self._town, self._random = town, random
        self._said = 0
        self.began: dict[str, str] = {}

    def ask(self, what: str, service: str) -> None:
        """Somebody asks for something now."""
        bot = self._anybody()
        if bot is None or (what == "start" and self._town.store.rollouts.records and self._random.random() < 0.8):
            return
        desk, who = bot.desk, self._who(STARTER if what == "start" else self._random.choice((STARTER, *APPROVERS)))
        match what:
            case "start":
                ask = StartAsk(service, plan=self._random.choice(PLANS))
                self._do(bot, what, lambda: start(desk, ask, who))
            case "undo":
                self._do(bot, what, lambda: undo(desk, service, who))
            case "freeze":
                lasts = self._random.choice((5.0, 20.0, None))
                self._do(bot, what, lambda: freeze(desk, self._random.choice((service, "all")), lasts, "audit", who))
            case "unfreeze":
                scope = self._random.choice((service, "all"))
                self._do(bot, what, lambda: unfreeze(desk, scope, who))
            case "rollback all":
                self._do(bot, what, lambda: rollback(desk, "all", who, "all of it"))
            case "stale":
                rollout = self._active(service)
                if rollout is not None:
                    verb = self._random.choice(("promote", "hold", "rollback", "approve"))
                    self.put(bot, verb, rollout, revision=max(0, rollout.revision - self._random.randint(1, 3)))
            case _:
                rollout = self._active(service)
                if rollout is not None and what in VERBS:
                    self.put(bot, what, rollout)

    def put(self, bot: Bot, verb: str, rollout: Rollout, *, option: str = "", revision: int | None = None) -> None:
        """Somebody asks something of one rollout."""
        person = self._random.choice(APPROVERS)
        if not option:
            option = {
                "promote": self._random.choice(("", "", "full", "override")),
                "drift": self._random.choice(("adopt", "reapply")),
                "extend": "5",
                "restart": "restart",
            }.get(verb, "")
        if verb == "drift" and revision is None:
            # There is no word for it, only buttons, drawn for what was found on the route.
            revision = rollout.revision
        who, desk, name = self._who(person), bot.desk, rollout.id
        if verb == "rollback" and revision is None:
            self._do(bot, verb, lambda: rollback(desk, name, who, "I say so"))
            return
        self._do(bot, verb, lambda: put(desk, verb, name, who, reason="because", option=option, revision=revision))

    def settle(self, rollout: Rollout, impatient: bool) -> None:
        """Bring a rollout to its end as reasonable people would."""
        bot = self._anybody()
        if bot is None:
            return
        reasons = rollout.hold_reasons
        if rollout.phase is Phase.ROLLING_BACK:
            if impatient and self.made_again(rollout):
                self._town.truth.edit(rollout.target.service, canary_weight=0, by="kubectl-edit")
            elif impatient and ("shop", rollout.target.service) not in self._town.truth.objects:
                self.put(bot, "rollback", rollout)
            return
        if impatient:
            self.put(bot, "rollback", rollout)
        elif HoldReason.REDEPLOYED in reasons:
            self.put(bot, self._random.choice(("restart", "rollback")), rollout)
        elif HoldReason.DRIFT in reasons:
            self.put(bot, self._random.choice(("drift", "drift", "rollback")), rollout)
        elif reasons & {HoldReason.PERSON, HoldReason.RECOVERED}:
            self.put(bot, "resume", rollout)
        elif reasons & {HoldReason.NO_DATA, HoldReason.STABLE_UNHEALTHY}:
            self.put(bot, "rollback", rollout)
        elif rollout.phase is Phase.AWAITING_APPROVAL:
            self.put(bot, "approve", rollout)

    def made_again(self, rollout: Rollout) -> bool:
        """The route is another object than the rollout's, which the bot never writes: it pages, and people do it."""
        route = self._town.truth.objects.get(("shop", rollout.target.service))
        return route is not None and route["metadata"]["uid"] != rollout.target.route.uid

    def _active(self, service: str) -> Rollout | None:
        return next((one for one in self._town.active if one.target.service == service), None)

    def _anybody(self) -> Bot | None:
        serving = [bot for bot in self._town.bots if bot.serves]
        return self._random.choice(serving) if serving else None

    def _who(self, user: str) -> Who:
        self._said += 1
        return Who(user, "C1", thread=f"q{self._said}", via=self._random.choice(("slash", "button", "mention")))

    def _do(self, bot: Bot, what: str, act: Callable[[], Awaitable[object]]) -> None:
        """What people are told is told; what breaks is a fault of the bot."""
        history = self._town.history

        async def said() -> None:
            try:
                await act()
            except UserError as error:
                history.say(bot.name, "refuses", f"{what}: {error.message.splitlines()[0]}")
            except CanaryError as error:
                history.say(bot.name, "fails", f"{what}: {error}")
            except Exception as error:
                history.breaks("broken", f"{what} broke: {error!r}")

        self._town.loop.spawn(bot.process, said(), f"person:{what}")
