"""The experiments of the papers that take more than one dissection."""
