"""The demo and the web UI on the local AWS."""
