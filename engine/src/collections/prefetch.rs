//! Prefetching: loads memory into the cache before it is read, so that several cache misses
//! overlap.

/// Loads the cache line of a value without waiting for it, on x86-64; elsewhere it does nothing. A
/// read would have the same effect, but only as many reads overlap as the processor can hold
/// instructions.
#[inline]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction reads no value and cannot fault. Its only effect is on the cache.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(value);
}
