"""Classes that run models: the core, compiled models, requests, queues, properties."""
