//! Where an operator's command finds a node: see the help of `balsa`.

use std::path::Path;

use super::{Error, Global, serve};
use crate::client::endpoint::Source;
use crate::client::{Client, Endpoint, Endpoints};

/// Where operators are served, by what the arguments and the environment say; `client` is one of the clients' ports.
pub(super) async fn find(global: &Global, client: &Client, directory: &Path) -> Result<Endpoints, Error> {
    if let Some(socket) = &global.socket {
        let list = vec![Endpoint::Socket(directory.join(socket))];
        return Ok(Endpoints { list, source: Source::GivenToOperators });
    }
    if !global.peers.is_empty() {
        return Ok(Endpoints { list: global.peers.clone(), source: Source::GivenToOperators });
    }
    if !global.endpoints.is_empty() {
        return Ok(Endpoints { list: peers(client).await?, source: Source::Peers });
    }
    if let Some(local) = Endpoints::sockets(global.local_dir.as_deref(), directory)? {
        return Ok(local);
    }
    // The socket of the node that `balsa serve` would run here.
    let here = serve::Args::of_environment().configuration().map_err(|why| Error::NoNodeHere(why.to_string()))?;
    let list = vec![Endpoint::Socket(directory.join(here.node.socket))];
    Ok(Endpoints { list, source: Source::Configuration })
}

async fn peers(client: &Client) -> Result<Vec<Endpoint>, Error> {
    let peers = client.peers().await?;
    if peers.is_empty() { Err(Error::NoPeers) } else { Ok(peers) }
}
