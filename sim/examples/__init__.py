"""Programs that show how to use the simulation on its own."""
