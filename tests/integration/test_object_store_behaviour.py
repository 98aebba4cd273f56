"""The suite of object stores on a local folder and a real S3 server, each with and without a breaker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from teatree.contracts.settings import BreakerSettings, StoreSettings
from teatree.storage.breaker import Breaker
from teatree.storage.objects.base import ObjectStore
from teatree.storage.objects.guarded import GuardedStore
from teatree.storage.objects.stores import open_store
from teatree.testing.stores import ObjectStoreSuite


class TestOurStores(ObjectStoreSuite):
    """Each store of ours."""

    @pytest.fixture
    def opener(self, object_store_settings: StoreSettings) -> Callable[[], ObjectStore]:
        """Return what opens the store."""
        return lambda: open_store(object_store_settings)


@pytest.mark.slow_on_s3
class TestGuardedStores(ObjectStoreSuite):
    """The same, each behind a breaker."""

    @pytest.fixture
    def opener(self, object_store_settings: StoreSettings) -> Callable[[], ObjectStore]:
        """Return what opens the store and a breaker of it."""
        return lambda: GuardedStore(open_store(object_store_settings), Breaker("The store", BreakerSettings()))
