"""Tables as JSON and CSV can hold them."""

import json
import math
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Arrow is slow to import
    import pyarrow as pa


def plain(value: Any) -> Any:
    """Return a cell's value as JSON can hold it.

    Outlines are WKT, other bytes hexadecimal digits, times ISO text in UTC with a Z, what no number of JSON
    is (NaN, infinities) its name, a decimal a number where that is exact and else text.
    """
    import pyarrow as pa

    if isinstance(value, bytes):
        return outline(value) or value.hex()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, pa.MonthDayNano):
        return f"P{value.months}M{value.days}DT{value.nanoseconds / 1e9:.9g}S"
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            return int(value)
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, datetime):
        utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return utc.isoformat().replace("+00:00", "Z")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def rows(table: "pa.Table") -> list[dict[str, Any]]:
    """Return a table's rows with values that JSON can hold."""
    return [
        {name: plain(value) for name, value in row.items()}
        for row in table.to_pylist(maps_as_pydicts="lossy")
    ]


def outline(value: bytes) -> str | None:
    """Return the WKT of a WKB polygon of one ring, as outlines of cells are; None if it is another thing."""
    head = struct.Struct("<BIII")
    if len(value) < head.size or head.unpack_from(value)[:3] != (1, 3, 1):
        return None
    ordinates = 2 * head.unpack_from(value)[3]
    if len(value) != head.size + 8 * ordinates:
        return None
    numbers = struct.unpack_from(f"<{ordinates}d", value, head.size)
    points = zip(numbers[::2], numbers[1::2], strict=True)
    return f"POLYGON (({', '.join(f'{x:.15g} {y:.15g}' for x, y in points)}))"


def csv_text(table: "pa.Table") -> str:
    """Return a table as CSV: null is an empty field, an empty text is quoted."""
    lines = [table.column_names, *(row.values() for row in rows(table))]
    return "".join(",".join(map(_csv_field, line)) + "\n" for line in lines)


def _csv_field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    is_plain = text == text.strip() and text and not set(',"\r\n') & set(text)
    return text if is_plain else '"' + text.replace('"', '""') + '"'
