"""What the tests of benchmarks share."""

import pytest


@pytest.fixture(autouse=True)
def _ends(tok):
    """The last word of the vocabulary ends a text."""
    tok.add_special_tokens({"eos_token": "w199"})
