"""What the engine and the use cases need of the world, as small protocols."""
