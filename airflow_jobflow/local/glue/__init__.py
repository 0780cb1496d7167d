"""The local Glue."""
