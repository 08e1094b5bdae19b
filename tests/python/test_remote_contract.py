"""What holds for maps and tables of this machine holds for those at a server: their tests, run over Flight."""

from __future__ import annotations

import test_codec
import test_composite_keys
import test_lazy
import test_loc
import test_lossless
import test_map
import test_put
from remote_store import adopt, shared_server, store, store_path

__all__ = ["shared_server", "store", "store_path"]

LOCAL_ONLY = {
    "test_an_exception_of_the_last_report_publishes_nothing": "what the server does after the last row is not told",
    "test_ctrl_c_leaves_the_store_as_it_was": "it is about builds of this process",
    "test_exports_share_the_mapping": "what comes over the network is a copy",
    "test_it_stays_on_its_version_when_the_store_closes": "closing ends the connection",
    "test_many_pairs_in_little_memory": "memory_limit is the server's affair",
    "test_numbers_share_the_mapping": "what comes over the network is a copy",
    "test_progress_callback": "what the server does after the last row is not told",
    "test_store_basics": "a store at a server shows where that is, not its path",
    "test_versions_rollback_gc_drop": "a version that the server removed cannot be read any more",
}

adopt(globals(), (test_map, test_composite_keys, test_loc, test_lazy, test_codec, test_lossless, test_put), LOCAL_ONLY)
