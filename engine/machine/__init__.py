"""What a machine gives: devices, memory, processes that share a run, clocks, and files of tensors."""
