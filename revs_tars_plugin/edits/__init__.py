"""Exact changes of a model: computed, applied and undone to the bit, saved, exported."""
