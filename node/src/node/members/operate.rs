//! What operators ask for: a node more or less, a learner made a voter, another leader. All of it is the leader's to do; whoever is
//! asked passes it on, and tries again where another leads by now.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use openraft::async_runtime::WatchReceiver;

use super::Node;
use super::admit::NotAdded;
use super::decide::{Seen, Sight, Step};
use crate::ids::NodeId;
use crate::node::Leader;
use crate::proto::admin::{self, member_change::Kind};
use crate::proto::peer as pb;
use crate::raft::bootstrap::who_is_at;
use crate::raft::peers::Purpose;
use crate::raft::types::{Member, StoredMembership};
use crate::service::ServiceError;

/// How long a change may take with all attempts.
const PATIENCE: Duration = Duration::from_secs(9);
/// How long one attempt may.
const ATTEMPT: Duration = Duration::from_secs(8);
/// Between two.
const PAUSE: Duration = Duration::from_millis(200);
/// How long those who answer may take to catch up with the log as it is when an operator asks.
const SETTLE: Duration = Duration::from_secs(3);
/// Within this time everybody who wants to be let in has asked whoever leads.
const CANDIDATES: Duration = Duration::from_secs(5);

/// How an attempt ended.
enum Undone {
    /// No, and why.
    Refused(String),
    /// Another may lead by now, or a change was under way.
    Again(String),
}

impl From<NotAdded> for Undone {
    fn from(why: NotAdded) -> Self {
        match why {
            NotAdded::Refused(why) => Self::Refused(why),
            NotAdded::Busy(why) => Self::Again(why),
        }
    }
}

impl Node {
    /// Carries out what an operator asks for; what was done, in words.
    ///
    /// Whom a name means is looked up once: at a second attempt it may mean another, who came in the first one's place.
    pub(in crate::node) async fn change_member(&self, request: admin::MemberChange) -> Result<String, ServiceError> {
        self.serving()?;
        let mut request = admin::MemberChange { id: self.only_member(&request.name).map_or(0, |id| id.0), ..request };
        let until = Instant::now() + PATIENCE;
        loop {
            let attempt = match self.leader() {
                Leader::This => self.conduct(&request).await,
                Leader::Other(id, member) => self.pass_change_on(id, &member, &request).await,
                Leader::Unknown => Err(Undone::Again("no leader is known".into())),
            };
            match attempt {
                Ok(done) => return Ok(done),
                Err(Undone::Refused(why)) => return Err(ServiceError::Member(why)),
                Err(Undone::Again(why)) if Instant::now() >= until => return Err(ServiceError::NotReady(why)),
                Err(Undone::Again(_)) => self.leader_news(PAUSE).await,
            }
            tokio::time::sleep(PAUSE).await;
            request.again = true;
        }
    }

    /// The member of that name, if there is one and no other.
    fn only_member(&self, name: &str) -> Option<NodeId> {
        let membership = self.membership();
        let mut named = membership.nodes().filter(|(_, member)| member.name == name).map(|(id, _)| *id);
        named.next().filter(|_| named.next().is_none())
    }

    /// For another node, whose operator asks.
    pub(in crate::node) async fn change_member_for_peer(&self, request: admin::MemberChange) -> pb::MembersResponse {
        use pb::members_response::Result as Pb;
        let result = match self.leader() {
            Leader::This => match self.conduct(&request).await {
                Ok(done) => Pb::Done(done),
                Err(Undone::Refused(why)) => Pb::Refused(why),
                Err(Undone::Again(why)) => Pb::Failure((&ServiceError::NotReady(why)).into()),
            },
            _ => Pb::Failure((&ServiceError::NotLeader { leader: None }).into()),
        };
        pb::MembersResponse { result: Some(result) }
    }

    async fn pass_change_on(
        &self,
        id: NodeId,
        member: &Member,
        request: &admin::MemberChange,
    ) -> Result<String, Undone> {
        use pb::members_response::Result as Pb;
        let again = |why: String| Undone::Again(format!("{}, which leads: {why}", member.name));
        let peers = &self.inner.peers;
        let mut client = peers.client(&member.peer_addr, Purpose::Forward).map_err(|error| again(error.to_string()))?;
        let call = client.members(peers.addressed(id, request.clone()));
        match tokio::time::timeout(ATTEMPT, call).await {
            Err(_) => Err(again("no answer".into())),
            Ok(Err(status)) => Err(again(status.message().to_owned())),
            Ok(Ok(response)) => match response.into_inner().result {
                Some(Pb::Done(done)) => Ok(done),
                Some(Pb::Refused(why)) => Err(Undone::Refused(why)),
                Some(Pb::Failure(failure)) => Err(again(failure.text)),
                None => Err(again("it answered nothing that this version understands".into())),
            },
        }
    }

    /// As leader.
    async fn conduct(&self, request: &admin::MemberChange) -> Result<String, Undone> {
        let _turn = self.inner.members.turn.lock().await;
        self.lead_surely().await.map_err(Undone::Again)?;
        let membership =
            self.settled_membership().ok_or_else(|| Undone::Again("the members are being changed just now".into()))?;
        let floor = self.inner.raft.metrics().borrow_watched().last_log_index.unwrap_or(0);
        let asked = Instant::now();
        let sight = self.settled_sight(&membership, floor, SETTLE).await;
        match request.kind() {
            Kind::Add => self.add(request, &sight).await,
            Kind::Promote => self.promote(request, &sight, &membership).await,
            Kind::Remove => self.remove(request, &sight, &membership).await,
            Kind::TransferLeader => self.transfer(&request.name, &sight, asked).await,
            Kind::Unspecified => Err(Undone::Refused("this balsa does not know what is asked for".into())),
        }
    }

    async fn promote(
        &self,
        request: &admin::MemberChange,
        sight: &Sight,
        membership: &StoredMembership,
    ) -> Result<String, Undone> {
        let done = |member: &Seen| Ok(format!("{} ({}) is a voter now", member.name, member.id));
        if let Some(voter) =
            sight.members.iter().find(|member| request.again && member.id.0 == request.id && member.voter)
        {
            return done(voter);
        }
        let learner = find(sight, request, |member| !member.voter)?;
        let step = sight.promote(learner);
        let step = step.map_err(|why| Undone::Refused(format!("{} stays a learner: {why}", learner.name)))?;
        self.carry_out(step, membership).await.map_err(Undone::Again)?;
        done(learner)
    }

    async fn remove(
        &self,
        request: &admin::MemberChange,
        sight: &Sight,
        membership: &StoredMembership,
    ) -> Result<String, Undone> {
        let (name, id) = (&request.name, NodeId(request.id));
        if request.again && id.0 != 0 && !sight.members.iter().any(|member| member.id == id) {
            return Ok(format!("{name} ({id}) is removed"));
        }
        let member = find(sight, request, |_| true)?;
        self.may_remove(member, sight, request.yes)?;
        let step = sight.remove(member).map_err(|why| Undone::Refused(format!("{} stays: {why}", member.name)))?;
        let hands_over = matches!(step, Step::HandOver { .. });
        self.carry_out(step, membership).await.map_err(Undone::Again)?;
        if hands_over {
            return Err(Undone::Again("it led, and another leads now".into()));
        }
        let kind = if member.voter { "voter" } else { "learner" };
        Ok(format!("{} ({}) is removed; it was a {kind}", member.name, member.id))
    }

    /// What is removed although the files want it is let in again as soon as it asks.
    fn may_remove(&self, member: &Seen, sight: &Sight, yes: bool) -> Result<(), Undone> {
        let wanted = member.ordinal.zip(sight.replicas).filter(|(ordinal, replicas)| ordinal < replicas);
        let others =
            sight.members.iter().any(|other| other.name == member.name && other.id != member.id && other.voter);
        let Some((_, replicas)) = wanted.filter(|_| !yes && !others) else { return Ok(()) };
        Err(Undone::Refused(format!(
            "{name} stays: a majority of the voters' files wants {replicas} nodes, and it is one of them; lower `replicas` in \
             [cluster], and the highest ordinals leave by themselves. A lost volume needs no removal: empty it and start {name}. \
             With --yes it is removed all the same, and not let in again until its data directory is emptied",
            name = member.name
        )))
    }

    async fn add(&self, request: &admin::MemberChange, sight: &Sight) -> Result<String, Undone> {
        let name = request.name.as_str();
        let done =
            |id: NodeId| Ok(format!("{name} ({id}) is a learner now; `balsa member promote {name}` makes it a voter"));
        let refuse = |why: String| Err(Undone::Refused(why));
        let wanted = self.ordinal_of(name).zip(sight.replicas);
        if wanted.is_some_and(|(ordinal, replicas)| ordinal < replicas) {
            return refuse(format!(
                "{name} is one of the nodes that the files want: it is let in by itself when it is started"
            ));
        }
        if let Some(member) = sight.members.iter().find(|member| member.name == name && member.live) {
            // It was none when the operator asked.
            if request.again && request.id == 0 && !member.voter {
                return done(member.id);
            }
            return refuse(format!("{name} is a member already ({}); `balsa member list` shows all", member.id));
        }
        let candidates = self.inner.members.candidates();
        let Some(candidate) = candidates.iter().rev().find(|candidate| candidate.name == name) else {
            // It asks every few seconds; a leader that is new may not have been asked yet.
            let undone = if self.leads_for(CANDIDATES) { Undone::Refused } else { Undone::Again };
            return Err(undone(format!(
                "{name} has not asked to be let in; start it first (`balsa serve --name {name}` with this cluster's \
                 configuration), and it asks every few seconds until it is added"
            )));
        };
        // The candidate's own word for its addresses; that it answers there as itself is checked below.
        let them = who_is_at(&self.inner.peers, &candidate.peer_addr).await;
        let them =
            them.map_err(|why| Undone::Refused(format!("{name} does not answer at {}: {why}", candidate.peer_addr)))?;
        let member = Member {
            name: name.to_owned(),
            peer_addr: candidate.peer_addr.clone(),
            client_addr: them.client_addr.clone(),
            kept: true,
        };
        let id = NodeId(candidate.id);
        self.add_learner(id, member).await?;
        self.inner.members.candidates.lock().remove(&id);
        done(id)
    }

    async fn transfer(&self, name: &str, sight: &Sight, asked: Instant) -> Result<String, Undone> {
        let own = sight.members.iter().find(|member| member.own);
        if own.is_some_and(|own| own.name == name || own.id.to_string() == name) {
            return Ok(format!("{name} leads"));
        }
        let able = |member: &&Seen| member.voter && !member.own && member.answers && member.caught_up;
        let to = match name {
            "" => {
                let best = self
                    .best_successor(&BTreeSet::new(), asked)
                    .and_then(|id| sight.members.iter().find(|member| member.id == id));
                best.filter(able).ok_or_else(|| Undone::Refused("no other voter answers and has caught up".into()))?
            }
            name => {
                let request = admin::MemberChange { name: name.to_owned(), ..admin::MemberChange::default() };
                let member = find(sight, &request, |_| true)?;
                let why = match member {
                    Seen { voter: false, .. } => Some("is a learner; promote it first"),
                    Seen { answers: false, .. } => Some("does not answer"),
                    Seen { caught_up: false, .. } => Some("has not caught up with the log"),
                    _ => None,
                };
                match why {
                    Some(why) => return Err(Undone::Refused(format!("{name} cannot lead: it {why}"))),
                    None => member,
                }
            }
        };
        self.hand_over_to(to.id).await.map_err(Undone::Again)?;
        Ok(format!("{} leads now", to.name))
    }
}

/// The member that an operator means by a name or an id.
fn find<'a>(sight: &'a Sight, request: &admin::MemberChange, suits: fn(&Seen) -> bool) -> Result<&'a Seen, Undone> {
    let name = request.name.as_str();
    let means = |member: &&Seen| match request.id {
        0 => member.name == name || member.id.to_string() == name,
        id => member.id.0 == id,
    };
    let found: Vec<_> = sight.members.iter().filter(means).collect();
    let names = || {
        let names: BTreeSet<_> = sight.members.iter().map(|member| member.name.as_str()).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    match (found.iter().copied().filter(|member| suits(member)).collect::<Vec<_>>().as_slice(), found.as_slice()) {
        ([one], _) => Ok(one),
        ([], []) => Err(Undone::Refused(format!("{name} is not a member; the members are {}", names()))),
        ([], _) => Err(Undone::Refused(format!("{name} is a voter already"))),
        (several, _) => {
            let ids: Vec<_> = several.iter().map(|member| member.id.to_string()).collect();
            Err(Undone::Refused(format!("several members are called {name}; say which by its id: {}", ids.join(", "))))
        }
    }
}
