"""Structured logs: what happened to which run and slide, in lines for people or JSON lines for programs.

Modules log with the standard library under ``deepliif_ray``: a stable event such as ``slide.committed`` as
the message, the rest in ``extra``. `start` decides what becomes of it in this process; a run's `LogConfig`
travels with its `RunContext`, so that workers, whose standard error Ray collects, log the same way.
"""

import json
import logging
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deepliif_ray.errors import ConfigError
from deepliif_ray.storage import scrub, scrubbed

FORMATS = ("human", "json")
LEVELS = ("debug", "info", "warning", "error")
ROOT = "deepliif_ray"

logging.getLogger(ROOT).addHandler(logging.NullHandler())  # nothing is said unless `start` was called

_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@dataclass(frozen=True)
class LogConfig:
    """How a process logs.

    Attributes
    ----------
    form : {'human', 'json'}
    level : {'debug', 'info', 'warning', 'error'}
        What is less than this is left out.
    """

    form: str = "human"
    level: str = "warning"


class _Context:
    """What every line of this process names, and how its lines are written; set by `start` and `name_run`."""

    config: LogConfig | None = None
    run_id: str | None = None


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {} if _Context.run_id is None else {"run_id": _Context.run_id}
    for name, value in vars(record).items():
        if name not in _KNOWN and not name.startswith("_"):  # Ray adds some of its own
            fields[name] = value
    if record.exc_info and record.exc_info[1] is not None:
        fields["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
    return {name: scrubbed(value) for name, value in fields.items() if value is not None}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, event, run_id and slide_id where known, further fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": moment,
            "level": record.levelname.lower(),
            "event": scrub(record.getMessage()),
            "logger": record.name,
        }
        return json.dumps(line | _fields(record), ensure_ascii=False, default=str)


class HumanFormatter(logging.Formatter):
    """One line for people; values are quoted, so that none can pass for a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        event = json.dumps(scrub(record.getMessage()), ensure_ascii=False)[1:-1]
        fields = (
            f"{name}={json.dumps(value, ensure_ascii=False, default=str)}"
            for name, value in _fields(record).items()
            if name != "run_id"
        )
        return " ".join([clock, record.levelname.lower(), event, *fields])


class _StandardError(logging.StreamHandler[Any]):
    """Writes to what standard error is now: a live line on a terminal replaces it for as long as it shows."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        pass


def log_config(form: str = "human", level: str | None = None) -> LogConfig:
    """Return a `LogConfig` of what a user typed; by default lines for people are few, JSON lines all.

    Raises
    ------
    ConfigError
        There is no such format or level.
    """
    level = level or ("info" if form == "json" else "warning")
    for name, value, known in (("log format", form, FORMATS), ("log level", level, LEVELS)):
        if value not in known:
            raise ConfigError(f"{name} is {value!r}; use one of {', '.join(known)}")
    return LogConfig(form, level)


def start(config: LogConfig, file: str | None = None) -> None:
    """Log from now on in this process; what an earlier call set up ends.

    Parameters
    ----------
    config : LogConfig
    file : str, optional
        Local file to append to; by default standard error.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    if file is None:
        handler: logging.Handler = _StandardError()
    else:
        try:
            handler = logging.FileHandler(file, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{file}: the log cannot be written there: {error.strerror}") from error
    handler.setFormatter(JsonFormatter() if config.form == "json" else HumanFormatter())
    logger = logging.getLogger(ROOT)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.setLevel(config.level.upper())
    logger.propagate = False
    _Context.config = config


def current() -> LogConfig | None:
    """Return what `start` was given in this process; None if it was not called."""
    return _Context.config


def name_run(run_id: str, config: LogConfig | None = None) -> None:
    """Name the run in every line from now on; in a worker, also start logging as the driver does."""
    _Context.run_id = run_id
    if config is not None and _Context.config != config:
        start(config)
