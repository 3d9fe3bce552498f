"""What a trained model is used for: text generation, scores, evaluation."""
