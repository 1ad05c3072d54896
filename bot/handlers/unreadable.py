"""What is raised when a payload is not of the shape that it should be."""

UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
