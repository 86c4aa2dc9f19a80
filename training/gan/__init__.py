"""The mathematics: networks, losses, one step, and the state that a step changes.

Nothing here reads or writes files, or knows how steps are scheduled.
"""
