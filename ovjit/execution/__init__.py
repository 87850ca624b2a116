"""Running compiled models: the native runner, worker threads, jobs and profiles."""
