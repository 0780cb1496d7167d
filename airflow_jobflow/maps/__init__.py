"""A running map: many items in one task instance."""
