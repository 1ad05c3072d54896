"""The backtest: gates tried on a service's own past, by a person in Slack or on the command line."""

from bot.usecases.backtest.judging import drawing
from bot.usecases.backtest.trying import backtest
from bot.usecases.backtest.wish import BacktestAsk, Means, Progress

__all__ = ["BacktestAsk", "Means", "Progress", "backtest", "drawing"]
