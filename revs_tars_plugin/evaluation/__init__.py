"""Measuring what an edit did: what the model still says, and what it cost."""

from .continuation import greedy_continuation
from .integrity import kl_divergence, next_token_log_probabilities

__all__ = ["greedy_continuation", "kl_divergence", "next_token_log_probabilities"]
