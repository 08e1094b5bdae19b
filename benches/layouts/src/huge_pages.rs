//! An allocator that asks for 2 MiB pages, as published files get them; all layouts have them then, their libraries too.
#![allow(unsafe_code)] // implementing `GlobalAlloc` and calling madvise are unsafe

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::{Advice, madvise};

const HUGE_PAGE: usize = 2 << 20;

/// The system's allocator, but large blocks begin at a huge page and are advised to consist of them.
pub(crate) struct HugePages {
    /// False: ordinary pages, to see the difference. Set before the first large allocation.
    pub(crate) enabled: AtomicBool,
}

/// The layout that is really allocated. A function of the request alone, so that `dealloc` finds the same.
fn real_layout(layout: Layout) -> Layout {
    if layout.size() < HUGE_PAGE { layout } else { layout.align_to(HUGE_PAGE).unwrap_or(layout) }
}

// SAFETY: every request goes to `System` with a layout of the same size and of an alignment that is at least as large, and
// is given back with the same one. Advice changes no byte. `realloc` is the trait's own: a new block, a copy, a release.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller promises a layout of non-zero size; `real_layout` keeps the size.
        let block = unsafe { System.alloc(real_layout(layout)) };
        if layout.size() >= HUGE_PAGE && !block.is_null() && self.enabled.load(Ordering::Relaxed) {
            // SAFETY: the range is the block just allocated; without the advice everything works, only slower.
            let _ = unsafe { madvise(block.cast(), layout.size(), Advice::LinuxHugepage) };
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promised us.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block is new and has this size.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc` with this layout, hence from `System` with the real one.
        unsafe { System.dealloc(block, real_layout(layout)) }
    }
}
