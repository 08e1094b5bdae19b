//! Cache-line prefetch hints: they change speed, never results.
#![allow(unsafe_code)] // the prefetch instructions are `unsafe` to call or need `asm!`

/// Asks for the cache line that holds `slice[offset]`, for reading and near use. Any offset is harmless, so that one
/// computed from a corrupted file is, too: out of bounds some other line is asked for, or none. Nothing happens on a CPU
/// without such an instruction.
///
/// The page need not be in memory: a prefetch never faults.
#[inline(always)]
pub fn read(slice: &[u8], offset: usize) {
    line(slice.as_ptr().wrapping_add(offset));
}

/// Asks for the cache line that holds the first byte of `slice[i]`; like [`read`] for slices of any type.
#[inline(always)]
pub fn read_at<T>(slice: &[T], i: usize) {
    line(slice.as_ptr().wrapping_add(i).cast());
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn line(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: PREFETCHT0 is part of SSE, which every x86_64 CPU has; it reads no value, writes nothing and cannot fault,
    // whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn line(at: *const u8) {
    // SAFETY: PRFM is part of the base instruction set; it reads no value, writes nothing and cannot fault, whatever the
    // address. It touches neither stack nor flags, as the options say.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(readonly, nostack, preserves_flags));
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline(always)]
fn line(_at: *const u8) {}

#[cfg(test)]
mod tests {
    #[test]
    fn any_offset_is_harmless() {
        let bytes = [7u8; 100];
        let words = [9u64; 10];
        for offset in [0, 63, 64, 99, 100, 101, usize::MAX] {
            super::read(&bytes, offset);
            super::read(&[], offset);
            super::read_at(&words, offset);
            super::read_at::<u64>(&[], offset);
        }
        assert!(bytes.iter().all(|&b| b == 7) && words.iter().all(|&w| w == 9));
    }
}
