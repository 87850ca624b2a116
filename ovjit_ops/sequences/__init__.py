"""CTC decoders and loss."""
