//! The virtio network device, as smoltcp has devices.
//!
//! The device writes frames into buffers that it was lent, and reads them out of others. Each
//! buffer is either its or ours, and it is touched by one side at a time: who has it is the state
//! kept beside it. Nothing here waits: what is full is looked at again later.

use core::fmt;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use static_cell::ConstStaticCell;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::mmio::MmioTransport;

use crate::board::{Link, MAC_LEN};

use super::mmio::Register;
use super::virtio::{VirtHal, find};

/// Descriptors of a queue.
const QUEUE_SIZE: usize = 4;

/// Buffers that the device may fill: as many frames may come while we are busy.
const RECEIVE: usize = 4;

/// Buffers that the device may be reading: an acknowledgement and a segment.
const SEND: usize = 2;

/// The header that virtio puts before a frame.
const HEADER_LEN: usize = 12;

/// The longest Ethernet frame, without its checksum.
const FRAME_LEN_MAX: usize = 1514;

/// A header and a frame, in whole words.
const BUFFER_LEN: usize = (HEADER_LEN + FRAME_LEN_MAX).next_multiple_of(4);

type Buffer = [u8; BUFFER_LEN];

/// All buffers, where the device can reach them.
struct Buffers {
    receive: [Buffer; RECEIVE],
    send: [Buffer; SEND],
}

#[unsafe(link_section = ".dma")]
static BUFFERS: ConstStaticCell<Buffers> = ConstStaticCell::new(Buffers {
    receive: [[0; BUFFER_LEN]; RECEIVE],
    send: [[0; BUFFER_LEN]; SEND],
});

type Raw = VirtIONetRaw<VirtHal, MmioTransport<'static>, QUEUE_SIZE>;

/// The network device of the machine.
pub struct Network {
    raw: Raw,
    status: Register<u16>,
    buffers: &'static mut Buffers,
    /// The device's token for each buffer that it may fill; `None` for one that is ours.
    lent: [Option<u16>; RECEIVE],
    /// The same for each buffer that it is reading.
    sending: [(Option<u16>, usize); SEND],
}

/// The device, with all its receive buffers.
pub(super) fn open() -> Result<Network, &'static str> {
    let (transport, base) = find(DeviceType::Network).ok_or("no virtio network device")?;
    let raw = Raw::new(transport).map_err(|_| "the virtio network device does not begin")?;
    let buffers = BUFFERS.try_take().ok_or("its buffers are taken")?;
    // SAFETY: the device's configuration begins at 0x100, and its status stands at 6 in it.
    let status = unsafe { Register::new(base + 0x106) };
    let (lent, sending) = ([None; RECEIVE], [(None, 0); SEND]);
    let mut network = Network { raw, status, buffers, lent, sending };
    network.lend();
    Ok(network)
}

impl Network {
    /// Gives the device every receive buffer that is ours.
    fn lend(&mut self) {
        for (buffer, lent) in self.buffers.receive.iter_mut().zip(&mut self.lent) {
            if lent.is_none() {
                // SAFETY: the buffer lives for ever, and is not touched while `lent` says that it
                // is the device's.
                *lent = unsafe { self.raw.receive_begin(buffer) }.ok();
            }
        }
    }

    /// The next buffer that the device has filled, which is ours again, and its frame's length.
    fn take(&mut self) -> Option<(usize, usize)> {
        let token = self.raw.poll_receive()?;
        let index = self.lent.iter().position(|lent| *lent == Some(token))?;
        let buffer = self.buffers.receive.get_mut(index)?;
        // SAFETY: the buffer that was given for this token.
        let outcome = unsafe { self.raw.receive_complete(token, buffer) };
        *self.lent.get_mut(index)? = None;
        let (_, len) = outcome.ok()?;
        (len <= FRAME_LEN_MAX).then_some((index, len))
    }

    /// Takes back what the device has read; a send buffer that is ours.
    fn free(&mut self) -> Option<usize> {
        while let Some(token) = self.raw.poll_transmit() {
            let index = self.sending.iter().position(|sending| sending.0 == Some(token))?;
            let (sending, buffer) = (self.sending.get_mut(index)?, self.buffers.send.get(index)?);
            let lent = buffer.get(..sending.1)?;
            // SAFETY: the octets that were given for this token. If they were others, the driver
            // would say so, and there is nothing to do about it: the buffer is ours in any case.
            let _ = unsafe { self.raw.transmit_complete(token, lent) };
            sending.0 = None;
        }
        self.sending.iter().position(|sending| sending.0.is_none())
    }
}

impl Link for Network {
    /// `VIRTIO_NET_S_LINK_UP` in the device's configuration, as it is now (VIRTIO 1.2 §5.1.4).
    fn is_up(&mut self) -> bool {
        self.status.read() & 1 != 0
    }

    fn mac(&self) -> [u8; MAC_LEN] {
        self.raw.mac_address()
    }
}

impl Device for Network {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        // smoltcp may want to answer at once: a frame waits for room to do so.
        let free = self.free()?;
        self.lend();
        let (index, len) = self.take()?;
        let frame = self.buffers.receive.get(index)?.get(HEADER_LEN..HEADER_LEN + len)?;
        let sending = Sending {
            raw: &mut self.raw,
            buffer: self.buffers.send.get_mut(free)?,
            state: self.sending.get_mut(free)?,
        };
        Some((Received(frame), sending))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        let free = self.free()?;
        Some(Sending {
            raw: &mut self.raw,
            buffer: self.buffers.send.get_mut(free)?,
            state: self.sending.get_mut(free)?,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_LEN_MAX;
        capabilities.max_burst_size = Some(SEND);
        capabilities
    }
}

/// A frame that has come; its buffer is lent to the device again at the next look.
#[derive(Debug)]
pub struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame.
pub struct Sending<'a> {
    raw: &'a mut Raw,
    buffer: &'a mut Buffer,
    state: &'a mut (Option<u16>, usize),
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        // smoltcp keeps to the capabilities: a longer frame would be cut, not overflow.
        let len = len.min(FRAME_LEN_MAX);
        let (header, rest) = self.buffer.split_at_mut(HEADER_LEN);
        header.fill(0);
        let (frame, _) = rest.split_at_mut(len);
        let outcome = f(frame);
        let (all, _) = self.buffer.split_at(HEADER_LEN + len);
        // SAFETY: the buffer lives for ever, and is not touched while `state` says that the device
        // reads it.
        let token = unsafe { self.raw.transmit_begin(all) }.ok();
        *self.state = (token, HEADER_LEN + len);
        outcome
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

impl fmt::Debug for Sending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sending")
    }
}
