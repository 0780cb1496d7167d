"""The triggers that wait in the triggerer."""
