"""Networks: from what the user names to a module in eval mode, its weights, its preprocessing and its provenance."""

#: Random weights are drawn from this seed, so that a network without trained ones is the same in every run.
FACTORY_SEED = 0
