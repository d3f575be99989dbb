//! A fake cluster: nodes that share one map, speak `kvstore.v1` and `balsa.admin.v1`, and can be told to misbehave.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use tokio::runtime::Runtime;
use tonic::{Code, Status};

use crate::client::fake::{Answer, Asked, FakeNode, refuse, reply, stream};
use crate::proto::admin::{
    BackupChunk, Change, DeepCheckRequest, DeepCheckResponse, IndexDigest, ModuleDropRequest, ModuleDropResponse,
    ModuleHistoryRequest, ModuleHistoryResponse, ModuleRetryRequest, ModuleRetryResponse, ModuleStatus, NodeStatus,
    StatusResponse, Wish,
};
use crate::proto::command::Activation;
use crate::proto::kvstore::put_request::Condition;
use crate::proto::kvstore::*;

/// Keys of one page: few, so that there are pages.
const PAGE: usize = 2;

/// What all nodes share.
#[derive(Default)]
pub(super) struct Cluster {
    data: BTreeMap<Bytes, KeyValue>,
    index: u64,
    addresses: Vec<String>,
    /// The node that answers with wrong values.
    pub(super) lying: Option<usize>,
    /// The node whose digest is another one.
    pub(super) diverged: Option<usize>,
    pub(super) unreachable: Vec<usize>,
    pub(super) warnings: Vec<String>,
    /// Told of the first node.
    pub(super) problems: Vec<String>,
    pub(super) restart_for: Vec<String>,
    pub(super) changes: Vec<Change>,
    /// What each node's files ask for.
    pub(super) wishes: Vec<Wish>,
    pub(super) history: Vec<Activation>,
    /// Another module than the key/value store serves.
    pub(super) no_store: bool,
    /// The stream of a backup.
    pub(super) snapshot: Vec<Bytes>,
    /// What a push is answered with.
    pub(super) pushed: Option<Box<dyn Fn() -> Answer + Send>>,
}

/// Fake nodes, on a runtime of their own.
pub(super) struct FakeCluster {
    nodes: Vec<Option<FakeNode>>,
    shared: Arc<Mutex<Cluster>>,
    _runtime: Runtime,
}

pub(super) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

impl FakeCluster {
    /// `size` nodes that work.
    pub(super) fn of(size: usize) -> Self {
        let runtime = runtime();
        let shared = Arc::new(Mutex::new(Cluster::default()));
        let start = |at: usize| {
            let shared = Arc::clone(&shared);
            runtime.block_on(FakeNode::start(move |asked| shared.lock().answer(at, asked)))
        };
        let nodes: Vec<_> = (0..size).map(start).collect();
        shared.lock().addresses = nodes.iter().map(|node| node.endpoint().to_string()).collect();
        Self { nodes: nodes.into_iter().map(Some).collect(), shared, _runtime: runtime }
    }

    /// One node that answers with what `script` makes of a call.
    pub(super) fn saying(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let runtime = runtime();
        let node = runtime.block_on(FakeNode::start(script));
        Self { nodes: vec![Some(node)], shared: Arc::default(), _runtime: runtime }
    }

    pub(super) fn endpoints(&self) -> String {
        let each = self.nodes.iter().flatten().map(|node| node.endpoint().to_string());
        each.collect::<Vec<_>>().join(",")
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.nodes.iter().flatten().flat_map(FakeNode::asked).collect()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Cluster)) {
        change(&mut self.shared.lock());
    }

    pub(super) fn stop(&mut self, node: usize) {
        self.nodes[node] = None;
    }

    /// `text` with a fixed port for each node, as wide as a real one.
    pub(super) fn without_ports(&self, text: &str) -> String {
        let addresses = self.shared.lock().addresses.clone();
        let with_fixed =
            |text: String, (at, address): (usize, &String)| text.replace(address, &format!("127.0.0.1:6000{at}"));
        addresses.iter().enumerate().fold(text.to_owned(), with_fixed)
    }
}

impl Cluster {
    fn answer(&mut self, node: usize, asked: &Asked) -> Answer {
        let message = asked.message.clone();
        if self.no_store && asked.path.contains("kvstore.v1") {
            return Err(refuse(Code::Unimplemented, "UNKNOWN_METHOD", &[]));
        }
        match asked.path.rsplit('/').next().unwrap() {
            "Put" => self.put(PutRequest::decode(message).unwrap()),
            "Get" => self.get(node, &GetRequest::decode(message).unwrap()),
            "Delete" => self.delete(&DeleteRequest::decode(message).unwrap()),
            "DeleteRange" => self.delete_range(&DeleteRangeRequest::decode(message).unwrap()),
            "List" => self.list(&ListRequest::decode(message).unwrap()),
            "Status" => self.reply(&self.status(node)),
            "ModuleHistory" => {
                let name = ModuleHistoryRequest::decode(message).unwrap().name;
                let activations = self.history.iter().filter(|row| name.is_empty() || row.name == name).cloned();
                self.reply(&ModuleHistoryResponse { activations: activations.collect() })
            }
            "ModuleRetry" => {
                let request = ModuleRetryRequest::decode(message).unwrap();
                let names = self.changes.iter().map(|change| change.name.clone());
                let named = |name: &String| request.name.is_empty() || *name == request.name;
                self.reply(&ModuleRetryResponse { retried: names.filter(named).collect() })
            }
            "ModuleDrop" => match ModuleDropRequest::decode(message).unwrap().name.as_str() {
                "kvstore" => Err(Status::failed_precondition("kvstore serves")),
                _ => self.reply(&ModuleDropResponse { rows: 7 }),
            },
            "ModulePush" => self.pushed.as_ref().expect("a test that pushes says how it ends")(),
            "Backup" => stream(self.snapshot.iter().map(|data| BackupChunk { data: data.clone() })),
            "DeepCheck" => self.reply(&self.deep_check(node, &DeepCheckRequest::decode(message).unwrap())),
            other => Err(Status::unimplemented(other)),
        }
    }

    fn reply(&self, response: &impl Message) -> Answer {
        reply(response.encode_to_vec(), self.index)
    }

    fn put(&mut self, request: PutRequest) -> Answer {
        let old = self.data.get(&request.key).cloned();
        let succeeded = request.condition.is_none_or(|condition| holds(&condition, old.as_ref()));
        let mut now = old.clone().unwrap_or_default();
        if succeeded {
            self.index += 1;
            let create_index = if now.version == 0 { self.index } else { now.create_index };
            let (version, mod_index) = (now.version + 1, self.index);
            now = KeyValue { key: request.key.clone(), value: request.value, version, create_index, mod_index };
            self.data.insert(request.key, now.clone());
        }
        self.reply(&PutResponse {
            succeeded,
            version: now.version,
            create_index: now.create_index,
            mod_index: now.mod_index,
            prev_kv: old.filter(|_| request.prev_kv),
        })
    }

    fn get(&self, node: usize, request: &GetRequest) -> Answer {
        let mut kv = self.data.get(&request.key).cloned();
        if self.lying == Some(node) {
            kv.iter_mut().for_each(|kv| kv.value = "lies".into());
        }
        self.reply(&GetResponse { kv })
    }

    fn delete(&mut self, request: &DeleteRequest) -> Answer {
        self.index += 1;
        let old = self.data.remove(&request.key);
        self.reply(&DeleteResponse { deleted: old.is_some(), prev_kv: old.filter(|_| request.prev_kv) })
    }

    fn delete_range(&mut self, request: &DeleteRangeRequest) -> Answer {
        self.index += 1;
        let all: Vec<_> = self.data.keys().filter(|key| key.starts_with(&request.prefix)).cloned().collect();
        all.iter().take(PAGE).for_each(|key| drop(self.data.remove(key)));
        self.reply(&DeleteRangeResponse { deleted: all.len().min(PAGE) as u64, more: all.len() > PAGE })
    }

    /// A token is the last key of the page before.
    fn list(&self, request: &ListRequest) -> Answer {
        let in_range = |key: &&Bytes| key.starts_with(&request.prefix) && **key > request.page_token;
        let all: Vec<_> = self.data.keys().filter(in_range).collect();
        let limit = if request.limit == 0 { PAGE } else { PAGE.min(request.limit as usize) };
        let kvs: Vec<_> = all.iter().take(limit).map(|key| self.data[*key].clone()).collect();
        let more = all.len() > kvs.len();
        let next_page_token = kvs.last().filter(|_| more).map(|kv| kv.key.clone()).unwrap_or_default();
        self.reply(&ListResponse { kvs, next_page_token })
    }

    fn digest(&self, node: usize) -> Bytes {
        let differs = u8::from(self.diverged == Some(node));
        vec![0xd0 | differs; 32].into()
    }

    fn status(&self, node: usize) -> StatusResponse {
        let nodes = (0..self.addresses.len()).map(|at| self.node_status(at)).collect();
        let answered_by = format!("balsa-{node}");
        let warnings = self.warnings.clone();
        StatusResponse { cluster_id: "c0ffee".into(), answered_by, nodes, warnings, changes: self.changes.clone() }
    }

    fn node_status(&self, node: usize) -> NodeStatus {
        let name = format!("balsa-{node}");
        let client_addr = self.addresses[node].clone();
        if self.unreachable.contains(&node) {
            return NodeStatus { name, client_addr, ..Default::default() };
        }
        let module = ModuleStatus {
            name: "kvstore".into(),
            version: "0.1.0".into(),
            hash: vec![0xab; 32].into(),
            ..Default::default()
        };
        NodeStatus {
            // It serves operators where it serves clients.
            peer_addr: client_addr.clone(),
            name,
            client_addr,
            id: node as u64 + 1,
            reachable: true,
            role: if node == 0 { "leader" } else { "follower" }.into(),
            term: 2,
            last_index: self.index,
            committed_index: self.index,
            applied_index: self.index,
            digest: self.digest(node),
            digest_index: self.index,
            modules: vec![module],
            problems: if node == 0 { self.problems.clone() } else { Vec::new() },
            restart_for: if node == 0 { self.restart_for.clone() } else { Vec::new() },
            wish: self.wishes.get(node).cloned(),
            recent: vec![IndexDigest { index: self.index, digest: self.digest(node) }],
            ..Default::default()
        }
    }

    fn deep_check(&self, node: usize, request: &DeepCheckRequest) -> DeepCheckResponse {
        assert_eq!(request.index, self.index, "nothing happens here but what the check writes");
        let digest = self.digest(node);
        DeepCheckResponse { index: self.index, hash: digest.clone(), digest, keys: self.data.len() as u64, bytes: 9 }
    }
}

fn holds(condition: &Condition, kv: Option<&KeyValue>) -> bool {
    match condition {
        Condition::IfAbsent(absent) => kv.is_none() == *absent,
        Condition::IfValue(value) => kv.is_some_and(|kv| kv.value == *value),
        Condition::IfVersion(version) => kv.map_or(0, |kv| kv.version) == *version,
        Condition::IfModIndex(index) => kv.map_or(0, |kv| kv.mod_index) == *index,
    }
}
