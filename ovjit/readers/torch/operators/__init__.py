"""Rules for ATen's operators, one module for each family."""
