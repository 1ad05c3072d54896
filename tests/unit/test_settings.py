"""The environment: everything that is wrong at once, nothing of a secret in the words, and a page that matches."""

import os
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from bot.settings import Settings, SettingsErrors, load

GOOD = {
    "SLACK_BOT_TOKEN": "xoxb-s3cret",
    "SLACK_APP_TOKEN": "xapp-s3cret",
    "CANARY_BOT_REDIS_URL": "redis://:s3cret@127.0.0.1:6379/0",
    "CANARY_BOT_PROMETHEUS_URL": "http://127.0.0.1:9090/prom",
}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("SLACK_", "CANARY_BOT_")):
            monkeypatch.delenv(name)


def _set(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def _errors(monkeypatch: pytest.MonkeyPatch, **changes: str) -> dict[str, str]:
    _set(monkeypatch, {**GOOD, **changes})
    with pytest.raises(SettingsErrors) as raised:
        load()
    assert "s3cret" not in str(raised.value)
    return dict(raised.value.errors)


def test_the_least_that_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four variables are enough; the rest has defaults."""
    _set(monkeypatch, GOOD)
    settings = load()
    assert settings.slack_bot_token.get_secret_value() == "xoxb-s3cret"
    assert settings.redis_url.get_secret_value() == GOOD["CANARY_BOT_REDIS_URL"]
    assert (settings.redis_prefix, settings.http_port, settings.log_level) == ("canary-bot", 8080, "info")
    assert (settings.namespaces, settings.catalog, settings.prometheus_headers) == ((), None, {})


def test_everything_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable arrives in its field, parsed."""
    _set(
        monkeypatch,
        {
            **GOOD,
            "SLACK_SIGNING_SECRET": "sign",
            "CANARY_BOT_SLACK_API_URL": "http://127.0.0.1:1/api/",
            "CANARY_BOT_CATALOG": "/etc/catalog.yaml",
            "CANARY_BOT_REDIS_PREFIX": "team-a",
            "CANARY_BOT_SHARDS": "8",
            "CANARY_BOT_PROMETHEUS_USERNAME": "u",
            "CANARY_BOT_PROMETHEUS_PASSWORD": "p",
            "CANARY_BOT_PROMETHEUS_CA_FILE": "/ca.pem",
            "CANARY_BOT_PROMETHEUS_HEADERS": '{"X-Scope-OrgID": "shop"}',
            "CANARY_BOT_KUBECONFIG": "/kube",
            "CANARY_BOT_NAMESPACES": "shop, web",
            "CANARY_BOT_HTTP_HOST": "0.0.0.0",
            "CANARY_BOT_HTTP_PORT": "0",
            "CANARY_BOT_LOG_LEVEL": "DEBUG",
            "CANARY_BOT_ALERT_WEBHOOK_URL": "https://hooks.example/x",
        },
    )
    settings = load()
    assert settings.namespaces == ("shop", "web")
    assert settings.prometheus_headers["X-Scope-OrgID"].get_secret_value() == "shop"
    assert settings.shards == 8
    assert (settings.catalog, settings.kubeconfig) == (Path("/etc/catalog.yaml"), Path("/kube"))
    assert (settings.http_host, settings.http_port, settings.log_level) == ("0.0.0.0", 0, "debug")


def test_an_empty_environment_names_all_that_is_needed() -> None:
    """All four at once, by the names people have to set."""
    with pytest.raises(SettingsErrors) as raised:
        load()
    assert [name for name, _ in raised.value.errors] == list(GOOD)


def test_all_errors_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong values and wrong combinations come in one list."""
    errors = _errors(
        monkeypatch,
        SLACK_APP_TOKEN="xoxb-s3cret",
        CANARY_BOT_REDIS_URL="s3cret:6379",
        CANARY_BOT_PROMETHEUS_HEADERS="s3cret",
        CANARY_BOT_PROMETHEUS_USERNAME="u",
        CANARY_BOT_PROMETHEUS_TOKEN="s3cret",
        CANARY_BOT_HTTP_PORT="http",
        CANARY_BOT_SHARDS="0",
        CANARY_BOT_LOG_LEVEL="loud",
        CANARY_BOT_NAMESPACES="shop,Shop",
    )
    assert errors == {
        "SLACK_APP_TOKEN": "expected an app-level token, which begins with xapp-",
        "CANARY_BOT_REDIS_URL": "expected an address that begins with redis:// or rediss:// or unix://",
        "CANARY_BOT_PROMETHEUS_HEADERS": 'expected a JSON object of texts such as {"X-Scope-OrgID": "shop"}',
        "CANARY_BOT_PROMETHEUS_TOKEN": "cannot be used together with CANARY_BOT_PROMETHEUS_USERNAME: choose one",
        "CANARY_BOT_PROMETHEUS_PASSWORD": "is missing: CANARY_BOT_PROMETHEUS_USERNAME is set",
        "CANARY_BOT_HTTP_PORT": "expected a port from 0 to 65535",
        "CANARY_BOT_SHARDS": "expected a number from 1 to 64",
        "CANARY_BOT_LOG_LEVEL": "expected one of debug, info, warning, error",
        "CANARY_BOT_NAMESPACES": "expected names of namespaces with commas between them; 'Shop' is none",
    }


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://one:7000,two:7001,three",
        "rediss+cluster://bot:s3cret@one:7000,two:7001",
        "redis+sentinel://:s3cret@s1:26379,s2:26379/mymaster/0?sentinel_password=s3cret2",
    ],
)
def test_redis_may_be_a_cluster_or_have_sentinels(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Several hosts in one address, whose passwords are all known as secrets."""
    _set(monkeypatch, {**GOOD, "CANARY_BOT_REDIS_URL": url})
    settings = load()
    assert settings.redis_url.get_secret_value() == url
    assert {word for word in ("s3cret", "s3cret2") if f"{word}@" in url or url.endswith(word)} <= set(settings.secrets)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://:s3cret@s1:26379,s2:26379", "expected the name of the master behind the Sentinels"),
        ("redis+cluster://:s3cret@one:7000,two:port", "expected host and port that can be read"),
        ("redis+cluster://:s3cret@one:7000,", "expected host and port that can be read"),
        ("redis+other://:s3cret@one", "expected an address that begins with redis://"),
    ],
)
def test_an_address_of_several_hosts_can_be_wrong(monkeypatch: pytest.MonkeyPatch, url: str, said: str) -> None:
    """Each host is looked at, and no value is shown."""
    assert _errors(monkeypatch, CANARY_BOT_REDIS_URL=url)["CANARY_BOT_REDIS_URL"].startswith(said)


def test_headers_that_smuggle_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line break in a header would be a second header."""
    errors = _errors(monkeypatch, CANARY_BOT_PROMETHEUS_HEADERS='{"X-A": "s3cret\\r\\nX-B: 1"}')
    assert errors == {"CANARY_BOT_PROMETHEUS_HEADERS": "expected names and values that HTTP allows in headers"}


def test_either_way_into_slack_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signing secret alone is HTTP mode; an empty variable counts as absent."""
    _set(monkeypatch, {**GOOD, "SLACK_APP_TOKEN": "", "SLACK_SIGNING_SECRET": "sign"})
    assert load().slack_app_token is None
    monkeypatch.setenv("SLACK_SIGNING_SECRET", "")
    with pytest.raises(SettingsErrors, match="SLACK_APP_TOKEN: is missing"):
        load()


def test_no_secret_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither repr nor str gives a secret away."""
    _set(
        monkeypatch,
        {
            **GOOD,
            "SLACK_SIGNING_SECRET": "s3cret",
            "CANARY_BOT_PROMETHEUS_USERNAME": "u",
            "CANARY_BOT_PROMETHEUS_PASSWORD": "s3cret",
            "CANARY_BOT_PROMETHEUS_HEADERS": '{"X-Key": "s3cret"}',
            "CANARY_BOT_ALERT_WEBHOOK_URL": "https://hooks.example/s3cret",
        },
    )
    assert "s3cret" not in f"{load()!r} {load()!s}"


def test_the_page_lists_every_variable() -> None:
    """docs/settings.md holds the table made from the settings."""
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    assert _table() in page, f"docs/settings.md should hold:\n{_table()}"


def _table() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        if field.is_required():
            default = "needed"
        else:
            value = field.default
            default = f"`{value}`" if value not in (None, (), PydanticUndefined) else ""
        rows.append(f"| `{Settings.variable(name)}` | {default} | {field.description} |")
    return "\n".join(rows)
