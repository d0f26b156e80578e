"""What is forgotten is what the request says, else what the settings say, else a guess that is owned up to."""

import warnings

import pytest

from revs_tars_plugin.errors import InputError
from revs_tars_plugin.requests.forgotten import GuessWarning, forgotten_texts

BOTH = {"prompt": "p", "target_new": "new", "ground_truth": "old"}


@pytest.fixture
def silent():
    """A guess would be an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", GuessWarning)
        yield


@pytest.mark.parametrize(
    ("request_", "field", "expected"),
    [
        ({**BOTH, "forget": "said"}, "", ("said",)),
        ({**BOTH, "forget": "said"}, "target_new", ("said",)),
        ({**BOTH, "forget": ["said", "also said", "said"]}, "", ("said", "also said")),
        (BOTH, "target_new", ("new",)),
        (BOTH, "ground_truth", ("old",)),
        ({**BOTH, "forget": "said"}, "forget", ("said",)),
        ({"prompt": "p", "ground_truth": [["iceberg"], ["ice berg", " "]]}, "ground_truth", ("iceberg", "ice berg")),
    ],
)
def test_what_is_said_counts(silent, request_, field, expected):
    assert forgotten_texts([request_], field) == [expected]


@pytest.mark.parametrize(
    ("request_", "expected", "name"),
    [
        (BOTH, ("old",), "ground_truth"),
        ({**BOTH, "ground_truth": [["old", "older"]]}, ("old", "older"), "ground_truth"),
        ({**BOTH, "ground_truth": None}, ("new",), "target_new"),
        ({**BOTH, "ground_truth": "<|endoftext|>"}, ("new",), "target_new"),
        ({**BOTH, "ground_truth": [[]]}, ("new",), "target_new"),
    ],
)
def test_a_guess_is_told_once_with_its_field(request_, expected, name):
    with pytest.warns(GuessWarning, match=f'"{name}"') as told:
        assert forgotten_texts([request_] * 3) == [expected] * 3
    assert len(told) == 1


@pytest.mark.parametrize(
    ("request_", "field", "message"),
    [
        ({**BOTH, "forget": []}, "", 'Request 1 has nothing to forget: its "forget" is empty'),
        ({**BOTH, "forget": None}, "target_new", 'its "forget" is empty'),
        ({**BOTH, "ground_truth": None}, "ground_truth", '"ground_truth" is empty.*forget_field'),
        (BOTH, "forget", 'its "forget" is empty'),
        ({"prompt": "p"}, "", "Request 1 has nothing to forget"),
        ({"prompt": "p", "forget": 42}, "", 'Request 1: "forget" is a int'),
        ({"prompt": "p", "forget": ["a", 42]}, "", 'Request 1: "forget" is a int'),
    ],
)
def test_what_cannot_be_forgotten_is_named(request_, field, message):
    with pytest.raises(InputError, match=message):
        forgotten_texts([{"prompt": "p", "forget": "x", "ground_truth": "y"}, request_], field)
