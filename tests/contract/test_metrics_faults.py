"""What can go wrong between us and Prometheus, each on a real socket: it becomes CannotMeasure, in time, in words."""

import asyncio
import json
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from bot.adapters.prometheus import Prometheus
from bot.analysis.samples import Answer, Query
from bot.errors import CannotMeasure

UP = Query("up")
TLS = Path(__file__).parent / "tls"


@dataclass(frozen=True, slots=True)
class Received:
    line: str
    headers: dict[str, str]
    form: dict[str, list[str]]


Script = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Server:
    """Answers every request with a script, and remembers what came."""

    script: Script
    received: list[Received] = field(default_factory=list)
    url: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rows = head.split("\r\n")
            headers = {row.partition(":")[0].lower(): row.partition(":")[2].strip() for row in rows if row}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.received.append(Received(line, headers, parse_qs(body.decode())))
            await self.script(self.received[-1], writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(script)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(server.handle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tuple(tasks), return_exceptions=True)
        await listening.wait_closed()


def answering(body: str | bytes, status: str = "200 OK", *headers: str, kind: str = "application/json") -> Script:
    content = body.encode() if isinstance(body, str) else body

    async def script(received: Received, writer: asyncio.StreamWriter) -> None:
        rows = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(content)}", *headers]
        writer.write("\r\n".join([*rows, "Connection: close", "", ""]).encode() + content)
        await writer.drain()

    return script


def vector(*values: str, **more: object) -> str:
    result = [{"metric": {"n": str(index)}, "value": [1700000000.5, value]} for index, value in enumerate(values)]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, **more})


async def told(script: Script, **options: object) -> Answer | CannotMeasure:
    """What asking `up` of a server with this script gives."""
    async with serving(script) as server:
        prometheus = Prometheus(server.url, **options)  # type: ignore[arg-type]
        try:
            return (await prometheus.ask([UP]))[UP]
        finally:
            await prometheus.close()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (answering("<html>Please log in</html>", kind="text/html"), "text/html where JSON is expected: <html>Please"),
        (answering("", kind="application/json"), "JSON is expected"),
        (answering("[1]"), "JSON is expected"),
        (answering('{"status":"success"}'), "not as expected: KeyError"),
        (answering('{"status":"success","data":{"result":[{"metric":{},"value":"x"}]}}'), "not as expected"),
        (answering('{"status":"success","data":{"result":[{"metric":{},"value":[1,"x"]}]}}'), "not as expected"),
        (answering('{"status":"error","error":"out of memory"}'), "answered error: out of memory"),
        (answering("upstream gone", "503 Service Unavailable", kind="text/plain"), "answered 503: upstream gone"),
        (
            answering('{"status":"error","error":"parse error: bad"}', "400 Bad Request"),
            "answered 400: parse error: bad",
        ),
        (answering("", "302 Found", "Location: https://login.example/"), "redirects to https://login.example/"),
    ],
)
async def test_anything_but_an_answer_is_cannot_measure_in_words(script: Script, words: str) -> None:
    """HTML, bad JSON, unexpected shapes, error statuses and redirects each say what came instead of an answer."""
    answer = await told(script)
    assert isinstance(answer, CannotMeasure)
    assert words in str(answer)


async def test_a_long_error_body_is_cut() -> None:
    """A page of a megabyte does not reach channel or log."""
    answer = await told(answering("x" * 1_000_000, "500 Internal Server Error", kind="text/plain"))
    assert isinstance(answer, CannotMeasure)
    assert len(str(answer)) <= 200


@pytest.mark.parametrize("secret", ["s3cret-token", "pass/wörd"])
async def test_tokens_do_not_show_in_errors(secret: str) -> None:
    """A server that echoes our credentials does not make us print them."""
    options = {"token": secret} if "token" in secret else {"username": "u", "password": secret}
    answer = await told(answering(f"denied for {secret}", "401 Unauthorized", kind="text/plain"), **options)
    assert isinstance(answer, CannotMeasure)
    assert secret not in str(answer)
    assert "denied for ***" in str(answer)


async def _silence(received: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _drip(received: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("script", [_silence, _drip], ids=["no answer", "a body that never ends"])
async def test_the_deadline_holds_for_the_whole_answer(script: Script) -> None:
    """A server that says nothing, or one byte at a time for ever, is given up at the deadline."""
    async with asyncio.timeout(30):
        answer = await told(script, timeout_s=0.3)
    assert isinstance(answer, CannotMeasure)
    assert "did not answer within 0.3 s" in str(answer)


async def test_a_huge_answer_is_refused() -> None:
    """Reading stops at the limit of size."""
    answer = await told(answering(b" " * 3_000_000), max_bytes=1024 * 1024)
    assert isinstance(answer, CannotMeasure)
    assert "larger than 1 MiB" in str(answer)


async def test_nobody_listening_is_cannot_measure() -> None:
    """A refused connection is an error in words, not an exception."""
    async with serving(_silence) as server:
        url = server.url
    prometheus = Prometheus(url)
    answer = (await prometheus.ask([UP]))[UP]
    with pytest.raises(CannotMeasure, match="cannot be reached"):
        await prometheus.ready()
    await prometheus.close()
    assert isinstance(answer, CannotMeasure)
    assert "cannot be reached" in str(answer)
    assert "Connection refused" in str(answer)


async def test_nan_and_infinity_are_values() -> None:
    """They come through as they are; the gates know what they mean."""
    answer = await told(answering(vector("NaN", "+Inf", "3")))
    assert isinstance(answer, Answer)
    values = [series.points[0][1] for series in answer.series]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, 3.0]
    assert answer.series[2].points[0][0] == 1700000000.5


async def test_a_scalar_is_one_series_without_labels() -> None:
    """`time()` and numbers answer as scalars."""
    body = json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [1700000000, "4.5"]}})
    answer = await told(answering(body))
    assert isinstance(answer, Answer)
    assert [(dict(series.labels), series.points) for series in answer.series] == [({}, ((1700000000.0, 4.5),))]


async def test_server_time_and_warnings_come_with_the_answer() -> None:
    """The Date header is the server's clock, known to half a second; warnings are kept."""
    script = answering(vector("1", warnings=["query is slow"]), "200 OK", "Date: Tue, 14 Nov 2023 22:13:20 GMT")
    answer = await told(script)
    assert isinstance(answer, Answer)
    assert answer.server_time == 1700000000.5
    assert answer.warnings == ("query is slow",)


async def test_equal_questions_are_asked_once_and_a_failing_one_spoils_no_other() -> None:
    """Three questions, two of them equal, one bad: two requests, one answer, one error."""

    async def script(received: Received, writer: asyncio.StreamWriter) -> None:
        bad = received.form["query"] == ["bad("]
        chosen = answering('{"status":"error","error":"no"}', "400 Bad Request") if bad else answering(vector("1"))
        await chosen(received, writer)

    async with serving(script) as server:
        prometheus = Prometheus(server.url)
        answers = await prometheus.ask([UP, Query("bad("), Query("up")])
        await prometheus.close()
        assert len(server.received) == 2
    assert isinstance(answers[UP], Answer)
    assert isinstance(answers[Query("bad(")], CannotMeasure)


async def test_queries_go_in_the_body_with_our_token_whatever_netrc_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """POST, nothing in the URL, the bearer token and extra headers as given, the time where one is asked for."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login thief password thief\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with serving(answering(vector("1"))) as server:
        prometheus = Prometheus(f"{server.url}/prom/", token="t0ken", headers={"X-Scope-OrgID": "shop"})
        answers = await prometheus.ask([Query('up{a="é&="}', at=1700000000.25)])
        await prometheus.close()
        received = server.received[0]
    assert all(isinstance(answer, Answer) for answer in answers.values())
    assert received.line == "POST /prom/api/v1/query HTTP/1.1"
    assert received.headers["authorization"] == "Bearer t0ken"
    assert received.headers["x-scope-orgid"] == "shop"
    assert received.form["query"] == ['up{a="é&="}']
    assert received.form["time"] == ["1700000000.250"]


async def test_basic_auth_from_options_or_the_address() -> None:
    """User and password are sent as basic auth, also when they stand in the address, and never in the request line."""
    async with serving(answering(vector("1"))) as server:
        with_address = server.url.replace("http://", "http://ada:love@")
        for prometheus in (Prometheus(server.url, username="ada", password="love"), Prometheus(with_address)):
            await prometheus.ask([UP])
            await prometheus.close()
        assert {received.headers["authorization"] for received in server.received} == {"Basic YWRhOmxvdmU="}
        assert "ada" not in "".join(received.line for received in server.received)


async def test_tls_is_verified_against_the_given_authority() -> None:
    """With the right CA file an answer; with none or a missing file, an error in words."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "server.pem", TLS / "server.key")
    async with serving(answering(vector("1")), context) as server:
        answers = []
        for url, ca_file in (
            (server.url, str(TLS / "ca.pem")),
            (server.url, ""),
            (server.url, "/nowhere/ca.pem"),
        ):
            prometheus = Prometheus(url, ca_file=ca_file)
            answers.append((await prometheus.ask([UP]))[UP])
            await prometheus.close()
    good, unknown, missing = answers
    assert isinstance(good, Answer)
    assert isinstance(unknown, CannotMeasure)
    assert "certificate verify failed" in str(unknown)
    assert isinstance(missing, CannotMeasure)
    assert "/nowhere/ca.pem" in str(missing)


async def test_ready_tells_the_version_and_does_without() -> None:
    """The build's version where it is told; "unknown" from a server that only answers queries."""
    build = json.dumps({"status": "success", "data": {"version": "2.42.0"}})

    async def queries_only(received: Received, writer: asyncio.StreamWriter) -> None:
        found = received.line.startswith("POST /api/v1/query")
        chosen = answering(vector("1")) if found else answering("404 page not found", "404 Not Found")
        await chosen(received, writer)

    versions = []
    for script in (answering(build), queries_only):
        async with serving(script) as server:
            prometheus = Prometheus(server.url)
            versions.append(await prometheus.ready())
            await prometheus.close()
    assert versions == ["2.42.0", "unknown"]


async def test_a_closed_adapter_answers_cannot_measure() -> None:
    """Asking after close is an answer like any other failure."""
    prometheus = Prometheus("http://127.0.0.1:9")
    await prometheus.close()
    assert isinstance((await prometheus.ask([UP]))[UP], CannotMeasure)
