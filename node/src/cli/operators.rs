//! Where an operator's command finds a node: see the help of `balsa`.

use std::path::Path;

use super::{Error, Global};
use crate::client::endpoint::Source;
use crate::client::{Client, Endpoint, Endpoints};
use crate::config::{self, Overrides, Recipe};

/// The variable that names the configuration of the node that runs here.
pub(super) const CONFIG: &str = "BALSA_CONFIG";

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
    let list = vec![Endpoint::Socket(directory.join(of_node_here()?))];
    Ok(Endpoints { list, source: Source::Configuration })
}

async fn peers(client: &Client) -> Result<Vec<Endpoint>, Error> {
    let peers = client.peers().await?;
    if peers.is_empty() { Err(Error::NoPeers) } else { Ok(peers) }
}

/// The socket of the node that `balsa serve` would run here.
fn of_node_here() -> Result<std::path::PathBuf, Error> {
    let args = Overrides { host_name: config::host_name(), ..Overrides::default() };
    let path = std::env::var_os(CONFIG).map(Into::into);
    let recipe = Recipe { path, args, env: config::environment().collect() };
    let loaded = recipe.settings().map_err(|errors| Error::NoNodeHere(errors.to_string().trim_end().to_owned()))?;
    Ok(loaded.config.node.socket)
}
