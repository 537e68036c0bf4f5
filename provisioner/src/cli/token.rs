//! `token …`: an operator's word that one device may enroll once.

use std::path::Path;

use super::{Failure, TokenArgs, output};
use crate::{
    clock::{Clock, SystemClock},
    enroll::TokenOrder,
    entropy::SystemEntropy,
    files,
    installation::Installation,
    token::TOKEN_TTL_S_MAX,
};

/// Seconds for which a token is good when nothing is said: a day.
pub(super) const TTL_S: u64 = 86_400;

pub(super) async fn issue(config: &Path, args: TokenArgs) -> Result<(), Failure> {
    if !(1..=TOKEN_TTL_S_MAX).contains(&args.ttl_s) {
        let (found, max) = (args.ttl_s, TOKEN_TTL_S_MAX);
        return Err(Failure::Bounds { argument: "--ttl-s", found, min: 1, max });
    }
    let installation = Installation::open(config).await?;
    let TokenArgs { id: device, group, label, ttl_s, out } = args;
    let order = TokenOrder { device, group, label, ttl_s };
    let (now, operator) = (SystemClock.wall(), output::operator());
    let mut entropy = SystemEntropy::new();
    let provisioner = &installation.provisioner;
    let secret = provisioner.issue_token(order, &operator, now, &mut entropy).await?;
    let text = zeroize::Zeroizing::new(format!("{}\n", secret.text().as_str()));
    match out {
        Some(path) => files::create(&path, text.as_bytes(), files::PRIVATE)?,
        None => output::print(&text),
    }
    provisioner.store().close().await;
    Ok(())
}
