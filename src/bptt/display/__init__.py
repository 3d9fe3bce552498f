"""What people see of a run on a terminal and in pictures."""
