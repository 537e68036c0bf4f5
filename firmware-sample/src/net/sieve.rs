//! Frames that no host sends, kept from the stack.
//!
//! smoltcp takes packets from the address of nobody, because of hosts that have none yet, and
//! remembers that as the address of a DHCP server that says so. When it asks that one to renew the
//! lease, it asserts that the address is somebody's. What a client has to hear is sent by hosts that
//! have an address (RFC 1122 §3.2.1.3); the rest becomes an empty frame, which is no frame.

use smoltcp::phy::{Device, DeviceCapabilities, RxToken};
use smoltcp::time::Instant;

/// Where the type of an Ethernet frame's content is.
const TYPE_AT: usize = 12;

/// IPv4 in Ethernet: RFC 894.
const IPV4: [u8; 2] = [0x08, 0x00];

/// Where the source address of a packet in a frame is: RFC 791 §3.1.
const SOURCE_AT: usize = 14 + 12;

/// A device whose frames are looked at.
pub(super) struct Sieve<'d, D>(pub(super) &'d mut D);

/// A frame that has come.
pub(super) struct Sieved<T>(T);

impl<D: Device> Device for Sieve<'_, D> {
    type RxToken<'a>
        = Sieved<D::RxToken<'a>>
    where
        Self: 'a;
    type TxToken<'a>
        = D::TxToken<'a>
    where
        Self: 'a;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        self.0.receive(now).map(|(frame, room)| (Sieved(frame), room))
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        self.0.transmit(now)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.0.capabilities()
    }
}

impl<T: RxToken> RxToken for Sieved<T> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, use_frame: F) -> R {
        self.0.consume(|frame| use_frame(if is_from_nobody(frame) { &[] } else { frame }))
    }
}

fn is_from_nobody(frame: &[u8]) -> bool {
    let starts = |at: usize, octets: &[u8]| frame.get(at..).unwrap_or_default().starts_with(octets);
    starts(TYPE_AT, &IPV4) && starts(SOURCE_AT, &[0; 4])
}
