"""Data movement: reshape, transpose, slice, concatenate, repeat, pad."""
