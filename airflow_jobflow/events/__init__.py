"""Reading EventBridge's events from SQS queues."""
