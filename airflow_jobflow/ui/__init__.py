"""The "Jobs" tab in Airflow's UI: what a task waits for on AWS, live.

A static page that has no data of its own. It asks Airflow's public API with the session of whoever looks at it, so it
shows exactly what they may see, and writes nothing.
"""
