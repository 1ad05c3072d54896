"""What ships beside the code says what the code does: the app's manifest and the page of commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from bot.adapters.slack import SCOPES
from bot.handlers.app import COMMAND, EVENTS
from bot.handlers.reference import page
from bot.sandbox.slack.methods import DEFAULT_SCOPES

ROOT = Path(__file__).resolve().parents[2]


def manifest() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "deploy" / "slack-manifest.yaml").read_text())


def test_slack_takes_the_manifest() -> None:
    """The manifest keeps Slack's published schema."""
    schema = json.loads((ROOT / "tests" / "data" / "slack-manifest.schema.json").read_text())
    jsonschema.validate(manifest(), schema)


def test_the_manifest_asks_for_what_the_code_uses_and_no_more() -> None:
    """Commands, scopes and events are those of the code, and the stand-in grants the same."""
    shown = manifest()
    assert [command["command"] for command in shown["features"]["slash_commands"]] == [COMMAND]
    assert sorted(shown["oauth_config"]["scopes"]["bot"]) == sorted(SCOPES)
    assert sorted(shown["settings"]["event_subscriptions"]["bot_events"]) == sorted(EVENTS)
    assert set(SCOPES) == set(DEFAULT_SCOPES)
    assert not any(scope.endswith(":history") and scope != "im:history" for scope in SCOPES)


def test_the_page_of_commands_is_that_of_the_table() -> None:
    """docs/commands.md was written from COMMANDS (`python -m bot.handlers.reference > docs/commands.md`)."""
    assert (ROOT / "docs" / "commands.md").read_text() == page()
