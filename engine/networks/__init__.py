"""Networks: from what the user names to a module in eval mode, its weights, its preprocessing and its provenance."""
