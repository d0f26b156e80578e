"""Files of second moments: what is none of them is named, and a large one is read some rows at a time."""

import numpy as np
import pytest
import torch

from revs_tars_plugin.errors import InputError
from revs_tars_plugin.moments.files import MomentFiles, SecondMoment


def test_files_that_are_something_else_are_named(tmp_path):
    path = tmp_path / "broken.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"broken\.npz is no file of second moments"):
        SecondMoment.load(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(InputError, match="is no file of second moments"):
        SecondMoment.load(path)


def test_a_moment_is_read_some_rows_at_a_time(tmp_path, monkeypatch):
    """As if it were read whole, with rows that do not divide the width."""
    monkeypatch.setattr("revs_tars_plugin.moments.files._MOST_BYTES", 7 * 4 * 50)
    states = torch.randn(90, 50)
    moment = SecondMoment(states.T @ states, 90)
    moment.save(tmp_path / "3.npz", 9)
    files = MomentFiles({"3": tmp_path / "3.npz"})
    found = torch.eye(50)
    files.add_mean("3", found, 0.5)
    torch.testing.assert_close(found, torch.eye(50) + 0.5 * moment.mean)
    torch.testing.assert_close(files.mean_squares("3", 50), moment.mean.diagonal())
    with pytest.raises(InputError, match=r"its matrix is \(50, 50\), the model's width is 40\); delete it"):
        files.add_mean("3", torch.eye(40))
    (tmp_path / "3.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match="is no file of second moments"):
        files.mean_squares("3", 50)
