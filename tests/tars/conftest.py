"""A decoder of two of the tiny model's layers."""

import pytest
from helpers import tiny_tars

from revs_tars_plugin.model.decoder import Decoder


@pytest.fixture
def decoder(model):
    return Decoder.of(model, tiny_tars(layers=[0, 2]))
