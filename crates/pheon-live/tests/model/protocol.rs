//! The protocol as it ought to be holds in every scenario.

use crate::fault::Fault;
use crate::scenarios::{self, explore};

macro_rules! holds {
    ($($test:ident: $scenario:ident;)*) => {
        $(
            #[test]
            fn $test() {
                explore(scenarios::$scenario, Fault::None);
            }
        )*
    };
}

holds! {
    commit: COMMIT;
    insert: INSERT;
    reading_twice: TWICE;
    repair_cut_short: REPAIR;
    repair_of_inserts_cut_short: REPAIR_INSERT;
    rebuild: REBUILD;
    rebuild_between_changes: REBUILD_BETWEEN;
    get_while_the_index_is_rebuilt: REBUILD_AND_GET;
    rebuild_without_a_deleted_key: REBUILD_WITHOUT;
    new_chunk: NEW_CHUNK;
    chunk_between_changes: CHUNK_BETWEEN;
    cleaning_after_a_transaction_of_two_chunks: CLEANING_SPANNING;
    cleaning: CLEANING;
    cleaning_of_a_deleted_key: CLEANING_DELETED;
    get_while_a_slot_is_freed: CLEANING_AND_GET;
    len: LEN;
}
