"""The state of the relay in Ray's internal key-value store."""

from __future__ import annotations

from collections.abc import Mapping

from actors.cluster import private_api
from actors.cluster.errors import HEAD_IS_SILENT, ray_errors


class KeyValues:
    """Implements relay.control.store.KeyValueStore under `sluice/{namespace}`.

    The store lives as long as the cluster's head does; each method raises ClusterError when that does not
    answer.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = f"sluice/{namespace}".encode()

    def load(self, key: str) -> bytes | None:
        with ray_errors(HEAD_IS_SILENT):
            return private_api.kv_get(key, self._namespace)

    def load_all(self, prefix: str) -> Mapping[str, bytes]:
        """By the part of the key after the prefix."""
        with ray_errors(HEAD_IS_SILENT):
            names = private_api.kv_list(prefix, self._namespace)
        found = {name.removeprefix(prefix): self.load(name) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def save(self, key: str, value: bytes, *, overwrite: bool = True) -> None:
        with ray_errors(HEAD_IS_SILENT):
            private_api.kv_put(key, value, self._namespace, overwrite=overwrite)

    def forget(self, key: str) -> None:
        with ray_errors(HEAD_IS_SILENT):
            private_api.kv_delete(key, self._namespace)

    def forget_all(self) -> None:
        with ray_errors(HEAD_IS_SILENT):
            private_api.kv_delete_all(self._namespace)
