"""Parse a saved config without executing it."""

from __future__ import annotations

import ast


def read_config_text(text: str) -> dict:
    """Read the assignments of a saved config.

    MMEngine saves a config as assignments of literals and of ``dict(...)``. Reading
    them needs no ``exec``, which a file from elsewhere must not get.

    Args:
        text: The text of the file.

    Returns:
        Entries by name. An entry with anything but literals is its source text. Empty
        if the text is no Python.
    """
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return {
        statement.targets[0].id: _value(statement.value)
        for statement in module.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
    }


def _value(node: ast.expr) -> object:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict':
        return {str(each.arg): _value(each.value) for each in node.keywords}
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {
            str(_value(key)): _value(value)
            for key, value in zip(node.keys, node.values, strict=True)
        }
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(each) for each in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return ast.unparse(node)
