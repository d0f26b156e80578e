"""Second moments of what a model computes on ordinary text, and that text."""
