"""Checking a conversion: inputs, the oracle that knows the answer, comparison, and the verdict."""
