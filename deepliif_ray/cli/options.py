"""Command-line options made of the fields of option objects, so that both say the same.

They are made when a command is needed: validation is slow to import, and ``--help`` does without it.
"""

import inspect
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
import typer.main
from typer.core import TyperCommand

if TYPE_CHECKING:
    from deepliif_ray.validation import Options

_KEY, _NONE = "deepliif_ray.options", "none"
T = TypeVar("T", bound="Options")


def options_of(**panels: str) -> type[TyperCommand]:
    """Return the class of a command that takes, beside its own options, the fields of classes of `config`.

    Parameters
    ----------
    **panels : str
        Name of a class of `deepliif_ray.config`, and the heading of its options in the help.
    """

    class Command(TyperCommand):
        _made = False

        def get_params(self, ctx: Any) -> Any:
            if not self._made:
                self._made = True
                for kind, panel in panels.items():
                    self.params += _made_of(kind, panel)
            return super().get_params(ctx)

    return Command


def chosen(ctx: typer.Context, kind: type[T]) -> T:
    """Return the options that were given on the command line as an object of ``kind``.

    Raises
    ------
    ConfigError
        A value cannot be used; the message lists every one.
    """
    given = ctx.meta.get(_KEY, {})
    return kind(**{name: value for name, value in given.items() if name in kind.model_fields})


def _made_of(kind: str, panel: str) -> list[Any]:
    from deepliif_ray import config

    parameters = []
    for name, field in getattr(config, kind).model_fields.items():
        typed, metavar = _typed(field.annotation, field.default)
        absent = False if typed is bool else None
        text = str(field.description).replace("\n", " ")
        if field.default not in (None, False):
            text += f" By default {field.default}."
        option = typer.Option(
            f"--{name.replace('_', '-')}",
            help=text,
            metavar=metavar,
            callback=_keeping(name, field.default),
            expose_value=False,
            rich_help_panel=panel,
        )
        annotation: Any = Annotated[bool, option] if typed is bool else Annotated[typed | None, option]
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=absent, annotation=annotation)
        )

    def command(**_: Any) -> None:
        """Stand for a function that takes these."""

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False)
    app.command()(command)
    return list(typer.main.get_command(app).params)


def _typed(annotation: Any, default: Any) -> tuple[Any, str | None]:
    """Return the type that a value has on the command line, and what stands for it in the help."""
    if get_origin(annotation) is Literal:
        members = [annotation]
    else:
        members = [member for member in get_args(annotation) or (annotation,) if member is not type(None)]
    if len(members) == 1 and get_origin(members[0]) is not Literal:
        return members[0], "" if members[0] is bool else None
    words = [str(word) for member in members for word in get_args(member) or (member.__name__.upper(),)]
    if default is not None and type(None) in get_args(annotation):
        words.append(_NONE)
    return str, "|".join(words)


def _keeping(name: str, default: Any) -> Any:
    def keep(ctx: typer.Context, value: Any) -> Any:
        if value is not None and value is not False:
            # Where no option at all means something else, none has to be said.
            is_none = value == _NONE and default is not None
            ctx.meta.setdefault(_KEY, {})[name] = None if is_none else value
        return value

    return keep
