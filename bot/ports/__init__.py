"""What engine and use cases need of the world: small protocols, each with one fake and its real adapters."""
