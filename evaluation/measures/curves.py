"""Recall-precision curves, which stand beside reports/evaluation.json: they are most of its size.

`artifacts/evaluated/curves.json` holds them as flat rows, which `dvc plots` reads; reports/ holds
what a pull request should show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CURVES = "curves.json"

Row = dict[str, Any]


def curve_rows(summary: Mapping[str, Any]) -> list[Row]:
    """Return the curves of all classes as flat rows.

    >>> curve_rows({"classes": {"face": {"curve": [{"recall": 1.0}]}}})
    [{'class': 'face', 'recall': 1.0}]
    """
    return [
        {"class": name, **point}
        for name, values in summary["classes"].items()
        for point in values["curve"]
    ]


def without_curves(summary: Mapping[str, Any]) -> Row:
    """Return a summary as reports/evaluation.json holds it."""
    classes = {
        name: {key: value for key, value in values.items() if key != "curve"}
        for name, values in summary["classes"].items()
    }
    return {**summary, "classes": classes}


def with_curves(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Row:
    """Return a summary as a page draws it.

    >>> with_curves({"classes": {"face": {}}}, [{"class": "face", "recall": 1.0}])
    {'classes': {'face': {'curve': [{'recall': 1.0}]}}}
    """
    classes = {
        name: {
            **values,
            "curve": [
                {key: value for key, value in row.items() if key != "class"}
                for row in rows
                if row["class"] == name
            ],
        }
        for name, values in summary["classes"].items()
    }
    return {**summary, "classes": classes}
