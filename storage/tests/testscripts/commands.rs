//! From the words of a story to the commands of the log.

use crate::parse::{self, Words};
use crate::script::Command as Told;
use rusd_storage::command::compare::{Result as Is, Target};
use rusd_storage::command::operation::Operation as Op;
use rusd_storage::command::proposal::Command as Kind;
use rusd_storage::command::*;

/// `KEY VALUE [lease=ID] [+prev_kv] [+ignore_value] [+ignore_lease]`
pub fn put(words: &mut Words<'_>) -> Put {
    Put {
        key: words.bytes(),
        value: words.optional().map(parse::bytes).unwrap_or_default(),
        lease: words.option("lease"),
        prev_kv: words.flag("prev_kv"),
        ignore_value: words.flag("ignore_value"),
        ignore_lease: words.flag("ignore_lease"),
    }
}

/// `KEY [END] [+prev_kv]`
pub fn delete(words: &mut Words<'_>) -> DeleteRange {
    DeleteRange { key: words.bytes(), range_end: words.optional().map(parse::bytes).unwrap_or_default(), prev_kv: words.flag("prev_kv") }
}

/// `KEY [END] [rev=N] [limit=N] [order=ASCEND|DESCEND] [by=VERSION|CREATE|MOD|VALUE] [+keys_only] [+count_only]`, and
/// `[min_mod=N] [max_mod=N] [min_create=N] [max_create=N]`
pub fn get(words: &mut Words<'_>) -> Range {
    let order = words.text("order").map_or(SortOrder::None, |name| SortOrder::from_str_name(name).expect("an order"));
    let target = words.text("by").map_or(SortTarget::Key, |name| SortTarget::from_str_name(name).expect("a target"));
    Range {
        key: words.bytes(),
        range_end: words.optional().map(parse::bytes).unwrap_or_default(),
        limit: words.option("limit"),
        revision: words.option("rev"),
        sort_order: order.into(),
        sort_target: target.into(),
        keys_only: words.flag("keys_only"),
        count_only: words.flag("count_only"),
        min_mod_revision: words.option("min_mod"),
        max_mod_revision: words.option("max_mod"),
        min_create_revision: words.option("min_create"),
        max_create_revision: words.option("max_create"),
    }
}

/// `TARGET(KEY[,END]) OPERATOR [WANTED]`; target `always` and operator `?` are what no client of today sends.
fn compare(words: &mut Words<'_>) -> Compare {
    let word = words.next();
    let (target, keys) = word.strip_suffix(')').and_then(|word| word.split_once('(')).expect("target(key)");
    let (key, end) = keys.split_once(',').unwrap_or((keys, "\"\""));
    let result = match words.next() {
        "is" => Is::Equal as i32,
        "isn't" => Is::NotEqual as i32,
        "above" => Is::Greater as i32,
        "below" => Is::Less as i32,
        "?" => 99,
        other => panic!("{other:?} is no operator"),
    };
    let target = match target {
        "version" => Target::Version(words.number()),
        "created" => Target::CreateRevision(words.number()),
        "changed" => Target::ModRevision(words.number()),
        "lease" => Target::Lease(words.number()),
        "value" => Target::Value(words.bytes()),
        "always" => Target::AlwaysEqual(true),
        other => panic!("{other:?} is no target"),
    };
    Compare { result, key: parse::bytes(key), range_end: parse::bytes(end), target: Some(target) }
}

/// Lines `if COMPARE`, `then OPERATION`, `else OPERATION`; an operation `txn` has its own lines below, deeper.
fn txn(lines: &[(usize, String)]) -> Txn {
    let mut txn = Txn::default();
    let depth = lines.first().map_or(0, |(depth, _)| *depth);
    let mut at = 0;
    while let Some((_, line)) = lines.get(at) {
        at += 1;
        let deeper = lines[at..].iter().take_while(|(below, _)| *below > depth).count();
        let below = &lines[at..at + deeper];
        at += deeper;
        let mut words = Words::of(line);
        match words.next() {
            "if" => txn.compare.push(compare(&mut words)),
            "then" => txn.success.push(operation(&mut words, below)),
            "else" => txn.failure.push(operation(&mut words, below)),
            other => panic!("{other:?} is no part of a txn"),
        }
        words.end();
    }
    txn
}

fn operation(words: &mut Words<'_>, below: &[(usize, String)]) -> Operation {
    let operation = match words.next() {
        "put" => Op::Put(put(words)),
        "get" => Op::Range(get(words)),
        "del" => Op::DeleteRange(delete(words)),
        "txn" => Op::Txn(txn(below)),
        other => panic!("{other:?} is no operation"),
    };
    Operation { operation: Some(operation) }
}

fn alarm(words: &mut Words<'_>) -> Kind {
    let action = if words.next() == "on" { alarm::Action::Activate } else { alarm::Action::Deactivate };
    let kind = AlarmType::from_str_name(words.next()).expect("an alarm");
    Kind::Alarm(Alarm { action: action as i32, member_id: words.number(), r#type: kind as i32 })
}

/// The log's command that a line tells; `None` if it is none of the log's.
pub fn of(told: &Told, words: &mut Words<'_>, name: &str) -> Option<Kind> {
    Some(match name {
        "put" => Kind::Put(put(words)),
        "del" => Kind::DeleteRange(delete(words)),
        "txn" => Kind::Txn(txn(&told.below)),
        "compact" => Kind::Compact(Compact { revision: words.number() }),
        "grant" => Kind::LeaseGrant(LeaseGrant { id: words.number(), ttl_secs: words.number() }),
        "revoke" => Kind::LeaseRevoke(LeaseRevoke { id: words.number() }),
        "checkpoint" => {
            let item = lease_checkpoint::Item { id: words.number(), remaining_ttl_secs: words.number() };
            Kind::LeaseCheckpoint(LeaseCheckpoint { items: vec![item] })
        }
        "alarm" => alarm(words),
        "publish" => Kind::PublishMember(PublishMember {
            id: words.number(),
            name: words.next().into(),
            client_urls: std::iter::from_fn(|| words.optional().map(Into::into)).collect(),
            ..PublishMember::default()
        }),
        "version" => Kind::SetClusterVersion(SetClusterVersion { version: words.next().into() }),
        _ => return None,
    })
}

/// `ID URL...`
fn record(words: &mut Words<'_>) -> MemberRecord {
    let pending_voter = words.flag("voter");
    MemberRecord {
        id: words.number(),
        peer_urls: std::iter::from_fn(|| words.optional().map(Into::into)).collect(),
        is_learner: true,
        pending_voter,
        ..MemberRecord::default()
    }
}

/// A change of a member's record: `add [+voter] ID URL...`, `remove ID`, `promote ID`, `keep-only ID`, `update ID URL...`.
pub fn change(words: &mut Words<'_>) -> change_member::Change {
    match words.next() {
        "add" => change_member::Change::Add(record(words)),
        "update" => change_member::Change::Update(record(words)),
        "remove" => change_member::Change::Remove(words.number()),
        "promote" => change_member::Change::Promote(words.number()),
        "keep-only" => change_member::Change::KeepOnly(words.number()),
        other => panic!("{other:?} is no change of a member"),
    }
}
