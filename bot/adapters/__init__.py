"""The ports' real implementations, each third-party library in one home."""
