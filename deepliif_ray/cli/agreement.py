"""The command that tells how indices agree."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepliif_ray.cli.common import FormatOption, OutputOption, app
from deepliif_ray.cli.results import ResultsArgument
from deepliif_ray.console import Format, chosen_format, errors, show, visible
from deepliif_ray.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa


class KappaWeights(StrEnum):
    """How disagreement by several categories counts."""

    LINEAR = "linear"
    QUADRATIC = "quadratic"


@app.command()
def agreement(
    results: ResultsArgument,
    other: Annotated[
        str | None, typer.Option(help="URL of other results of the same slides: compare by slide.")
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option(
            help="Table of slide_id or patient_id, index_percent, maybe marker: compare with a reader."
        ),
    ] = None,
    per_patient: Annotated[
        int, typer.Option(min=2, help="Compare patients with exactly so many slides of a marker.")
    ] = 2,
    marker: Annotated[str | None, typer.Option(help="One marker only; aliases such as MIB-1 work.")] = None,
    cutoffs: Annotated[
        str | None,
        typer.Option(
            help="Edges of categories for kappa, percent, such as 5,30; an index at one is above it. "
            "By default the ranges that the field names for the marker."
        ),
    ] = None,
    weights: Annotated[KappaWeights, typer.Option(help="Weights of kappa.")] = KappaWeights.LINEAR,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Tell how indices agree: ICC, concordance, limits of agreement, kappa.

    Compared are the slides of each patient by slide_id, or these results with others, or with a reader.
    The table on the screen is short; --format csv or --output have every column.
    """
    from deepliif_ray.agreement import agreement as tell

    form = chosen_format(form, output)
    found = tell(
        results,
        other=other,
        reader=reader,
        per_patient=per_patient,
        marker=marker,
        cutoffs=None if cutoffs is None else _numbers(cutoffs),
        weights=weights.value,
    )
    show(_short(found.table) if form is Format.TABLE else found.table, form, output)
    for line in found.lines():
        errors.print(visible(line), markup=False)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"cut-offs {text!r} are no numbers; give percentages such as 5,30") from error


def _short(table: "pa.Table") -> "pa.Table":
    """Return the figures in columns that fit 80 characters."""
    import pyarrow as pa

    rows = table.to_pylist()
    texts = {
        "ICC": [_with_interval(row, "icc") for row in rows],
        "CCC": [_with_interval(row, "ccc") for row in rows],
        "bias": [_number(row["bias_percent"], 1) for row in rows],
        "limits": [_range(row, "limit_lower_percent", "limit_upper_percent", 1) for row in rows],
        "kappa": [_number(row["kappa"], 2) for row in rows],  # with its interval it would be too wide
    }
    columns = {"marker": table["marker"], "n": table["n"]}
    return pa.table(columns | {name: pa.array(values, pa.string()) for name, values in texts.items()})


def _number(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}".replace("-", "−")


def _range(row: dict[str, Any], low: str, high: str, digits: int) -> str | None:
    return None if row[low] is None else f"{_number(row[low], digits)} to {_number(row[high], digits)}"


def _with_interval(row: dict[str, Any], name: str) -> str | None:
    if row[name] is None:
        return None
    value = _number(row[name], 2)
    if row[f"{name}_lower"] is None:
        return value
    return f"{value} ({_number(row[f'{name}_lower'], 2)}–{_number(row[f'{name}_upper'], 2)})"
