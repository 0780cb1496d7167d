"""The local AWS Batch."""
