//! Comparing the short numbers of an index bucket all at once.
#![allow(unsafe_code)] // vector instructions are `unsafe` to call outside functions compiled for them

/// Numbers that are compared.
pub const LANES: usize = 10;
const BYTES: usize = 2 * LANES;

/// Bit i is set if the little-endian number i of `lanes` is `wanted`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn equal(lanes: &[u8; BYTES], wanted: u16) -> u32 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi16, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
    };
    let [.., a, b, c, d] = *lanes;
    // SAFETY: SSE2 is part of x86_64, so these instructions are there. The only one that takes an address reads the first 16
    // of the array's 20 bytes and needs no alignment.
    let mask = unsafe {
        let wanted = _mm_set1_epi16(wanted.cast_signed());
        let eight = _mm_cmpeq_epi16(_mm_loadu_si128(lanes.as_ptr().cast()), wanted);
        let two = _mm_cmpeq_epi16(_mm_cvtsi32_si128(i32::from_le_bytes([a, b, c, d])), wanted);
        // A byte a lane: the eight, the two, and six that are none.
        _mm_movemask_epi8(_mm_packs_epi16(eight, two))
    };
    mask.cast_unsigned() & ((1 << LANES) - 1)
}

/// Bit i is set if the little-endian number i of `lanes` is `wanted`.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub fn equal(lanes: &[u8; BYTES], wanted: u16) -> u32 {
    equal_one_by_one(lanes, wanted)
}

/// [`equal`] on any processor; compilers make vector instructions of it, though more of them.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn equal_one_by_one(lanes: &[u8; BYTES], wanted: u16) -> u32 {
    lanes.as_chunks().0.iter().rev().fold(0, |mask, &lane| mask << 1 | u32::from(u16::from_le_bytes(lane) == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_see_what_a_loop_sees() {
        let mut lanes = [0; BYTES];
        let mut state = 1u64;
        for round in 0..20_000 {
            lanes.fill_with(|| {
                state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
                // Few values, so that numbers agree often, whole or in one byte.
                [0x00, 0x7F, 0x80, 0xFF][(state >> 62) as usize]
            });
            let lane = round % LANES;
            let number = u16::from_le_bytes([lanes[2 * lane], lanes[2 * lane + 1]]);
            for wanted in [number, number.swap_bytes(), !number, 0, u16::MAX, 0x8000, 0x7FFF] {
                assert_eq!(equal(&lanes, wanted), equal_one_by_one(&lanes, wanted), "{lanes:?} {wanted:#x}");
            }
            assert_ne!(equal(&lanes, number) & 1 << lane, 0);
        }
    }
}
