"""The store on Redis or Valkey (>= 6.2): scripts in `lua/`, one class per port, joined by `RedisStore`."""

from bot.adapters.redis.store import RedisStore

__all__ = ["RedisStore"]
