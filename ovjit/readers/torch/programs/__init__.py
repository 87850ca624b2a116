"""FX graphs and exported programs -> Model."""
