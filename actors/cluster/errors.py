"""Ray's exceptions as errors of this project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray

from relay.errors import ClusterError

HEAD_IS_SILENT = "the cluster's head does not answer"


@contextmanager
def ray_errors(what: str) -> Iterator[None]:
    """Turns Ray's exceptions into ClusterError, which begins with `what`; an exception that an actor raised
    for its caller passes as it is."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise getattr(error, "cause", None) or ClusterError(f"{what}: {error}") from None
    except (ray.exceptions.RayError, ConnectionError, TimeoutError, RuntimeError) as error:
        raise ClusterError(f"{what}: {first_line(error) or type(error).__name__}") from error


def first_line(error: BaseException) -> str:
    """The first line: Ray's messages continue with a stack trace or a page of advice."""
    return str(error).strip().partition("\n")[0]
