"""What commands tell of a manifest, and of results that are not as it says."""

from collections.abc import Iterable, Iterator, Sequence

from deepliif_ray.console import errors, visible

_MOST = 20


def show_warnings(warnings: Sequence[str]) -> None:
    """Show what is doubtful about a manifest."""
    for warning in warnings[:_MOST]:
        errors.print(f"warning: {visible(warning)}", markup=False)
    if len(warnings) > _MOST:
        errors.print(f"… and {len(warnings) - _MOST} more warnings about the manifest")


def about_cohort(
    refreshed: int, retired: Sequence[str], leftovers: Sequence[tuple[str, str | None]]
) -> Iterator[str]:
    """Yield what to tell about results that differ from the manifest."""
    if refreshed:
        yield f"{refreshed} slides brought up to date with the manifest, without inference"
    if retired:
        yield f"{len(retired)} slides retired: {some(map(repr, retired))}"
    if leftovers:
        listed = (
            repr(slide) + ("" if new is None else f" (now {new!r}? it has the same content)")
            for slide, new in leftovers
        )
        yield (
            f"warning: {len(leftovers)} slides of the results are not in the manifest and still count: "
            f"{some(listed)}; `score --prune` retires them"
        )


def some(names: Iterable[str]) -> str:
    """Return names in one line: the first ones, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _MOST} more" if len(listed) > _MOST else ""
    return visible(", ".join(listed[:_MOST])) + more
