"""Gates tried on the past: rollouts imagined in recorded history, and what they teach about the limits."""

from bot.analysis.backtest.limits import advice, amount, better_limit, spelled, wider
from bot.analysis.backtest.populations import Recorded, recorded
from bot.analysis.backtest.results import Backtest, GateResult, GateRun, Outcome
from bot.analysis.backtest.running import custom_questions, imagined, run
from bot.analysis.backtest.schedule import begins, duration_s, look_spacing
from bot.analysis.backtest.splitting import Split, judged_together, split_of, untried
from bot.analysis.backtest.tape import Draw

__all__ = [
    "Backtest",
    "Draw",
    "GateResult",
    "GateRun",
    "Outcome",
    "Recorded",
    "Split",
    "advice",
    "amount",
    "begins",
    "better_limit",
    "custom_questions",
    "duration_s",
    "imagined",
    "judged_together",
    "look_spacing",
    "recorded",
    "run",
    "spelled",
    "split_of",
    "untried",
    "wider",
]
