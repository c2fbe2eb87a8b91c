//! Keys, ranges, transactions.

use crate::{Outcome, check};
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse,
};

pub async fn what_is_put_can_be_read(mut client: Client) -> Outcome {
    let first = client.put("kv/a", "1", None).await?;
    let second = client.put("kv/a", "2", Some(PutOptions::new().with_prev_key())).await?;
    check!(second.prev_key().is_some_and(|kv| kv.value() == b"1"), "the previous value is {:?}", second.prev_key());
    let got = client.get("kv/a", None).await?;
    let kv = got.kvs().first().ok_or("no key")?;
    check!(kv.value() == b"2" && kv.version() == 2 && kv.create_revision() < kv.mod_revision(), "{kv:?}");
    let revision = |header: Option<&etcd_client::ResponseHeader>| header.map(|header| header.revision());
    check!(revision(second.header()) == Some(kv.mod_revision()) && revision(first.header()) == Some(kv.create_revision()), "{second:?}");
    Ok(())
}

pub async fn ranges_are_sorted_and_limited(mut client: Client) -> Outcome {
    for key in ["kv/r/3", "kv/r/1", "kv/r/2"] {
        client.put(key, key, None).await?;
    }
    let options = GetOptions::new().with_prefix().with_sort(SortTarget::Mod, SortOrder::Descend).with_limit(2);
    let got = client.get("kv/r/", Some(options)).await?;
    let keys: Vec<_> = got.kvs().iter().filter_map(|kv| kv.key_str().ok()).collect();
    check!(keys == ["kv/r/2", "kv/r/1"] && got.more() && got.count() == 3, "{got:?}");
    let counted = client.get("kv/r/", Some(GetOptions::new().with_prefix().with_count_only())).await?;
    check!(counted.count() == 3 && counted.kvs().is_empty(), "{counted:?}");
    let keys = client.get("kv/r/", Some(GetOptions::new().with_prefix().with_keys_only())).await?;
    check!(keys.kvs().iter().all(|kv| kv.value().is_empty()) && keys.kvs().len() == 3, "{keys:?}");
    Ok(())
}

pub async fn old_revisions_are_kept_until_compaction(mut client: Client) -> Outcome {
    let old = client.put("kv/old", "1", None).await?.header().ok_or("no header")?.revision();
    let new = client.put("kv/old", "2", None).await?.header().ok_or("no header")?.revision();
    let at = |revision| Some(GetOptions::new().with_revision(revision));
    let got = client.get("kv/old", at(old)).await?;
    check!(got.kvs().first().is_some_and(|kv| kv.value() == b"1"), "{got:?}");
    client.compact(new, None).await?;
    refused(client.get("kv/old", at(old)).await, "etcdserver: mvcc: required revision has been compacted")?;
    refused(client.get("kv/old", at(new + 1000)).await, "etcdserver: mvcc: required revision is a future revision")
}

pub async fn deletes_tell_what_was_there(mut client: Client) -> Outcome {
    for key in ["kv/d/1", "kv/d/2"] {
        client.put(key, "x", None).await?;
    }
    let deleted = client.delete("kv/d/", Some(DeleteOptions::new().with_prefix().with_prev_key())).await?;
    check!(deleted.deleted() == 2 && deleted.prev_kvs().len() == 2, "{deleted:?}");
    check!(client.get("kv/d/1", None).await?.kvs().is_empty(), "it is still there");
    Ok(())
}

pub async fn transactions_branch(mut client: Client) -> Outcome {
    client.put("kv/t", "1", None).await?;
    let txn = |value: &str| {
        Txn::new()
            .when([Compare::value("kv/t", CompareOp::Equal, value), Compare::version("kv/none", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("kv/t", "2", None), TxnOp::get("kv/t", None)])
            .or_else([TxnOp::get("kv/t", None)])
    };
    let taken = client.txn(txn("1")).await?;
    let responses = taken.op_responses();
    let read = |response: Option<&TxnOpResponse>| match response {
        Some(TxnOpResponse::Get(got)) => got.kvs().first().map(|kv| kv.value().to_vec()),
        _ => None,
    };
    check!(taken.succeeded() && read(responses.get(1)).as_deref() == Some(b"2"), "{taken:?}");
    let other = client.txn(txn("1")).await?;
    check!(!other.succeeded() && read(other.op_responses().first()).as_deref() == Some(b"2"), "{other:?}");
    Ok(())
}

pub async fn errors_have_etcds_texts(mut client: Client) -> Outcome {
    refused(client.put("", "x", None).await, "etcdserver: key is not provided")?;
    refused(client.put("kv/e", "x", Some(PutOptions::new().with_lease(987_654))).await, "etcdserver: requested lease not found")?;
    let twice = Txn::new().and_then([TxnOp::put("kv/e", "1", None), TxnOp::put("kv/e", "2", None)]);
    refused(client.txn(twice).await, "etcdserver: duplicate key given in txn request")?;
    refused(client.put("kv/e", vec![0; 1_600_000], None).await, "etcdserver: request is too large")?;
    refused(client.lease_revoke(987_654).await, "etcdserver: requested lease not found")
}

/// Whether a call was refused with this text.
pub fn refused<T>(result: Result<T, Error>, text: &str) -> Outcome {
    match result {
        Err(Error::GRpcStatus(status)) if status.message() == text => Ok(()),
        Err(other) => Err(format!("{other:?} instead of {text:?}").into()),
        Ok(_) => Err(format!("taken, instead of {text:?}").into()),
    }
}
