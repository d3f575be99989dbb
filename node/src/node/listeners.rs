//! The ports of a node, before anybody is served there.
//!
//! All are bound before anything is opened: two nodes on one address are found out before they share a directory. Peers and probes may
//! connect from then on, and wait for what they ask. Clients may not. To open a long log takes minutes, and a client that is refused
//! goes on to another node at once, where one that the kernel lets in waits for an answer until it gives up.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::Error;
use crate::config;

/// Connections that wait to be accepted; as many as tokio has for a listener that it makes by itself.
const BACKLOG: u32 = 1024;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) client: Bound,
    pub(super) peer: TcpListener,
    pub(super) http: TcpListener,
}

impl Listeners {
    pub(super) fn bind(node: &config::Node) -> Result<Self, Error> {
        let client = Bound::new("clients", node.client_addr, "client_addr")?;
        let peer = Bound::new("peers", node.peer_addr, "peer_addr")?;
        let http = Bound::new("probes and metrics", node.http_addr, "http_addr")?;
        Ok(Self { client, peer: peer.listen()?, http: http.listen()? })
    }
}

/// A port that is ours, and refuses connections as yet.
#[derive(Debug)]
pub(super) struct Bound {
    socket: TcpSocket,
    what: &'static str,
    addr: SocketAddr,
    key: &'static str,
}

impl Bound {
    fn new(what: &'static str, addr: SocketAddr, key: &'static str) -> Result<Self, Error> {
        let bind = || {
            let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // Connections of the process that was here before may not be forgotten yet.
            socket.set_reuseaddr(true)?;
            socket.bind(addr)?;
            Ok(socket)
        };
        let socket = bind().map_err(|source| Error::Listen { what, addr, key, source })?;
        Ok(Self { socket, what, addr, key })
    }

    /// Lets connections in. Of two that bound one port before either listened, the second is told here that it is in use.
    pub(super) fn listen(self) -> Result<TcpListener, Error> {
        let Self { socket, what, addr, key } = self;
        socket.listen(BACKLOG).map_err(|source| Error::Listen { what, addr, key, source })
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, TcpListener as StdListener};
    use std::time::Duration;

    use tokio::net::TcpStream;

    use super::*;

    /// One on this host, whose ports are for the system to choose.
    fn node() -> config::Node {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config::Node {
            ordinal: 0,
            name: "balsa-0".into(),
            data_dir: "data".into(),
            client_addr: any,
            peer_addr: any,
            http_addr: any,
            socket: "balsa.sock".into(),
            query_threads: 1,
            connection_age: None,
            drain_wait: Duration::ZERO,
        }
    }

    #[tokio::test]
    async fn clients_are_refused_until_they_are_served_and_all_others_may_wait() {
        let Listeners { client, peer, http } = Listeners::bind(&node()).unwrap();
        let addr = client.socket.local_addr().unwrap();
        assert_eq!(TcpStream::connect(addr).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        for waiting in [peer.local_addr(), http.local_addr()] {
            TcpStream::connect(waiting.unwrap()).await.unwrap();
        }
        let client = client.listen().unwrap();
        let (came, accepted) = tokio::join!(TcpStream::connect(addr), client.accept());
        assert_eq!(came.unwrap().local_addr().unwrap(), accepted.unwrap().1);
    }

    #[tokio::test]
    async fn a_port_that_somebody_listens_on_is_found_out_at_once_with_the_key_that_sets_it() {
        let other = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = other.local_addr().unwrap();
        let at = |change: fn(&mut config::Node, SocketAddr)| {
            let mut node = node();
            change(&mut node, addr);
            Listeners::bind(&node).unwrap_err().to_string()
        };
        let errors = [
            at(|node, addr| node.client_addr = addr),
            at(|node, addr| node.peer_addr = addr),
            at(|node, addr| node.http_addr = addr),
        ];
        for (error, key) in errors.iter().zip(["client_addr", "peer_addr", "http_addr"]) {
            assert!(error.contains(&addr.to_string()) && error.contains("in use"), "{error}");
            assert!(error.contains(&format!("is another node running? `{key}` in [node]")), "{error}");
        }
    }

    #[tokio::test]
    async fn of_two_nodes_that_start_at_one_port_for_clients_the_second_is_told_the_same() {
        let first = Bound::new("clients", node().client_addr, "client_addr").unwrap();
        let addr = first.socket.local_addr().unwrap();
        // Whether it is found out now or when it listens is for the system to say.
        let second = Bound::new("clients", addr, "client_addr");
        let _listens = first.listen().unwrap();
        let error = second.and_then(Bound::listen).unwrap_err().to_string();
        assert!(error.contains(&format!("cannot listen on {addr} for clients")) && error.contains("in use"), "{error}");
    }
}
