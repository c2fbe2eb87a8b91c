//! Watches.

use crate::{Outcome, check};
use etcd_client::{Client, EventType, WatchFilterType, WatchOptions, WatchResponse, WatchStream};

/// Values (or `-` for a delete) of the next so many events.
async fn next(stream: &mut WatchStream, count: usize) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let response = stream.message().await?.ok_or("the stream ended")?;
        check_alive(&response)?;
        for event in response.events() {
            seen.push(match event.event_type() {
                EventType::Put => event.kv().ok_or("no key")?.value_str()?.to_owned(),
                EventType::Delete => "-".to_owned(),
            });
        }
    }
    Ok(seen)
}

fn check_alive(response: &WatchResponse) -> Outcome {
    check!(!response.canceled(), "cancelled: {}", response.cancel_reason());
    Ok(())
}

pub async fn events_come_in_order_and_from_history(mut client: Client) -> Outcome {
    let first = client.put("w/a", "1", None).await?.header().ok_or("no header")?.revision();
    client.put("w/a", "2", None).await?;
    let mut stream = client.watch("w/a", Some(WatchOptions::new().with_start_revision(first))).await?;
    client.put("w/a", "3", None).await?;
    client.delete("w/a", None).await?;
    let seen = next(&mut stream, 4).await?;
    check!(seen == ["1", "2", "3", "-"], "{seen:?}");
    Ok(())
}

pub async fn filters_and_previous_values(mut client: Client) -> Outcome {
    let options = WatchOptions::new().with_prefix().with_prev_key().with_filters([WatchFilterType::NoDelete]);
    let mut stream = client.watch("w/f/", Some(options)).await?;
    client.put("w/f/1", "1", None).await?;
    client.delete("w/f/1", None).await?;
    client.put("w/f/2", "2", None).await?;
    client.put("w/f/2", "3", None).await?;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let response = stream.message().await?.ok_or("the stream ended")?;
        check_alive(&response)?;
        seen.extend(response.events().iter().map(|event| event.prev_kv().map(|kv| kv.value().to_vec())));
    }
    check!(seen == [None, None, Some(b"2".to_vec())], "{seen:?}");
    Ok(())
}

pub async fn many_watches_share_a_stream(mut client: Client) -> Outcome {
    let mut stream = client.watch("w/m/0", None).await?;
    for number in 1..20 {
        stream.watch(format!("w/m/{number}"), Some(WatchOptions::new().with_watch_id(number))).await?;
    }
    let mut created = 1;
    while created < 20 {
        created += usize::from(stream.message().await?.ok_or("the stream ended")?.created());
    }
    for number in (0..20).rev() {
        client.put(format!("w/m/{number}"), number.to_string(), None).await?;
    }
    let seen = next(&mut stream, 20).await?;
    check!(seen.iter().rev().enumerate().all(|(number, value)| *value == number.to_string()), "{seen:?}");
    stream.request_progress().await?;
    let progress = stream.message().await?.ok_or("the stream ended")?;
    check!(progress.events().is_empty() && progress.watch_id() == -1, "{progress:?}");
    stream.cancel(3).await?;
    let cancelled = stream.message().await?.ok_or("the stream ended")?;
    check!(cancelled.canceled() && cancelled.watch_id() == 3, "{cancelled:?}");
    Ok(())
}

pub async fn compacted_history_cancels(mut client: Client) -> Outcome {
    let old = client.put("w/c", "1", None).await?.header().ok_or("no header")?.revision();
    let new = client.put("w/c", "2", None).await?.header().ok_or("no header")?.revision();
    client.compact(new, None).await?;
    for endpoint in std::env::args().skip(1) {
        // Whichever serves the watch has compacted, too.
        Client::connect([&endpoint], None).await?.get("w/c", None).await?;
    }
    let mut stream = client.watch("w/c", Some(WatchOptions::new().with_start_revision(old))).await?;
    let response = loop {
        let response = stream.message().await?.ok_or("the stream ended")?;
        if response.canceled() {
            break response;
        }
        check!(response.events().is_empty(), "{response:?}");
    };
    check!(response.compact_revision() == new, "{response:?}");
    Ok(())
}
