//! One record per member, the ids that may never return, and the cluster version.
//!
//! Who votes is openraft's membership; the record follows it through the same log entry.

use crate::command::{ChangeMember, MemberRecord, PublishMember, change_member::Change};
use crate::error::Rejection;
use std::collections::{BTreeMap, BTreeSet};

/// The members, as clients see them.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    members: BTreeMap<u64, MemberRecord>,
    removed: BTreeSet<u64>,
    version: String,
}

/// What a change did, for the state log.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// This record is new or different.
    Member(MemberRecord),
    /// This id is gone for ever.
    Removed(u64),
}

impl Cluster {
    /// Applies a membership change to the records; the refusals are etcd's (contract b.12).
    pub fn change(&mut self, change: &ChangeMember) -> Result<Vec<Changed>, Rejection> {
        match &change.change {
            None => Ok(Vec::new()),
            Some(Change::Add(record)) => Ok(vec![self.add(record)?]),
            Some(Change::Remove(id)) => {
                self.must_exist(*id)?;
                self.remove(*id);
                Ok(vec![Changed::Removed(*id)])
            }
            Some(Change::Promote(id)) => Ok(vec![self.promote(*id)?]),
            Some(Change::KeepOnly(id)) => self.keep_only(*id),
            Some(Change::Update(update)) => {
                self.must_exist(update.id)?;
                self.urls_must_be_free(update)?;
                let record = self.members.get_mut(&update.id).ok_or(Rejection::MemberNotFound)?;
                record.peer_urls = sorted(&update.peer_urls);
                Ok(vec![Changed::Member(record.clone())])
            }
        }
    }

    fn promote(&mut self, id: u64) -> Result<Changed, Rejection> {
        self.must_exist(id)?;
        let record = self.members.get_mut(&id).ok_or(Rejection::MemberNotFound)?;
        if !record.is_learner && !record.pending_voter {
            return Err(Rejection::MemberNotLearner);
        }
        record.is_learner = false;
        record.pending_voter = false;
        Ok(Changed::Member(record.clone()))
    }

    fn keep_only(&mut self, id: u64) -> Result<Vec<Changed>, Rejection> {
        self.must_exist(id)?;
        let others: Vec<u64> = self.members.keys().copied().filter(|other| *other != id).collect();
        others.iter().for_each(|other| self.remove(*other));
        Ok(others.into_iter().map(Changed::Removed).collect())
    }

    fn add(&mut self, record: &MemberRecord) -> Result<Changed, Rejection> {
        if self.members.contains_key(&record.id) || self.removed.contains(&record.id) {
            return Err(Rejection::MemberExists);
        }
        self.urls_must_be_free(record)?;
        let record = MemberRecord { peer_urls: sorted(&record.peer_urls), ..record.clone() };
        self.upsert(record.clone());
        Ok(Changed::Member(record))
    }

    fn must_exist(&self, id: u64) -> Result<(), Rejection> {
        if self.members.contains_key(&id) { Ok(()) } else { Err(Rejection::MemberNotFound) }
    }

    fn urls_must_be_free(&self, record: &MemberRecord) -> Result<(), Rejection> {
        let taken = |other: &MemberRecord| other.id != record.id && other.peer_urls.iter().any(|url| record.peer_urls.contains(url));
        if self.members.values().any(taken) { Err(Rejection::PeerUrlExists) } else { Ok(()) }
    }

    /// A member says its name, its client URLs and what it speaks. The data dir it names first is its own for ever.
    pub fn publish(&mut self, publish: &PublishMember) -> Result<MemberRecord, Rejection> {
        let record = self.members.get_mut(&publish.id).ok_or(Rejection::MemberNotFound)?;
        if record.data_dir_id != 0 && record.data_dir_id != publish.data_dir_id {
            return Err(Rejection::OtherDataDir);
        }
        record.name.clone_from(&publish.name);
        record.client_urls.clone_from(&publish.client_urls);
        record.data_dir_id = publish.data_dir_id;
        record.protocol_version = publish.protocol_version;
        Ok(record.clone())
    }

    /// A record that openraft's membership implies but nobody has written: the founding members, from entry (0,0). Names come by publish.
    pub fn found(&mut self, id: u64, peer_urls: &[String], is_learner: bool) -> Option<MemberRecord> {
        if self.members.contains_key(&id) || self.removed.contains(&id) {
            return None;
        }
        let record = MemberRecord { id, peer_urls: sorted(peer_urls), is_learner, ..MemberRecord::default() };
        self.upsert(record.clone());
        Some(record)
    }

    /// Restores a record.
    pub fn upsert(&mut self, record: MemberRecord) {
        self.members.insert(record.id, record);
    }
    /// Removes for ever.
    pub fn remove(&mut self, id: u64) {
        self.members.remove(&id);
        self.removed.insert(id);
    }
    /// Sets the cluster version.
    pub fn set_version(&mut self, version: String) {
        self.version = version;
    }
    /// Members sorted by id.
    pub fn members(&self) -> Vec<MemberRecord> {
        self.members.values().cloned().collect()
    }
    /// Ids that never return, sorted.
    pub fn removed(&self) -> Vec<u64> {
        self.removed.iter().copied().collect()
    }
    /// Whether the id was removed.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }
    /// Cluster version, empty before it is decided.
    pub fn version(&self) -> &str {
        &self.version
    }
}

fn sorted(urls: &[String]) -> Vec<String> {
    let mut urls = urls.to_vec();
    urls.sort();
    urls
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, url: &str) -> MemberRecord {
        MemberRecord { id, peer_urls: vec![url.into()], is_learner: true, ..MemberRecord::default() }
    }

    #[test]
    fn a_wiped_member_cannot_publish() {
        let mut cluster = Cluster::default();
        cluster.upsert(member(1, "http://a"));
        let publish = |data_dir_id| PublishMember { id: 1, name: "one".into(), data_dir_id, ..PublishMember::default() };
        assert_eq!(cluster.publish(&publish(7)).map(|record| record.data_dir_id), Ok(7));
        assert_eq!(cluster.publish(&publish(7)).map(|record| record.data_dir_id), Ok(7));
        assert_eq!(cluster.publish(&publish(8)), Err(Rejection::OtherDataDir));
    }

    #[test]
    fn removed_ids_never_return() {
        let mut cluster = Cluster::default();
        let add = |record| ChangeMember { change: Some(Change::Add(record)) };
        cluster.change(&add(member(1, "http://a"))).expect("new");
        assert_eq!(cluster.change(&add(member(2, "http://a"))), Err(Rejection::PeerUrlExists));
        cluster.change(&ChangeMember { change: Some(Change::Promote(1)) }).expect("a learner");
        assert_eq!(cluster.change(&ChangeMember { change: Some(Change::Promote(1)) }), Err(Rejection::MemberNotLearner));
        cluster.change(&ChangeMember { change: Some(Change::Remove(1)) }).expect("a member");
        assert_eq!(cluster.change(&add(member(1, "http://b"))), Err(Rejection::MemberExists));
        assert!(cluster.is_removed(1) && cluster.members().is_empty());
    }
}
