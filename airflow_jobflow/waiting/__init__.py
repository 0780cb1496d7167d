"""What operators and sensors share: their common parameters, the deadlines, the jobs in AWS, and the wait."""
