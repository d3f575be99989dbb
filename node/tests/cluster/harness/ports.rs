//! Ports that are a test's own.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// The first of so many ports that nobody has, outside of the range from which the system takes ports for connections: a node's
/// port must still be free when the node comes back.
pub(crate) fn free_ports(count: u16) -> u16 {
    assert!(count <= PORTS);
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let tries = std::iter::repeat_with(|| 10_000 + rand::random::<u16>() % 1_000 * PORTS);
    let mut free = tries.take(1000).filter(|base| (*base..base + count).all(is_free));
    free.find(|base| reserve(*base)).expect("some ports are free")
}

/// So many follow on one another.
const PORTS: u16 = 20;

/// Whether these ports, from `base` on, are nobody else's until this process ends: neither a cluster's that is about to start or has a node
/// down, nor those of other tests on this machine. Whoever takes ports here has the UDP port of the first, which nobody needs.
pub(crate) fn reserve(base: u16) -> bool {
    static TAKEN: parking_lot::Mutex<Vec<UdpSocket>> = parking_lot::Mutex::new(Vec::new());
    UdpSocket::bind((Ipv4Addr::LOCALHOST, base)).is_ok_and(|socket| {
        TAKEN.lock().push(socket);
        true
    })
}
