//! What ties the keys' region to one TPM.
//!
//! **What it is.** The Name of the storage primary that the keys are wrapped under, the endorsement
//! key of the TPM, and the blob of the attestation key. `docs/design/tpm-keys.md` lays it out byte
//! by byte.
//!
//! **What it must never do.** Be believed when it is damaged. A storage primary that is not the
//! anchored one means that the keys are gone: a flipped bit must not say so. Hold a secret: the
//! blob is wrapped, and of use to its own TPM only.

use fleetcert_tpm::ek::EkTemplate;
use fleetcert_tpm::name::{NAME_LEN_MAX, Name};
use fleetcert_tpm::template::Template;
use fleetcert_tpm::vault::{EkKey, KEY_BLOB_LEN_MAX, KeyBlob, KeyRoom};

use super::content::{self, Found, content_len};

/// What the content begins with: "FCTF" and the version.
const HEAD: [u8; 5] = *b"FCTF\x01";

const LENGTH_LEN: usize = size_of::<u16>();

/// Octets of a sector's front that an anchor takes, at most.
pub(super) const ANCHOR_LEN_MAX: usize =
    content_len(2 * (LENGTH_LEN + NAME_LEN_MAX) + size_of::<u32>() + LENGTH_LEN + KEY_BLOB_LEN_MAX);

/// The TPM that the keys live in; a view of the octets that were read or are to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anchor<'a> {
    /// The storage primary's Name.
    pub(super) parent: Name,
    /// The endorsement key.
    pub(super) ek: EkKey,
    /// The attestation key's blob.
    pub(super) ak: &'a [u8],
}

impl<'a> Anchor<'a> {
    /// Looks for an anchor in what was read from the front of a sector.
    pub(super) fn find(content: &'a [u8]) -> Found<Self> {
        match content::find(HEAD, content) {
            Found::Body(body) => Self::parse(body).map_or(Found::Damaged, Found::Body),
            Found::Damaged => Found::Damaged,
            Found::Nothing => Found::Nothing,
        }
    }

    /// Writes the content of a sector with this anchor to the front of `out`; returns it.
    pub(super) fn write<'o>(&self, out: &'o mut [u8; ANCHOR_LEN_MAX]) -> Option<&'o [u8]> {
        let (parent, ek) = (self.parent.as_bytes(), self.ek.name.as_bytes());
        let parts: &[&[u8]] = &[
            &length(parent),
            parent,
            &self.ek.template.certificate().0.to_be_bytes(),
            &length(ek),
            ek,
            &length(self.ak),
            self.ak,
        ];
        content::write(HEAD, parts, out)
    }

    /// The octets of a sector's front that hold an anchor, with everything around it.
    pub(super) fn whole(content: &[u8]) -> Option<&[u8]> {
        content::whole(HEAD, content)
    }

    /// The attestation key.
    pub(super) fn key<'k>(&self, room: &'k mut KeyRoom) -> Option<&'k KeyBlob> {
        room.parse(self.ak).ok().filter(|ak| ak.is(Template::AttestationKey))
    }

    fn parse(body: &'a [u8]) -> Option<Self> {
        let mut rest = body;
        let parent = Name::recorded(take_sized(&mut rest)?).ok()?;
        let certificate = u32::from_be_bytes(*take(&mut rest)?);
        let template = EkTemplate::ALL.into_iter().find(|it| it.certificate().0 == certificate)?;
        let name = Name::recorded(take_sized(&mut rest)?).ok()?;
        let ak = take_sized(&mut rest)?;
        let anchor = Self { parent, ek: EkKey { template, name }, ak };
        (rest.is_empty() && anchor.key(&mut KeyRoom::new()).is_some()).then_some(anchor)
    }
}

/// The length of a part; each is shorter than 64 KiB.
fn length(part: &[u8]) -> [u8; LENGTH_LEN] {
    let [.., high, low] = part.len().to_be_bytes();
    [high, low]
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (front, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(front)
}

fn take_sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::from(u16::from_be_bytes(*take(rest)?));
    let (front, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some(front)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use fleetcert_tpm::template::TEMPLATE_LEN_MAX;

    use super::*;

    fn name(octet: u8) -> Name {
        Name::recorded(&[&[0, 0x0b][..], &[octet; 32]].concat()).unwrap()
    }

    /// A blob that no TPM has made: its public key is `octet` over and over.
    fn blob(octet: u8) -> KeyBlob {
        let sized =
            |octets: &[u8]| [&u16::try_from(octets.len()).unwrap().to_be_bytes(), octets].concat();
        let mut template = [0; TEMPLATE_LEN_MAX];
        let len = Template::AttestationKey.write(&mut template).unwrap();
        // The template ends with an empty point.
        let coordinate = sized(&[octet; 32]);
        let area = [&template[..len - 4], &coordinate, &coordinate].concat();
        KeyBlob::parse(&[&[1][..], &sized(&area), &sized(&[octet; 126])].concat()).unwrap()
    }

    fn anchor(ak: &KeyBlob) -> Anchor<'_> {
        let ek = EkKey { template: EkTemplate::P384High, name: name(6) };
        Anchor { parent: name(5), ek, ak: ak.as_bytes() }
    }

    fn written(anchor: &Anchor<'_>) -> Vec<u8> {
        anchor.write(&mut [0; ANCHOR_LEN_MAX]).unwrap().to_vec()
    }

    /// The content of a sector with any body.
    fn sealed(body: &[u8]) -> Vec<u8> {
        content::write(HEAD, &[body], &mut [0; 1024]).unwrap().to_vec()
    }

    /// Goal: the octets are those that docs/design/tpm-keys.md shows, and are read back.
    #[test]
    fn an_anchor_is_these_octets() {
        let ak = blob(3);
        let ak_len = u8::try_from(ak.as_bytes().len()).unwrap();
        let body = [
            &b"\x00\x22\x00\x0b"[..],
            &[5; 32],
            b"\x01\xc0\x00\x16\x00\x22\x00\x0b",
            &[6; 32],
            &[0, ak_len],
            ak.as_bytes(),
        ]
        .concat();
        let octets = written(&anchor(&ak));
        assert_eq!(octets, sealed(&body));
        assert_eq!(octets[..5], *b"FCTF\x01");
        assert_eq!(Anchor::find(&octets), Found::Body(anchor(&ak)));
        assert_eq!(anchor(&ak).key(&mut KeyRoom::new()), Some(&ak));
        let sector = [&octets[..], &[0xff; 300]].concat();
        assert_eq!(Anchor::whole(&sector), Some(&octets[..]));
    }

    /// Goal: the endorsement key of each template is told again.
    #[test]
    fn every_template_is_read_back() {
        let ak = blob(3);
        for template in EkTemplate::ALL {
            let ek = EkKey { template, name: name(6) };
            let anchor = Anchor { ek, ..anchor(&ak) };
            assert_eq!(Anchor::find(&written(&anchor)), Found::Body(anchor));
        }
    }

    /// Goal: a good digest makes no anchor of what is none.
    #[test]
    fn what_is_no_anchor_is_none_with_any_digest() {
        let ak = blob(3);
        let octets = written(&anchor(&ak));
        let Found::Body(body) = content::find(HEAD, &octets) else { panic!("a body") };
        assert_eq!(Anchor::find(&sealed(body)), Found::Body(anchor(&ak)));
        for len in 0..body.len() {
            assert_eq!(Anchor::find(&sealed(&body[..len])), Found::Damaged, "{len} octets");
        }
        assert_eq!(Anchor::find(&sealed(&[body, &[0]].concat())), Found::Damaged);
        let mut other = body.to_vec();
        other[39] = 0x99;
        assert_eq!(Anchor::find(&sealed(&other)), Found::Damaged, "of an unknown template");
        assert_eq!(Anchor::find(&[0xff; ANCHOR_LEN_MAX]), Found::Nothing);
    }

    /// Goal: the longest anchor fits where anchors are written to.
    #[test]
    fn the_longest_anchor_fits() {
        let name = Name::recorded(&[&[0, 0x0d][..], &[7; 64]].concat()).unwrap();
        let ek = EkKey { template: EkTemplate::Rsa4096High, name };
        let ak = blob(1);
        let anchor = Anchor { parent: name, ek, ak: ak.as_bytes() };
        let shorter = KEY_BLOB_LEN_MAX - anchor.ak.len();
        let octets = written(&anchor);
        let Found::Body(body) = content::find(HEAD, &octets) else { panic!("a body") };
        assert_eq!(content_len(body.len() + shorter), ANCHOR_LEN_MAX);
    }
}
