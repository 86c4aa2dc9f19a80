"""The mathematics: networks, losses, one step, and the state that it changes. No files."""
