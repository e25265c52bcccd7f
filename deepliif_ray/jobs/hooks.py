"""Completion hooks: who is told how a job ended."""

import http.client
import json
import os
import time
import urllib.error
from typing import Any
from urllib.parse import urlsplit

from deepliif_ray import storage
from deepliif_ray.errors import AddressRefusedError, ConfigError, StorageError
from deepliif_ray.jobs.config import Notifications

TIMEOUT_S = 10.0
DELAYS_S = (1.0, 4.0)
"""Before the second and the third try."""
_AGAIN = (408, 425, 429)
_REDIRECTS = (301, 302, 303, 307, 308)


def webhook_url(notifications: Notifications) -> str | None:
    """Return the URL of the webhook, looked up in the environment if it is given as ``env:NAME``.

    Raises
    ------
    ConfigError
        The variable is not set, or holds no URL of the web.
    """
    given = notifications.webhook
    if given is None or not given.startswith("env:"):
        return given
    name = given.removeprefix("env:")
    url = os.environ.get(name, "")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"notifications.webhook is {given}, but the environment has no URL in {name}; set it"
        )
    return url


def notify(notifications: Notifications, summary: dict[str, Any], *, patient: bool = True) -> list[str]:
    """Tell whoever wants to know; what goes wrong is returned, not raised: the results are safe already.

    Parameters
    ----------
    notifications : Notifications
    summary : dict
        What JSON can hold.
    patient : bool
        Whether to try the webhook again when it does not answer; not when the process is being stopped.

    Returns
    -------
    list of str
        A sentence for each hook that failed. It does not show the webhook's path, which may be a secret.
    """
    content = json.dumps(summary, ensure_ascii=False, indent=1).encode()
    problems = []
    if notifications.file is not None:
        try:
            storage.write_bytes(notifications.file, content + b"\n")
        except StorageError as error:
            problems.append(str(error))
    try:
        url = webhook_url(notifications)
        if url is not None and (problem := _post(url, content, DELAYS_S if patient else ())):
            problems.append(f"webhook at {urlsplit(url).hostname}: {problem}")
    except ConfigError as error:
        problems.append(str(error))
    return problems


def _post(url: str, content: bytes, delays: tuple[float, ...]) -> str | None:
    """Post to ``url``; return what went wrong in the end."""
    problem = None
    for delay in (*delays, None):
        try:
            storage.post(url, content, "application/json", TIMEOUT_S)
            return None
        except AddressRefusedError as error:
            return str(error)
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code}"
            if error.code in _REDIRECTS:
                problem += ", which leads elsewhere and was not followed; give the address it leads to"
            if error.code < 500 and error.code not in _AGAIN:
                break
        except (OSError, ValueError, http.client.HTTPException) as error:
            problem = str(getattr(error, "reason", error))
        if delay is not None:
            time.sleep(delay)
    return problem
