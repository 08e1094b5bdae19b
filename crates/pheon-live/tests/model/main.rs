//! The protocol of live maps (docs/live.md) on a small model, whose executions loom explores: every interleaving of two threads, and
//! every value that the memory model lets a load return.
//!
//! The map has two keys in one probe sequence, two indexes, two chunks and a few views. One thread runs the writers, one after the other
//! as if they handed the mutex over: the first is killed before each of its stores that others may see (and in the middle of a record and
//! of a commit block), in one case the one that repairs it too; the others repair and write on. The other thread is a reader, which only
//! loads. Whatever it reads at commit number C must be the state that transaction C left (`history`), for both keys, also when C is that
//! of a repair; a lookup of one key must give a value that the key had at a commit meanwhile. That is all or nothing, nothing torn, no
//! time going back, and nothing acknowledged missing, in one comparison.
//!
//! Covered: write, commit, the two commit blocks and `len`, kill and repair, new chunk, new index, cleaning, dropping a chunk, waiting.
//! In [`mutations`] and [`waiting`] the protocol is got wrong on purpose, and the model notices.
//!
//! Left out: hashing and tags, sizes and bounds, the files themselves (a dropped chunk is one that cannot be mapped any more, an
//! unpublished file is what it is when its number is published), the robust mutex, cleaning in several steps, iteration, changes between
//! two commits, SYNC and what follows a boot, more than one reader. A reader's acquire loads stand for relaxed ones followed by a fence,
//! which is stronger. Writers do not load in the model, see [`memory::Word`]. Scenarios with `preemptions` are not exhaustive: loom
//! tries as many switches away from a thread that could go on as that says.

mod fault;
mod memory;
mod mutations;
mod protocol;
mod reader;
mod scenarios;
mod waiting;
mod writer;
