"""What a run shows: the live panel on a terminal, the curve as a picture, text that is safe to print."""
