"""A trained network behind HTTP on this machine: a page to drop pictures on, and POST /predict."""
