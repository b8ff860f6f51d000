"""Uses trained networks: models on disk, prediction, measures, heat maps, doubtful labels, unknown images, folds."""
