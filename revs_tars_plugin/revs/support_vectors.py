"""Support-vector keys: one key a token, which answers to each of its contexts at least as much as is asked.

Solving for all contexts at once (`schedule: joint`) asks that each moves exactly its step and no other secret's context
moves at all. Both are more than is needed. For each token, with the rows `A` of its contexts and their steps `s`,

    minimize w^T C w  subject to  A w >= s
    =>  w = C^-1 A^T l,  l >= 0 minimizes  l^T G l / 2 - s^T l,  G = A C^-1 A^T

which is a non-negative least squares problem as large as there are contexts. Those with a positive multiplier are the
key's support vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .factors import Factors, halfway, rest_of_way


def solve_by_support_vectors(
    *,
    keys: Float[Tensor, "n f"],
    steps: Float[Tensor, " n"],
    groups: Int[Tensor, " n"],
    directions: Float[Tensor, "groups d"],
    factors: Factors,
    soft_margin: float,
    spared: Sequence[Float[Tensor, "_ f"]] = (),
    spared_margin: float = 0.0,
) -> tuple[Float[Tensor, "f r"], Float[Tensor, "r d"]]:
    """Solves one layer: what listens to each token's contexts, and what it writes.

    Without a soft margin every context moves along its group's direction by its step or further.

    Args:
        keys: What FF2 is given at the end of each context.
        steps: How far each context's output has to move at least, float64; one that is at 0 asks for nothing.
        groups: The row of `directions` along which each context's output moves down.
        directions: One for each token.
        factors: The lower Cholesky factor of the second moment of what must not change, block by block.
        soft_margin: What is added to the diagonal of `G`, as a share of each context's own `a C^-1 a`: a context that
            would cost much may stay a little short then.
        spared: For each direction what FF2 is given where that direction must not lead down; none by default.
        spared_margin: The soft margin of these.

    Returns:
        The two thin factors of the change of FF2 (in f x d orientation), float32, one row for each token that moves.
    """
    active = (steps > 0).nonzero().flatten()
    group_of = groups[active].cpu()
    moving = torch.unique(group_of).tolist()
    inputs = [keys[active.to(keys.device)]]
    wanted, of_row = [steps[active].cpu()], [group_of]
    for group in moving if spared else ():
        # What must not move at least stays where it is: its key turned round answers with nothing or more.
        inputs.append(-spared[group].to(keys))
        wanted.append(torch.zeros(len(spared[group]), dtype=torch.float64))
        of_row.append(torch.full((len(spared[group]),), group))
    between = halfway(factors, torch.cat(inputs))
    of_rows, steps_of_rows = torch.cat(of_row), torch.cat(wanted).numpy()
    combined = torch.zeros(len(between), len(moving), dtype=torch.float64, device=keys.device)
    for column, group in enumerate(moving):
        rows = (of_rows == group).nonzero().flatten()
        own = between[:, rows.to(keys.device)].double()
        # The products of what is halfway are G, symmetric to the last bit.
        overlaps = (own.T @ own).cpu().numpy()
        margins = np.where(rows.numpy() < len(active), max(soft_margin, 1e-9), max(spared_margin, 1e-9))
        overlaps[np.diag_indices_from(overlaps)] *= 1 + margins
        multipliers = support_multipliers(overlaps, steps_of_rows[rows.numpy()])
        combined[:, column] = own @ torch.from_numpy(multipliers).to(own)
    readers = rest_of_way(factors, combined.to(between))
    return readers, -directions[torch.tensor(moving, device=directions.device)].float()


def support_multipliers(overlaps: np.ndarray, steps: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns the multipliers `l >= 0` that minimize `l^T G l / 2 - s^T l`, float64.

    Then `G l >= s`, with equality wherever a multiplier is positive.

    Args:
        overlaps: `G`, symmetric and positive definite, shape (n, n).
        steps: `s`, shape (n,).
    """
    from scipy.optimize import nnls

    # In units of each context's own length, so that none is far larger than another.
    lengths = np.sqrt(np.diag(overlaps))
    scaled = overlaps / np.outer(lengths, lengths)
    # Rounding can make equal contexts a hair worse than singular.
    root = np.linalg.cholesky(scaled + 1e-9 * np.eye(len(scaled)))
    # |root^T l - root^-1 s|^2 / 2 is the same but for a constant.
    multipliers, _ = nnls(root.T, np.linalg.solve(root, np.asarray(steps) / lengths), maxiter=50 * len(scaled))
    return np.asarray(multipliers) / lengths
