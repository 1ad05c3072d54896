"""`nodes`: no weight goes up while a machine under the canary is critical; nothing goes back for it either."""

from bot.analysis.look import Look
from bot.analysis.nodes import Level
from bot.analysis.samples import Query
from bot.rollout.gate import GateReport, GateSpec, Verdict
from bot.rollout.model import Rollout


class NodesGate:
    """Asks the node watch. Its FAIL holds and never counts against the release: it is about what runs underneath."""

    def questions(self, spec: GateSpec, rollout: Rollout, now: float) -> tuple[Query, ...]:
        """None: nodes are watched for all rollouts together."""
        return ()

    def judge(self, spec: GateSpec, look: Look) -> GateReport:
        """Judge the nodes under the canary's pods as the watch sees them; what is not known is not held against it."""
        label = look.rollout.target.canary.label
        if look.canary_pods is None:
            return look.report(spec, Verdict.ERROR, "Cannot measure: the API server does not say where the pods run.")
        under = sorted({pod.node for pod in look.canary_pods if pod.node})
        known = {name: look.nodes[name] for name in under if name in look.nodes}
        critical = [name for name, health in known.items() if health.level is Level.CRITICAL]
        numbers: dict[str, object] = {
            "value": float(len(critical)),
            "limit": 0.0,
            "unit": "critical",
            "samples": len(known),
        }
        if critical:
            told = " ".join(f"{name} under {label} is critical: {' '.join(known[name].reasons)}" for name in critical)
            return look.report(spec, Verdict.FAIL, told, holds=True, **numbers)
        warned = [f"{name}: {' '.join(health.reasons)}" for name, health in known.items() if health.level > Level.OK]
        if warned:
            return look.report(spec, Verdict.PASS, f"None is critical. {' '.join(warned)}", **numbers)
        unknown = [name for name in under if name not in known]
        if unknown or not under:
            what = ", ".join(unknown) if unknown else f"the nodes under {label}"
            told = f"How {what} is doing is not known, and not held against it."
            return look.report(spec, Verdict.PASS, told, **numbers)
        return look.report(spec, Verdict.PASS, f"{', '.join(under)} under {label} {_are(under)} well.", **numbers)


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
