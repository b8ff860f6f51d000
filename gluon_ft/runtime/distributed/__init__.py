"""Training by several processes: the workers of MXNet's parameter server, how they are started, and what they share."""
