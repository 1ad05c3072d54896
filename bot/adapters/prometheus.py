"""Prometheus over its HTTP API, by prometheus-api-client in a bounded pool of threads.

The library asks and unpacks; the session underneath is ours, because by default its retries cost 6 s, its time-outs
hold per read and not per answer, a POST leaves the query in the URL, and a `.netrc` replaces the token.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from string import ascii_letters, digits
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import orjson
import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as UrllibTimeout
from urllib3.util.retry import Retry

from bot.adapters.hiding import forms, hide
from bot.analysis.samples import Answer, Query, Series
from bot.errors import CannotMeasure

POOL = 8
MAX_BYTES = 32 * 1024 * 1024
CUT = 200
_CHUNK = 64 * 1024
_PLAIN = (ascii_letters + digits + "_.-~%").encode()
_TICK_S = 0.5  # HTTP's Date is cut to the second: half a second later is right on average


T = TypeVar("T")


class Prometheus:
    """Implements the Metrics port.

    `timeout_s` is the deadline for a whole answer, from asking to its last byte. An answer larger than 32 MiB is an
    error, so is anything that is not Prometheus' JSON. Redirects are not followed: they lead to log-in pages. Proxy
    and `.netrc` settings of the environment are not used. Nothing is retried: the next look asks again.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        username: str = "",
        password: str = "",
        ca_file: str = "",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        parts = urlsplit(url.rstrip("/"))
        username = username or unquote(parts.username or "")
        password = password or unquote(parts.password or "")
        self._url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        self._headers = dict(headers or {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        self._auth = (username, password) if username and not token else None
        self._verify: bool | str = ca_file or True
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._secrets = (*forms(token), *forms(password, username), *(headers or {}).values())
        self._pool = ThreadPoolExecutor(POOL, thread_name_prefix="prometheus")
        self._local = threading.local()
        self._sessions: list[_Session] = []
        self._closed = False

    async def ask(self, queries: Sequence[Query]) -> Mapping[Query, Answer | CannotMeasure]:
        """Ask all questions side by side, equal ones once; each answers or fails on its own."""
        distinct = list(dict.fromkeys(queries))
        answers = await asyncio.gather(*(self._ask(query) for query in distinct))
        return dict(zip(distinct, answers, strict=True))

    async def ready(self) -> str:
        """Version of the server, "unknown" from one that answers queries and does not tell."""
        told = await self._within_deadline(self._version)
        if isinstance(told, CannotMeasure):
            raise told
        return told

    async def close(self) -> None:
        """Let go of threads and connections; answers still under way are dropped."""
        self._closed = True
        for session in self._sessions:
            session.abandon()
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
        for session in self._sessions:
            session.close()

    async def _ask(self, query: Query) -> Answer | CannotMeasure:
        return await self._within_deadline(lambda session: self._query(session, query))

    async def _within_deadline(self, call: "Callable[[_Session], T]") -> T | CannotMeasure:
        if self._closed:
            return CannotMeasure("the connection to Prometheus is closed")
        started: list[_Session] = []

        def run() -> T:
            session = self._session()
            session.begin()
            started.append(session)
            try:
                return call(session)
            finally:
                started.clear()

        running = self._pool.submit(run)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(running), self._timeout_s)
        except CannotMeasure as error:
            return self._hidden(str(error))
        except TimeoutError:
            for session in started:
                session.abandon()
            return CannotMeasure(f"Prometheus did not answer within {self._timeout_s:g} s")
        except (requests.exceptions.Timeout, UrllibTimeout):
            return CannotMeasure(f"Prometheus did not answer within {self._timeout_s:g} s")
        except requests.exceptions.SSLError as error:
            return self._hidden(f"TLS to Prometheus fails: {_root(error)}")
        except requests.exceptions.ConnectionError as error:
            return self._hidden(f"Prometheus cannot be reached: {_root(error)}")
        except (requests.exceptions.RequestException, HTTPError, PrometheusApiClientException, OSError) as error:
            return self._hidden(f"asking Prometheus fails: {_root(error)}")
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            return self._hidden(f"Prometheus' answer is not as expected: {type(error).__name__} {error}")

    def _query(self, session: "_Session", query: Query) -> Answer:
        params = {"timeout": f"{self._timeout_s:g}s"} | ({} if query.at is None else {"time": f"{query.at:.3f}"})
        result = session.library.custom_query(query.promql, params=params)
        return Answer(_series(result), session.server_time, session.warnings)

    def _version(self, session: "_Session") -> str:
        try:
            payload = session.request("GET", f"{self._url}/api/v1/status/buildinfo").json()
            return str(payload["data"]["version"])
        except CannotMeasure as error:
            if "404" not in str(error):
                raise
        self._query(session, Query("vector(1)"))
        return "unknown"

    def _session(self) -> "_Session":
        session: _Session | None = getattr(self._local, "session", None)
        if session is None:
            session = _Session(self._url, self._headers, self._auth, self._verify, self._timeout_s, self._max_bytes)
            self._local.session = session
            self._sessions.append(session)
        return session

    def _hidden(self, text: str) -> CannotMeasure:
        return CannotMeasure(_cut(hide(text, self._secrets)))


class _Session(requests.Session):
    """One thread's connection: POST with a body, a bounded answer that can be abandoned, JSON or a clear error."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        auth: tuple[str, str] | None,
        verify: bool | str,
        timeout_s: float,
        max_bytes: int,
    ) -> None:
        super().__init__()
        self.trust_env = False
        self.verify = verify
        self.auth = auth
        self.headers.update({"Accept": "application/json", "Accept-Encoding": "identity", **headers})
        self.server_time: float | None = None
        self.warnings: tuple[str, ...] = ()
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._abandoned = threading.Event()
        self.library: Any = PrometheusConnect(url, session=self, retry=Retry(0, read=False), method="POST")

    def begin(self) -> None:
        """Forget the answer before."""
        self._abandoned.clear()
        self.server_time = None
        self.warnings = ()

    def abandon(self) -> None:
        """Nobody waits any more: stop reading at the next piece."""
        self._abandoned.set()

    def request(self, method: str | bytes, url: str | bytes, **given: Any) -> requests.Response:  # type: ignore[override]
        """Send the library's request in our way and check the answer before it is unpacked."""
        params: Mapping[str, str] | None = given.get("params")
        response = super().request(
            method,
            url,
            data=form(params) if params else None,
            headers={"Content-Type": "application/x-www-form-urlencoded"} if params else None,
            timeout=self._timeout_s,
            allow_redirects=False,
            stream=True,
        )
        try:
            body = self._read(response)
        finally:
            response.close()
        self.server_time = _date(response.headers.get("Date", ""))
        payload = self._checked(response, body)
        self.warnings = tuple(str(warning) for warning in payload.get("warnings") or ())
        response.json = lambda **_: payload  # type: ignore[method-assign]
        return response

    def _read(self, response: requests.Response) -> bytes:
        body = bytearray()
        while chunk := response.raw.read1(_CHUNK):
            body += chunk
            if len(body) > self._max_bytes:
                raise CannotMeasure(f"Prometheus' answer is larger than {self._max_bytes // (1024 * 1024)} MiB")
            if self._abandoned.is_set():
                raise CannotMeasure(f"Prometheus did not answer within {self._timeout_s:g} s")
        return bytes(body)

    @staticmethod
    def _checked(response: requests.Response, body: bytes) -> dict[str, Any]:
        try:
            payload = orjson.loads(body)
        except (ValueError, RecursionError):
            payload = None
        if response.status_code != 200:
            told = payload.get("error") if isinstance(payload, dict) else None
            if 300 <= response.status_code < 400:
                told = f"it redirects to {response.headers.get('Location', 'nowhere')}"
            raise CannotMeasure(
                f"Prometheus answered {response.status_code}: {told or _words(body) or response.reason}"
            )
        if not isinstance(payload, dict):
            kind = response.headers.get("Content-Type", "no type").partition(";")[0]
            raise CannotMeasure(f"Prometheus answered with {kind} where JSON is expected: {_words(body)}")
        if payload.get("status") != "success":
            raise CannotMeasure(
                f"Prometheus answered {payload.get('status')}: {payload.get('error', 'without a reason')}"
            )
        return payload


def form(fields: Mapping[str, str]) -> bytes:
    """Fields as the body of a form. Raises UnicodeEncodeError for halves of characters."""
    return b"&".join(_escaped(name) + b"=" + _escaped(value) for name, value in fields.items())


def _escaped(text: str) -> bytes:
    """As `urllib.parse.quote` with nothing safe, which looks at each character by itself: a question about many
    services is 25 KB of few different ones."""
    escaped = text.encode().replace(b"%", b"%25")
    for byte in set(escaped.translate(None, _PLAIN)):
        escaped = escaped.replace(bytes((byte,)), b"%%%02X" % byte)
    return escaped


def _series(result: Any) -> tuple[Series, ...]:
    """Series of a vector, matrix or scalar result. Labels that say the same share their text: an answer for many
    waits in memory until each has had its part."""
    if result and not isinstance(result[0], dict):
        return (Series({}, ((float(result[0]), float(result[1])),)),)
    same: dict[str, str] = {}
    one_of = same.setdefault
    return tuple(
        [
            Series(
                {name: one_of(text, text) for name, text in row["metric"].items()},
                ((float(row["value"][0]), float(row["value"][1])),)
                if "value" in row
                else tuple([(float(time), float(value)) for time, value in row["values"]]),
            )
            for row in result
            if "value" in row or row.get("values")
        ]
    )


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() + _TICK_S
    except (TypeError, ValueError):
        return None


def _root(error: BaseException) -> str:
    """The innermost reason, without addresses of objects."""
    reason: Any = error
    while isinstance(reason, BaseException):
        inner = getattr(reason, "reason", None)
        if not isinstance(inner, Exception):
            inner = next((one for one in reason.args if isinstance(one, Exception)), None)
        if inner is None:
            break
        reason = inner
    text = str(reason)
    return text.partition(">: ")[2] or text


def _words(body: bytes) -> str:
    """The beginning of a body, cut further when secrets have been taken out of it: half a token is none to look for."""
    return " ".join(body[: 40 * CUT].decode("utf-8", "replace").split())


def _cut(text: str) -> str:
    return text if len(text) <= CUT else f"{text[: CUT - 1]}…"
