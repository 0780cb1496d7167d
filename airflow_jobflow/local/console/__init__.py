"""Read-only pages of the local AWS, in place of the AWS console."""
