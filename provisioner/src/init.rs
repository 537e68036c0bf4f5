//! `init`: a new installation, from nothing to a folder that `serve` runs from.
//!
//! **What it is.** Two certificate trees, a database, a server certificate and a commented
//! configuration, in one folder that can be moved.
//!
//! **What it must never do.** Overwrite anything: the folder has to be new or empty. Nor leave an
//! installation that looks whole and is not: the configuration, without which nothing runs, is
//! written last.
//!
//! **Why the roots are safe.** Their keys are written encrypted only, into `offline/`, which no
//! other command reads: the folder can be carried away at once.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use fleetcert_core::time::Wall;

use crate::{
    authority::{
        Authority,
        profile::TrustDomain,
        tree::{self, NewTree, TreeKind, TreeSettings},
    },
    cli::{Failure, InitArgs, SERVER_LIFETIME_S, operator, print},
    clock::{Clock, SystemClock},
    config::Config,
    credential::{Credential, Order, server_identity},
    enroll::Provisioner,
    entropy::SystemEntropy,
    files, installation, pem,
    random::Random,
    store::sqlite::SqliteStore,
};

/// Seconds of a device certificate's life when nothing is said: ninety days.
pub(crate) const DEVICE_LIFETIME_S: u64 = 90 * 86_400;

/// Seconds after expiry in which a device recovers by itself when nothing is said: thirty days.
pub(crate) const RECOVERY_WINDOW_S: u64 = 30 * 86_400;

/// Seconds of a root's life: twenty years, as long as what is in the field with it pinned.
const ROOT_LIFETIME_S: u64 = 20 * 365 * 86_400;

/// Seconds of an issuing authority's life: ten years.
const ISSUING_LIFETIME_S: u64 = 10 * 365 * 86_400;

/// Octets of the passphrase that guards the root keys.
const PASSPHRASE_LEN: usize = 32;

/// The two trees that were made.
struct Trees {
    device: NewTree,
    server: NewTree,
}

pub(crate) async fn run(args: &InitArgs) -> Result<(), Failure> {
    // Everything that can be wrong with the arguments is found before anything is written.
    let trust_domain = TrustDomain::parse(&args.trust_domain)?;
    server_identity(&args.names)?;
    let text = configuration(args, &external_url(args));
    Config::from_text(&text, &args.dir.join(CONFIG_FILE))?;
    let now = SystemClock.wall();
    let mut entropy = SystemEntropy::new();
    let passphrase = passphrase(&mut entropy);
    let trees = trees(&trust_domain, &passphrase, now, &mut entropy)?;
    files::empty_folder(&args.dir, files::PUBLIC_FOLDER)?;
    write_trees(&args.dir, &trees, &passphrase)?;
    issue_server(args, &trees, &text, now).await?;
    files::create(&args.dir.join(CONFIG_FILE), text.as_bytes(), files::PUBLIC)?;
    print(&next_steps(args));
    Ok(())
}

/// The configuration's name in the folder.
const CONFIG_FILE: &str = "provisioner.toml";

fn passphrase(rng: &mut dyn Random) -> Zeroizing<String> {
    let mut octets = Zeroizing::new([0; PASSPHRASE_LEN]);
    rng.fill(octets.as_mut_slice());
    Zeroizing::new(octets.iter().map(|octet| format!("{octet:02x}")).collect())
}

fn trees(
    trust_domain: &TrustDomain,
    passphrase: &str,
    now: Wall,
    rng: &mut dyn Random,
) -> Result<Trees, Failure> {
    let name = trust_domain.as_str();
    let settings = TreeSettings {
        organisation: name[..name.len().min(tree::ORGANISATION_LEN_MAX)].to_owned(),
        root_lifetime_s: ROOT_LIFETIME_S,
        issuing_lifetime_s: ISSUING_LIFETIME_S,
    };
    let device = tree::create(TreeKind::Device, &settings, passphrase, now, rng)?;
    let server = tree::create(TreeKind::Server, &settings, passphrase, now, rng)?;
    Ok(Trees { device, server })
}

fn write_trees(dir: &Path, trees: &Trees, passphrase: &str) -> Result<(), Failure> {
    let (private, offline) = (dir.join("private"), dir.join("offline"));
    files::folder(&private, files::PRIVATE_FOLDER)?;
    files::folder(&offline, files::PRIVATE_FOLDER)?;
    for (tree, name) in [(&trees.device, "device"), (&trees.server, "server")] {
        let chain = pem::certificates([&tree.issuing_certificate, &tree.root_certificate]);
        files::create(&dir.join(format!("{name}-ca.pem")), chain.as_bytes(), files::PUBLIC)?;
        let key = private.join(format!("{name}-issuing.key"));
        files::create(&key, tree.issuing_key_pem.as_bytes(), files::PRIVATE)?;
        let key = offline.join(format!("{name}-root.key"));
        files::create(&key, tree.root_key_encrypted_pem.as_bytes(), files::PRIVATE)?;
    }
    let root = pem::certificates([&trees.server.root_certificate]);
    files::create(&dir.join("server-root.pem"), root.as_bytes(), files::PUBLIC)?;
    let passphrase = Zeroizing::new(format!("{passphrase}\n"));
    files::create(&offline.join("passphrase"), passphrase.as_bytes(), files::PRIVATE)?;
    Ok(())
}

/// Makes the database and, as its first entry, our own certificate.
async fn issue_server(
    args: &InitArgs,
    trees: &Trees,
    configuration: &str,
    now: Wall,
) -> Result<(), Failure> {
    let config = Config::from_text(configuration, &args.dir.join(CONFIG_FILE))?;
    let device = installation::authority(&config.device_ca)?;
    let server: Authority = installation::authority(&config.server_ca)?;
    let settings = installation::settings(&config, &device)?;
    // SQLite makes its file with the mode of the process; the log beside it takes the same.
    files::create(&config.database, &[], files::PRIVATE)?;
    let store = SqliteStore::open(&config.database).await?;
    let provisioner = Provisioner::new(store, settings, device);
    let operator = operator();
    let order = Order { operator: &operator, now, lifetime_s: SERVER_LIFETIME_S };
    let credential = Credential::server(&provisioner, &server, &args.names, order).await?;
    let chain = [&trees.server.issuing_certificate, &trees.server.root_certificate]
        .map(|der| CertificateDer::from(der.as_slice()));
    credential.write(&config.server.certificate, &config.server.key, &chain)?;
    provisioner.store().close().await;
    Ok(())
}

/// How devices reach us: the first name, and the port unless it is the usual one or not known.
fn external_url(args: &InitArgs) -> String {
    let host = args.names.first().map_or("localhost", String::as_str);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    match args.listen.port() {
        0 | 443 => format!("https://{host}"),
        port => format!("https://{host}:{port}"),
    }
}

fn configuration(args: &InitArgs, external_url: &str) -> String {
    let InitArgs { listen, trust_domain, device_lifetime_s, recovery_window_s, .. } = args;
    format!(
        r#"# fleetcert-provisioner. Paths are relative to this file.

# Where to listen.
listen = "{listen}"

# How devices reach this service; stands in their certificates as the place of the CRL.
external_url = "{external_url}"

# spiffe://<trust_domain>/device/<id>
trust_domain = "{trust_domain}"

database = "fleetcert.db"

[server]
certificate = "server.pem"
key = "private/server.key"

[device_ca]
certificate = "device-ca.pem"
key = "private/device-issuing.key"

# Used by `ca issue-server` and `broker` only; `serve` runs without the key.
[server_ca]
certificate = "server-ca.pem"
key = "private/server-issuing.key"

[device]
lifetime_s = {device_lifetime_s}

[groups.default]
# What a device shows for its first certificate. "token": a one-time token. "approval": an operator
# approves each key. "ek-allowlist": a TPM that `device import` lists for it. "ek-chain": a TPM with a
# certificate by a maker that `attest ek-roots` trusts. "token+ek": a token and such a TPM. "deny".
admission = "token"
# A TPM that is software, whose keys can be copied by whoever runs it, counts only with
# allow_virtual_tpm = true
# Seconds after expiry in which a device still recovers by itself.
recovery_window_s = {recovery_window_s}
"#
    )
}

fn next_steps(args: &InitArgs) -> String {
    let dir = args.dir.display();
    format!(
        "{dir} is ready.

1. Move {dir}/offline to a safe place: it holds both root keys (encrypted) and their
   passphrase, and nothing here reads it. Keep key and passphrase apart.
2. Start the service:
     fleetcert-provisioner --config {dir}/{CONFIG_FILE} serve
3. Give devices {dir}/server-root.pem to know this service by.
4. Enter the first device and hand it its token:
     fleetcert-provisioner --config {dir}/{CONFIG_FILE} device add DEVICE
     fleetcert-provisioner --config {dir}/{CONFIG_FILE} token issue DEVICE --out DEVICE.token
5. Set up a broker:
     fleetcert-provisioner --config {dir}/{CONFIG_FILE} broker mosquitto --out BROKER --name HOST
"
    )
}
