"""What only the holder of the lease does: measure, decide, save, perform, deliver."""
