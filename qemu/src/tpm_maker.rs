//! A maker of TPMs: the certificate authority that vouches for the endorsement keys it has built.
//!
//! **What it is.** A root and an issuing certificate with a name of their own, in a private folder,
//! and the configuration that makes `swtpm_setup` have its certificates signed by them and by
//! nobody else. The two certificates are what a provisioner is told to trust; a second maker is a
//! stranger to it. The keys are of two kinds, P-384 above RSA-2048, as chains in the field mix them.
//!
//! **What it must never do.** Touch the machine's own software-TPM authority (`/var/lib`, `$HOME`):
//! every file of it, its lock and its serial numbers included, is below the folder it was given.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::RigError;
use crate::{process, programs};

/// The certificates of an authority outlive every run.
const DAYS: &str = "3650";

/// Who builds TPMs and certifies their endorsement keys.
#[derive(Clone, Debug)]
pub struct TpmMaker {
    folder: PathBuf,
}

impl TpmMaker {
    /// Makes the keys and certificates of a maker called `name` in the new folder `folder`.
    ///
    /// # Errors
    ///
    /// What openssl reports; [`RigError::Start`] when it or `swtpm_localca` is not installed.
    pub fn found(folder: &Path, name: &str) -> Result<Self, RigError> {
        DirBuilder::new().mode(0o700).create(folder).map_err(RigError::io(folder))?;
        let this = Self { folder: folder.to_path_buf() };
        fs::create_dir(this.certificates()).map_err(RigError::io(folder))?;
        this.write("openssl.cnf", OPENSSL_CONFIGURATION)?;
        let mut root = this.openssl(name, "root");
        root.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"]);
        process::run("openssl req (root)", root, &this.log())?;
        let mut issuer = this.openssl(name, "issuer");
        issuer.args(["-newkey", "rsa:2048", "-CA"]).arg(this.root());
        issuer.arg("-CAkey").arg(this.key("root"));
        process::run("openssl req (issuer)", issuer, &this.log())?;
        this.configure()?;
        Ok(this)
    }

    /// The folder with both certificates and nothing else, to be trusted as a whole.
    #[must_use]
    pub fn certificates(&self) -> PathBuf {
        self.folder.join("certificates")
    }

    /// The self-signed root certificate, PEM.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.certificates().join("root.pem")
    }

    /// The certificate, PEM, whose key signs the certificates of endorsement keys. A TPM carries
    /// no copy of it.
    #[must_use]
    pub fn issuer(&self) -> PathBuf {
        self.certificates().join("issuer.pem")
    }

    /// The private key, PEM, that signs the certificates of endorsement keys: for certificates that
    /// only a maker who errs would sign.
    #[must_use]
    pub fn issuer_key(&self) -> PathBuf {
        self.key("issuer")
    }

    /// What `swtpm_setup --config` is given.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.folder.join("swtpm_setup.conf")
    }

    fn key(&self, role: &str) -> PathBuf {
        self.folder.join(role).with_extension("key")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("maker.log")
    }

    /// A command that makes a key pair and a certificate; what key, and by whom, is still missing.
    fn openssl(&self, name: &str, role: &str) -> Command {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-batch", "-noenc", "-days", DAYS, "-extensions", role]);
        command.args(["-subj", &format!("/O={name}/CN={name} TPM {role}")]);
        command.arg("-config").arg(self.folder.join("openssl.cnf"));
        command.arg("-keyout").arg(self.key(role));
        command.arg("-out").arg(self.certificates().join(role).with_extension("pem"));
        command
    }

    fn configure(&self) -> Result<(), RigError> {
        let localca = programs::locate("swtpm_localca")?;
        let (folder, issuer) = (self.folder.display(), self.issuer());
        let (key, issuer) = (self.issuer_key(), issuer.display());
        self.write(
            "localca.conf",
            &format!(
                "statedir = {folder}\nsigningkey = {}\nissuercert = {issuer}\n\
                 certserial = {folder}/serial\n",
                key.display()
            ),
        )?;
        self.write("localca.options", PLATFORM_OPTIONS)?;
        self.write(
            "swtpm_setup.conf",
            &format!(
                "create_certs_tool = {}\ncreate_certs_tool_config = {folder}/localca.conf\n\
                 create_certs_tool_options = {folder}/localca.options\nactive_pcr_banks = sha256\n",
                localca.display()
            ),
        )
    }

    fn write(&self, name: &str, text: &str) -> Result<(), RigError> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(RigError::io(&path))
    }
}

/// Of our own, so that the system's defaults add nothing.
const OPENSSL_CONFIGURATION: &str = "\
[req]
distinguished_name = name
[name]
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[issuer]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
";

/// `swtpm_localca` wants them for any certificate, though only platform certificates carry them.
const PLATFORM_OPTIONS: &str = "\
--platform-manufacturer Rig
--platform-version 1
--platform-model Rig
";
