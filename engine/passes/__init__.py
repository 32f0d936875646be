"""Images on their way through a network, batch by batch: pixels and labels in, activation maps out."""
