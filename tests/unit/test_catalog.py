"""The catalog: what it gives to a start, and every way in which a file can be wrong."""

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from bot.analysis.nodes import NodeLimits, Threshold
from bot.catalog import Catalog, CatalogError, CatalogErrors, Poll, Reloading, Roles, load
from bot.catalog.schema import (
    ApprovalShape,
    CommonShape,
    DefaultsShape,
    GateShape,
    LevelsShape,
    NodesShape,
    PlanShape,
    RouteShape,
    ServiceShape,
)
from bot.rollout.gate import GateSpec, Relation
from bot.rollout.model import ApprovalPolicy, OnSilence, Rules
from bot.rollout.plan import DEFAULT_PLAN, Plan, Step

PAGE = Path(__file__).parents[2] / "docs" / "catalog.md"

PRODUCT = """\
defaults: {plan: standard, channel: "#deploys", check_every: 15s}
plans:
  standard: {steps: "5%:10m, 25%:10m, 50%:30m:approve, 100%:10m"}
gates:
  error-rate: {max: 1%, min_requests: 50}
  p99: {max: 250ms}
  checkout-drop: {query: 'sum(rate(orders_failed_total{version="{{canary}}"}[{{window}}]))', max: 0.5}
services:
  payments:
    namespace: shop
    mesh: istio                # istio | gateway-api | smi ; found by looking when absent
    route: {name: payments, http: primary}
    subsets: [v1, v2]          # which of them is stable is read from the weights
    gates: {p99: {max: 100ms}}
    approvers: ["@release-leads", U012ABCDEF]
    channel: "#payments"
"""


def _errors(text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(CatalogErrors) as raised:
        load(text)
    return [(error.line, error.path, error.message) for error in raised.value.errors]


def _gate(catalog: Catalog, name: str, service: str = "payments") -> GateSpec | None:
    return next((gate for gate in catalog.entry(service).gates if gate.name == name), None)


class TestReading:
    def test_the_example_of_the_product(self) -> None:
        """The file that the product shows is read as it is meant."""
        entry = load(PRODUCT).entry("payments")
        assert (entry.namespace, entry.mesh, entry.route_name, entry.route, entry.protocol) == (
            "shop",
            "istio",
            "payments",
            "primary",
            "http",
        )
        assert entry.subsets == ("v1", "v2")
        assert entry.plan == Plan(
            "standard", (Step(5, 600.0), Step(25, 600.0), Step(50, 1800.0, True), Step(100, 600.0))
        )
        assert [(gate.name, gate.kind, gate.limit, gate.min_requests) for gate in entry.gates] == [
            ("error-rate", "error-rate", 0.01, 50),
            ("p99", "p99", 100.0, 500),
            ("checkout-drop", "custom", 0.5, 0),
            ("pods", "pods", 0.0, 0),
            ("missing-responses", "missing-responses", 0.0, 0),
            ("nodes", "nodes", 0.0, 0),
        ]
        assert entry.rules == Rules(channel="#payments", mention="@release-leads")
        assert entry.roles == Roles(approvers=("@release-leads", "U012ABCDEF"))
        assert entry.listed

    @pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "services:\n", "defaults: {}\nservices: {payments: }"])
    def test_little_or_nothing_is_a_catalog_of_defaults(self, text: str) -> None:
        """Every part may be absent or empty."""
        entry = load(text).entry("payments")
        assert entry.plan == DEFAULT_PLAN
        assert entry.rules == Rules()
        assert [gate.name for gate in entry.gates] == ["error-rate", "pods", "missing-responses", "nodes"]
        assert load(text).nodes == NodeLimits()

    def test_a_service_without_entry_gets_the_defaults(self) -> None:
        """It is not listed, and takes the namespace that was asked for."""
        entry = load(PRODUCT).entry("cart", "web")
        assert (entry.name, entry.namespace, entry.listed) == ("cart", "web", False)
        assert entry.rules.channel == "#deploys"
        assert entry.plan.name == "standard"

    def test_an_entry_is_for_its_namespace(self) -> None:
        """The same name in another namespace is another service."""
        catalog = load(PRODUCT)
        assert catalog.entry("payments", "shop").listed
        assert not catalog.entry("payments", "staging").listed
        assert load("services: {cart: {channel: '#cart'}}").entry("cart", "web").rules.channel == "#cart"
        assert load("defaults: {namespace: shop}").entry("cart").namespace == "shop"

    def test_nearest_names(self) -> None:
        """A misspelt service finds its neighbours, also among routes of the mesh."""
        assert load(PRODUCT).nearest("paymnets", ["payouts", "cart"])[0] == "payments"
        assert load(PRODUCT).nearest("crat", ["cart"]) == ("cart",)
        assert load(PRODUCT).nearest("zzz") == ()

    def test_every_rule_can_be_set_and_a_service_wins(self) -> None:
        """Defaults hold for all, a service changes what it names and keeps the rest."""
        catalog = load(
            """
defaults:
  check_every: 5s
  no_data_after: 20m
  on_no_data: roll back
  on_machine: hold
  arrival: 30s
  mention: "@oncall"
  approval: {quorum: 2, four_eyes: false, expires: 30m, on_expiry: hold}
  starters: ["@devs"]
  operators: [U0OPS]
  rollback: [U0A, "@oncall"]
services:
  payments: {approval: {quorum: 3}, starters: [], check_every: 1s}
"""
        )
        assert catalog.entry("cart").rules == Rules(
            check_every_s=5.0,
            no_data_after_s=1200.0,
            on_no_data=OnSilence.ROLL_BACK,
            on_machine=OnSilence.HOLD,
            arrival_s=30.0,
            approval=ApprovalPolicy(2, False, 1800.0, OnSilence.HOLD),
            mention="@oncall",
        )
        payments = catalog.entry("payments")
        assert payments.rules.approval == ApprovalPolicy(3, False, 1800.0, OnSilence.HOLD)
        assert payments.rules.check_every_s == 1.0
        assert payments.roles == Roles((), (), ("U0OPS",), ("U0A", "@oncall"))

    def test_steps_can_be_a_list(self) -> None:
        """A long plan can be written one step a line."""
        catalog = load('plans: {slow: {steps: ["5%:10m", "50%:1h:approve", "100%"]}}\ndefaults: {plan: slow}')
        assert catalog.entry("x").plan == Plan("slow", (Step(5, 600.0), Step(50, 3600.0, True), Step(100, 600.0)))

    def test_a_plan_named_default_replaces_ours(self) -> None:
        """`default` can be given another meaning."""
        assert load('plans: {default: {steps: "50%:1m, 100%:1m"}}').entry("x").plan.steps[0].weight_percent == 50

    def test_nodes(self) -> None:
        """Thresholds change one by one."""
        catalog = load("nodes: {steal: {critical: 5%}, iowait: {warn: 1%}, condition_for: 10s, clear_after: 2m}")
        assert catalog.nodes == NodeLimits(Threshold(0.02, 0.05), Threshold(0.01, 0.30), 10.0, 120.0)

    def test_namespaces(self) -> None:
        """Where services without entry may be."""
        catalog = load("namespaces: [shop, web]")
        assert catalog.covers("web")
        assert not catalog.covers("kube-system")
        assert load("").covers("kube-system")

    def test_yaml_of_today(self) -> None:
        """`off`, `no` and `1:30` are text, as in YAML 1.2: nothing becomes a boolean or a number behind one's back."""
        assert _errors("plans: {p: {steps: 1:30}}")[0][2].startswith("Step 1 (`1:30`")
        assert load("services: {no: {}, off: {}}").services.keys() == {"no", "off"}


class TestGates:
    def test_relative_limits(self) -> None:
        """`2x` and `1.2x` are compared with stable."""
        catalog = load("gates: {error-rate: {max: 2x}, p99: {max: 1.2x}}")
        for name, limit in (("error-rate", 2.0), ("p99", 1.2)):
            gate = _gate(catalog, name)
            assert gate is not None
            assert (gate.relation, gate.limit) == (Relation.RELATIVE, limit)

    def test_a_service_changes_only_what_it_says(self) -> None:
        """The rest of a gate comes from the one for all."""
        catalog = load(
            "gates: {p99: {max: 300ms, min_requests: 90, fail_after: 3}}\n"
            "services: {payments: {gates: {p99: {max: 1s}}}}"
        )
        gate = _gate(catalog, "p99")
        assert gate is not None
        assert (gate.limit, gate.min_requests, gate.fail_after, gate.fail_total) == (1000.0, 90, 3, 4)

    def test_gates_can_be_switched_off(self) -> None:
        """`off` or `false`, for all or for one service."""
        catalog = load(
            "gates: {error-rate: off, p99: {}}\n"
            "services: {payments: {gates: {p99: false}}, cart: {gates: {error-rate: {max: 5%}}}}"
        )
        assert [gate.name for gate in catalog.entry("payments").gates] == ["pods", "missing-responses", "nodes"]
        assert [gate.name for gate in catalog.entry("other").gates] == ["p99", "pods", "missing-responses", "nodes"]
        gate = _gate(catalog, "error-rate", "cart")
        assert gate is not None
        assert gate.limit == 0.05

    def test_what_is_always_judged_takes_only_counts(self) -> None:
        """`pods` cannot be off; how often it has to fail can be changed."""
        gate = _gate(load("gates: {missing-responses: {fail_after: 5}}"), "missing-responses")
        assert gate is not None
        assert (gate.fail_after, gate.fail_total) == (5, 5)
        assert _errors("gates: {pods: off}")[0][2] == "is always judged and cannot be switched off"
        assert "takes nothing: it holds" in _errors("gates: {nodes: {fail_after: 5}}")[0][2]

    def test_gates_say_how_and_against_what_they_are_judged(self) -> None:
        """Sequential and stable by default; a service may say otherwise; alpha is for all gates of a rollout."""
        catalog = load(
            "defaults: {alpha: 0.5%}\n"
            "gates: {p99: {max: 1.2x}}\n"
            "services: {payments: {alpha: 2%, gates: {p99: {against: same time yesterday}, "
            "error-rate: {judge: threshold}}}, cart: {gates: {p99: {against: yesterday}}}}"
        )
        found = {name: _gate(catalog, "p99", name) for name in ("payments", "cart", "other")}
        assert [(gate.judge, gate.against) for gate in found.values() if gate] == [
            ("sequential", "yesterday"),
            ("sequential", "yesterday"),
            ("sequential", "stable"),
        ]
        errors = _gate(catalog, "error-rate", "payments")
        assert errors is not None
        assert errors.judge == "threshold"
        assert [catalog.entry(name).rules.alpha for name in ("payments", "cart")] == [0.02, 0.005]

    @pytest.mark.parametrize(
        ("gates", "words"),
        [
            ("p99: {against: yesterday}", "against: 250ms is compared with nothing"),
            ("p99: {max: 2x, against: tomorrow}", "expected stable or yesterday, not `tomorrow`"),
            ("p99: {max: 2x, against: yesterday, judge: threshold}", "a threshold is compared with stable only"),
            ("p99: {judge: bayes}", "expected sequential or threshold, not `bayes`"),
            ("lag: {query: x, max: 1, judge: sequential}", "a query gives a value, not counts"),
            ("lag: {query: x, max: 2x, against: yesterday}", "a query says itself what it compares with"),
            ("pods: {judge: threshold}", "takes no `judge`"),
        ],
    )
    def test_judgements_that_cannot_be_are_refused(self, gates: str, words: str) -> None:
        """Each with what would be possible."""
        assert words in _errors(f"gates: {{{gates}}}")[0][2]

    def test_alpha_is_a_share(self) -> None:
        """Not 0, and not a number without its unit."""
        for wrong in ("0%", "0.01", "101%"):
            assert "expected a share such as 2%" in _errors(f"defaults: {{alpha: {wrong}}}")[0][2]

    def test_tcp_routes_have_no_requests_to_count(self) -> None:
        """They need a gate with a query, and are judged by that and the pods."""
        assert _errors("services: {db: {route: {tcp: main}}}") == [
            (1, "services.db.route", "a tcp route has no requests to count: give it a gate with a query")
        ]
        catalog = load("services: {db: {route: {tcp: main}, gates: {lag: {query: 'x', max: 0, unit: s}}}}")
        entry = catalog.entry("db")
        assert [gate.name for gate in entry.gates_for(entry.protocol)] == ["lag", "pods", "nodes"]
        lag = _gate(catalog, "lag", "db")
        assert lag is not None
        assert (lag.limit, lag.unit) == (0.0, "s")


_KEYS = ["defaults", "plans", "gates", "services", "nodes", "namespaces", "p99", "max", "query", "steps", "approval"]
_KEYS += ["route", "steal", "warn", "subsets", "plan", "channel", "approvers"]
_VALUES = ["5%:1m, 100%", "1%", "250ms", "1.2x", "off", "10m", "#deploys", "@people", "hold", 'x{a="{{canary}}"}']

WRONG = """\
defaults: {plan: standrd, channel: deploys, check_every: 15, aproval: {}, approval: {quorum: 0, exprires: 1h}}
plans:
  standard: {steps: "5%:10m, 4%:10m, 100%"}
  empty:
gates:
  error-rate: {max: 250ms}
  drop: {max: 0.5}
services:
  payments:
    namspace: shop
    mesh: linkerd
    route: {http: primary, tcp: x, htpp: 1}
    subsets: [v1]
    gates: {p99: {max: 100}, pods: off}
    approvers: "@release-leads"
    starters: ["<!channel>", U0A]
    channel: #payments
    plan: nope
  "x y": {}
  payments: {}
nodes: {steal: {warn: 20%}, iowait: {warn: 3}}
namespaces: [Shop]
servces: {}
"""


class TestErrors:
    def test_all_at_once_with_path_and_line(self) -> None:
        """Twenty-five different mistakes in one file are twenty-five errors, each where it is."""
        found = {(line, path): message for line, path, message in _errors(WRONG)}
        expected = {
            (1, "defaults.approval.exprires"): "is not known here; was `expires` meant?",
            (1, "defaults.approval.quorum"): "expected at least 1, not `0`",
            (1, "defaults.aproval"): "is not known here; was `approval` meant?",
            (1, "defaults.channel"): 'expected a channel such as "#deploys" (in quotes: # begins a comment) or its id, '
            "not `deploys`",
            (1, "defaults.check_every"): "expected a duration with its unit, such as 15s or 10m, not `15`",
            (1, "defaults.plan"): "there is no plan `standrd`; was `standard` meant?",
            (3, "plans.standard.steps"): "Step 2 (`4%:10m`, character 9): weights have to rise, but 4% follows 5%. "
            "For example `5%:10m, 25%:10m, 50%:30m:approve, 100%:10m`.",
            (4, "plans.empty"): "has no steps",
            (6, "gates.error-rate"): "`error-rate<250ms`: an error rate is limited in percent (up to 100%) or x. "
            "For example `error-rate<1%`, `p99<250ms` or `p99<1.2x`.",
            (7, "gates.drop"): "needs a `query`: it is neither error-rate nor p99. "
            "See custom gates in the documentation.",
            (10, "services.payments.namspace"): "is not known here; was `namespace` meant?",
            (11, "services.payments.mesh"): "expected istio, gateway-api or smi, not `linkerd`",
            (12, "services.payments.route.htpp"): "is not known here; was `http` meant?",
            (13, "services.payments.subsets"): "expected at least 2 of them",
            (14, "services.payments.gates.p99"): "`p99<100`: p99 is limited in ms, s or x. "
            "For example `error-rate<1%`, `p99<250ms` or `p99<1.2x`.",
            (14, "services.payments.gates.pods"): "is always judged and cannot be switched off",
            (15, "services.payments.approvers"): "expected a list such as [a, b], not `@release-leads`",
            (16, "services.payments.starters[0]"): "expected a Slack user id (U012ABCDEF), group id (S012ABCDEF) or "
            "group (@release-leads), not `<!channel>`",
            (17, "services.payments.channel"): 'has no value: "#" begins a comment, put the channel in quotes',
            (18, "services.payments.plan"): "there is no plan `nope`; there are default, empty, standard",
            (19, "services.x y"): "cannot be the name of a service",
            (20, "services.payments"): "is there twice, first on line 9",
            (21, "nodes.iowait.warn"): "expected a share such as 2%, not `3`",
            (21, "nodes.steal"): "warns at 20%, above critical at 10%",
            (22, "namespaces[0]"): "expected the name of a namespace, not `Shop`",
            (23, "servces"): "is not known here; was `services` meant?",
        }
        assert found == expected

    def test_the_text_names_file_line_and_path(self) -> None:
        """One line an error, as editors and people know it."""
        with pytest.raises(CatalogErrors) as raised:
            load("services:\n  a: {plan: x}\nb: 1\n", "/etc/catalog.yaml")
        assert str(raised.value) == (
            "/etc/catalog.yaml:2: services.a.plan: there is no plan `x`; there are default\n"
            "/etc/catalog.yaml:3: b: is not known here; "
            "known are defaults, plans, gates, services, nodes, namespaces"
        )

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("a: [", (1, "", "expected the node content, but found '<stream end>'")),
            ("plans: 1\n\tb: 2", (2, "", "found character '\\t' that cannot start any token")),
            ("- a\n- b", (1, "", "expected keys such as `services:`")),
            ("text", (1, "", "expected keys such as `services:`")),
            ("a: 1\n---\nb: 2", (2, "", "but found another document")),
            ('a: "\x01"', (1, "", "unacceptable character #x0001: special characters are not allowed")),
            ("[" * 5000, (1, "", "nested too deeply")),
            ("#" * 1_000_001, (1, "", "larger than 1 MB")),
            (
                "plans: &p {}\ngates: *p",
                (2, "", "aliases (`*name`) are not read here: write the value out, or use `defaults`"),
            ),
        ],
    )
    def test_what_is_no_catalog_at_all(self, text: str, error: tuple[int, str, str]) -> None:
        """Broken YAML, other shapes, several documents, bombs: one error with its line."""
        assert _errors(text) == [error]

    @pytest.mark.parametrize(
        "tag",
        ["!!python/object/apply:os.system", "!!python/name:os.system", "!mine", "!!timestamp", "!!binary", "!!set"],
    )
    def test_tags_are_refused(self, tag: str) -> None:
        """Nothing is made of a value but what YAML's core schema says."""
        found = _errors(f"defaults:\n  plan: {tag} x\n")
        assert (found[0][0], found[0][1]) == (2, "defaults.plan")
        assert "is not read here" in found[0][2]

    def test_an_error_for_all_is_told_once(self) -> None:
        """A wrong gate for all services is one error, not one for each service."""
        assert len(_errors("gates: {p99: {max: fast}}\nservices: {a: , b: , c: }")) == 1

    def test_a_wrong_query_says_everything(self) -> None:
        """Unknown placeholders, and ones outside of quotes."""
        ((_, path, message),) = _errors("gates: {leak: {max: 5, query: 'x{a={{canary}}} {{widnow}}'}}")
        assert path == "gates.leak"
        assert "{{canary}} at position 4 must stand inside a quoted label value" in message
        assert "unknown placeholder {{widnow}}" in message

    @pytest.mark.parametrize("maximum", ["-1", ".nan", ".inf", "true", "[1]", "{}", "1e400"])
    def test_limits_that_are_none(self, maximum: str) -> None:
        """Not a number, endless, below nothing, or no limit at all."""
        (error,) = _errors(f"gates: {{leak: {{query: x, max: {maximum}}}}}")[:1]
        assert error[1].startswith("gates.leak")

    @settings(max_examples=300, deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(_VALUES),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=4) | st.sampled_from(_KEYS), inner, max_size=4)
            ),
            max_leaves=25,
        )
    )
    def test_whatever_it_says_the_answer_is_a_catalog_or_its_errors(self, data: object) -> None:
        """No input ends in another exception, and every error has a line."""
        text = yaml.safe_dump({"defaults": data, "plans": data, "gates": data, "services": data, "nodes": data})
        found: tuple[CatalogError, ...] = ()
        try:
            catalog = load(text)
        except CatalogErrors as errors:
            catalog, found = None, errors.errors
        assert (catalog is None) == bool(found)
        assert all(error.line >= 1 for error in found)


class TestReloading:
    def test_a_change_is_taken_once(self, tmp_path: Path) -> None:
        """A good change replaces the catalog; unchanged is unchanged."""
        path = tmp_path / "catalog.yaml"
        path.write_text(PRODUCT)
        reloading = Reloading(path)
        assert reloading.poll() is Poll.UNCHANGED
        path.write_text(PRODUCT.replace("100ms", "1s"))
        _touch(path, 1)
        assert reloading.poll() is Poll.RELOADED
        gate = _gate(reloading.current, "p99")
        assert gate is not None
        assert gate.limit == 1000.0
        assert reloading.poll() is Poll.UNCHANGED

    def test_a_bad_change_keeps_the_old_and_is_told_once(self, tmp_path: Path) -> None:
        """The last good catalog stays until the file is good again."""
        path = tmp_path / "catalog.yaml"
        path.write_text(PRODUCT)
        reloading = Reloading(path)
        before = reloading.current
        path.write_text("servces: {}")
        _touch(path, 1)
        assert reloading.poll() is Poll.REFUSED
        assert reloading.current is before
        assert reloading.errors is not None
        assert "was `services` meant?" in str(reloading.errors)
        assert reloading.poll() is Poll.UNCHANGED
        path.unlink()
        assert reloading.poll() is Poll.REFUSED
        assert reloading.current is before
        path.write_text(PRODUCT)
        assert reloading.poll() is Poll.RELOADED
        assert reloading.errors is None

    def test_a_mounted_configmap_changes_by_symlink(self, tmp_path: Path) -> None:
        """Kubernetes swaps a folder's link; the file behind the same path is another."""
        for name, text in (("one", PRODUCT), ("two", PRODUCT.replace("#payments", "#pay"))):
            (tmp_path / name).mkdir()
            (tmp_path / name / "catalog.yaml").write_text(text)
        (tmp_path / "data").symlink_to("one")
        reloading = Reloading(tmp_path / "data" / "catalog.yaml")
        (tmp_path / "new").symlink_to("two")
        (tmp_path / "new").rename(tmp_path / "data")
        assert reloading.poll() is Poll.RELOADED
        assert reloading.current.entry("payments").rules.channel == "#pay"

    def test_the_first_reading_is_strict(self, tmp_path: Path) -> None:
        """A bot does not start on a catalog with errors, or without the one it was told of."""
        path = tmp_path / "catalog.yaml"
        with pytest.raises(CatalogErrors, match="cannot be read: No such file"):
            Reloading(path)
        path.write_bytes(b"\xff\xfe")
        with pytest.raises(CatalogErrors, match="is not UTF-8"):
            Reloading(path)

    def test_without_a_file_there_are_defaults(self) -> None:
        """No catalog configured is a catalog of defaults that never changes."""
        reloading = Reloading(None)
        assert reloading.current.services == {}
        assert reloading.poll() is Poll.UNCHANGED


def _touch(path: Path, later_s: int) -> None:
    """Make sure that the change is seen on file systems with coarse times."""
    now_ns = path.stat().st_mtime_ns + later_s * 1_000_000_000
    os.utime(path, ns=(now_ns, now_ns))


class TestPage:
    @pytest.mark.parametrize(
        ("shape", "without"),
        [
            (CommonShape, BaseModel),
            (DefaultsShape, CommonShape),
            (ServiceShape, CommonShape),
            (RouteShape, BaseModel),
            (ApprovalShape, BaseModel),
            (GateShape, BaseModel),
            (PlanShape, BaseModel),
            (NodesShape, BaseModel),
            (LevelsShape, BaseModel),
        ],
    )
    def test_every_key_is_on_the_page(self, shape: type[BaseModel], without: type[BaseModel]) -> None:
        """docs/catalog.md holds the table made from the shape."""
        assert table(shape, without) in PAGE.read_text(encoding="utf-8"), f"should hold:\n{table(shape, without)}"

    def test_the_example_on_the_page_is_read(self) -> None:
        """What people copy works."""
        example = PAGE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
        assert load(example).entry("payments").listed


def table(shape: type[BaseModel], without: type[BaseModel] = BaseModel) -> str:
    """The keys of a shape as a table, those of another left out."""
    rows = ["| key | meaning; default |", "|---|---|"]
    for name, field in shape.model_fields.items():
        if name not in without.model_fields:
            rows.append(f"| `{name}` | {field.description} |")
    return "\n".join(rows)
