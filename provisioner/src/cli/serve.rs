//! `serve`: the service itself, from opening the installation to the last answer.

use std::{net::SocketAddr, path::Path, sync::Arc};

use async_signal::{Signal, Signals};
use futures_lite::StreamExt;
use smol::{
    Executor,
    channel::{Receiver, bounded},
};

use fleetcert_core::time::Wall;

use super::{Failure, ServeArgs};
use crate::{
    clock::{Clock, SystemClock},
    files,
    http::{
        Edge,
        server::{Limits, Server},
    },
    installation::Installation,
    journal,
    store::sqlite::SqliteStore,
    tls::{self, Material},
};

/// How early to speak of a server certificate that will expire, seconds: thirty days.
const EXPIRY_NOTICE_S: u64 = 30 * 86_400;

pub(super) async fn run(config: &Path, args: &ServeArgs) -> Result<(), Failure> {
    journal::start();
    let mut signals = Signals::new([Signal::Int, Signal::Term]).map_err(Failure::Signals)?;
    let installation = Installation::open(config).await?;
    installation.provisioner.check_stored_clock(SystemClock.wall()).await?;
    let threads = installation.config.threads;
    let server = bind(&installation, args.listen).await?;
    let address = server
        .local_addr()
        .map_err(|source| Failure::Listen { address: installation.config.listen, source })?;
    if let Some(path) = &args.ready_file {
        files::announce(path, format!("{address}\n").as_bytes())?;
    }
    log::info!("listening on {address}");
    let executor = Arc::new(Executor::new());
    let (running, ended) = bounded::<()>(1);
    start_threads(threads, &executor, &ended);
    let stop = async {
        let signal = signals.next().await;
        log::info!("stopping: {signal:?}");
    };
    let cut = executor.run(server.run(&executor, stop)).await;
    drop(running);
    if cut > 0 {
        log::warn!("{cut} connections did not end in time");
    }
    installation.provisioner.store().close().await;
    Ok(())
}

async fn bind(
    installation: &Installation,
    listen: Option<SocketAddr>,
) -> Result<Server<Edge<SqliteStore>>, Failure> {
    let config = &installation.config;
    let material = Material::read(
        &config.server.certificate,
        &config.server.key,
        &config.device_ca.certificate,
    )?;
    warn_of_expiry(&material, SystemClock.wall());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let acceptor = tls::acceptor(material, &clock)?;
    let limits = Limits { connections_max: config.connections_max, ..Limits::default() };
    let provisioner = Arc::clone(&installation.provisioner);
    let edge = Edge::new(provisioner, &installation.ca_certificates(), clock, limits);
    let address = listen.unwrap_or(config.listen);
    let bound = Server::bind(address, acceptor, edge, limits).await;
    bound.map_err(|source| Failure::Listen { address, source })
}

/// Starts every serving thread but the first, which is ours.
fn start_threads(threads: usize, executor: &Arc<Executor<'static>>, ended: &Receiver<()>) {
    for number in 1..threads {
        let (executor, ended) = (Arc::clone(executor), ended.clone());
        let serve = move || {
            let _ended = smol::block_on(executor.run(ended.recv()));
        };
        let started = std::thread::Builder::new().name(format!("serve-{number}")).spawn(serve);
        if let Err(error) = started {
            log::warn!("serving thread {number} of {threads} not started: {error}");
        }
    }
}

fn warn_of_expiry(material: &Material, now: Wall) {
    let leaf = material.server_chain.first().and_then(|leaf| tls::validity(leaf));
    match leaf {
        Some(leaf) if leaf.is_expired_at(now.plus_s(EXPIRY_NOTICE_S)) => log::warn!(
            "the server certificate is good until {} only; `ca issue-server` makes another",
            leaf.not_after
        ),
        Some(_) => {}
        None => log::warn!("the server certificate names no validity period"),
    }
}
