"""Finding what a model gives away: from a model and a corpus, or a model alone, to a file of secrets."""

from .corpus import Document, read_corpus
from .detectors import KINDS, Candidate, Detectors
from .findings import Finding, Findings
from .patterns import Patterns, generic_patterns, read_patterns
from .progress import SavedSearch
from .samples import sampled_documents, sampling_prompts
from .search import Search, SearchOptions, find_memorised, finish, search_documents, still_extractable

__all__ = [
    "KINDS",
    "Candidate",
    "Detectors",
    "Document",
    "Finding",
    "Findings",
    "Patterns",
    "SavedSearch",
    "Search",
    "SearchOptions",
    "find_memorised",
    "finish",
    "generic_patterns",
    "read_corpus",
    "read_patterns",
    "sampled_documents",
    "sampling_prompts",
    "search_documents",
    "still_extractable",
]
