"""Text for Prometheus to scrape: Istio's series, istiod's, and a node exporter's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bot.sandbox.mesh.ledger import Histogram, SeriesKey

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: labels and value."""

    labels: Mapping[str, str]
    value: float


def istio(series: Mapping[SeriesKey, Histogram]) -> str:
    """Return `istio_requests_total` and `istio_request_duration_milliseconds`."""
    lines = ["# TYPE istio_requests_total counter"]
    texts = {key: ",".join(f'{name}="{_escaped(value)}"' for name, value in key) for key in series}
    lines += [f"istio_requests_total{{{texts[key]}}} {histogram.count}" for key, histogram in series.items()]
    lines.append("# TYPE istio_request_duration_milliseconds histogram")
    for key, histogram in series.items():
        lines += _histogram_lines("istio_request_duration_milliseconds", texts[key], histogram)
    return "\n".join(lines) + "\n"


def istiod(convergence_s: Histogram, push_s: Histogram, rejects: int) -> str:
    """Return istiod's own series: how long changes took to reach the proxy, and how many it refused."""
    lines = ["# TYPE pilot_proxy_convergence_time histogram"]
    lines += _histogram_lines("pilot_proxy_convergence_time", "", convergence_s)
    lines.append("# TYPE pilot_xds_push_time histogram")
    lines += _histogram_lines("pilot_xds_push_time", 'type="rds"', push_s)
    if rejects:
        lines += ["# TYPE pilot_total_xds_rejects counter", f'pilot_total_xds_rejects{{type="rds"}} {rejects}']
    return "\n".join(lines) + "\n"


def family(name: str, kind: str, samples: Iterable[Sample]) -> str:
    """Return one metric family."""
    lines = [f"# TYPE {name} {kind}"]
    for sample in samples:
        labels = ",".join(f'{label}="{_escaped(value)}"' for label, value in sample.labels.items())
        lines.append(f"{name}{{{labels}}} {_number(sample.value)}" if labels else f"{name} {_number(sample.value)}")
    return "\n".join(lines) + "\n"


def _histogram_lines(name: str, labels: str, histogram: Histogram) -> list[str]:
    prefix = f"{labels}," if labels else ""
    braces = f"{{{labels}}}" if labels else ""
    lines = []
    cumulative = 0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
        cumulative += count
        lines.append(f'{name}_bucket{{{prefix}le="{_number(bound)}"}} {cumulative}')
    total = histogram.count
    lines.append(f'{name}_bucket{{{prefix}le="+Inf"}} {total}')
    lines += [f"{name}_sum{braces} {_number(histogram.total)}", f"{name}_count{braces} {total}"]
    return lines


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
