"""One dissection, from a request to a store."""
