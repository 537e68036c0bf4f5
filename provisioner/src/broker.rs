//! `broker mosquitto`: a folder from which a mosquitto 2.0 serves this fleet.
//!
//! **What it is.** Configuration, access rules, CA chain, revocation list, server certificate and
//! key. Devices are identified by their certificates alone.
//!
//! **What it must never do.** Let one device speak as another. `use_identity_as_username` makes
//! the certificate's CN the user name, for the access rules; `use_username_as_clientid` makes it
//! the client id too: without that, a device could present its own certificate and another's
//! client id, throw that one out and inherit its session. Nor let the broker run a stale list:
//! mosquitto locks every device out when its list is past `nextUpdate`, so the list has to be
//! written again, and the broker told, while it is still good.
//!
//! **Which user.** mosquitto changes to an unprivileged user when root starts it, and reads its
//! files as that user. Where that user can reach the folder, the files become its own. Where it
//! cannot (a folder under /root, or a temporary one of root's), the configuration says `user root`
//! and the command says so.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use crate::{
    authority::profile::backend_common_name,
    cli::{Failure, MosquittoArgs, SERVER_LIFETIME_S, operator, print},
    clock::{Clock, SystemClock},
    credential::{Credential, Order},
    files::{self, FileError},
    installation::Installation,
    pem,
};

/// The user that mosquitto's packages make.
const MOSQUITTO_USER: &str = "mosquitto";

/// A user of this machine.
struct User {
    name: String,
    uid: u32,
    gid: u32,
}

pub(crate) async fn mosquitto(config: &Path, args: &MosquittoArgs) -> Result<(), Failure> {
    let installation = Installation::open(config).await?;
    files::empty_folder(&args.out, files::PUBLIC_FOLDER)?;
    let folder = absolute(&args.out)?;
    let user = user(args, &folder)?;
    let (provisioner, now) = (&installation.provisioner, SystemClock.wall());
    let operator = operator();
    let order = Order { operator: &operator, now, lifetime_s: SERVER_LIFETIME_S };
    let authority = installation.server_authority()?;
    let credential = Credential::server(provisioner, &authority, &args.names, order).await?;
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
    credential.write(&certificate, &key, &installation.server_chain)?;
    let crl = provisioner.crl(now, false).await?;
    let write =
        |name: &str, text: &str| files::create(&folder.join(name), text.as_bytes(), files::PUBLIC);
    write("ca.pem", &pem::certificates(&installation.device_chain))?;
    write("crl.pem", &pem::crl(&crl.der))?;
    write("acl", &access_rules(args))?;
    write("mosquitto.conf", &configuration(args, text_of(&folder)?, user.as_ref()))?;
    files::folder(&folder.join("data"), files::PRIVATE_FOLDER)?;
    if let Some(user) = &user {
        hand_over(&folder, user)?;
    }
    print(&next_steps(args, &folder, user.as_ref()));
    provisioner.store().close().await;
    Ok(())
}

fn absolute(folder: &Path) -> Result<PathBuf, FileError> {
    let error = |source| FileError { operation: "find", path: folder.into(), source };
    fs::canonicalize(folder).map_err(error)
}

/// A path as mosquitto reads it: to the end of its line.
fn text_of(folder: &Path) -> Result<&str, Failure> {
    let text = folder.to_str().filter(|text| !text.contains(['\n', '\r']));
    text.ok_or_else(|| Failure::PathText(folder.into()))
}

/// Whom mosquitto should run as. Only root can choose, so for anybody else it is nobody.
fn user(args: &MosquittoArgs, folder: &Path) -> Result<Option<User>, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    if let Some(name) = &args.user {
        return find_user(name).map(Some).ok_or_else(|| Failure::UserUnknown(name.clone()));
    }
    let packaged = find_user(MOSQUITTO_USER).filter(|_| everybody_reaches(folder));
    let root = User { name: "root".to_owned(), uid: 0, gid: 0 };
    Ok(Some(packaged.unwrap_or(root)))
}

fn find_user(name: &str) -> Option<User> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| parse_user(line, name))
}

fn parse_user(line: &str, name: &str) -> Option<User> {
    let mut fields = line.split(':');
    if fields.next() != Some(name) {
        return None;
    }
    let _password = fields.next()?;
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(User { name: name.to_owned(), uid, gid })
}

/// Whether every folder on the way may be searched by everybody.
fn everybody_reaches(folder: &Path) -> bool {
    const SEARCH_BY_OTHERS: u32 = 0o001;
    folder.ancestors().all(|folder| {
        fs::metadata(folder)
            .is_ok_and(|metadata| metadata.permissions().mode() & SEARCH_BY_OTHERS != 0)
    })
}

/// Gives the broker's user what only the broker may read or write: its key and its data.
fn hand_over(folder: &Path, user: &User) -> Result<(), FileError> {
    for name in ["server.key", "data"] {
        let path = folder.join(name);
        chown(&path, Some(user.uid), Some(user.gid)).map_err(|source| FileError {
            operation: "change the owner of",
            path,
            source,
        })?;
    }
    Ok(())
}

fn configuration(args: &MosquittoArgs, folder: &str, user: Option<&User>) -> String {
    let MosquittoArgs { listen, port, .. } = args;
    let user = user.map(|user| format!("user {}\n", user.name)).unwrap_or_default();
    format!(
        "# mosquitto 2.0 for a fleetcert fleet. Devices are known by their certificates alone.
# Tell the broker of a new crl.pem by SIGHUP; one past its nextUpdate locks every device out.
{user}
listener {port} {listen}
cafile {folder}/ca.pem
certfile {folder}/server.pem
keyfile {folder}/server.key
crlfile {folder}/crl.pem
tls_version tlsv1.2
require_certificate true

# The certificate's CN is user name and client id: no device can take another's session.
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {folder}/acl

# Without this, every full TLS 1.3 handshake waits for the client's delayed acknowledgement.
set_tcp_nodelay true

# Sessions and QoS 1 messages outlive a restart of the broker and a device's absence.
persistence true
persistence_location {folder}/data/
autosave_interval 60
persistent_client_expiration 30d
max_queued_messages 10000

log_dest stderr
"
    )
}

fn access_rules(args: &MosquittoArgs) -> String {
    let mut rules = String::from(
        "# A device has its own topics and no others. %u is the CN of its certificate.
pattern readwrite fleetcert/v1/%u/#
",
    );
    for backend in &args.backends {
        let user = backend_common_name(backend);
        rules += &format!("\nuser {user}\ntopic readwrite fleetcert/v1/#\n");
    }
    rules
}

fn next_steps(args: &MosquittoArgs, folder: &Path, user: Option<&User>) -> String {
    let folder = folder.display();
    let mut text = format!(
        "{folder} is ready: mosquitto -c {folder}/mosquitto.conf\n\
         Keep its list good, from cron or a timer, at most half its validity apart:\n  \
         fleetcert-provisioner crl write --out {folder}/crl.pem && kill -HUP <broker>\n"
    );
    match user {
        Some(user) if user.uid == 0 => {
            text += &format!(
                "It will run as root, because user {MOSQUITTO_USER} is missing or cannot reach this \
             folder; make it under a folder open to all, or name another --user.\n"
            )
        }
        Some(user) => text += &format!("Started by root, it will run as user {}.\n", user.name),
        None => text += "It will run as you.\n",
    }
    for backend in &args.backends {
        text += &format!(
            "Identity for backend {backend}: fleetcert-provisioner ca issue-backend {backend} \
             --out DIR\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Name;

    fn args() -> MosquittoArgs {
        MosquittoArgs {
            out: "broker".into(),
            names: vec!["localhost".into()],
            port: 8883,
            listen: "127.0.0.1".parse().unwrap(),
            backends: vec![Name::parse("fleet").unwrap()],
            user: None,
        }
    }

    // Goal: the lines without which one device could be another are in the configuration.
    #[test]
    fn the_configuration_ties_sessions_to_certificates() {
        let text = configuration(&args(), "/srv/broker", None);
        for line in [
            "listener 8883 127.0.0.1",
            "require_certificate true",
            "use_identity_as_username true",
            "use_username_as_clientid true",
            "allow_anonymous false",
            "crlfile /srv/broker/crl.pem",
            "tls_version tlsv1.2",
            "set_tcp_nodelay true",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in {text}");
        }
        assert_eq!(text.matches("\nlistener ").count(), 1);
        assert!(!text.contains("\nuser "));
    }

    // Goal: only a backend has more than its own topics.
    #[test]
    fn only_backends_may_use_every_topic() {
        let rules = access_rules(&args());
        let (devices, backend) = rules.split_once("\nuser backend.fleet\n").unwrap();
        assert!(devices.ends_with("pattern readwrite fleetcert/v1/%u/#\n"));
        assert_eq!(backend, "topic readwrite fleetcert/v1/#\n");
    }

    // Goal: a user is found by its whole name.
    #[test]
    fn users_are_found_by_their_whole_name() {
        let line = "mosquitto:x:105:112::/var/lib/mosquitto:/usr/sbin/nologin";
        let user = parse_user(line, "mosquitto").unwrap();
        assert_eq!((user.uid, user.gid), (105, 112));
        assert!(parse_user(line, "mosq").is_none());
        assert!(parse_user("mosquitto", "mosquitto").is_none());
    }
}
