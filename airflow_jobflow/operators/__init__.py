"""Operators: start a job, wait for it, and say how it went."""
