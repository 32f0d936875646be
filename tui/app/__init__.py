"""The terminal UI: a store as tables to browse by keyboard. It reads the store alone: no torch, no engine."""
