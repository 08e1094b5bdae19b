"""What holds for changes and pandas frames in a store of this machine holds for those at a server."""

from __future__ import annotations

import test_changes
import test_pandas_fidelity
from remote_store import adopt, shared_server, store, store_path

__all__ = ["shared_server", "store", "store_path"]

LOCAL_ONLY = {
    "test_rows_that_take_turns_are_no_zero_copy": "nothing that comes over the network is zero-copy",
}

adopt(globals(), (test_changes, test_pandas_fidelity), LOCAL_ONLY)
