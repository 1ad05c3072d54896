"""The fault bench: real processes, real faults, one seeded schedule; the history is judged from outside."""
