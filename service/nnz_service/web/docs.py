"""The interface's description as one page: no scripts, nothing from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

Spec = dict[str, Any]

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1b1f24}code,pre{font:13px/1.45 ui-monospace,monospace;background:#f4f5f7}
pre{padding:.6rem;overflow:auto}h2{margin-top:2.5rem;text-transform:capitalize}
details{border:1px solid #d9dce1;border-radius:6px;margin:.4rem 0;padding:.4rem .8rem}
summary{cursor:pointer}summary b{display:inline-block;min-width:4.2rem}
summary span{color:#57606a}table{border-collapse:collapse;margin:.4rem 0}
td,th{border-top:1px solid #e3e5e9;padding:.2rem .8rem .2rem 0;text-align:left;
vertical-align:top}nav a{margin-right:1rem}
"""


def page(spec: Spec) -> str:
    """Render an OpenAPI document as HTML."""
    info = spec["info"]
    tags: dict[str, list[tuple[str, str, Spec]]] = {}
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            tag = operation["tags"][0]
            tags.setdefault(tag, []).append((method.upper(), path, operation))
    links = " ".join(f'<a href="#{tag}">{tag}</a>' for tag in [*tags, "schemas"])
    sections = "".join(
        f'<h2 id="{tag}">{tag}</h2>' + "".join(_operation(*row) for row in rows)
        for tag, rows in tags.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{info["title"]}'
        f"</title><style>{_STYLE}</style><h1>{info['title']} {info['version']}</h1>"
        f'{_prose(info["description"])}<p><a href="openapi.json">openapi.json</a></p>'
        f"<nav>{links}</nav>{sections}{_schemas(spec)}</html>"
    )


def _operation(method: str, path: str, operation: Spec) -> str:
    text = operation["description"]
    first, _, rest = text.partition("\n\n")
    return (
        f'<details id="{operation["operationId"]}"><summary><b>{method}</b> '
        f"<code>{escape(path)}</code> <span>{_inline(first)}</span></summary>"
        f"{_prose(rest)}{_parameters(operation)}{_body(operation)}"
        f"{_answers(operation)}</details>"
    )


def _parameters(operation: Spec) -> str:
    rows = [
        (
            f"<code>{escape(row['name'])}</code>",
            row["in"],
            _type(row.get("schema", {})),
            _inline(row.get("description", "")),
        )
        for row in operation.get("parameters", ())
    ]
    return _table("Parameter In Type Meaning", rows)


def _body(operation: Spec) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    rows = [
        (f"<code>{kind}</code>", _type(of["schema"])) for kind, of in content.items()
    ]
    examples = "".join(
        f"<p><code>{escape(name)}</code></p>"
        f"<pre>{escape(json.dumps(one['value'], indent=1))}</pre>"
        for of in content.values()
        for name, one in of.get("examples", {}).items()
    )
    return _table("Body Type", rows) + examples


def _answers(operation: Spec) -> str:
    rows = [
        (code, _inline(answer["description"]), ", ".join(_kinds(answer)))
        for code, answer in operation["responses"].items()
    ]
    return _table("Answer Meaning Body", rows)


def _kinds(answer: Spec) -> Iterator[str]:
    for kind, of in answer.get("content", {}).items():
        schema = of.get("schema") or of.get("itemSchema", {})
        yield f"<code>{kind}</code> {_type(schema)}"


def _schemas(spec: Spec) -> str:
    parts = ['<h2 id="schemas">schemas</h2>']
    for name, schema in sorted(spec["components"]["schemas"].items()):
        rows = [
            (f"<code>{key}</code>", _type(of), _inline(of.get("description", "")))
            for key, of in schema.get("properties", {}).items()
        ]
        head = f"<b>{name}</b> <span>{_inline(schema.get('description', ''))}</span>"
        table = _table("Member Type Meaning", rows)
        parts.append(
            f'<details id="schema-{name}"><summary>{head}</summary>{table}</details>'
        )
    return "".join(parts)


def _type(schema: Spec) -> str:
    """Name a schema in a few words, with links to the larger ones."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#schema-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    return str(schema.get("format") or schema.get("type", "any"))


def _table(heads: str, rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{name}" for name in heads.split())
    body = "".join(f"<tr>{''.join(f'<td>{cell}' for cell in row)}" for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _prose(text: str) -> str:
    """Paragraphs, lists, tables and code spans are all that descriptions use."""
    parts = []
    for block in filter(None, text.strip().split("\n\n")):
        if block.startswith("* "):
            items = re.split(r"^\* ", block, flags=re.MULTILINE)[1:]
            parts.append(f"<ul>{''.join(f'<li>{_inline(i)}' for i in items)}</ul>")
        elif block.startswith("|"):
            parts.append(_drawn(block))
        else:
            parts.append(f"<p>{_inline(block)}</p>")
    return "".join(parts)


def _drawn(block: str) -> str:
    """A table; the row below its head is of dashes."""
    head, _, *rows = (
        [_inline(cell.strip()) for cell in line.strip(" |").split("|")]
        for line in block.splitlines()
    )
    heads = "".join(f"<th>{cell}" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{c}' for c in row)}" for row in rows)
    return f"<table><tr>{heads}{body}</table>"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
