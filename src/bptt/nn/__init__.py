"""The maths: pure functions on arrays of any array-API library."""
