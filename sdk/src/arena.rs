//! The memory of a call.
//!
//! Every call has a fresh instance, so memory is needed for a moment and never given back: an allocator can be little more
//! than a pointer that moves up. This one is, and keeps what is freed in lists by size, for loops that allocate. Next to the
//! general allocator of the C library it takes a third of the fuel of a small command away, and some 8 KB of every module.
//!
//! Sizes are rounded up to a *class*: multiples of 16 bytes with three significant bits (16, 32, .. 128, 160, 192, 224, 256,
//! 320, ..), so at most a quarter is lost. A freed block goes back below the pointer if it was the last one, and onto the
//! list of its class otherwise; neighbours are not joined. The last block grows in place, which is what a `Vec` that is being
//! filled wants.
//!
//! The first blocks come from a part of the module's zeroed data ([`FIRST_BYTES`]), so that a small command does not grow
//! memory at all. Later ones come from `memory.grow`. The C library may grow memory, too, and has the rest of the first pages.
//!
//! A module that wants another allocator turns the SDK's feature `allocator` off.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ptr;

/// What every block is aligned to, and a multiple of.
const UNIT: usize = 16;
/// Classes up to 4 GiB, see [`Class::of`].
const CLASSES: usize = 112;
/// Zeroed data for the first blocks: together with a stack of 64 KiB and small tables it fits two pages of wasm.
#[cfg(target_arch = "wasm32")]
const FIRST_BYTES: usize = 40 * 1024;

/// A size of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    index: usize,
    bytes: usize,
}

impl Class {
    /// The smallest class that holds `bytes`.
    fn of(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).max(1);
        // What is below the three significant bits; none up to eight units.
        let shift = (usize::BITS - (units - 1).leading_zeros()).saturating_sub(3) as usize;
        let significant = ((units - 1) >> shift) + 1;
        Self { index: shift * 4 + significant - 1, bytes: (significant << shift) * UNIT }
    }
}

/// Where new memory comes from: at least so many bytes, as a range of addresses that starts aligned to [`UNIT`].
type Grow = fn(usize) -> Option<(usize, usize)>;

/// Free memory: from `top` to `limit`, and the blocks on the lists. Addresses; 0 is none.
#[derive(Debug)]
pub(crate) struct Arena {
    top: usize,
    limit: usize,
    /// First free block of each class; each block begins with the address of the next.
    free: [usize; CLASSES],
    grow: Grow,
}

impl Arena {
    pub(crate) const fn new(grow: Grow) -> Self {
        Self { top: 0, limit: 0, free: [0; CLASSES], grow }
    }

    /// A block for `layout`, or null.
    ///
    /// # Safety
    /// What `grow` gives is memory that nobody else uses.
    pub(crate) unsafe fn alloc(&mut self, layout: Layout) -> *mut u8 {
        let class = Class::of(layout.size());
        let first = self.free[class.index];
        if first != 0 && layout.align() <= UNIT {
            let block = ptr::with_exposed_provenance_mut::<usize>(first);
            // SAFETY: a block on a list is ours, at least a unit long and aligned to it, and `dealloc` wrote the next address.
            self.free[class.index] = unsafe { block.read() };
            return block.cast();
        }
        let start = self.top.next_multiple_of(layout.align().max(UNIT));
        if self.reach(start, class.bytes) {
            self.top = start + class.bytes;
            return ptr::with_exposed_provenance_mut(start);
        }
        self.alloc_elsewhere(layout, class)
    }

    /// Whether there is room for `bytes` at `start`, if need be after growing in place.
    fn reach(&self, start: usize, bytes: usize) -> bool {
        start != 0 && start <= self.limit && bytes <= self.limit - start
    }

    /// Begins with new memory; what was left of the old is given up unless the new one follows it.
    #[cold]
    fn alloc_elsewhere(&mut self, layout: Layout, class: Class) -> *mut u8 {
        let align = layout.align().max(UNIT);
        let Some((start, end)) = (self.grow)(class.bytes + align) else { return ptr::null_mut() };
        if start != self.limit {
            self.top = start;
        }
        self.limit = end;
        let start = self.top.next_multiple_of(align);
        self.top = start + class.bytes;
        ptr::with_exposed_provenance_mut(start)
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` came from this arena for this `layout`, and is not used any more.
    pub(crate) unsafe fn dealloc(&mut self, block: *mut u8, layout: Layout) {
        let class = Class::of(layout.size());
        let address = block.expose_provenance();
        if address + class.bytes == self.top {
            self.top = address;
            return;
        }
        // SAFETY: the block is ours again, at least a unit long and aligned to it.
        unsafe { block.cast::<usize>().write(self.free[class.index]) };
        self.free[class.index] = address;
    }

    /// Makes a block larger or smaller where it is, if it can.
    ///
    /// # Safety
    /// `block` came from this arena for this `layout`.
    pub(crate) unsafe fn resize(&mut self, block: *mut u8, layout: Layout, bytes: usize) -> bool {
        let (old, new) = (Class::of(layout.size()), Class::of(bytes));
        let address = block.addr();
        if old == new {
            return true;
        }
        let is_last = address + old.bytes == self.top;
        if is_last && self.reach(address, new.bytes) {
            self.top = address + new.bytes;
            return true;
        }
        false
    }
}

#[cfg(all(target_arch = "wasm32", feature = "allocator"))]
mod global {
    use std::alloc::GlobalAlloc;
    use std::cell::{Cell, UnsafeCell};

    use super::*;

    /// Bytes of a page of wasm.
    const PAGE_BYTES: usize = 64 * 1024;
    /// Pages that memory grows by at least: growing costs more than a small command.
    const GROW_PAGES: usize = 4;

    /// The arena of the one thread there is.
    struct Global(UnsafeCell<Arena>);

    // SAFETY: wasm32-wasip1 has one thread.
    unsafe impl Sync for Global {}

    #[global_allocator]
    static GLOBAL: Global = Global(UnsafeCell::new(Arena::new(grow)));

    #[repr(align(16))]
    struct First(UnsafeCell<[u8; FIRST_BYTES]>, Cell<bool>);

    // SAFETY: wasm32-wasip1 has one thread.
    unsafe impl Sync for First {}

    static FIRST: First = First(UnsafeCell::new([0; FIRST_BYTES]), Cell::new(false));

    /// The first time the static piece, if that is enough; then new pages.
    fn grow(bytes: usize) -> Option<(usize, usize)> {
        if !FIRST.1.replace(true) && bytes <= FIRST_BYTES {
            let start = FIRST.0.get().expose_provenance();
            return Some((start, start + FIRST_BYTES));
        }
        let pages = bytes.div_ceil(PAGE_BYTES);
        grow_pages(pages.max(GROW_PAGES)).or_else(|| grow_pages(pages))
    }

    fn grow_pages(pages: usize) -> Option<(usize, usize)> {
        let before = core::arch::wasm32::memory_grow::<0>(pages);
        (before != usize::MAX).then(|| (before * PAGE_BYTES, (before + pages) * PAGE_BYTES))
    }

    // SAFETY: blocks are disjoint, live until they are freed, and are aligned: `Arena` hands each address out once, and only
    // addresses of `FIRST` or of pages it grew, which nobody else uses. No method calls another while it holds the arena.
    unsafe impl GlobalAlloc for Global {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: one thread, and nothing below calls back.
            unsafe { (*self.0.get()).alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: as above; the caller's promise is `dealloc`'s.
            unsafe { (*self.0.get()).dealloc(block, layout) }
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
            // SAFETY: as above.
            if unsafe { (*self.0.get()).resize(block, layout, bytes) } {
                return block;
            }
            // SAFETY: the caller promises that `bytes`, rounded up, does not overflow; the blocks are disjoint and both at
            // least as long as what is copied; the old one is freed once.
            unsafe {
                let new = self.alloc(Layout::from_size_align_unchecked(bytes, layout.align()));
                if !new.is_null() {
                    ptr::copy_nonoverlapping(block, new, layout.size().min(bytes));
                    self.dealloc(block, layout);
                }
                new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::random::Random;

    thread_local! {
        /// How often the arena asked for memory.
        static GROWN: Cell<usize> = const { Cell::new(0) };
    }

    /// Leaks, as a module does.
    fn leak(bytes: usize) -> Option<(usize, usize)> {
        GROWN.set(GROWN.get() + 1);
        let memory = Box::leak(vec![0_u128; bytes.max(4096).div_ceil(16)].into_boxed_slice());
        let start = memory.as_mut_ptr().expose_provenance();
        Some((start, start + memory.len() * 16))
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 8).unwrap()
    }

    #[test]
    fn classes_hold_what_they_are_for_and_waste_a_quarter_at_most() {
        let mut last = Class::of(1);
        assert_eq!(last, Class { index: 0, bytes: 16 });
        for bytes in 1..100_000 {
            let class = Class::of(bytes);
            assert!(class.bytes >= bytes && class.bytes.is_multiple_of(UNIT));
            assert!(class.bytes <= (bytes + UNIT) * 5 / 4, "{bytes} in {}", class.bytes);
            assert!(class == last || (class.index == last.index + 1 && class.bytes > last.bytes), "{bytes}");
            last = class;
        }
        assert!(Class::of(u32::MAX as usize).index < CLASSES);
    }

    #[test]
    fn the_last_block_grows_in_place_and_gives_its_memory_back() {
        let mut arena = Arena::new(leak);
        // SAFETY: each block is used as it was allocated.
        unsafe {
            let block = arena.alloc(layout(10));
            assert!(arena.resize(block, layout(10), 1000));
            arena.dealloc(block, layout(1000));
            assert_eq!(arena.alloc(layout(100)), block);
        }
    }

    #[test]
    fn a_freed_block_is_used_again() {
        let mut arena = Arena::new(leak);
        // SAFETY: each block is used as it was allocated.
        unsafe {
            let first = arena.alloc(layout(100));
            let second = arena.alloc(layout(100));
            assert!(!arena.resize(first, layout(100), 200), "the second is in the way");
            arena.dealloc(first, layout(100));
            assert_eq!(arena.alloc(layout(97)), first);
            assert_ne!(first, second);
        }
    }

    #[test]
    fn large_alignments_are_kept() {
        let mut arena = Arena::new(leak);
        for align in [32, 256, 4096] {
            // SAFETY: the block is not used.
            let block = unsafe { arena.alloc(Layout::from_size_align(24, align).unwrap()) };
            assert_eq!(block.addr() % align, 0);
        }
    }

    #[test]
    fn a_loop_that_frees_what_it_allocates_needs_no_more_memory() {
        let mut arena = Arena::new(leak);
        GROWN.set(0);
        for round in 0..1000 {
            // SAFETY: each block is used as it was allocated.
            unsafe {
                let blocks = [300, 40, 1000].map(|bytes| arena.alloc(layout(bytes)));
                let order = if round % 2 == 0 { [0, 1, 2] } else { [1, 2, 0] };
                for i in order {
                    arena.dealloc(blocks[i], layout([300, 40, 1000][i]));
                }
            }
        }
        assert_eq!(GROWN.get(), 1);
    }

    #[test]
    fn blocks_never_overlap() {
        let mut arena = Arena::new(leak);
        let mut random = Random::new([5; 32]);
        let mut live: Vec<(*mut u8, usize, u8)> = Vec::new();
        for round in 0..20_000 {
            let fill = round as u8;
            if random.below(2) == 0 || live.is_empty() {
                let bytes_max = 2 << random.below(12);
                let bytes = 1 + random.below(bytes_max) as usize;
                // SAFETY: the block is filled within its size.
                unsafe {
                    let block = arena.alloc(layout(bytes));
                    block.write_bytes(fill, bytes);
                    live.push((block, bytes, fill));
                }
            } else {
                let (block, bytes, fill) = live.swap_remove(random.below(live.len() as u64) as usize);
                // SAFETY: the block is live and was filled.
                unsafe {
                    assert!(std::slice::from_raw_parts(block, bytes).iter().all(|byte| *byte == fill));
                    arena.dealloc(block, layout(bytes));
                }
            }
        }
    }
}
