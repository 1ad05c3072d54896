"""Slack's Web API and Socket Mode: the chat, the people in it, and the connections that bring in what they do."""

from bot.adapters.slack.chat import SlackChat
from bot.adapters.slack.people import SlackDirectory
from bot.adapters.slack.scopes import SCOPES
from bot.adapters.slack.sockets import Sockets

__all__ = ["SCOPES", "SlackChat", "SlackDirectory", "Sockets"]
