"""As much of JSON Schema as docs/json.schema.json uses."""

from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
_KNOWN = {
    *("$schema", "$defs", "$ref", "title", "type", "enum", "anyOf"),
    *("required", "properties", "additionalProperties", "items"),
}


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool) and name != "boolean":
        return False
    return isinstance(value, _TYPES[name])


def conforms(
    value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None, at: str = "$"
) -> list[str]:
    """What in `value` is not as the schema says; nothing where it conforms."""
    root = root or schema
    assert set(schema) <= _KNOWN, f"{at}: {set(schema) - _KNOWN} is not understood here"
    if "$ref" in schema:
        return conforms(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, at)
    if "anyOf" in schema:
        tries = [conforms(value, s, root, at) for s in schema["anyOf"]]
        return min(tries, key=len)
    wrong = []
    if "enum" in schema and not any(value is e or value == e for e in schema["enum"]):
        wrong.append(f"{at}: {value!r} is none of {schema['enum']}")
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(_is(value, n) for n in names):
            wrong.append(f"{at}: {value!r} is no {' or '.join(names)}")
    if isinstance(value, list) and "items" in schema:
        for k, item in enumerate(value):
            wrong += conforms(item, schema["items"], root, f"{at}[{k}]")
    if isinstance(value, dict):
        wrong += [f"{at}: {k} is missing" for k in schema.get("required", []) if k not in value]
        properties = schema.get("properties", {})
        more = schema.get("additionalProperties", True)
        for k, item in value.items():
            if k in properties:
                wrong += conforms(item, properties[k], root, f"{at}.{k}")
            elif more is False:
                wrong.append(f"{at}: {k} is not documented")
            elif isinstance(more, dict):
                wrong += conforms(item, more, root, f"{at}.{k}")
    return wrong
