"""Settings of `localization: covariance` with a small file of ordinary text."""

import random

import pytest
from helpers import tiny_settings


@pytest.fixture
def settings(tmp_path):
    text = tmp_path / "text.txt"
    generator = random.Random(0)
    text.write_text("\n".join(" ".join(f"w{generator.randrange(200)}" for _ in range(20)) for _ in range(30)))

    def make(**changes):
        common = {
            "localization": "covariance",
            "mom2_dataset": str(text),
            "mom2_n_samples": 30,
            "stats_dir": str(tmp_path / "stats"),
            "siblings": 0,
            "sibling_contexts": 0,
            "perturbed_contexts": 0,
            "borrowed_contexts": 0,
        }
        return tiny_settings(**{**common, **changes})

    return make
