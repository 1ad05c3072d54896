"""What the bot's token must be allowed to do, and what for."""

SCOPES: dict[str, str] = {
    "commands": "the /canary command",
    "chat:write": "cards, questions and private answers",
    "chat:write.public": "channels that nobody has invited the bot to",
    "app_mentions:read": "commands after a mention, in threads too",
    "im:history": "commands in a direct message",
    "users:read": "who somebody is, guests, and time zones",
    "usergroups:read": "who is in a group that the catalog names",
    "channels:read": "whether the catalog's channels exist",
    "groups:read": "the same for private channels",
}
"""Scopes of the bot token; the app-level token of Socket Mode needs `connections:write`."""
