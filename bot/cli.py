"""The command line: thin, and nothing heavy is imported before a command needs it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bot.sandbox.demo.telling import Say
    from bot.settings import Settings

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
    import asyncio

    from bot import service
    from bot.adapters import log
    from bot.errors import CanaryError

    settings = _settings()
    log.configure(settings.log_level)
    try:
        raise typer.Exit(asyncio.run(service.run(settings)))
    except CanaryError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


@app.command()
def check(
    catalog_only: Annotated[
        bool, typer.Option("--catalog", help="Only read the catalog; nothing is connected.")
    ] = False,
) -> None:
    """Try everything the bot needs, one line each; exit status 1 when something is missing."""
    import asyncio

    from bot.adapters import log

    log.configure("error")
    settings = _settings()
    from bot import checkup

    lines = asyncio.run(checkup.checked(settings, catalog_only=catalog_only))
    for line in lines:
        typer.echo(f"{'ok  ' if line.ok else 'FAIL'}  {line.what:<12} {line.text}")
    raise typer.Exit(0 if all(line.ok for line in lines) else 1)


@app.command()
def demo(
    exit_when_done: Annotated[bool, typer.Option("--exit", help="End by itself after both stories.")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the measured report here.")] = None,
    redis: Annotated[str, typer.Option(help="Use this Redis instead of the embedded one.")] = "",
    kubeconfig: Annotated[str, typer.Option(help="Use this cluster instead of the embedded API server.")] = "",
    prometheus: Annotated[str, typer.Option(help="Use this Prometheus instead of the embedded one.")] = "",
    rate: Annotated[float, typer.Option(help="Requests per second and service.")] = 120.0,
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")] = 0,
    stories: Annotated[bool, typer.Option(help="Tell the two stories; without them the sandbox only stands.")] = True,
) -> None:
    """Show the main job on this machine: a good release promoted, a bad one rolled back. No accounts needed."""
    import asyncio

    try:
        from bot.sandbox.demo.run import Wish, interactive
        from bot.sandbox.demo.run import run as run_demo
        from bot.sandbox.world import Options
    except ImportError as error:
        typer.echo(f"The sandbox needs the extra `demo`: pip install 'canary-bot[demo]' ({error})", err=True)
        raise typer.Exit(1) from error
    options = Options(redis=redis, kubeconfig=kubeconfig, prometheus=prometheus, rate=rate, page_port=port)
    wish = Wish(options, exit_when_done or not interactive(), json_path, stories)
    raise typer.Exit(asyncio.run(run_demo(wish, _teller())))


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
