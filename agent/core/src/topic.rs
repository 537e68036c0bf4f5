//! The names of MQTT topics, made and read.
//!
//! **What it is.** Every device has one subtree, `fleetcert/v1/<device-id>/`, in which it alone
//! may publish and subscribe. A [`Topic`] names one place in one such subtree.
//!
//! **What it must never do.** Name a place in another device's subtree, or a filter: a broker's ACL
//! is `pattern readwrite fleetcert/v1/%u/#`, and the user name is the device id.
//!
//! **Why that is sound.** A [`DeviceId`] and a [`DataPath`] hold neither `/` at their ends nor `+`,
//! `#` or control characters anywhere, and there is no other way to make a topic.

use core::fmt;

use heapless::String;

use crate::device_id::{DEVICE_ID_LEN_MAX, DeviceId, DeviceIdError};

/// What every topic begins with: the product and the version of its payloads.
pub const PREFIX: &str = "fleetcert/v1/";

/// Octets of what an application names below `data/`, at most.
pub const DATA_PATH_LEN_MAX: usize = 128;

/// Octets of a topic, at most.
pub const TOPIC_LEN_MAX: usize = PREFIX.len() + DEVICE_ID_LEN_MAX + DATA.len() + DATA_PATH_LEN_MAX;

const COMMAND: &str = "/command";
const DATA: &str = "/data/";
const EVENT: &str = "/event";
const RESULT: &str = "/result";
const STATE: &str = "/state";

/// A place in the subtree of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic<'a> {
    /// Whose subtree.
    pub device_id: DeviceId,
    /// Where in it.
    pub channel: Channel<'a>,
}

/// What is said in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel<'a> {
    /// Commands to the device.
    Command,
    /// What the application has to say.
    Data(DataPath<'a>),
    /// What happened to the identity.
    Event,
    /// What came of a command.
    Result,
    /// Birth and death, retained.
    State,
}

/// One or more levels of the application's own: 1 to [`DATA_PATH_LEN_MAX`] octets of printable
/// ASCII without `+` and `#`, no level empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataPath<'a>(&'a str);

/// Why a text names no place in a device's subtree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicError {
    /// What follows the device id is none of our channels.
    Channel,
    /// A level below `data/` is empty, or holds a wildcard or what is not printable ASCII.
    DataPath,
    /// What is below `data/` is longer than [`DATA_PATH_LEN_MAX`].
    DataPathLength {
        /// Its length, octets.
        found: usize,
    },
    /// The third level is no device id.
    DeviceId(DeviceIdError),
    /// It does not begin with [`PREFIX`].
    Prefix,
}

impl<'a> DataPath<'a> {
    /// Octets of a path, at most.
    pub const MAX_LEN: usize = DATA_PATH_LEN_MAX;

    /// Takes a text as what follows `data/`.
    ///
    /// # Errors
    ///
    /// [`TopicError::DataPath`] or [`TopicError::DataPathLength`].
    pub const fn parse(text: &'a str) -> Result<Self, TopicError> {
        let octets = text.as_bytes();
        let (mut at, mut level_len) = (0, 0);
        while at < octets.len() {
            level_len = match octets[at] {
                b'/' if level_len > 0 => 0,
                b'/' | b'+' | b'#' => return Err(TopicError::DataPath),
                octet if octet.is_ascii_graphic() => level_len + 1,
                _ => return Err(TopicError::DataPath),
            };
            at += 1;
        }
        if level_len == 0 {
            return Err(TopicError::DataPath);
        }
        if octets.len() > DATA_PATH_LEN_MAX {
            return Err(TopicError::DataPathLength { found: octets.len() });
        }
        Ok(Self(text))
    }

    /// The path as text.
    #[must_use]
    pub const fn as_str(&self) -> &'a str {
        self.0
    }
}

impl<'a> Channel<'a> {
    /// The name of the topic in a device's subtree, in parts that stand one behind the other.
    #[must_use]
    pub fn name(self, device_id: &'a DeviceId) -> [&'a str; 4] {
        let (channel, path) = match self {
            Self::Command => (COMMAND, ""),
            Self::Data(path) => (DATA, path.as_str()),
            Self::Event => (EVENT, ""),
            Self::Result => (RESULT, ""),
            Self::State => (STATE, ""),
        };
        [PREFIX, device_id.as_str(), channel, path]
    }

    /// Whether this is the name of the topic in a device's subtree.
    #[must_use]
    pub fn is_named(self, device_id: &'a DeviceId, name: &[u8]) -> bool {
        let parts = self.name(device_id);
        let rest = parts.iter().try_fold(name, |rest, part| rest.strip_prefix(part.as_bytes()));
        rest.is_some_and(<[u8]>::is_empty)
    }
}

impl<'a> Topic<'a> {
    /// Octets of a topic, at most.
    pub const MAX_LEN: usize = TOPIC_LEN_MAX;

    /// Reads the name of a topic.
    ///
    /// # Errors
    ///
    /// [`TopicError`] says what is wrong with it.
    pub fn parse(name: &'a str) -> Result<Self, TopicError> {
        let rest = name.strip_prefix(PREFIX).ok_or(TopicError::Prefix)?;
        let end = rest.find('/').ok_or(TopicError::Channel)?;
        let (device_id, place) = rest.split_at_checked(end).ok_or(TopicError::Channel)?;
        let device_id = DeviceId::parse(device_id).map_err(TopicError::DeviceId)?;
        let channel = match place {
            COMMAND => Channel::Command,
            EVENT => Channel::Event,
            RESULT => Channel::Result,
            STATE => Channel::State,
            _ => {
                let path = place.strip_prefix(DATA).ok_or(TopicError::Channel)?;
                Channel::Data(DataPath::parse(path)?)
            }
        };
        Ok(Self { device_id, channel })
    }

    /// The name of the topic.
    #[must_use]
    pub fn emit(&self) -> String<TOPIC_LEN_MAX> {
        let mut name = String::new();
        for part in self.channel.name(&self.device_id) {
            // The capacity is the sum of what each part may have.
            let pushed = name.push_str(part);
            debug_assert!(pushed.is_ok(), "a topic is longer than its parts may be");
        }
        name
    }
}

impl fmt::Display for Topic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.emit())
    }
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Channel => f.write_str("topic has no channel of ours behind the device id"),
            Self::DataPath => f.write_str("data path is not levels of printable ASCII"),
            Self::DataPathLength { found } => {
                write!(f, "data path has {found} octets, at most {DATA_PATH_LEN_MAX} may be")
            }
            Self::DeviceId(error) => write!(f, "topic: {error}"),
            Self::Prefix => write!(f, "topic does not begin with {PREFIX}"),
        }
    }
}

impl core::error::Error for TopicError {}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;

    use super::{Channel, DATA_PATH_LEN_MAX, DataPath, TOPIC_LEN_MAX, Topic, TopicError};
    use crate::device_id::{DeviceId, DeviceIdError};

    #[test]
    fn every_channel_has_its_name_and_is_read_back() {
        let path = DataPath::parse("a/b").unwrap();
        for (channel, name) in [
            (Channel::Command, "fleetcert/v1/gw-1/command"),
            (Channel::Data(path), "fleetcert/v1/gw-1/data/a/b"),
            (Channel::Event, "fleetcert/v1/gw-1/event"),
            (Channel::Result, "fleetcert/v1/gw-1/result"),
            (Channel::State, "fleetcert/v1/gw-1/state"),
        ] {
            let topic = Topic { device_id: DeviceId::parse("gw-1").unwrap(), channel };
            assert_eq!((topic.emit().as_str(), topic.to_string().as_str()), (name, name));
            assert_eq!(Topic::parse(name), Ok(topic));
        }
    }

    /// Goal: a name is that of its own channel and device, whole, and of nothing else.
    #[test]
    fn a_name_is_known_without_being_read() {
        let device_id = DeviceId::parse("gw-1").unwrap();
        let path = DataPath::parse("a/b").unwrap();
        let channels = [
            Channel::Command,
            Channel::Data(path),
            Channel::Event,
            Channel::Result,
            Channel::State,
        ];
        for (at, channel) in channels.iter().enumerate() {
            let name = channel.name(&device_id).concat();
            for (other, is_it) in channels.iter().zip((0..).map(|other| other == at)) {
                assert_eq!(other.is_named(&device_id, name.as_bytes()), is_it, "{name}");
            }
            for near in [&name[1..], &name[..name.len() - 1], &format!("{name}/"), ""] {
                assert!(!channel.is_named(&device_id, near.as_bytes()), "{near}");
            }
            assert!(!channel.is_named(&DeviceId::parse("gw-2").unwrap(), name.as_bytes()));
            assert!(!channel.is_named(&DeviceId::parse("gw-").unwrap(), name.as_bytes()));
        }
    }

    #[test]
    fn the_longest_topic_is_whole() {
        let name = format!("fleetcert/v1/{}/data/{}", "x".repeat(64), "y".repeat(128));
        assert_eq!(name.len(), TOPIC_LEN_MAX);
        assert_eq!(Topic::parse(&name).unwrap().emit(), name.as_str());
        let longer = format!("{name}y");
        assert_eq!(Topic::parse(&longer), Err(TopicError::DataPathLength { found: 129 }));
    }

    #[test]
    fn a_data_path_has_printable_levels_without_wildcards() {
        for text in ["a", "a/b/c", "~!$%&'()*,-.:;<=>?@[]^_`{|}", &"x".repeat(DATA_PATH_LEN_MAX)] {
            assert_eq!(DataPath::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "/", "/a", "a/", "a//b", "a/+", "#", "a b", "a\0", "a\n", "é"] {
            assert_eq!(DataPath::parse(text), Err(TopicError::DataPath), "{text:?}");
        }
    }

    #[test]
    fn names_outside_the_subtree_of_a_device_are_refused() {
        for name in ["", "fleetcert", "fleetcert/v2/a/state", "$SYS/v1/a", "/fleetcert/v1/a/state"]
        {
            assert_eq!(Topic::parse(name), Err(TopicError::Prefix), "{name}");
        }
        for name in [
            "fleetcert/v1/a",
            "fleetcert/v1/a/",
            "fleetcert/v1/a/data",
            "fleetcert/v1/a/states",
            "fleetcert/v1/a/state/",
            "fleetcert/v1/a/State",
            "fleetcert/v1/a/b/state",
        ] {
            assert_eq!(Topic::parse(name), Err(TopicError::Channel), "{name}");
        }
        for (name, error) in [
            ("fleetcert/v1//state", DeviceIdError::Empty),
            ("fleetcert/v1/+/state", DeviceIdError::Character { found: '+', at: 0 }),
            ("fleetcert/v1/../state", DeviceIdError::FirstCharacter { found: '.' }),
        ] {
            assert_eq!(Topic::parse(name), Err(TopicError::DeviceId(error)), "{name}");
        }
        assert_eq!(Topic::parse("fleetcert/v1/a/data/"), Err(TopicError::DataPath));
    }

    #[test]
    fn errors_read_as_text() {
        for (error, text) in [
            (TopicError::Channel, "topic has no channel of ours behind the device id"),
            (TopicError::DataPath, "data path is not levels of printable ASCII"),
            (
                TopicError::DataPathLength { found: 129 },
                "data path has 129 octets, at most 128 may be",
            ),
            (TopicError::DeviceId(DeviceIdError::Empty), "topic: device id is empty"),
            (TopicError::Prefix, "topic does not begin with fleetcert/v1/"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
