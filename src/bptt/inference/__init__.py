"""What a trained model does: generate text, score lines, be evaluated."""
