"""The demo, and Airflow's web UI, on the local AWS."""
