"""A running map: many items as one task instance."""
