"""Settings from the environment: where everything is, and the secrets. All errors at once, none with a value in it."""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bot.errors import CanaryError

PREFIX = "CANARY_BOT_"
MOST_SHARDS = 64
LOG_LEVELS = ("debug", "info", "warning", "error")

REDIS_SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+cluster",
    "rediss+cluster",
    "redis+sentinel",
    "rediss+sentinel",
)

_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SENTINEL_PASSWORD = re.compile(r"[?&]sentinel_password=([^&#]+)")
_KEY_PREFIX = re.compile(r"[A-Za-z0-9_.:-]+")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class SettingsErrors(CanaryError):
    """Everything that is wrong with the environment: variable and what is wrong, in order of the settings."""

    def __init__(self, errors: tuple[tuple[str, str], ...]) -> None:
        super().__init__("\n".join(f"{name}: {text}" for name, text in errors))
        self.errors = errors


def _address(*schemes: str) -> Any:
    expected = " or ".join(f"{scheme}://" for scheme in schemes if "+" not in scheme)

    def check(value: SecretStr | str) -> SecretStr | str:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        scheme, found, rest = text.partition("://")
        if not found or scheme.lower() not in schemes or not rest.strip("/") or text != text.strip():
            raise ValueError(f"expected an address that begins with {expected}")
        if scheme.lower().endswith("+sentinel") and not urlsplit(f"http://{rest}").path.strip("/"):
            raise ValueError(
                "expected the name of the master behind the Sentinels: redis+sentinel://host:26379/mymaster"
            )
        if not all(map(_can_be_taken_apart, _each_host(text))):
            raise ValueError(
                "expected host and port that can be read; in a password, `/` is written as %2F, `#` as %23, `?` as %3F"
            )
        return value

    return AfterValidator(check)


def _each_host(address: str) -> list[str]:
    """One address for each host of one that names several with commas between them."""
    scheme, _, rest = address.partition("://")
    if "+" not in scheme:
        return [address]
    hosts, slash, path = rest.partition("/")
    person, found, names = hosts.rpartition("@")
    return [f"{scheme}://{person}{found}{name}{slash}{path}" for name in names.split(",")]


def _can_be_taken_apart(address: str) -> bool:
    """False for an address whose password was not quoted, so that a part of it passes for host, port or path.

    Said here, where no value is shown: libraries that take it apart later put the wrong part into their errors.
    """
    scheme, _, rest = address.partition("://")
    if scheme.lower() == "unix":
        return True
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0 and ("@" not in rest or "@" in parts.netloc)
    except ValueError:
        return False


def _token(beginning: str, what: str) -> Any:
    def check(value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(beginning):
            raise ValueError(f"expected {what}, which begins with {beginning}")
        return value

    return AfterValidator(check)


def _namespaces(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = tuple(part.strip() for part in value.split(",") if part.strip())
    wrong = [name for name in names if not _NAMESPACE.fullmatch(name)]
    if wrong:
        raise ValueError(f"expected names of namespaces with commas between them; {wrong[0]!r} is none")
    return names


def _headers(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        headers = json.loads(value)
    except ValueError:
        headers = None
    if not isinstance(headers, dict) or not all(isinstance(text, str) for text in headers.values()):
        raise ValueError('expected a JSON object of texts such as {"X-Scope-OrgID": "shop"}')
    for name, text in headers.items():
        if not _HEADER.fullmatch(name) or "\n" in text or "\r" in text:
            raise ValueError("expected names and values that HTTP allows in headers")
    return headers


def _key_prefix(value: str) -> str:
    if not _KEY_PREFIX.fullmatch(value):
        raise ValueError("expected letters, digits and any of . _ : -")
    return value


def _log_level(value: str) -> str:
    if value.lower() not in LOG_LEVELS:
        raise ValueError(f"expected one of {', '.join(LOG_LEVELS)}")
    return value.lower()


class Settings(BaseSettings):
    """The environment, read once at the start. Empty variables count as absent; secrets show in no repr or error."""

    model_config = SettingsConfigDict(
        case_sensitive=True, env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )

    slack_bot_token: Annotated[SecretStr, _token("xoxb-", "a bot token")] = Field(
        validation_alias="SLACK_BOT_TOKEN", description="The app's bot token (`xoxb-...`)."
    )
    slack_app_token: Annotated[SecretStr, _token("xapp-", "an app-level token")] | None = Field(
        None,
        validation_alias="SLACK_APP_TOKEN",
        description="App-level token (`xapp-...`) with `connections:write`. When set, Socket Mode is used.",
    )
    slack_signing_secret: SecretStr | None = Field(
        None,
        validation_alias="SLACK_SIGNING_SECRET",
        description="Signing secret of the app. When set, signed requests are taken at `/slack/events`.",
    )
    slack_api_url: Annotated[str, _address("http", "https")] = Field(
        "https://slack.com/api/",
        validation_alias=PREFIX + "SLACK_API_URL",
        description="Slack's Web API; another address for GovSlack or a stand-in.",
    )
    catalog: Path | None = Field(
        None,
        validation_alias=PREFIX + "CATALOG",
        description="Path of the catalog. Without one every service is run with the defaults.",
    )
    redis_url: Annotated[SecretStr, _address(*REDIS_SCHEMES)] = Field(
        validation_alias=PREFIX + "REDIS_URL",
        description="Redis or Valkey, 6.2 or newer: `redis://[user:password@]host:6379/0`; see [Redis](#redis).",
    )
    redis_prefix: Annotated[str, AfterValidator(_key_prefix)] = Field(
        "canary-bot", validation_alias=PREFIX + "REDIS_PREFIX", description="What every key in Redis begins with."
    )
    shards: int = Field(
        1,
        ge=1,
        le=MOST_SHARDS,
        validation_alias=PREFIX + "SHARDS",
        description="Parts that rollouts are spread over, each with a lease of its own; the same for all replicas.",
    )
    prometheus_url: Annotated[SecretStr, _address("http", "https")] = Field(
        validation_alias=PREFIX + "PROMETHEUS_URL",
        description="Prometheus or what speaks its API; a path prefix is kept.",
    )
    prometheus_token: SecretStr | None = Field(
        None, validation_alias=PREFIX + "PROMETHEUS_TOKEN", description="Bearer token for Prometheus."
    )
    prometheus_username: str | None = Field(
        None, validation_alias=PREFIX + "PROMETHEUS_USERNAME", description="User for basic authentication."
    )
    prometheus_password: SecretStr | None = Field(
        None, validation_alias=PREFIX + "PROMETHEUS_PASSWORD", description="Password for basic authentication."
    )
    prometheus_ca_file: Path | None = Field(
        None,
        validation_alias=PREFIX + "PROMETHEUS_CA_FILE",
        description="CA certificates (PEM) that vouch for Prometheus, instead of the system's.",
    )
    prometheus_headers: Annotated[dict[str, SecretStr], NoDecode, BeforeValidator(_headers)] = Field(
        default_factory=dict,
        validation_alias=PREFIX + "PROMETHEUS_HEADERS",
        description='Further headers as a JSON object, such as `{"X-Scope-OrgID": "shop"}`.',
    )
    kubeconfig: Path | None = Field(
        None,
        validation_alias=PREFIX + "KUBECONFIG",
        description="Path of a kubeconfig. Without one the bot runs in the cluster, by its service account.",
    )
    namespaces: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_namespaces)] = Field(
        (),
        validation_alias=PREFIX + "NAMESPACES",
        description="Namespaces whose routes may be steered, with commas between them; empty means all.",
    )
    http_host: str = Field(
        "127.0.0.1",
        validation_alias=PREFIX + "HTTP_HOST",
        description="Address to listen on for health, metrics and Slack's requests; `0.0.0.0` in a container.",
    )
    http_port: int = Field(
        8080,
        ge=0,
        le=65535,
        validation_alias=PREFIX + "HTTP_PORT",
        description="Port for the same; 0 takes a free one.",
    )
    log_level: Annotated[str, AfterValidator(_log_level)] = Field(
        "info", validation_alias=PREFIX + "LOG_LEVEL", description="`debug`, `info`, `warning` or `error`."
    )
    alert_webhook_url: Annotated[SecretStr, _address("http", "https")] | None = Field(
        None,
        validation_alias=PREFIX + "ALERT_WEBHOOK_URL",
        description="Webhook in Alertmanager's format, for what cannot wait. Without one such alerts are only logged.",
    )

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret among the settings, of an address its password too; to be hidden wherever they turn up."""
        values = [getattr(self, name) for name in type(self).model_fields]
        values += self.prometheus_headers.values()
        texts = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
        passwords = [urlsplit(text).password or "" for text in texts if "@" in text]
        passwords += [password for text in texts for password in _SENTINEL_PASSWORD.findall(text)]
        return tuple({text for text in (*texts, *passwords, *map(unquote, passwords)) if text})

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable of a field."""
        return str(cls.model_fields[field].validation_alias)

    @classmethod
    def read(cls) -> Self:
        """Do what `load` does, without the checks of variables that belong together."""
        return cls()  # type: ignore[call-arg]


def load() -> Settings:
    """The settings of this process' environment.

    Raises:
        SettingsErrors: with everything that is missing or wrong.
    """
    errors: dict[str, str] = {}
    settings: Settings | None = None
    try:
        settings = Settings.read()
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False, include_input=False):
            errors.setdefault(str(error["loc"][0]), _sentence(dict(error)))
    for name, text in _together():
        errors.setdefault(name, text)
    if errors or settings is None:
        order = [Settings.variable(field) for field in Settings.model_fields]
        raise SettingsErrors(tuple((name, errors[name]) for name in sorted(errors, key=order.index)))
    return settings


def _together() -> list[tuple[str, str]]:
    """Errors of variables that belong together, found also when others are wrong."""

    def has(name: str) -> bool:
        return bool(os.environ.get(name))

    errors: list[tuple[str, str]] = []
    if not has("SLACK_APP_TOKEN") and not has("SLACK_SIGNING_SECRET"):
        errors.append(("SLACK_APP_TOKEN", "is missing: set it for Socket Mode, or SLACK_SIGNING_SECRET for HTTP"))
    username, password, token = (PREFIX + f"PROMETHEUS_{name}" for name in ("USERNAME", "PASSWORD", "TOKEN"))
    if has(username) and not has(password):
        errors.append((password, f"is missing: {username} is set"))
    if has(password) and not has(username):
        errors.append((username, f"is missing: {password} is set"))
    if has(token) and has(username):
        errors.append((token, f"cannot be used together with {username}: choose one"))
    return errors


def _sentence(error: dict[str, Any]) -> str:
    match error["type"]:
        case "missing":
            return "is missing"
        case "value_error":
            return str(error["ctx"]["error"])
        case "int_parsing" | "int_type" | "greater_than_equal" | "less_than_equal":
            if error["loc"][0] == PREFIX + "SHARDS":
                return f"expected a number from 1 to {MOST_SHARDS}"
            return "expected a port from 0 to 65535"
        case _:
            return str(error["msg"])
