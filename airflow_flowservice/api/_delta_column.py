"""The delta column of a table-based source; public as `models.DeltaColumn`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_flowservice.exceptions import ConfigurationError

_KEYS = {"name": "name", "dateFormat": "date_format", "timezone": "timezone"}
_REMEDY = "give delta_column as the column's name, or as a mapping with 'name' and perhaps 'dateFormat' and 'timezone'"


@dataclass(frozen=True, kw_only=True)
class DeltaColumn:
    """The source column that tells new rows from old ones (table-based sources).

    :param name: the column's name in the source.
    :param date_format: how the source writes dates in it, such as `yyyy-MM-dd HH:mm:ss`.
    :param timezone: the timezone of those dates.
    :raises ConfigurationError: a value is empty or is not a string.
    """

    name: str
    date_format: str | None = None
    timezone: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise _bad("its name is empty or is not a string")
        for key, value in (("dateFormat", self.date_format), ("timezone", self.timezone)):
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise _bad(f"its {key} is empty or is not a string")

    @classmethod
    def parse(cls, value: str | Mapping[str, Any] | DeltaColumn) -> DeltaColumn:
        """From a name, or from the mapping that the API uses: `name`, `dateFormat`, `timezone`.

        :raises ConfigurationError: another type, an unknown key, or a value that is not a string.
        """
        if isinstance(value, DeltaColumn):
            return value
        if isinstance(value, str):
            return cls(name=value)
        if not isinstance(value, Mapping):
            raise _bad(f"it is of type {type(value).__name__}")
        if unknown := sorted(str(key) for key in value if key not in _KEYS):
            raise _bad(f"it has the unknown key {', '.join(unknown)}")
        fields = {_KEYS[key]: given for key, given in value.items()}
        return cls(**{"name": "", **fields})

    def to_json(self) -> dict[str, str]:
        """As `params.deltaColumn` of a request; keys without a value are left out."""
        values = {"name": self.name, "dateFormat": self.date_format, "timezone": self.timezone}
        return {key: value for key, value in values.items() if value is not None}


def _bad(why: str) -> ConfigurationError:
    return ConfigurationError(f"delta_column cannot be used: {why}", remedy=_REMEDY)
