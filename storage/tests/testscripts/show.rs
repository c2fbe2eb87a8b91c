//! Answers as a story shows them.

use rusd_storage::command::{ApplyResult, MemberRecord, Response, state};
use rusd_storage::mvcc::RangeResult;
use rusd_storage::{KeyValue, Record};

/// Bytes: short ones as they are, long ones of one letter as `x*400`.
pub fn bytes(bytes: &[u8]) -> String {
    match bytes.first() {
        None => "\"\"".into(),
        Some(first) if bytes.len() > 20 && bytes.iter().all(|byte| byte == first) => format!("{}*{}", char::from(*first), bytes.len()),
        Some(_) => String::from_utf8_lossy(bytes).replace('\0', "\\0"),
    }
}

/// A key with all that is known of it.
pub fn kv(kv: &KeyValue) -> String {
    let lease = if kv.lease == 0 { String::new() } else { format!(", lease {}", kv.lease) };
    let (key, value) = (bytes(&kv.key), bytes(&kv.value));
    format!("{key} = {value} (created {}, changed {}, version {}{lease})", kv.create_revision, kv.mod_revision, kv.version)
}

/// A range's answer.
pub fn range(result: &RangeResult) -> String {
    let more = if result.more { ", and more" } else { "" };
    let mut text = format!("revision {}, count {}{more}\n", result.revision, result.count);
    result.kvs.iter().for_each(|found| text += &format!("  {}\n", kv(found)));
    text
}

/// A record of history.
pub fn record(record: &Record) -> String {
    let (revision, key) = (record.revision, bytes(&record.kv.key));
    let what = if record.tombstone { format!("delete {key}") } else { format!("put {}", kv(&record.kv)) };
    format!("{}.{} {what}\n", revision.main, revision.sub)
}

/// A member.
pub fn member(member: &MemberRecord) -> String {
    let role = match (member.is_learner, member.pending_voter) {
        (true, true) => "learner, to be a voter",
        (true, false) => "learner",
        (false, _) => "voter",
    };
    let name = if member.name.is_empty() { "(no name)" } else { &member.name };
    let clients = if member.client_urls.is_empty() { String::new() } else { format!(", clients at {}", member.client_urls.join(" ")) };
    format!("{} {name}: {role}, peers at {}{clients}\n", member.id, member.peer_urls.join(" "))
}

/// Alarms.
pub fn alarms(alarms: &[state::AlarmMember]) -> String {
    if alarms.is_empty() {
        return "no alarm\n".into();
    }
    alarms.iter().map(|alarm| format!("{} at member {}\n", alarm.r#type().as_str_name(), alarm.member_id)).collect()
}

/// What an entry answered.
pub fn result(result: &ApplyResult) -> String {
    match result {
        Ok(response) => self::response(response),
        Err(rejection) => format!("refused: {rejection}\n"),
    }
}

fn response(response: &Response) -> String {
    match response {
        Response::Empty { revision } => format!("revision {revision}\n"),
        Response::Put { revision, prev_kv } => {
            let before = prev_kv.as_ref().map_or(String::new(), |before| format!(", before: {}", kv(before)));
            format!("revision {revision}{before}\n")
        }
        Response::DeleteRange { revision, deleted, prev_kvs } => {
            let mut text = format!("revision {revision}, deleted {deleted}\n");
            prev_kvs.iter().for_each(|before| text += &format!("  {}\n", kv(before)));
            text
        }
        Response::Range(found) => range(found),
        Response::Txn { revision, succeeded, responses } => {
            let mut text = format!("revision {revision}, {}\n", if *succeeded { "succeeded" } else { "failed" });
            for inner in responses {
                self::response(inner).lines().for_each(|line| text += &format!("  {line}\n"));
            }
            text
        }
        Response::LeaseGrant { revision, id, ttl_secs } => format!("revision {revision}, lease {id} of {ttl_secs} s\n"),
        Response::Alarms { revision, alarms } => format!("revision {revision}\n{}", self::alarms(alarms)),
        Response::Members { revision, members } => {
            format!("revision {revision}\n{}", members.iter().map(member).collect::<String>())
        }
    }
}
