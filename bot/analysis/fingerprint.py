"""What a side runs, as one short text: equal as long as templates and images are."""

from collections.abc import Sequence
from hashlib import sha256

from bot.analysis.facts import PodFacts


def fingerprint(pods: Sequence[PodFacts]) -> str:
    """A digest over the distinct (template, images) of the pods; "" when none of them tells.

    Pods whose images are not known yet (still being pulled) count by their template only when no other pod of that
    template tells more, so that scaling out changes nothing.
    """
    told = {(pod.template, pod.images) for pod in pods if pod.images}
    templates = {template for template, _ in told}
    told |= {(pod.template, ()) for pod in pods if not pod.images and pod.template and pod.template not in templates}
    if not told:
        return ""
    text = ";".join(f"{template}={','.join(sorted(images))}" for template, images in sorted(told))
    return sha256(text.encode()).hexdigest()[:16]
