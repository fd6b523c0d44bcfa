"""Comparison of settings: nested ones made flat, the keys in which several differ, and what differs from defaults."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def flattened(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over the leaves of nested settings, as ("optimizer.lr", 0.01)."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flattened(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def varied(all_settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys whose values are not the same in all of several flat settings."""
    keys = dict.fromkeys(key for settings in all_settings for key in settings)
    return [key for key in keys if len({json.dumps(settings.get(key), default=str) for settings in all_settings}) > 1]


def beyond(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested settings that are not as by default."""
    differing: dict[str, Any] = {}
    for key, value in settings.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, dict):
            value = beyond(value, default)
            default = {}
        if key not in defaults or value != default:
            differing[key] = value
    return differing
