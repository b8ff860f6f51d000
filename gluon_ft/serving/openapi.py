"""The answer of POST /predict, and the OpenAPI 3.1 description of the server."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gluon_ft
from gluon_ft.evaluation.predict import Prediction

if TYPE_CHECKING:
    from gluon_ft.serving.app import Limits

_MOST_NAMES = 1000  # classes that the description lists


def answer(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The answer to a request: as `gluon-ft predict --json` says it, `path` being the name that the client sent."""
    return {"predictions": [one.to_dict() for one in predictions if one.error is None],
            "unreadable": [one.to_dict() for one in predictions if one.error is not None]}


def description(names: Sequence[str], has_unknowns: bool, limits: Limits) -> dict[str, Any]:
    """The description.

    Parameters
    ----------
    names : sequence of str
        Of the classes.
    has_unknowns : bool
        Whether the model tells images unlike those it was trained on.
    limits : Limits
        Of a request.
    """
    image = {"type": "array", "maxItems": limits.most_images, "items": {"type": "string", "format": "binary"},
             "description": "Image files (JPEG, PNG, WebP, ...), as the same form field repeated."}
    predicted = {"200": _said("Each image's prediction; those that could not be read stand in `unreadable`.", "Answer"),
                 "422": _said("None of the images could be read; `unreadable` says why.", "Answer"),
                 **{str(status): _said(why, "Error") for status, why in {
                     400: "Not a form with image files.", 408: "The request took too long to arrive.",
                     413: f"More than {limits.most_bytes / 1e6:g} MB or {limits.most_images} images.",
                     415: "Not multipart/form-data.", 500: "The network's output is not finite.",
                     503: "Too many images wait; the header Retry-After says for how many seconds to wait."}.items()}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "gluon_ft", "version": gluon_ft.__version__,
                 "description": "Classifies pictures. Images are prepared as the model says, and are not kept."},
        "paths": {
            "/predict": {"post": {"operationId": "predict", "summary": "The classes of one or several images",
                                  "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": {
                                      "type": "object", "properties": {"image": image}, "required": ["image"]}}}},
                                  "responses": predicted}},
            "/healthz": {"get": {"operationId": "health", "summary": "Whether the server can answer", "responses": {
                "200": _said("It can.", "Health"), "503": _said("It cannot.", "Health")}}},
            "/metrics": {"get": {"operationId": "metrics", "summary": "Counters in Prometheus' text format",
                                 "responses": {"200": {"description": "The counters.", "content": {
                                     "text/plain": {"schema": {"type": "string"}}}}}}}},
        "components": {"schemas": _schemas(names, has_unknowns)}}


def _said(text: str, schema: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": _ref(schema)}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(names: Sequence[str], has_unknowns: bool) -> dict[str, Any]:
    share = {"type": "number", "minimum": 0, "maximum": 1}
    path = {"type": "string", "description": "The file name that the client sent."}
    name = {"type": "string", **({"enum": list(names)} if len(names) <= _MOST_NAMES else {})}
    more = {"unknown": {"type": "boolean", "description": "Whether the image is like nothing that the network was "
                        "trained on."}, "distance": {"type": "number", "minimum": 0, "maximum": 2}}
    return {
        "Answer": _object(predictions={"type": "array", "items": _ref("Prediction")},
                          unreadable={"type": "array", "items": _object(path=path, reason={"type": "string"})}),
        "Prediction": _object(path=path, **{"class": _ref("Class")}, probability=share, top={
            "type": "array", "items": _object(**{"class": _ref("Class")}, probability=share)},
            **(more if has_unknowns else {})),
        "Class": name,
        "Health": _object(status={"enum": ["ok", "failed"]}, waiting={"type": "integer"},
                          model_changed_on_disk={"type": "boolean"}),
        "Error": _object(error={"type": "string"})}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
