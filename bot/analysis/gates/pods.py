"""`pods`: weight on a canary without a ready pod, crash loops, and restarts that rise since the start."""

from bot.analysis.look import Look
from bot.analysis.samples import Query
from bot.rollout.gate import GateReport, GateSpec, Verdict
from bot.rollout.model import Rollout


class PodsGate:
    """Asks the cluster, not the metrics: a canary that never starts has no metrics to be judged by."""

    def questions(self, spec: GateSpec, rollout: Rollout, now: float) -> tuple[Query, ...]:
        """None; the cluster is asked instead."""
        return ()

    def judge(self, spec: GateSpec, look: Look) -> GateReport:
        """Judge the canary's pods as the cluster shows them now."""
        pods, label = look.canary_pods, look.rollout.target.canary.label
        if pods is None:
            return look.report(spec, Verdict.ERROR, "Cannot measure: the API server does not say how the pods are.")
        ready = sum(pod.ready for pod in pods)
        stable_ready = None if look.stable_pods is None else sum(pod.ready for pod in look.stable_pods)
        numbers: dict[str, object] = {
            "value": float(ready),
            "stable_value": None if stable_ready is None else float(stable_ready),
            "limit": 1.0,
            "unit": "ready pods",
            "samples": len(pods),
            "stable_samples": None if look.stable_pods is None else len(look.stable_pods),
            "newest_sample_at": look.now,
        }
        count = f"{ready} of {len(pods)} pod{'' if len(pods) == 1 else 's'} of {label} ready"
        looping = [pod.name for pod in pods if pod.crash_looping]
        if look.rollout.weight_percent > 0 and ready == 0:
            what = f"{count}: its share of the traffic has nowhere to go"
            if looping:
                what += f"; {_names(looping)} in a crash loop"
            return look.report(spec, Verdict.FAIL, f"{what}.", deciding=True, stable_fails=stable_ready == 0, **numbers)
        if looping:
            return look.report(
                spec,
                Verdict.FAIL,
                f"{_names(looping)} in a crash loop; {count}.",
                deciding=True,
                stable_fails=stable_ready == 0,
                **numbers,
            )
        if look.pinned_pods is None:
            return look.report(
                spec, Verdict.PASS, f"{count}, no crash loop; restarts before now are not known.", **numbers
            )
        before = {pod.name: pod.restarts for pod in look.pinned_pods}
        risen = [
            (pod.name, pod.restarts - before.get(pod.name, 0)) for pod in pods if pod.restarts > before.get(pod.name, 0)
        ]
        if risen:
            told = ", ".join(f"{name} {times} time{'' if times == 1 else 's'}" for name, times in sorted(risen))
            return look.report(spec, Verdict.FAIL, f"Restarted since the rollout began: {told}; {count}.", **numbers)
        return look.report(
            spec, Verdict.PASS, f"{count}, no restarts since the rollout began, no crash loop.", **numbers
        )


def _names(names: list[str]) -> str:
    shown = sorted(names)[:3]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "") + (" is" if len(names) == 1 else " are")
