"""Ray's exceptions as callers of the relay see them."""

from __future__ import annotations

import pytest
import ray

from actors.cluster.errors import ray_errors
from relay.errors import ClusterError, UsageError


def test_what_an_actor_raised_for_its_caller_passes_as_it_is() -> None:
    cause = UsageError("1 to 3")
    with pytest.raises(UsageError) as raised, ray_errors("the controller does not answer"):
        raise ray.exceptions.RayTaskError("scale", "traceback", cause)
    assert raised.value is cause


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ray.exceptions.RayError("no head\nand a page of advice"), "p0 cannot be created: no head"),
        (ray.exceptions.GetTimeoutError(), "p0 cannot be created: GetTimeoutError"),
        (ConnectionError("refused"), "p0 cannot be created: refused"),
        (RuntimeError("not initialized"), "p0 cannot be created: not initialized"),
    ],
)
def test_rays_own_errors_become_one_line_of_ours(error: Exception, message: str) -> None:
    with pytest.raises(ClusterError) as raised, ray_errors("p0 cannot be created"):
        raise error
    assert str(raised.value) == message


def test_errors_of_our_own_code_are_not_hidden() -> None:
    with pytest.raises(KeyError), ray_errors("p0 cannot be created"):
        raise KeyError("a bug")
