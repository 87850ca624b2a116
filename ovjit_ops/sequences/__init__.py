"""Labels of sequences: CTC."""
