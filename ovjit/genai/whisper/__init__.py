"""Speech to text by Whisper models."""
