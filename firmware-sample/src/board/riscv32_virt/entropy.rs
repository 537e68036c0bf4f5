//! The seed of all randomness, from the virtio entropy device: asked once, at the start.

use core::ptr;

use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::mmio::MmioTransport;
use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};

use crate::board::Clock;
use crate::random::SEED_LEN;

use super::VirtClock;
use super::virtio::{VirtHal, find};

/// The one queue of the device.
const QUEUE: u16 = 0;

/// Descriptors of it: one is in use at a time.
const QUEUE_SIZE: usize = 2;

/// `VIRTIO_F_VERSION_1`: the only feature that is wanted.
const VERSION_1: u64 = 1 << 32;

/// The longest that the device takes, milliseconds.
const SEED_MS_MAX: u64 = 2_000;

type Queue = VirtQueue<VirtHal, QUEUE_SIZE>;

/// A seed that nobody else has.
pub(super) fn seed() -> Result<[u8; SEED_LEN], &'static str> {
    let (mut transport, _) = find(DeviceType::EntropySource).ok_or("no virtio entropy device")?;
    let outcome = begin(&mut transport).and_then(|queue| fill(&mut transport, queue));
    transport.queue_unset(QUEUE);
    outcome
}

fn begin(transport: &mut MmioTransport<'_>) -> Result<Queue, &'static str> {
    transport.set_status(DeviceStatus::empty());
    transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
    let features = transport.read_device_features() & VERSION_1;
    transport.write_driver_features(features);
    transport
        .set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK);
    let queue = VirtQueue::new(transport, QUEUE, false, false);
    let queue = queue.map_err(|_| "the virtio entropy device has no queue")?;
    transport.finish_init();
    Ok(queue)
}

/// The device may answer in pieces.
fn fill(
    transport: &mut MmioTransport<'_>,
    mut queue: Queue,
) -> Result<[u8; SEED_LEN], &'static str> {
    let deadline_ms = VirtClock.now_ms().saturating_add(SEED_MS_MAX);
    let mut seed = [0; SEED_LEN];
    let mut len = 0;
    while let Some(rest) = seed.get_mut(len..).filter(|rest| !rest.is_empty()) {
        len += ask(transport, &mut queue, rest, deadline_ms)?;
    }
    // The device has written there, which the compiler cannot know.
    // SAFETY: reads a variable of our own.
    Ok(unsafe { ptr::read_volatile(&raw const seed) })
}

fn ask(
    transport: &mut MmioTransport<'_>,
    queue: &mut Queue,
    rest: &mut [u8],
    deadline_ms: u64,
) -> Result<usize, &'static str> {
    // SAFETY: the octets are borrowed until this returns, and it returns only when the device has
    // done with them or has been reset.
    let token = unsafe { queue.add(&[], &mut [rest]) }.map_err(|_| "its queue is full")?;
    transport.notify(QUEUE);
    while queue.peek_used() != Some(token) {
        if VirtClock.now_ms() > deadline_ms {
            transport.set_status(DeviceStatus::empty());
            return Err("the virtio entropy device does not answer");
        }
    }
    // SAFETY: the same octets as were added for this token.
    let len = unsafe { queue.pop_used(token, &[], &mut [rest]) };
    let len = len.map_err(|_| "the virtio entropy device answers wrongly")?;
    usize::try_from(len).map_err(|_| "the virtio entropy device answers wrongly")
}
