"""A causal language model as the methods see it: its modules by name, its matrices, its logit lens."""
