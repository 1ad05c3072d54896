"""Modals: the reason for a rejection."""

from bot.views.blocks import Block
from bot.views.escape import plain

REASON_BLOCK = "reason"
REASON_ACTION = "text"
REASON_LONGEST = 500


def rejection(rollout_id: str, metadata: str) -> Block:
    """Asks why a step is rejected; `metadata` (up to 3000 characters) comes back with the answer."""
    return {
        "type": "modal",
        "callback_id": "reject",
        "private_metadata": metadata,
        "title": {"type": "plain_text", "text": "Reject"},
        "submit": {"type": "plain_text", "text": "Reject"},
        "close": {"type": "plain_text", "text": "Not now"},
        "blocks": [
            {
                "type": "input",
                "block_id": REASON_BLOCK,
                "label": {"type": "plain_text", "text": plain(f"Why is the next step of {rollout_id} rejected?", 150)},
                "hint": {"type": "plain_text", "text": "The rollout holds, and everybody can read the reason."},
                "element": {
                    "type": "plain_text_input",
                    "action_id": REASON_ACTION,
                    "multiline": True,
                    "min_length": 1,
                    "max_length": REASON_LONGEST,
                    "focus_on_load": True,
                },
            }
        ],
    }
