"""Uses trained networks: models on disk, prediction, cross-validation, linear classifiers on features."""
