"""From fusion groups to plans: lowerings, buffer offsets, steps, and plans derived for other shapes."""
