"""The local ECS."""
