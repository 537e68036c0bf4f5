//! What kind of TPM an endorsement certificate speaks of.
//!
//! **What it is.** Manufacturer, model and version as the certificate names them (TCG EK Credential
//! Profile, subject alternative name), for people, and the answer to one question: is this a TPM
//! of a virtual machine?
//!
//! **What it must never do.** Take a virtual TPM for a chip. A virtual one is as good as the host
//! below it: its state is a file that can be copied with its keys. Where that is acceptable, an
//! operator says so (`allow_virtual_tpm`); where nothing is said, it is refused. So in doubt the
//! answer is "virtual": that costs an operator one line of configuration, the opposite error would
//! cost the meaning of the proof.
//!
//! **Why that is sound.** These texts are under the signature of a certificate authority that an
//! operator trusts to name TPMs rightly, so a device cannot change them. A list of names can be
//! incomplete all the same; the fence that holds is the list of roots: an authority that certifies
//! virtual TPMs does not belong in it.

use std::fmt;

/// Octets of a model's or a version's text, at most: the bound of a X.520 name of that kind.
pub const TEXT_LEN_MAX: usize = 64;

/// What comes before the eight digits of a manufacturer.
const MANUFACTURER_PREFIX: &str = "id:";

/// A manufacturer as the TCG registers them: four octets, mostly of ASCII.
#[doc(alias = "TPM_PT_MANUFACTURER")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Manufacturer(pub [u8; 4]);

/// What a certificate says about its TPM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TpmModel {
    /// Who made it (2.23.133.2.1, tcg-at-tpmManufacturer).
    pub manufacturer: Manufacturer,
    /// The maker's name for it (2.23.133.2.2, tcg-at-tpmModel), printable ASCII, may be empty.
    pub model: String,
    /// Its version (2.23.133.2.3, tcg-at-tpmVersion), printable ASCII, may be empty.
    pub version: String,
}

/// Why a certificate does not say what TPM it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelError {
    /// The manufacturer is not `id:` and eight hexadecimal digits.
    Manufacturer,
    /// Manufacturer, model or version is missing.
    Missing {
        /// Which.
        field: Field,
    },
    /// It is there more than once.
    Repeated {
        /// Which.
        field: Field,
    },
    /// It is no text of printable ASCII, or longer than [`TEXT_LEN_MAX`].
    Text {
        /// Which.
        field: Field,
    },
}

/// One of the three attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// tcg-at-tpmManufacturer
    Manufacturer,
    /// tcg-at-tpmModel
    Model,
    /// tcg-at-tpmVersion
    Version,
}

/// Manufacturers whose TPMs are virtual, or cannot be told from virtual ones.
const VIRTUAL_MANUFACTURERS: [Manufacturer; 8] = [
    // swtpm_setup(8): what it has certified, `--tpm-manufacturer id:00001014`, from libtpms'
    // TPMLIB_GetInfo.
    Manufacturer([0x00, 0x00, 0x10, 0x14]),
    // Amazon EC2: TPM_PT_MANUFACTURER, with vendor string `NitroTPMv1.0`.
    Manufacturer(*b"AMZN"),
    // Google Compute Engine, Shielded VM: EK certificates `id:474F4F47`, model `vTPM`.
    Manufacturer(*b"GOOG"),
    // libtpms (TPM_PT_MANUFACTURER) and IBM's software TPM.
    Manufacturer(*b"IBM\0"),
    // Hyper-V and Azure. Reference code says the same, whatever it was built into: a firmware TPM
    // of that name cannot be told from a simulator.
    Manufacturer(*b"MSFT"),
    // Nobody else would be called so; QEMU itself passes on the TPM of its host or of swtpm.
    Manufacturer(*b"QEMU"),
    // vSphere: EK certificates `id:564D5700`, model `VMware TPM2`.
    Manufacturer(*b"VMW\0"),
    // What the sample platform of the TCG's reference code says where nobody changed it.
    Manufacturer(*b"XYZ "),
];

/// Words that make a model a virtual one, whoever made it; small letters.
const VIRTUAL_WORDS: [&str; 8] =
    ["emulat", "libtpms", "nitro", "qemu", "simulator", "swtpm", "virtual", "vtpm"];

impl Manufacturer {
    /// Reads `id:` and eight hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        super::hex_octets(text.strip_prefix(MANUFACTURER_PREFIX)?).map(Self)
    }
}

impl TpmModel {
    /// The TPM that these attributes name, each with its value as text if it was one.
    ///
    /// # Errors
    ///
    /// [`ModelError`].
    pub(super) fn from_attributes(found: &[(Field, Option<&str>)]) -> Result<Self, ModelError> {
        let manufacturer = text(found, Field::Manufacturer)?;
        Ok(Self {
            manufacturer: Manufacturer::parse(manufacturer).ok_or(ModelError::Manufacturer)?,
            model: text(found, Field::Model)?.to_owned(),
            version: text(found, Field::Version)?.to_owned(),
        })
    }

    /// Whether it is a TPM of a virtual machine, or one that cannot be told from those.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        let model = self.model.to_ascii_lowercase();
        VIRTUAL_MANUFACTURERS.contains(&self.manufacturer)
            || VIRTUAL_WORDS.iter().any(|word| model.contains(word))
    }
}

fn text<'a>(found: &[(Field, Option<&'a str>)], field: Field) -> Result<&'a str, ModelError> {
    let mut values = found.iter().filter(|(of, _)| *of == field).map(|(_, value)| *value);
    let value = values.next().ok_or(ModelError::Missing { field })?;
    if values.next().is_some() {
        return Err(ModelError::Repeated { field });
    }
    let is_printable = |text: &&str| text.chars().all(|c| matches!(c, ' '..='~'));
    let value = value.filter(is_printable).filter(|text| text.len() <= TEXT_LEN_MAX);
    value.ok_or(ModelError::Text { field })
}

/// The letters where there are some (`IFX`), else eight hexadecimal digits (`00001014`).
impl fmt::Display for Manufacturer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = str::from_utf8(&self.0).unwrap_or_default().trim_end_matches(['\0', ' ']);
        if !letters.is_empty() && letters.chars().all(|c| c.is_ascii_alphanumeric()) {
            return f.write_str(letters);
        }
        crate::authority::write_hex(f, &self.0)
    }
}

impl fmt::Debug for Manufacturer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manufacturer({self})")
    }
}

/// `IFX SLB9670 id:0D0B`; what is empty is left out.
impl fmt::Display for TpmModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.manufacturer.fmt(f)?;
        let rest = [&self.model, &self.version].into_iter().filter(|text| !text.is_empty());
        rest.into_iter().try_for_each(|text| write!(f, " {text}"))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manufacturer => "manufacturer (2.23.133.2.1)",
            Self::Model => "model (2.23.133.2.2)",
            Self::Version => "version (2.23.133.2.3)",
        })
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manufacturer => {
                f.write_str("the TPM's manufacturer is not \"id:\" and 8 hexadecimal digits")
            }
            Self::Missing { field } => write!(f, "the TPM's {field} is missing"),
            Self::Repeated { field } => write!(f, "the TPM's {field} is there more than once"),
            Self::Text { field } => {
                write!(f, "the TPM's {field} is no ASCII text of at most {TEXT_LEN_MAX} characters")
            }
        }
    }
}

impl std::error::Error for ModelError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(manufacturer: &[u8; 4], model: &str) -> TpmModel {
        let manufacturer = Manufacturer(*manufacturer);
        TpmModel { manufacturer, model: model.into(), version: "id:0D0B".into() }
    }

    const WHOLE: [(Field, Option<&str>); 3] = [
        (Field::Version, Some("id:20191023")),
        (Field::Manufacturer, Some("id:00001014")),
        (Field::Model, Some("swtpm")),
    ];

    // Goal: the three attributes are found in any order, and each in its place.
    #[test]
    fn a_model_is_read_from_its_attributes() {
        let found = TpmModel::from_attributes(&WHOLE).unwrap();
        assert_eq!(found.manufacturer, Manufacturer([0, 0, 0x10, 0x14]));
        assert_eq!((found.model.as_str(), found.version.as_str()), ("swtpm", "id:20191023"));
    }

    // Goal: none of the three may be missing, doubled or something else than short text.
    #[test]
    fn each_attribute_has_to_be_there_once_and_as_text() {
        for field in [Field::Manufacturer, Field::Model, Field::Version] {
            let without: Vec<_> = WHOLE.into_iter().filter(|(of, _)| *of != field).collect();
            let error = TpmModel::from_attributes(&without).unwrap_err();
            assert_eq!(error, ModelError::Missing { field });
            let twice = [&WHOLE[..], &WHOLE.map(|(_, value)| (field, value))[..1]].concat();
            let error = TpmModel::from_attributes(&twice).unwrap_err();
            assert_eq!(error, ModelError::Repeated { field });
            let long = "x".repeat(TEXT_LEN_MAX + 1);
            for value in [None, Some("a\u{1b}[2J"), Some("é"), Some(long.as_str())] {
                let changed = WHOLE.map(|(of, old)| (of, if of == field { value } else { old }));
                let error = TpmModel::from_attributes(&changed).unwrap_err();
                assert_eq!(error, ModelError::Text { field }, "{value:?}");
            }
        }
    }

    // Goal: the longest text is taken, and none at all where there is nothing to say.
    #[test]
    fn texts_may_be_empty_or_as_long_as_the_limit() {
        let long = "~".repeat(TEXT_LEN_MAX);
        for value in ["", " ", long.as_str()] {
            let changed = WHOLE.map(|(of, old)| match of {
                Field::Manufacturer => (of, old),
                _ => (of, Some(value)),
            });
            let found = TpmModel::from_attributes(&changed).unwrap();
            assert_eq!((found.model.as_str(), found.version.as_str()), (value, value));
        }
    }

    // Goal: a manufacturer that cannot be read is refused: nobody could say whether it is virtual.
    #[test]
    fn a_manufacturer_is_id_and_eight_digits() {
        assert_eq!(Manufacturer::parse("id:49465800"), Some(Manufacturer(*b"IFX\0")));
        assert_eq!(Manufacturer::parse("id:494e5443"), Some(Manufacturer(*b"INTC")));
        for text in ["49465800", "ID:49465800", "id:4946580", "id:494658000", "id:4946580g", "id:"]
        {
            let changed = WHOLE.map(|(of, old)| match of {
                Field::Manufacturer => (of, Some(text)),
                _ => (of, old),
            });
            let error = TpmModel::from_attributes(&changed).unwrap_err();
            assert_eq!(error, ModelError::Manufacturer, "{text}");
        }
    }

    // Goal: every virtual TPM that we know of is called one, whichever of its texts gives it away.
    #[test]
    fn virtual_tpms_are_told_by_manufacturer_or_model() {
        let by_manufacturer: [&[u8; 4]; 8] =
            [b"\0\0\x10\x14", b"AMZN", b"GOOG", b"IBM\0", b"MSFT", b"QEMU", b"VMW\0", b"XYZ "];
        for manufacturer in by_manufacturer {
            assert!(model(manufacturer, "TPM2").is_virtual(), "{manufacturer:?}");
        }
        for name in ["swtpm", "vTPM", "VMware Virtual TPM", "QEMU TPM", "libtpms"] {
            assert!(model(b"IFX\0", name).is_virtual(), "{name}");
        }
        for name in ["TPM Emulator", "SIMULATOR", "NitroTPM"] {
            assert!(model(b"IFX\0", name).is_virtual(), "{name}");
        }
    }

    // Goal: chips and firmware TPMs of processors are none.
    #[test]
    fn tpms_of_hardware_are_not_virtual() {
        for (manufacturer, name) in [
            (b"AMD\0", "AMD TPM"),
            (b"IFX\0", "SLB9670"),
            (b"INTC", "ADL"),
            (b"NTC\0", "NPCT75x"),
            (b"STM ", "ST33HTPHAHD8"),
        ] {
            assert!(!model(manufacturer, name).is_virtual(), "{name}");
        }
    }

    // Goal: a person reads letters, not digits, where there are letters.
    #[test]
    fn models_and_errors_read_as_text() {
        let cases: [(&[u8; 4], &str); 6] = [
            (b"IFX\0", "IFX"),
            (b"STM ", "STM"),
            (b"\0\0\x10\x14", "00001014"),
            (b"\0\0\0\0", "00000000"),
            (b"\xff\xff\xff\xff", "ffffffff"),
            (b"A\x1b[B", "411b5b42"),
        ];
        for (octets, text) in cases {
            assert_eq!(Manufacturer(*octets).to_string(), text);
        }
        assert_eq!(format!("{:?}", Manufacturer(*b"IFX\0")), "Manufacturer(IFX)");
        assert_eq!(model(b"IFX\0", "SLB9670").to_string(), "IFX SLB9670 id:0D0B");
        assert_eq!(model(b"IFX\0", "").to_string(), "IFX id:0D0B");
        for (error, text) in [
            (
                ModelError::Manufacturer,
                "the TPM's manufacturer is not \"id:\" and 8 hexadecimal digits",
            ),
            (
                ModelError::Missing { field: Field::Manufacturer },
                "the TPM's manufacturer (2.23.133.2.1) is missing",
            ),
            (
                ModelError::Repeated { field: Field::Model },
                "the TPM's model (2.23.133.2.2) is there more than once",
            ),
            (
                ModelError::Text { field: Field::Version },
                "the TPM's version (2.23.133.2.3) is no ASCII text of at most 64 characters",
            ),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
