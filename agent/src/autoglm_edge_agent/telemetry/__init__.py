"""Telemetry: looks at the board, counts inferences, and sends both in batches."""
