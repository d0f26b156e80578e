"""What all states share."""

import torch

from revs_tars_plugin.tars.common_state import without_common


def test_what_all_states_share_is_taken_off():
    common = torch.tensor([2.0, 0.0, 0.0])
    found = without_common(torch.tensor([3.0, 1.0, -1.0]), common)
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, -1.0]))
