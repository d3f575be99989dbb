//! The last node of a lost majority: nothing is changed unless somebody means it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;

use super::*;
use crate::ids::NodeId;
use crate::log_store::{LogStore, Options};
use crate::meta::Meta;
use crate::raft::codec::log_id;
use crate::raft::types::{Entry, Member, Membership, TypeConfig};
use crate::storage::{Fence, Files};

/// The data directory of `balsa-0`, one of two voters.
fn survivor() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let arguments = ["restore", "b", "--name", "balsa-0", "--data-dir", dir.to_str().unwrap()];
    Shell::new(&arguments).file("b", &rehearsal::backup()).run().exits(Exit::Ok);
    let own = Meta::open(dir, "balsa-0").unwrap().node_id;
    let member = |name: &str| Member { name: name.into(), peer_addr: "127.0.0.1:1".into(), ..Member::default() };
    let nodes = BTreeMap::from([(own, member("balsa-0")), (NodeId(7), member("balsa-1"))]);
    let both = Membership::new(vec![nodes.keys().copied().collect()], nodes).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut log = LogStore::open(&dir.join("log"), Options::default()).unwrap();
        let last = log.get_log_state().await.unwrap().last_log_id.unwrap();
        let next = log_id(last.committed_leader_id().term, last.index + 1);
        let (sender, done) = TypeConfig::oneshot();
        let entry = Entry::new(next, EntryPayload::Membership(both));
        log.append([entry], IOFlushed::signal(sender)).await.unwrap();
        done.await.unwrap().unwrap();
    });
    directory
}

fn recover(dir: &Path, more: &[&str]) -> Shell {
    let arguments = ["recover", "--name", "balsa-0", "--data-dir", dir.to_str().unwrap()];
    Shell::new(&[&arguments, more].concat())
}

fn identity(dir: &Path) -> String {
    fs::read_to_string(dir.join("node.meta")).unwrap()
}

#[test]
fn a_node_is_recovered_if_somebody_types_its_name() {
    let directory = survivor();
    let (dir, before) = (directory.path(), identity(directory.path()));
    let ran = recover(dir, &[]).terminal().stdin(b"balsa-0\n").run().exits(Exit::Ok);
    assert!(ran.err.ends_with("To go on, type the node's name, balsa-0: "), "{}", ran.err);
    assert!(ran.text().starts_with("balsa-0 is the only voter of cluster "), "{}", ran.text());
    assert_ne!(identity(dir), before);
    let ran = recover(dir, &[]).terminal().stdin(b"balsa-0\n").run().exits(Exit::Usage);
    assert!(ran.err.contains("is the only voter of its cluster already"), "{}", ran.err);
}

#[test]
fn another_answer_or_none_changes_nothing() {
    let directory = survivor();
    let (dir, before) = (directory.path(), identity(directory.path()));
    for answer in ["balsa-1\n", "yes\n", "BALSA-0\n", "\n", ""] {
        let ran = recover(dir, &[]).terminal().stdin(answer.as_bytes()).run().exits(Exit::No);
        assert!(ran.err.ends_with("nothing was changed\n") && ran.out.is_empty(), "{answer:?}: {}", ran.err);
    }
    // At no terminal nobody means what is in a pipe.
    let ran = recover(dir, &[]).stdin(b"balsa-0\n").run().exits(Exit::Usage);
    assert!(ran.err.contains("nobody is at a terminal"), "{}", ran.err);
    assert_eq!(identity(dir), before);
    recover(dir, &["--yes"]).run().exits(Exit::Ok);
    assert_ne!(identity(dir), before);
}

#[test]
fn a_person_is_told_what_is_given_up_before_the_question_in_whatever_form_the_result_is() {
    let directory = survivor();
    for more in [&[][..], &["-o", "json"]] {
        let ran = recover(directory.path(), more).terminal().stdin(b"no\n").run().exits(Exit::No);
        let (told, asked) = (ran.err.find("Given up: every entry after"), ran.err.find("To go on, type"));
        assert!(told.is_some() && told < asked, "{}", ran.err);
        // By which several survivors are compared; a longer log may be one of an earlier term.
        assert!(
            ran.err.contains(" of term 1; it knows that index ") && ran.err.contains("ends in the highest term"),
            "{}",
            ran.err
        );
    }
    let ran = recover(directory.path(), &["-o", "json", "--yes"]).run().exits(Exit::Ok);
    assert_eq!((ran.json()["name"].as_str(), &*ran.err), (Some("balsa-0"), ""));
    assert_eq!(ran.json()["last_term"], 1);
}

#[test]
fn who_has_nothing_that_a_cluster_could_be_made_of_is_refused() {
    let directory = survivor();
    let (dir, before) = (directory.path(), identity(directory.path()));
    Fence::new(Arc::new(Files), dir).set("its state differs").unwrap();
    let ran = recover(dir, &["--yes"]).run().exits(Exit::Usage);
    assert!(ran.err.contains("its state differs"), "{}", ran.err);
    assert_eq!(identity(dir), before);

    // It was never a member: it has a cluster, and a log that says nothing of it.
    let directory = survivor();
    let dir = directory.path();
    let own = Meta::open(dir, "balsa-0").unwrap().node_id;
    let other = identity(dir).replace(&own.to_string(), &NodeId(8).to_string());
    fs::write(dir.join("node.meta"), &other).unwrap();
    let ran = recover(dir, &["--yes"]).run().exits(Exit::Usage);
    assert!(ran.err.contains("0000000000000008"), "{}", ran.err);
    assert_eq!(identity(dir), other);
}
