//! The cluster's nodes, worked out from the templates: names, where each listens, how each is reached.
//!
//! **Listening and being reached are two things.** A node listens on an IP address and port (`client_addr`, `peer_addr`,
//! `http_addr`); others connect to a host and port (`advertise_client_addr`, `advertise_peer_addr`), which follow from the
//! listening address unless that is "every address" (`0.0.0.0`, `[::]`), which says nothing to others.
//!
//! Two nodes whose peers' addresses have the same host share that host, so their listeners must not collide. Nodes on hosts of
//! their own, as in Kubernetes, may all listen on the same port.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::Member;
use super::problem::{AddressFault, Findings, Problem};
use super::schema::{Key, REPLICAS_MAX};
use super::settings::{Origin, Settings, is_name};
use super::template::{Scope, Template};

/// A node as the templates describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Its number.
    pub ordinal: u32,
    /// Its name.
    pub name: String,
    /// Where it listens for clients.
    pub client_addr: SocketAddr,
    /// Where it listens for its peers.
    pub peer_addr: SocketAddr,
    /// Where it listens for probes and metrics.
    pub http_addr: SocketAddr,
    /// Its operators' socket.
    pub socket: PathBuf,
    /// How others reach it.
    pub member: Member,
}

/// Nodes that a cluster may ever have, those that operators add included: ordinals looked at to tell "a node of this cluster, but
/// beyond its replicas" from "a host with a name of its own".
const ORDINALS_MAX: u32 = 64;

const LISTENERS: [&str; 3] = ["node.client_addr", "node.peer_addr", "node.http_addr"];

/// The operators' socket in a data directory, unless it is somewhere else.
const SOCKET: &str = "balsa.sock";

/// Works out all nodes, and those up to the one that is called `own`, if that is beyond `replicas`. `None` if anything is
/// wrong, which is then among the findings.
///
/// A node beyond `replicas` is a node all the same: it was one before somebody lowered the number, or an operator adds it.
pub(super) fn sites(
    settings: &Settings,
    own: Option<&str>,
    directories: Option<&Template>,
    findings: &mut Findings,
) -> Option<Vec<Site>> {
    let names = names(settings, own, findings);
    let listen = LISTENERS.map(|path| settings.template(path, findings));
    let [client, peer] =
        ["node.advertise_client_addr", "node.advertise_peer_addr"].map(|path| settings.template(path, findings));
    let sockets = settings.template("node.socket", findings);
    let names = names?;
    let cluster = settings.text("cluster.name")?;
    let mut plan = Plan { settings, cluster, names: &names, findings };
    let [clients, peers, https] = [0, 1, 2].map(|at| plan.listen(LISTENERS[at], listen[at].as_ref()));
    let reach_clients = plan.reach("node.advertise_client_addr", client.as_ref(), "client_addr", clients.as_deref());
    let reach_peers = plan.reach("node.advertise_peer_addr", peer.as_ref(), "peer_addr", peers.as_deref());
    let (clients, peers, https) = (clients?, peers?, https?);
    let (reach_clients, reach_peers) = (reach_clients?, reach_peers?);
    let sockets = plan.sockets(sockets.as_ref(), directories?)?;
    let site = |at: usize| Site {
        ordinal: at as u32,
        name: names[at].clone(),
        client_addr: clients[at],
        peer_addr: peers[at],
        http_addr: https[at],
        socket: sockets[at].clone(),
        member: Member {
            ordinal: at as u32,
            name: names[at].clone(),
            client_addr: reach_clients[at].clone(),
            peer_addr: reach_peers[at].clone(),
        },
    };
    let sites: Vec<_> = (0..names.len()).map(site).collect();
    check_ports(&sites, settings, findings);
    check_reach(&sites, settings, findings);
    check_sockets(&sites, settings, findings);
    Some(sites)
}

/// The name that this process was given, or its host's.
pub(super) fn own_name<'a>(settings: &'a Settings, host: Option<&'a str>) -> Option<&'a str> {
    settings.text("node.name").or(host.map(without_domain))
}

/// The nodes' names, by ordinal.
fn names(settings: &Settings, own: Option<&str>, findings: &mut Findings) -> Option<Vec<String>> {
    const PATH: &str = "cluster.node_name";
    let template = settings.template(PATH, findings)?;
    let (cluster, replicas) = (settings.text("cluster.name")?, settings.number("cluster.replicas")?);
    let beyond = own.and_then(|own| all_names(settings).iter().position(|name| name == own)).map_or(0, |at| at + 1);
    let count = (replicas as u32).max(beyond as u32);
    let names: Vec<_> = (0..count).map(|ordinal| name(&template, cluster, ordinal)).collect();
    let key = settings.get(PATH).key;
    let problem = match names.iter().find(|name| !name.as_deref().is_ok_and(is_name)) {
        Some(Err(fault)) => Some(Problem::BadTemplate { key, fault: fault.clone() }),
        Some(Ok(bad)) => Some(Problem::BadName { key, value: bad.clone() }),
        None if replicas > 1 && template.is_constant() => {
            Some(Problem::SameName { replicas, name: names[0].clone().unwrap_or_default() })
        }
        None => None,
    };
    if let Some(problem) = problem {
        findings.push(problem, settings.blame(&[PATH, "cluster.name"]));
        return None;
    }
    names.into_iter().collect::<Result<_, _>>().ok()
}

/// The names that nodes of this cluster may have, by ordinal, also beyond `replicas`. A template without the ordinal names one.
pub(super) fn all_names(settings: &Settings) -> Vec<String> {
    let template = settings.text("cluster.node_name").and_then(|text| Template::parse(text).ok());
    let cluster = settings.text("cluster.name").unwrap_or_default();
    let Some(template) = template else { return Vec::new() };
    let count = if template.is_constant() { 1 } else { ORDINALS_MAX };
    (0..count).map_while(|ordinal| name(&template, cluster, ordinal).ok()).collect()
}

/// The nodes beyond `replicas`, as others would reach them: who was let in when that number was a higher one is to be found there, if
/// anywhere. Ordinals for which the templates have no address of their own are left out.
pub(super) fn beyond(settings: &Settings, sites: &[Site]) -> Vec<Member> {
    let template = |path| settings.text(path).and_then(|text| Template::parse(text).ok());
    let addresses = |advertised, listening| template(advertised).or_else(|| template(listening));
    let clients = addresses("node.advertise_client_addr", "node.client_addr");
    let peers = addresses("node.advertise_peer_addr", "node.peer_addr").filter(|template| !template.is_constant());
    let (Some(clients), Some(peers)) = (clients, peers) else { return Vec::new() };
    let cluster = settings.text("cluster.name").unwrap_or_default();
    let replicas = settings.number("cluster.replicas").unwrap_or(REPLICAS_MAX);
    let names = all_names(settings).into_iter().zip(0..).take(REPLICAS_MAX as usize).skip(replicas as usize);
    let member = |(name, ordinal): (String, u32)| {
        let reach = |template: &Template| {
            let text = template.evaluate(Scope { ordinal, name: Some(&name), cluster }).ok()?;
            reach_address(&text).ok()
        };
        let (client_addr, peer_addr) = (reach(&clients)?, reach(&peers)?);
        Some(Member { ordinal, name, client_addr, peer_addr })
    };
    let has_its_own = |member: &Member| !sites.iter().any(|site| site.member.peer_addr == member.peer_addr);
    names.filter_map(member).filter(has_its_own).collect()
}

fn name(template: &Template, cluster: &str, ordinal: u32) -> Result<String, super::template::Fault> {
    template.evaluate(Scope { ordinal, name: None, cluster })
}

/// Which of the nodes this is: the one that was named, else the one the host is named after, else (in a cluster of one, or
/// when no host is asked for) the first.
pub(super) fn identify(
    settings: &Settings,
    sites: &[Site],
    host: Option<&str>,
    findings: &mut Findings,
) -> Option<u32> {
    let given = settings.text("node.name");
    if given.is_none() && settings.is_set("node.name") {
        return None;
    }
    let Some(wanted) = given.or(host.map(without_domain)) else { return Some(0) };
    if let Some(site) = sites.iter().find(|site| site.name == wanted) {
        return Some(site.ordinal);
    }
    if given.is_none() && sites.len() == 1 {
        return Some(0);
    }
    let problem = Problem::NotInCluster { name: wanted.to_owned(), nodes: listed(sites), from_host: given.is_none() };
    let place = settings.blame(&["node.name"]).or_else(|| settings.blame(&["cluster.replicas", "cluster.node_name"]));
    findings.push(problem, place);
    None
}

/// The first label: some hosts know themselves as `balsa-0.example.org`.
fn without_domain(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

fn listed(sites: &[Site]) -> String {
    let names: Vec<_> = sites.iter().map(|site| site.name.as_str()).collect();
    names.join(", ")
}

/// What the addresses are worked out from.
struct Plan<'a> {
    settings: &'a Settings,
    cluster: &'a str,
    names: &'a [String],
    findings: &'a mut Findings,
}

impl Plan<'_> {
    fn listen(&mut self, path: &'static str, template: Option<&Template>) -> Option<Vec<SocketAddr>> {
        self.each(path, template?, listen_address)
    }

    /// How the nodes are reached: as the file says, else where they listen.
    fn reach(
        &mut self,
        path: &'static str,
        template: Option<&Template>,
        listen: &'static str,
        listening: Option<&[SocketAddr]>,
    ) -> Option<Vec<String>> {
        if let Some(template) = template {
            return self.each(path, template, reach_address);
        }
        if self.settings.is_set(path) {
            return None;
        }
        let listening = listening?;
        if let Some(every) = listening.iter().find(|addr| addr.ip().is_unspecified()) {
            let advertise = self.settings.get(path).key.name();
            let problem = Problem::NotReachable { listen, advertise, port: every.port() };
            self.findings.push(problem, self.settings.blame(&[&format!("node.{listen}")]));
            return None;
        }
        Some(listening.iter().map(SocketAddr::to_string).collect())
    }

    /// Where each node's operators find it.
    fn sockets(&mut self, template: Option<&Template>, directories: &Template) -> Option<Vec<PathBuf>> {
        let settings = self.settings;
        let (path, template, name) = match template {
            Some(template) => ("node.socket", template, None),
            None if settings.is_set("node.socket") => return None,
            None => ("node.data_dir", directories, Some(SOCKET)),
        };
        let place = |text: &str| {
            let place = settings.resolve(settings.get(path), text);
            Ok(name.map_or(place.clone(), |name| place.join(name)))
        };
        self.each(path, template, place)
    }

    /// The template's value for each node; only the first node's error is reported, since the others' are the same.
    fn each<T>(
        &mut self,
        path: &'static str,
        template: &Template,
        parse: impl Fn(&str) -> Result<T, AddressFault>,
    ) -> Option<Vec<T>> {
        let key = self.settings.get(path).key;
        let one = |(ordinal, name): (usize, &String)| {
            let scope = Scope { ordinal: ordinal as u32, name: Some(name), cluster: self.cluster };
            let text = template.evaluate(scope).map_err(|_| (String::new(), AddressFault::TooLarge));
            let parsed = text.and_then(|text| parse(&text).map_err(|fault| (text, fault)));
            parsed.map_err(|(value, fault)| Problem::BadAddress { key, value, node: name.clone(), fault })
        };
        let all: Result<_, _> = self.names.iter().enumerate().map(one).collect();
        all.map_err(|problem| self.findings.push(problem, self.settings.blame(&[path]))).ok()
    }
}

fn split(text: &str) -> Result<(&str, u16), AddressFault> {
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(AddressFault::Scheme(format!("{scheme}://")));
    }
    if text.matches(':').count() > 1 && !text.starts_with('[') {
        return Err(AddressFault::Unbracketed);
    }
    let (host, port) = text.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).ok_or(AddressFault::NoPort)?;
    let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or(AddressFault::BadPort)?;
    if host.is_empty() { Err(AddressFault::NoHost) } else { Ok((host, port)) }
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn listen_address(text: &str) -> Result<SocketAddr, AddressFault> {
    let (host, _) = split(text)?;
    text.parse().map_err(|_| AddressFault::NotAnIp(host.to_owned()))
}

fn reach_address(text: &str) -> Result<String, AddressFault> {
    let (host, _) = split(text)?;
    match bare(host).parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(AddressFault::Unspecified(ip.to_string())),
        Ok(_) => Ok(text.to_owned()),
        Err(_) if is_host(host) => Ok(text.to_owned()),
        Err(_) => Err(AddressFault::BadHost(host.to_owned())),
    }
}

/// A DNS name, also one that ends in a dot.
fn is_host(host: &str) -> bool {
    let label = |label: &str| (1..=63).contains(&label.len()) && is_name(label);
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// One listener, for comparing.
struct Listener<'a> {
    site: &'a Site,
    path: &'static str,
    addr: SocketAddr,
}

impl Listener<'_> {
    fn collides(&self, other: &Self) -> bool {
        let one_host = host_of(&self.site.member.peer_addr) == host_of(&other.site.member.peer_addr);
        let one_ip =
            self.addr.ip() == other.addr.ip() || self.addr.ip().is_unspecified() || other.addr.ip().is_unspecified();
        one_host && one_ip && self.addr.port() == other.addr.port()
    }

    fn describe(&self) -> String {
        let key = self.path.trim_start_matches("node.");
        format!("{key} of {} is {}", self.site.name, self.addr)
    }
}

fn listeners(site: &Site) -> impl Iterator<Item = Listener<'_>> {
    let addrs = [site.client_addr, site.peer_addr, site.http_addr];
    LISTENERS.into_iter().zip(addrs).map(move |(path, addr)| Listener { site, path, addr })
}

/// Two listeners of one host on one port; each pair of keys is reported once.
fn check_ports(sites: &[Site], settings: &Settings, findings: &mut Findings) {
    let all: Vec<_> = sites.iter().flat_map(listeners).collect();
    let mut reported = BTreeSet::new();
    for (at, second) in all.iter().enumerate() {
        for first in all[..at].iter().filter(|first| first.collides(second)) {
            let same_node = first.site.ordinal == second.site.ordinal;
            let mut pair = [first.path, second.path];
            pair.sort_unstable();
            if !reported.insert(pair) {
                continue;
            }
            let problem = Problem::PortUsedTwice {
                port: second.addr.port(),
                first: first.describe(),
                second: second.describe(),
                same_node,
            };
            findings.push(problem, settings.blame(&[second.path, first.path, "cluster.replicas"]));
        }
    }
}

/// Two nodes of one host on one socket, that a file names: two that share a directory are warned of already.
fn check_sockets(sites: &[Site], settings: &Settings, findings: &mut Findings) {
    let is_same = |first: &Site, second: &Site| {
        first.socket == second.socket && host_of(&first.member.peer_addr) == host_of(&second.member.peer_addr)
    };
    let twice = sites.iter().enumerate().find_map(|(at, second)| {
        let first = sites[..at].iter().find(|first| is_same(first, second))?;
        Some((first, second))
    });
    if let Some((first, second)) = twice.filter(|_| settings.is_set("node.socket")) {
        let socket = first.socket.display().to_string();
        let problem = Problem::SocketTwice { first: first.name.clone(), second: second.name.clone(), socket };
        findings.push(problem, settings.blame(&["node.socket"]));
    }
}

/// Two nodes of one host in one directory. Only a warning: each may be given another one when it is started.
pub(super) fn check_directories(sites: &[Site], template: &Template, settings: &Settings, findings: &mut Findings) {
    let host = |site: &Site| host_of(&site.member.peer_addr).to_owned();
    let pairs = sites.iter().enumerate().flat_map(|(at, second)| sites[..at].iter().map(move |first| (first, second)));
    let Some((first, second)) = pairs.into_iter().find(|(first, second)| host(first) == host(second)) else { return };
    if template.is_constant() && !matches!(settings.get("node.data_dir").origin, Origin::Argument(_)) {
        let directory = settings.text("node.data_dir").unwrap_or_default().to_owned();
        let (first, second) = (first.name.clone(), second.name.clone());
        findings.push(Problem::SharedDirectory { first, second, directory }, settings.blame(&["node.data_dir"]));
    }
}

/// Two nodes that others would reach at one address. Addresses that follow from the listeners were compared above.
fn check_reach(sites: &[Site], settings: &Settings, findings: &mut Findings) {
    type Address = fn(&Member) -> &str;
    let keys: [(&str, Address); 2] = [
        ("node.advertise_client_addr", |member| &member.client_addr),
        ("node.advertise_peer_addr", |member| &member.peer_addr),
    ];
    for (path, address) in keys.into_iter().filter(|(path, _)| settings.is_set(path)) {
        let key: &'static Key = settings.get(path).key;
        let twice = sites.iter().enumerate().find_map(|(at, second)| {
            let first = sites[..at].iter().find(|first| address(&first.member) == address(&second.member))?;
            Some((first, second))
        });
        if let Some((first, second)) = twice {
            let value = address(&first.member).to_owned();
            let problem =
                Problem::AdvertisedTwice { key, value, first: first.name.clone(), second: second.name.clone() };
            findings.push(problem, settings.blame(&[path]));
        }
    }
}
