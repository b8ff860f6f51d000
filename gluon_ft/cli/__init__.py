"""The commands of `gluon-ft`, each of which parses, calls one function and prints; `main` registers them."""
