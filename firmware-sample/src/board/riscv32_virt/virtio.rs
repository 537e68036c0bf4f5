//! What virtio drivers share: where their devices are, and memory that devices may use.

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// The first of the places in which a device may be.
const PLACES_BASE: usize = 0x1000_1000;

/// Places, each of which takes [`PLACE_LEN`] octets of the memory map.
const PLACES: usize = 8;
const PLACE_LEN: usize = 0x1000;

/// Pages for queues: two for each queue, and the network device has two queues.
const PAGES: usize = 4;

/// The first device of a kind, and where it is; QEMU fills the places from the last. Devices of
/// other kinds are reset.
pub(super) fn find(kind: DeviceType) -> Option<(MmioTransport<'static>, usize)> {
    (0..PLACES).find_map(|place| {
        let base = PLACES_BASE + place * PLACE_LEN;
        let header: *mut VirtIOHeader = core::ptr::without_provenance_mut(base);
        // SAFETY: each place of the memory map holds a virtio register block, of a device or of
        // none, for ever; a transport is made for one kind once only (`Board::take`), and those
        // of other kinds are not kept.
        let transport = unsafe { MmioTransport::new(NonNull::new(header)?, PLACE_LEN) }.ok()?;
        if transport.device_type() == kind { Some((transport, base)) } else { None }
    })
}

/// Pages that are lent to one queue at a time.
#[repr(align(4096))]
struct Pages(UnsafeCell<[[u8; PAGE_SIZE]; PAGES]>);

// SAFETY: a page is touched only by who has got it from `dma_alloc`, which gives each to one.
unsafe impl Sync for Pages {}

#[unsafe(link_section = ".dma")]
static POOL: Pages = Pages(UnsafeCell::new([[0; PAGE_SIZE]; PAGES]));

/// One bit for each page that is lent.
static LENT: AtomicU8 = AtomicU8::new(0);

/// This machine: no address translation, and caches that devices see through.
pub(super) struct VirtHal;

// SAFETY: see each method; physical and virtual addresses are the same here.
unsafe impl Hal for VirtHal {
    /// Zeroed pages that nobody else has; address 0, which the drivers take for an error, where
    /// there are not so many in a row.
    fn dma_alloc(count: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let lent = LENT.load(Ordering::Relaxed);
        let free = (0..=PAGES.saturating_sub(count))
            .find(|first| count <= PAGES && lent & mask(*first, count) == 0);
        let Some(first) = free else { return (0, NonNull::dangling()) };
        LENT.store(lent | mask(first, count), Ordering::Relaxed);
        let Some(pages) = pool() else { return (0, NonNull::dangling()) };
        // SAFETY: `first + count` is at most `PAGES`, so this stays inside the pool, of which
        // these pages were nobody's a moment ago; there is one thread of control.
        let page = unsafe { pages.byte_add(first * PAGE_SIZE) };
        // SAFETY: as above; all octets of the pages are written.
        unsafe { page.write_bytes(0, count * PAGE_SIZE) };
        (physical(page), page)
    }

    unsafe fn dma_dealloc(_: PhysAddr, page: NonNull<u8>, count: usize) -> i32 {
        let start = pool().map_or(0, |pages| pages.addr().get());
        let first = page.addr().get().saturating_sub(start) / PAGE_SIZE;
        LENT.fetch_and(!mask(first, count), Ordering::Relaxed);
        0
    }

    /// Never asked for: there is no PCI here.
    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        let address = usize::try_from(address).unwrap_or_default();
        NonNull::new(core::ptr::without_provenance_mut(address)).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        physical(buffer.cast())
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// Where the pool begins.
fn pool() -> Option<NonNull<u8>> {
    NonNull::new(POOL.0.get().cast())
}

fn physical(at: NonNull<u8>) -> PhysAddr {
    // The device reads and writes there: from now on the compiler must take it for changed.
    PhysAddr::try_from(at.as_ptr().expose_provenance()).unwrap_or_default()
}

/// The bits of `count` pages from `first` on.
fn mask(first: usize, count: usize) -> u8 {
    (first..first + count).filter(|page| *page < PAGES).fold(0, |bits, page| bits | 1 << page)
}
