"""Who asks, and where the answer goes."""

from dataclasses import dataclass, replace

from bot.rollout.events import Reply
from bot.rollout.model import Actor, Source


@dataclass(frozen=True, slots=True)
class Who:
    """A person at a door: Slack user id, the channel (and thread) they spoke in, and the door (`slash`, `mention`,
    `button`, `cli`)."""

    user_id: str
    channel: str = ""
    thread: str = ""
    response_url: str = ""
    via: str = "slash"
    name: str = ""

    def called(self, name: str) -> "Who":
        """The same person with the name that the directory knows."""
        return replace(self, name=name)

    @property
    def actor(self) -> Actor:
        """The person as the cause of an event."""
        return Actor(Source.PERSON, self.user_id, self.name, self.via)

    @property
    def reply(self) -> Reply:
        """Where an answer to this person goes."""
        return Reply(self.channel, self.user_id, self.thread, self.response_url)
