"""Tables of a Markdown page, printed row by row."""


def percent(name: str, value: float | None) -> str:
    """Return a figure in percent or points."""
    if value is None:
        return "–"
    return f"{value if name.endswith('_percent') else 100 * value:.2f}"


def row(*cells: object) -> None:
    """Print one line of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def header(*titles: str) -> None:
    """Print the head of a Markdown table."""
    row(*titles)
    row("---", *["---:"] * (len(titles) - 1))
