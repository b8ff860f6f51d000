"""What is done with a trained network: models on disk, prediction, linear classifiers on its features."""
