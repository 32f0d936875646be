"""JSON files of data sets: parsed, and their fields taken one by one with a look at what they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ndissect.engine.data.images import BadFile


def parse_json(data: bytes, file: str) -> Fields:
    """The JSON object in ``data``, in UTF-8 or, as older tools write it, Latin-1. BadFile where it is none."""
    try:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        return Fields(json.loads(text), file, "the file")
    except (ValueError, RecursionError) as error:
        why = "too many lists within lists" if isinstance(error, RecursionError) else str(error)
        raise BadFile(file, f"not readable as JSON: {why}") from None


@dataclass(frozen=True)
class Fields:
    """One JSON object of ``file``, called ``where`` in messages. BadFile where a field is not of the kind asked for."""

    value: Any
    file: str
    where: str

    def object(self, key: str) -> Fields:
        """The object ``key``."""
        return Fields(self._get(key, dict, "an object"), self.file, key)

    def objects(self, key: str) -> Iterator[Fields]:
        """The entries of the list ``key``; whether each is an object shows when a field of it is taken.

        A single one may stand there without its list: MATLAB writes it so.
        """
        single = self.get(key)
        entries = [single] if isinstance(single, dict) else self.list(key)
        return (Fields(entry, self.file, f"entry {row} of {key!r}") for row, entry in enumerate(entries))

    def list(self, key: str) -> list[Any]:
        """The list ``key``."""
        got: list[Any] = self._get(key, list, "a list")
        return got

    def number(self, key: str) -> int:
        """The whole number ``key``."""
        got: int = self._get(key, int, "a whole number")
        return got

    def text(self, key: str) -> str:
        """The text ``key``."""
        got: str = self._get(key, str, "a text")
        return got

    def get(self, key: str) -> Any:
        """Whatever ``key`` is, None where there is no such field."""
        return self.value.get(key) if isinstance(self.value, dict) else None

    def _get(self, key: str, kind: type, words: str) -> Any:
        got = self.get(key)
        if not isinstance(got, kind) or isinstance(got, bool):
            what = f"{self.where} has no {key!r}" if got is None else f"{self.where}: {key!r} is not {words}"
            raise BadFile(self.file, what)
        return got
