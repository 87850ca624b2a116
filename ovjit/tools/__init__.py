"""Programs that show and measure: each starts from a model, nothing imports them."""
