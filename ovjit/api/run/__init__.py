"""What users run: the core, compiled models, requests, queues, properties."""
