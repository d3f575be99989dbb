//! A voter's answer to: could you run this module?
//!
//! There are two kinds of no. *Invalid* is the module's fault and the same on every node of this release: it refuses the
//! module for good. *Cannot here* is this node's: it is behind, out of memory, or cannot start a thread. That says nothing about the
//! module, so the leader asks again.

use std::time::{Duration, Instant};

use crate::ids::ModuleHash;
use crate::node::Node;
use crate::proto::peer::preflight_response::Verdict;
use crate::proto::peer::{PreflightRequest, PreflightResponse};

/// How long this node may take to apply the upload.
const CATCH_UP: Duration = Duration::from_secs(10);

impl Node {
    /// Checks and compiles an uploaded module; after a yes, its activation finds compiled code here.
    pub(in crate::node) async fn preflight_here(&self, request: PreflightRequest) -> PreflightResponse {
        PreflightResponse { verdict: Some(self.verdict(request).await) }
    }

    async fn verdict(&self, request: PreflightRequest) -> Verdict {
        let Ok(hash) = ModuleHash::try_from(&request.hash[..]) else {
            return Verdict::CannotHere("the hash asked for has not 32 bytes".into());
        };
        if let Err(error) = self.wait_published(request.index, Instant::now() + CATCH_UP).await {
            return Verdict::CannotHere(error.to_string());
        }
        match self.inner.compiler.load_stored(hash, &self.inner.reader).await {
            Ok(Some(_)) => Verdict::Ok(true),
            Ok(None) => Verdict::CannotHere("the module's bytes are not in its state".into()),
            Err(why) if why.is_of_this_node() => Verdict::CannotHere(why.to_string()),
            Err(why) => Verdict::Invalid(why.to_string()),
        }
    }
}
