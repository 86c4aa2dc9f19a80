"""The files of a run, from its settings to its training state: written, read and checked."""
