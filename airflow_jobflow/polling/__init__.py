"""Waiting for many jobs with few calls. asyncio only: no Airflow, no boto3."""
