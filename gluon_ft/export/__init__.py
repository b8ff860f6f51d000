"""Takes a trained network elsewhere: a folder for plain MXNet, ONNX Runtime and people, which proves that it agrees."""
from gluon_ft.export.folder import Export, export_model

__all__ = ["Export", "export_model"]
