"""What goes wrong in the sandbox, and what the real bot makes of it: stories that can be played beside each other.

Each has a service of its own, and its docstring says the promise it shows.
"""

from __future__ import annotations

import asyncio
import re

from tests.e2e.town import ADA, GRACE, GUEST, LINUS, Json, Run, Town, button, spelled

SERVICES = ("silent", "broken", "stubborn", "touched", "replaced", "careful")


async def no_traffic_is_no_failure(town: Town) -> None:
    """Without traffic the rollout holds for want of data and asks; it never rolls back, and goes on by itself."""
    run = await town.start("silent", "v2 steps 50%:8s,100%:2s")
    await run.reaches(50)
    await town.clients.fault("mesh", traffic={"silent": {"rate": 0}})
    asked = await run.says(r"too little (data|traffic)[\s\S]*promote with --override")
    assert button(asked, "rollback")
    await run.says("Holding: silent")
    await asyncio.sleep(2.5)
    assert await run.phase() == "Progressing"
    assert await run.weights() == [50]
    await town.clients.fault("mesh", traffic={"silent": {"rate": None}})
    await run.ended("Promoted")
    await run.says("enough data again")


async def refused_connections_are_failures(town: Town) -> None:
    """A canary to which nothing connects has no destination-side metrics; the callers' side sends it back."""
    await town.clients.fault("mesh", workloads={"broken-v2": {"refuse": True}})
    run = await town.start("broken", channel="#random")
    await run.ended("RolledBack")
    assert await run.weights() == [50, 0]
    final = await run.says("Rolled back: broken")
    everything = r"(All [\d,]+ requests of v2|100% of v2's [\d,]+ requests) failed .*, as the callers' proxies saw it"
    assert re.search(everything, spelled(final)), spelled(final)


async def a_server_that_refuses_is_asked_again(town: Town) -> None:
    """500s and 409s on patches delay a rollout; no weight is written twice, and it still arrives."""
    rule = {"verbs": ["patch"], "resource": "virtualservices", "name": "stubborn", "dry_run": False}
    faults = [{**rule, "status": 500, "times": 2}, {**rule, "status": 409, "times": 1}]
    await town.kube_control("PUT", "faults", {"requests": faults})
    run = await town.start("stubborn", channel="#random")
    await run.ended("Promoted")
    assert await run.weights() == [50, 100]
    await run.says("could not be written")
    left = (await town.kube_control("GET", "faults"))["requests"]
    assert [fault["times"] for fault in left if fault.get("name") == "stubborn"] == [0, 0]


async def another_hand_on_the_weights_is_asked_about(town: Town) -> None:
    """Edited weights hold the rollout and name the manager; adopt, re-apply and roll back do what they say."""
    run = await town.start("touched", channel="#payments")
    await run.reaches(50)
    await run.says("50%")
    weights = "/spec/http/0/route"

    async def edit(canary: int) -> None:
        patch = [
            {"op": "replace", "path": f"{weights}/0/weight", "value": 100 - canary},
            {"op": "replace", "path": f"{weights}/1/weight", "value": canary},
        ]
        await town.patch_route("touched", patch, manager="kubectl-edit")

    await edit(20)
    asked = await run.asked("drift:reapply", "20%")
    assert "kubectl-edit" in spelled(asked)
    await asyncio.sleep(5.0)
    assert await run.weights() == [50]
    await _until_reapplied(run, 50)
    await run.says("All gates pass at 50%")
    await edit(15)
    await run.asked("drift:reapply", "15%")
    await asyncio.sleep(5.0)
    await _until_reapplied(run, 50)
    assert await run.weights() == [50]
    await edit(70)
    answer = await run.click("drift:adopt", message=await run.asked("drift:adopt", "70%"))
    assert "dopted" in answer, answer
    await run.reaches(70)
    await edit(90)
    answer = await run.click("rollback", LINUS, await run.asked("drift:adopt", "90%"))
    assert "olling back" in answer, answer
    await run.ended("RolledBack")
    assert await run.weights() == [50, 70, 0]
    route = (await town.route("touched"))["spec"]["http"][0]["route"]
    assert [(entry["destination"]["subset"], entry.get("weight")) for entry in route] == [("v1", None)]


async def _until_reapplied(run: Run, weight: int) -> None:
    """More for the canary is only written on fresh passing samples: ask until they are there."""

    async def granted() -> bool:
        asked = await run.asked("drift:reapply")
        answer = await run.click("drift:reapply", message=asked)
        return f"Re-applying {weight}%" in answer

    await run.eventually(granted)

    async def written() -> bool:
        route = await run.town.route(run.route)
        return any(entry.get("weight") == weight for entry in route["spec"]["http"][0]["route"])

    await run.eventually(written)


async def a_redeployed_canary_begins_again(town: Town) -> None:
    """New pods under a running rollout void its evidence: it holds, and a person sends it back to the first step."""
    run = await town.start("replaced", channel="#checkout")
    await run.reaches(50)
    await run.says("All gates pass")
    await town.kube_control("PUT", "workloads/shop/replaced-v2", {"image": "registry.example/shop/replaced:v2.0.1"})
    asked = await run.asked("restart")
    assert "redeployed" in spelled(asked)
    assert await run.weights() == [50]
    assert "begins again" in await run.click("restart", message=asked)

    async def begun_again() -> bool:
        return await run.weights() == [50, 0, 50]

    await run.eventually(begun_again)
    await town.say(f"rollback {run.id}")
    await run.ended("RolledBack")


async def two_people_have_to_agree(town: Town) -> None:
    """Who started and who is no release lead are refused with a reason; the second lead's click is what counts."""
    run = await town.start("careful")
    asked = await run.asked("approve")
    assert "S0LEADS" in asked["pings"]
    for user, why in ((ADA, r"release-leads|started"), (GUEST, r"guest|member|release-leads")):
        answer = await run.click("approve", user, asked)
        assert any(word in answer for word in why.split("|")), answer
    assert await run.weights() == [40]
    first = await run.click("approve", GRACE, asked)
    assert "1 of 2" in first, first
    again = await run.click("approve", GRACE, await run.asked("approve"))
    assert "already" in again.lower(), again
    await asyncio.sleep(1.5)
    assert await run.weights() == [40]
    await run.click("approve", LINUS, await run.asked("approve"))
    await run.reaches(60)
    decided = await run.says("pproved by grace, linus")
    assert button(decided, "approve") is None
    await town.say(f"rollback {run.id}")
    await run.ended("RolledBack")


BESIDE = (
    no_traffic_is_no_failure,
    refused_connections_are_failures,
    a_server_that_refuses_is_asked_again,
    another_hand_on_the_weights_is_asked_about,
    a_redeployed_canary_begins_again,
    two_people_have_to_agree,
)


async def an_ill_node_is_spoken_of(town: Town) -> None:
    """One message for the node, naming the rollouts on it, edited as it changes and closed when it is well again."""
    run = await town.start("payments", channel="#payments")
    await run.reaches(50)

    async def well_again() -> None:
        await town.clients.fault("mesh", steal={"node-2": None})
        await town.kube_control("PUT", "nodes/node-2", {"Ready": "True"})

    town.afterwards(well_again)
    await town.clients.fault("mesh", steal={"node-2": 0.15})
    await town.kube_control("PUT", "nodes/node-2", {"Ready": "False"})

    async def messages() -> list[Json]:
        return [one for one in await town.clients.messages("#deploys") if "node-2" in one["text"]]

    async def critical() -> bool:
        found = await messages()
        return bool(found) and run.id in found[0]["text"] and "steal" in spelled(found[0])

    await run.eventually(critical)
    await run.says(r"Held.*(node-2.*critical|critical.*node-2)")
    await well_again()

    async def closed() -> bool:
        return "healthy again" in (await messages())[0]["text"]

    await run.eventually(closed)
    (only,) = await messages()
    assert only["edit_count"] >= 2
    await run.says("Progressing: payments")
    await town.say(f"rollback {run.id}")
    await run.ended("RolledBack")


async def not_measuring_is_no_failure(town: Town) -> None:
    """Prometheus down holds a healthy canary where it is; it goes on by itself when the answers are back."""
    run = await town.start("stubborn", "v1 steps 50%:2s,100%:2s", channel="#random")
    await run.reaches(50)
    town.afterwards(lambda: town.clients.fault("prometheus", down=False))
    await town.clients.fault("prometheus", down=True)
    await run.says("metrics cannot be read")
    await asyncio.sleep(3.0)
    assert await run.weights() == [50]
    await town.clients.fault("prometheus", down=False)
    await run.ended("Promoted")


async def slack_is_not_on_the_way_back(town: Town) -> None:
    """With Slack away a failing canary still goes to 0; what was said meanwhile arrives later, in order."""
    await town.clients.fault("mesh", workloads={"checkout-v2": {"fail_percent": 0.0}})
    run = await town.start("checkout", channel="#checkout")
    await run.reaches(50)
    await run.says("All gates pass")
    before = len(await run.messages())
    town.afterwards(lambda: town.clients.fault("slack", offline=False))
    await town.clients.fault("slack", offline=True)

    async def away() -> bool:
        status, text = await town.bot_answers("/readyz")
        return status == 503 and "Slack is not connected" in text

    await run.eventually(away)
    assert (await town.bot_answers("/healthz"))[0] == 200
    await town.clients.fault("mesh", workloads={"checkout-v2": {"fail_percent": 40.0}})
    await run.ended("RolledBack")
    assert len(await run.messages()) == before
    await town.clients.fault("slack", offline=False)
    await run.says("Rolled back: checkout")

    async def all_there() -> bool:
        return any(text.startswith("🔴 Rolled back") for text in await run.thread())

    await run.eventually(all_there)
    thread = await run.thread()
    told = [next(i for i, text in enumerate(thread) if words in text) for words in ("Rolling back", "🔴 Rolled back")]
    assert told == sorted(told)
    assert len(set(thread)) == len(thread)
    await town.clients.fault("mesh", workloads={"checkout-v2": None})


async def without_redis_the_routes_are_read(town: Town) -> None:
    """`/canary rollback all` with Redis killed sets every steered route to 0; the records end the same way later."""
    one = await town.start("replaced", channel="#checkout")
    other = await town.start("touched", channel="#payments")
    for run in (one, other):
        await run.reaches(50)
    redis = town.world.redis
    assert redis is not None
    port = int(redis.url.rsplit(":", 1)[1].split("/")[0])
    await asyncio.to_thread(redis.stop, keep_data=True)
    answer = await town.say("rollback all it burns", user=LINUS, wait_s=20.0)
    assert "Redis does not answer" in answer
    assert one.id in answer
    assert other.id in answer
    for run in (one, other):
        assert await run.phase() == "RolledBack", answer
    await town.restart_redis(port)
    for run in (one, other):
        final = await run.says("Rolled back: ", 60.0)
        assert "it burns" in spelled(final)


ALONE = (
    an_ill_node_is_spoken_of,
    not_measuring_is_no_failure,
    slack_is_not_on_the_way_back,
    without_redis_the_routes_are_read,
)
