"""The API's description in OpenAPI 3.1, and a page of it that works offline."""

from __future__ import annotations

import html
import json
from functools import cache
from typing import Any

from unitvec import __version__

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_BOOLEAN: Schema = {"type": "boolean"}
_VECTOR: Schema = {"type": "array", "items": {"type": "number"}}
_VECTORS: Schema = {"type": "array", "items": _VECTOR}
_TEXTS: Schema = {"anyOf": [_STRING, {"type": "array", "items": _STRING}]}
_PART = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
_NAME = rf"^(([A-Za-z0-9_][A-Za-z0-9_.:-]{{0,349}}/)?[A-Za-z0-9_][A-Za-z0-9_-]{{0,79}}/)?{_PART}(:{_PART})?$"
_DURATION = r"^(0|-?([0-9]{1,6}(\.[0-9]{1,6})?(ns|us|ms|s|m|h))+)$"
_IDS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_TEXTS_OR_IDS: Schema = {
    "anyOf": [
        _STRING,
        {"type": "array", "items": _STRING, "minItems": 1},
        _IDS,
        {"type": "array", "items": _IDS, "minItems": 1},
    ]
}

_ERROR_STATUSES = {
    "400": "The request is wrong; the text says what.",
    "401": "The server needs a key, and this was none.",
    "403": "The browser page or the host name is not let in, or the server is read-only.",
    "404": "No such model here.",
    "413": "The body, or a text, is too large.",
    "422": "The body is not what this route takes.",
    "500": "The model's files are damaged, or a fault of the server.",
    "502": "The upstream does not answer.",
    "503": "Too much waits already; Retry-After says when to try again.",
}


def _object(properties: dict[str, Schema], *required: str) -> Schema:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def _or_null(schema: Schema, told: str) -> Schema:
    return {"anyOf": [schema, {"type": "null"}], "description": told}


def _schemas() -> dict[str, Schema]:
    model: Schema = {"type": "string", "pattern": _NAME, "description": "A model's name, `all-minilm:latest` say."}
    keep_alive = _or_null(
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": _DURATION, "examples": ["5m"]}]},
        "How long the model stays in memory: seconds, or a duration as 5m; negative is for ever.",
    )
    options = _or_null(
        _object({"num_ctx": _or_null(_INTEGER, "Tokens that a text is cut to.")}),
        "Ollama's options; others do nothing.",
    )
    dimensions = _or_null(_INTEGER, "Cut the vectors to this length and renormalize; out of range changes nothing.")
    listed = _object({"name": _STRING, "model": _STRING, "size": _INTEGER, "digest": _STRING}, "name", "model")
    openai_model = _object({"id": _STRING, "object": {"const": "model"}, "owned_by": _STRING}, "id", "object")
    openai_vector = _object(
        {"object": {"const": "embedding"}, "index": _INTEGER, "embedding": {"anyOf": [_VECTOR, _STRING]}},
        *("object", "index", "embedding"),
    )
    usage = _object({"prompt_tokens": _INTEGER, "total_tokens": _INTEGER}, "prompt_tokens", "total_tokens")
    message = _object({"message": _STRING, "type": _STRING}, "message", "type")
    return {
        "Error": _object({"error": {"type": "string", "minLength": 1}}, "error"),
        "OpenAIError": _object({"error": message}, "error"),
        "TEIError": _object({"error": _STRING, "error_type": _STRING}, "error", "error_type"),
        "EmbedRequest": _object(
            {
                "model": model,
                "input": _or_null(_TEXTS, "A text or several."),
                "truncate": _or_null(_BOOLEAN, "Cut what is longer than the context (default), or answer 400."),
                "dimensions": dimensions,
                "keep_alive": keep_alive,
                "options": options,
            },
            "model",
        ),
        "EmbedResponse": _object(
            {
                "model": _STRING,
                "embeddings": _VECTORS,
                "total_duration": {"type": "integer", "description": "Nanoseconds."},
                "load_duration": {"type": "integer", "description": "Nanoseconds."},
                "prompt_eval_count": {"type": "integer", "description": "Tokens."},
            },
            *("model", "embeddings"),
        ),
        "EmbeddingsRequest": _object(
            {
                "model": model,
                "prompt": _or_null(_STRING, "One text, never cut."),
                "keep_alive": keep_alive,
                "options": options,
            },
            "model",
        ),
        "EmbeddingsResponse": _object({"embedding": _VECTOR}, "embedding"),
        "ModelRequest": _object({"model": model}, "model"),
        "ShowResponse": _object({"details": {"type": "object"}, "model_info": {"type": "object"}}, "details"),
        "Models": _object({"models": {"type": "array", "items": listed}}, "models"),
        "Version": _object({"version": _STRING, "unitvec": _STRING}, "version"),
        "OpenAIRequest": _object(
            {
                "model": model,
                "input": {**_TEXTS_OR_IDS, "description": "A text, several, or the token ids of either."},
                "dimensions": dimensions,
                "encoding_format": _or_null({"enum": ["float", "base64"]}, "base64 is float32, little-endian."),
                "user": {"description": "Ignored."},
            },
            *("model", "input"),
        ),
        "OpenAIResponse": _object(
            {
                "object": {"const": "list"},
                "data": {"type": "array", "items": openai_vector},
                "model": _STRING,
                "usage": usage,
            },
            *("object", "data", "model", "usage"),
        ),
        "OpenAIModel": openai_model,
        "OpenAIModels": _object(
            {"object": {"const": "list"}, "data": {"type": "array", "items": openai_model}}, "data"
        ),
        "TEIRequest": _object(
            {
                "inputs": _TEXTS_OR_IDS,
                "truncate": _or_null(_BOOLEAN, "Cut what is longer than the context, or answer 413 (default)."),
                "dimensions": dimensions,
                "normalize": {"enum": [True, None], "description": "Vectors are always of unit length."},
            },
            "inputs",
        ),
        "Vectors": _VECTORS,
        "Info": _object({"model_id": _STRING, "max_input_length": _INTEGER}, "model_id"),
        "Status": _object({"status": _STRING}, "status"),
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(
    tag: str, told: str, answer: str | None, *errors: str, body: str | None = None, error: str = "Error"
) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "As asked."}
    if answer:
        good["content"] = (
            {"application/json": {"schema": _ref(answer)}} if "/" not in answer else {answer: {"schema": _STRING}}
        )
    refusal = {"application/json": {"schema": _ref(error)}}
    responses: dict[str, Any] = {"200": good}
    for status in (*errors, "401", "403"):
        responses[status] = {"description": _ERROR_STATUSES[status]}
        if status != "403":  # the door itself says nothing
            responses[status]["content"] = refusal
    operation: dict[str, Any] = {"tags": [tag], "summary": told, "responses": responses}
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return operation


@cache
def document() -> dict[str, Any]:
    """The description."""
    run = ("400", "404", "413", "500", "503")
    ollama, openai, tei, ops = "Ollama", "OpenAI", "text-embeddings-inference", "Operations"
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    v1 = {"error": "OpenAIError"}
    paths: dict[str, dict[str, Any]] = {
        "/api/embed": {
            "post": _operation(ollama, "Embed texts.", "EmbedResponse", *run, body="EmbedRequest"),
        },
        "/api/embeddings": {
            "post": _operation(
                ollama, "Embed one text, the older form.", "EmbeddingsResponse", *run, body="EmbeddingsRequest"
            ),
        },
        "/api/tags": {"get": _operation(ollama, "Models at hand.", "Models")},
        "/api/ps": {"get": _operation(ollama, "Models in memory.", "Models")},
        "/api/show": {
            "post": _operation(ollama, "All about a model.", "ShowResponse", *run, body="ModelRequest"),
        },
        "/api/version": {"get": _operation(ollama, "The version of Ollama whose API this is.", "Version")},
        "/v1/embeddings": {
            "post": _operation(openai, "Embed texts or token ids.", "OpenAIResponse", *run, body="OpenAIRequest", **v1),
        },
        "/v1/models": {"get": _operation(openai, "Models at hand.", "OpenAIModels", **v1)},
        "/v1/models/{model}": {
            "get": {**_operation(openai, "A model.", "OpenAIModel", "400", "404", **v1), "parameters": [name]},
        },
        "/embed": {
            "post": _operation(
                tei,
                "Embed texts with the first model of the command line.",
                "Vectors",
                *("404", "413", "422", "500", "503"),
                body="TEIRequest",
                error="TEIError",
            ),
        },
        "/info": {"get": _operation(tei, "What is served.", "Info", "404", error="TEIError")},
        "/health": {"get": _operation(tei, "The process answers.", None)},
        "/health/live": {"get": _operation(ops, "The process answers.", "Status")},
        "/health/ready": {"get": _operation(ops, "A request would be taken now.", "Status", "503", error="Status")},
        "/metrics": {"get": _operation(ops, "Figures in Prometheus's text format.", "text/plain")},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "unitvec",
            "version": __version__,
            "description": "An embedding server that speaks Ollama's API.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


_STYLE = """
:root{color-scheme:light dark;--line:#8884}
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}
details{border:1px solid var(--line);border-radius:6px;margin:.4rem 0;padding:.4rem .8rem}
summary{cursor:pointer}code,pre{font:13px/1.45 ui-monospace,monospace}
pre{overflow:auto;border-top:1px solid var(--line);padding-top:.5rem}
b{display:inline-block;min-width:3.2rem}
"""


@cache
def page() -> str:
    """The description as a page: one section an API, one fold a route."""
    told = document()
    sections: dict[str, list[str]] = {}
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            fold = (
                f"<details><summary><b>{method.upper()}</b> <code>{html.escape(path)}</code> "
                f"{html.escape(operation['summary'])}</summary>{_body(told, operation)}{_answers(told, operation)}"
                "</details>"
            )
            sections.setdefault(operation["tags"][0], []).append(fold)
    folds = "".join(f"<h2>{html.escape(tag)}</h2>{''.join(those)}" for tag, those in sections.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>unitvec: its API</title><style>{_STYLE}</style><h1>unitvec {__version__}: its API</h1>"
        f'<p>{html.escape(told["info"]["description"])} The same for programs: <a href="/openapi.json">openapi.json'
        f'</a>. <a href="/">Try it</a>.</p>{folds}</html>'
    )


def _body(told: dict[str, Any], operation: dict[str, Any]) -> str:
    if "requestBody" not in operation:
        return ""
    return f"<p>Body</p>{_pre(told, operation['requestBody']['content']['application/json']['schema'])}"


def _answers(told: dict[str, Any], operation: dict[str, Any]) -> str:
    parts = []
    for status, answer in operation["responses"].items():
        parts.append(f"<p><b>{status}</b> {html.escape(answer['description'])}</p>")
        if status == "200":
            parts += [_pre(told, content["schema"]) for content in answer.get("content", {}).values()]
    return "".join(parts)


def _pre(told: dict[str, Any], schema: Schema) -> str:
    if "$ref" in schema:
        schema = told["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return f"<pre>{html.escape(json.dumps(schema, indent=1))}</pre>"
