"""What a start would do: plan, findings, expected samples, the exact patches and queries."""

from collections.abc import Sequence

from bot.ports.mesh import Finding, Severity, Survey
from bot.rollout.duration import spoken
from bot.rollout.gate import GateSpec
from bot.rollout.plan import Plan
from bot.views.answers import finding_lines
from bot.views.blocks import Rendered, context, header, rendered, section, table
from bot.views.escape import code, code_block, escape
from bot.views.numbers import counted, limit


def dry_run(
    service: str,
    survey: Survey,
    plan: Plan,
    gates: Sequence[GateSpec],
    findings: Sequence[Finding],
    queries: Sequence[str],
    expected: Sequence[int | None],
    shows_s: Sequence[float | None] = (),
) -> Rendered:
    """Everything a start would do; nothing of it was done."""
    refused = [finding for finding in findings if finding.severity is Severity.REFUSE]
    verdict = f"would be refused ({counted(len(refused), 'reason')})" if refused else "would start"
    target = survey.target
    what = f"{service} {target.stable.label} → {target.canary.label}" if target else service
    rows = []
    for index, step in enumerate(plan.steps):
        requests = expected[index] if index < len(expected) else None
        needed_s = shows_s[index] if index < len(shows_s) else None
        rows.append(
            (
                f"{step.weight_percent}%",
                spoken(step.bake_s),
                "unknown" if requests is None else f"{requests:,}",
                "unknown" if needed_s is None else spoken(needed_s),
                "asked before" if step.approval else "",
            )
        )
    worst_first = sorted(findings, key=lambda finding: list(Severity).index(finding.severity), reverse=True)
    return rendered(
        escape(f"Dry run: {what} {verdict}. Nothing was changed.", 1500),
        [
            header(f"Dry run: {what} {verdict}"),
            context("Nothing was changed."),
            section(finding_lines(worst_first[:12])),
            table(
                ("Weight", "Bake", "Requests expected", "Twice the limit shows in", "Approval"),
                rows,
                right=(0, 1, 2, 3),
            ),
            section("*Gates*  " + ", ".join(code(limit(gate)) for gate in gates)) if gates else None,
            *_listed("Patches", survey.patches[:6]),
            *_listed("Queries", queries[:15]),
        ],
    )


def _listed(title: str, texts: Sequence[str]) -> list[dict[str, object] | None]:
    if not texts:
        return []
    return [section(f"*{title}*"), *(section(code_block(text, 2800)) for text in texts)]
