"""Write a config as readable Python, with the reason of each choice."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap

from .settings import Choices

_WIDTH = 88


@dataclass
class Section:
    """Entries of a config below a comment.

    Attributes:
        title: First line of the comment; may be empty.
        entries: Top-level entries of the config.
        choices: Names of the settings that the entries depend on.
    """

    title: str
    entries: dict
    choices: tuple[str, ...] = ()


def config_text(docstring: str, sections: list[Section], choices: Choices) -> str:
    """Format a config.

    Args:
        docstring: What the config is for.
        sections: Its parts.
        choices: The settings; their reasons become comments.
    """
    # Escape quotes and backslashes of folder names: the config is executed.
    text = docstring.strip().replace('\\', r'\\').replace('"""', r'\"\"\"')
    parts = [f'"""{text}\n"""\n']
    for section in sections:
        lines = wrap(section.title, _WIDTH - 2)
        for name in section.choices:
            choice = choices[name]
            line = f'- {name} {choice.value}: {choice.reason}'
            lines += wrap(line, _WIDTH - 2, subsequent_indent='  ')
        comment = ''.join(f'# {line}\n' for line in lines)
        entries = (
            _assign(name, value, '') + '\n' for name, value in section.entries.items()
        )
        parts.append(comment + ''.join(entries))
    return '\n'.join(parts)


def _assign(name: str, value: object, indent: str) -> str:
    equals = '=' if indent else ' = '
    return f'{indent}{name}{equals}{_literal(value, indent, len(name) + len(equals))}'


def _literal(value: object, indent: str, used: int) -> str:
    """Python source of a value, on one line if it fits."""
    line = _one_line(value)
    if len(indent) + used + len(line) < _WIDTH:
        return line
    inner = f'{indent}    '
    if isinstance(value, dict):
        rows = [_assign(name, each, inner) for name, each in value.items()]
        return _block('dict(', rows, f'{indent})')
    if isinstance(value, (list, tuple)):
        rows = [inner + _literal(each, inner, 0) for each in value]
        start, end = '[]' if isinstance(value, list) else '()'
        return _block(start, rows, f'{indent}{end}')
    return line


def _one_line(value: object) -> str:
    if isinstance(value, dict):
        return f'dict({", ".join(f"{k}={_one_line(v)}" for k, v in value.items())})'
    if isinstance(value, list):
        return f'[{", ".join(map(_one_line, value))}]'
    if isinstance(value, tuple):
        comma = ',' if len(value) == 1 else ''
        return f'({", ".join(map(_one_line, value))}{comma})'
    return repr(value)


def _block(start: str, rows: list[str], end: str) -> str:
    return '\n'.join([start, *(f'{row},' for row in rows), end])
