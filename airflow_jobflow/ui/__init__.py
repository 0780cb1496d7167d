"""The "Jobs" tab in Airflow's UI: a live view of the AWS jobs that a task waits for.

The tab is a static page without data of its own. It reads Airflow's public API with the viewer's session, so it shows
only what the viewer may see, and it never writes.
"""
