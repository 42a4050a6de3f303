"""Numbers, times and names as people read them."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """Count things, as '1 image' and '1,248 images'."""
    return f'{count:,} {noun}' if count == 1 else f'{count:,} {noun}s'


def printable(text: str) -> str:
    """Escape line breaks, terminal codes and bytes that are no text.

    Names of files may hold any of them.
    """
    return ''.join(
        each if each.isprintable() else each.encode('unicode_escape').decode()
        for each in text
    )


def summarise_keys(names: list[str]) -> str:
    """Write the first three of several names, and how many there are."""
    shown = ', '.join(names[:3])
    return shown if len(names) <= 3 else f'{shown}, the first of {len(names)}'


def duration(seconds: float) -> str:
    """Format a time, as '5 s', '2 min 05 s' and '3 h 07 min'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours} h {minutes:02d} min'
    return f'{minutes} min {seconds:02d} s' if minutes else f'{seconds} s'


def rough_duration(minutes: float) -> str:
    """Estimate a time in the unit that people use, as 'about 1.5 h'."""
    hours = minutes / 60
    if minutes < 1:
        return 'less than a minute'
    if minutes < 90:
        return f'about {minutes:.0f} min'
    if hours < 10:
        return f'about {hours:.1f} h'
    return f'about {hours:.0f} h' if hours <= 48 else f'about {hours / 24:.0f} days'
