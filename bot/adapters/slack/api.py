"""One call to the Web API: no retries but of a connection that never came about, errors in the house's words.

The SDK's default client sends a message again when the reply was lost, so its retry handlers are replaced.
"""

from typing import Any
from urllib.parse import urlsplit

import aiohttp
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.http_retry.builtin_async_handlers import AsyncConnectionErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient

from bot.adapters.hiding import hide
from bot.errors import CanaryError, NotFound, Permanent, Transient
from bot.ports.chat import NoChannel

TIMEOUT_S = 10
RATE_LIMIT_S = 30.0
_UNANSWERED = (SlackClientError, aiohttp.ClientError, TimeoutError, ValueError, AttributeError, RecursionError)
"""What the SDK raises when there is no answer, or one that is no JSON object: a log-in page, a proxy's error."""
_GONE = frozenset(
    {"message_not_found", "cant_update_message", "edit_window_closed", "thread_not_found", "user_not_found"}
)
_NO_CHANNEL = frozenset({"channel_not_found", "is_archived", "not_in_channel", "restricted_action"})
_PASSING = frozenset(
    {"internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org", "accesslimited"}
)


class SlackRefused(Permanent):
    """Slack refused a call; `code` is its word (https://docs.slack.dev/reference/methods)."""

    def __init__(self, method: str, code: str, detail: str = "") -> None:
        super().__init__(hide(f"Slack refused {method}: {code}{f' ({detail})' if detail else ''}"))
        self.code = code


class SlackNoChannel(SlackRefused, NoChannel):
    """Slack refused a call for its channel."""


class SlackApi:
    """Calls methods by name with a bot token; to be made and closed inside the event loop."""

    def __init__(self, token: str, base_url: str = "", *, timeout_s: int = TIMEOUT_S) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s))
        self.client = AsyncWebClient(
            token,
            base_url=base_url or AsyncWebClient.BASE_URL,
            timeout=timeout_s,
            session=self._session,
            retry_handlers=[AsyncConnectionErrorRetryHandler(error_types=[aiohttp.ClientConnectorError])],
        )

    @property
    def session(self) -> aiohttp.ClientSession:
        """The connections to Slack."""
        return self._session

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method with JSON; the answer. Raises Transient, NotFound, SlackRefused."""
        return await self._sent(method, json=arguments)

    async def read(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method that takes no JSON (users.info and the like)."""
        return await self._sent(method, params=arguments)

    async def headers_of(self, method: str) -> tuple[dict[str, Any], dict[str, str]]:
        """The answer and its headers, with lower-case names."""
        response = await self._response(method, json={})
        return dict(response.data), {name.lower(): value for name, value in response.headers.items()}

    async def socket_address(self, app_token: str) -> str:
        """An address for one Socket Mode connection."""
        try:
            answer = await self.client.apps_connections_open(app_token=app_token)
        except SlackApiError as error:
            raise _translated("apps.connections.open", error) from error
        except _UNANSWERED as error:
            raise Transient(f"Slack does not answer apps.connections.open: {type(error).__name__}") from error
        return str(answer["url"])

    async def _sent(self, method: str, **how: Any) -> dict[str, Any]:
        return dict((await self._response(method, **how)).data)

    async def _response(self, method: str, **how: Any) -> Any:
        try:
            return await self.client.api_call(method, **how)
        except SlackApiError as error:
            raise _translated(method, error) from error
        except _UNANSWERED as error:
            raise Transient(f"Slack does not answer {method}: {type(error).__name__}") from error

    async def post_to(self, url: str, body: dict[str, Any]) -> None:
        """Answer by a response_url. Raises Transient, SlackRefused (used up or expired)."""
        try:
            async with self._session.post(url, json=body) as answer:
                text = (await answer.text())[:300]
                if answer.status == 429:
                    raise Transient("Slack limits response_url", _seconds(answer.headers.get("Retry-After")))
                if answer.status >= 500:
                    raise Transient(f"Slack does not answer response_url: {answer.status}")
                if answer.status != 200 or '"ok":false' in text.replace(" ", ""):
                    raise SlackRefused("response_url", f"{answer.status}", hide(text, (url, urlsplit(url).path)))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Transient(f"Slack does not answer response_url: {type(error).__name__}") from error


def _translated(method: str, error: SlackApiError) -> CanaryError:
    response = error.response
    data = response.data if isinstance(response.data, dict) else {}
    code = hide(str(data.get("error") or response.status_code))[:100]
    if response.status_code == 429 or code in ("ratelimited", "rate_limited"):
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Transient(f"Slack limits {method}", _seconds(headers.get("retry-after")))
    if response.status_code >= 500 or code in _PASSING:
        return Transient(f"Slack does not answer {method}: {code}")
    if code in _GONE:
        return NotFound(f"Slack refused {method}: {code}")
    details = data.get("errors") or data.get("response_metadata", {}).get("messages") or []
    detail = "; ".join(str(one) for one in details)[:300] if isinstance(details, list) else ""
    if code == "missing_scope":
        detail = f"the token needs {data.get('needed')}"
    return (SlackNoChannel if code in _NO_CHANNEL else SlackRefused)(method, code, detail)


def _seconds(retry_after: str | None) -> float:
    try:
        return max(0.0, float(retry_after)) if retry_after is not None else RATE_LIMIT_S
    except ValueError:
        return RATE_LIMIT_S
