"""What makes `import mxnet` quick: modules that are loaded when they are used, and operators' code kept compiled."""
