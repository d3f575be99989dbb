//! The labels. Each has few values: methods and modules of the catalog, members, gRPC codes, and fixed words.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use tonic::Code;

use crate::command::code_name;

/// A method of a module.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MethodLabels {
    /// `kvstore`
    pub module: String,
    /// `kvstore.v1.KvStore/Put`
    pub method: String,
}

/// How calls of a method ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabels {
    /// `kvstore`
    pub module: String,
    /// `kvstore.v1.KvStore/Put`
    pub method: String,
    /// A gRPC code in its usual spelling, `OK` or `NOT_FOUND`.
    pub code: CodeLabel,
}

/// A gRPC code as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodeLabel(pub Code);

impl EncodeLabelValue for CodeLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        code_name(self.0).encode(encoder)
    }
}

/// One of [`super::ROLES`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RoleLabels {
    /// `leader`
    pub role: &'static str,
}

/// `log`, `state` or `incoming`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreLabels {
    /// `log`
    pub store: &'static str,
}

/// `memory` or `disk`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabels {
    /// `memory`
    pub source: &'static str,
}

/// `commands`, `queries` or `streams`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueueLabels {
    /// `commands`
    pub queue: &'static str,
}

/// One of the checks of `/readyz?verbose`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CheckLabels {
    /// `leader_known`
    pub check: &'static str,
}

/// Another member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PeerLabels {
    /// Its name.
    pub peer: String,
}

/// A module as it serves, or as this node's files want it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ModuleLabels {
    /// Its name.
    pub module: String,
    /// The first 12 hex digits of its hash; `embedded` for a wish for the module in the binary.
    pub hash: String,
}

/// A module whose files ask for what was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    /// Its name.
    pub module: String,
    /// What refused it: `check`, a refusal of the log, or the class of a trap; `balsa status` has the words.
    pub by: &'static str,
}

/// What this binary is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BuildLabels {
    /// `0.1.0`
    pub version: &'static str,
    /// The processor it was built for.
    pub arch: &'static str,
}
