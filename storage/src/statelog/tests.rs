//! Tests of the state log on a fake keeper of frames.

use super::testing::FakeFrames;
use super::*;
use crate::command::state::{Image, delta};
use crate::types::KeyValue;

fn log() -> (Arc<FakeFrames>, StateLog) {
    let frames = Arc::new(FakeFrames::default());
    let log = StateLog::with_frames(frames.clone(), Directory::default(), None);
    (frames, log)
}

fn at(index: u64) -> LogPosition {
    LogPosition { term: 3, index }
}

fn record(main: i64, sub: i64, len: usize) -> Record {
    let kv = KeyValue {
        key: Bytes::from(format!("key{}", main % 7)),
        value: vec![b'v'; len].into(),
        create_revision: main,
        mod_revision: main,
        version: 1,
        lease: -5,
    };
    Record { revision: Revision::new(main, sub), tombstone: false, kv }
}

fn write(log: &StateLog, index: u64, records: &[Record], deltas: &[delta::Delta]) {
    log.begin(at(index));
    records.iter().for_each(|record| log.record(record));
    deltas.iter().for_each(|delta| log.delta(&Delta { delta: Some(delta.clone()) }));
    log.end();
}

fn version(text: &str) -> delta::Delta {
    delta::Delta::ClusterVersion(text.into())
}

fn recover(frames: &FakeFrames) -> (Vec<Record>, Recovered) {
    let mut recovery = Recovery::new();
    let mut records = Vec::new();
    for (id, frame) in frames.all() {
        recovery.frame(id, frame, &mut |record| records.push(record)).expect("sound");
    }
    records.sort_by_key(|record| record.revision);
    (records, recovery.finish().expect("sound"))
}

#[test]
fn what_is_written_is_read_open_handed_over_and_recovered() {
    let (frames, log) = log();
    let mut all = Vec::new();
    for index in 0..200 {
        let main = 2 + index * 2;
        let unit = [record(main, 0, 700), record(main, 1, 10)];
        write(&log, index.unsigned_abs(), &unit, &[]);
        all.extend(unit);
        let revisions: Vec<Revision> = all.iter().rev().map(|record| record.revision).collect();
        let read = log.read(&revisions).expect("readable");
        assert!(read.iter().zip(all.iter().rev()).all(|(got, expected)| got.as_ref() == Some(expected)));
    }
    assert!(log.frame_count() >= 2, "full frames are handed over");
    assert_eq!(log.read(&[Revision::new(3, 0), Revision::new(2, 2), Revision::new(999, 0)]).expect("readable"), [None, None, None]);
    let (records, next) = log.history(3, 100, usize::MAX).expect("readable");
    assert_eq!((records.len(), next), (97 / 2 * 2 + 2, 101));
    let (records, next) = log.history(4, i64::MAX - 1, 1).expect("readable");
    assert_eq!((records.len(), next), (2, 6), "a main revision is whole");
    log.hand_over();
    let (records, (applied, _, directory)) = recover(&frames);
    assert_eq!((&records, applied), (&all, Some(at(199))));
    let again = StateLog::with_frames(frames, directory, applied);
    assert_eq!(again.history(0, 1000, usize::MAX).expect("readable"), (all, 1001));
    assert_eq!(again.applied(), Some(at(199)));
}

#[test]
fn a_big_unit_makes_one_big_frame() {
    let (frames, log) = log();
    let unit: Vec<Record> = (0..3).map(|sub| record(2, sub, 100_000)).collect();
    write(&log, 1, &unit, &[]);
    assert_eq!(log.frame_count(), 1);
    assert!(frames.all()[0].1.body.len() > 300_000);
    assert_eq!(log.read(&[Revision::new(2, 1)]).expect("readable")[0].as_ref(), Some(&unit[1]));
}

#[test]
fn deltas_count_from_the_newest_image_on() {
    let (frames, log) = log();
    write(&log, 1, &[], &[version("1")]);
    log.hand_over();
    write(&log, 2, &[], &[version("2"), delta::Delta::Image(Image::default()), version("3")]);
    log.hand_over();
    write(&log, 3, &[], &[version("4")]);
    log.hand_over();
    write(&log, 4, &[], &[]);
    log.hand_over();
    let check = |frames: &FakeFrames| {
        let (_, (applied, deltas, _)) = recover(frames);
        let found: Vec<_> = deltas.into_iter().map(|(position, delta)| (position.index, delta.delta.expect("set"))).collect();
        let expected = vec![(2, delta::Delta::Image(Image::default())), (2, version("3")), (3, version("4"))];
        assert_eq!((found, applied), (expected, Some(at(4))));
    };
    check(&frames);
    while log.compact_step(&|_| true).expect("sound") {}
    check(&frames);
    assert_eq!(frames.all().len(), 2, "void deltas are gone, small frames are one, the last stays");
}

#[test]
fn the_last_frame_stays_for_what_was_applied() {
    let (frames, log) = log();
    for index in 1..4i64 {
        let main = 1 + index;
        write(&log, main.unsigned_abs(), &[record(main, 0, 10)], &[]);
        log.hand_over();
        log.died(b"k", Revision::new(main, 0), false);
    }
    while log.compact_step(&|_| false).expect("sound") {}
    let (records, (applied, ..)) = recover(&frames);
    assert_eq!((records.len(), applied), (1, Some(at(4))));
    assert_eq!(log.read(&[Revision::new(2, 0)]).expect("readable"), [None]);
}

#[test]
fn a_tombstone_outlives_the_puts_before_it() {
    let (frames, log) = log();
    let put = record(2, 0, 10);
    let alive = |main: i64| record(main, 0, 4000);
    // The put lies in a frame too alive to be rewritten, the tombstone in one that is dead.
    write(&log, 1, std::slice::from_ref(&put), &[]);
    for main in 3..20i64 {
        write(&log, main.unsigned_abs(), &[alive(main)], &[]);
    }
    let tombstone = Record {
        revision: Revision::new(20, 0),
        tombstone: true,
        kv: KeyValue { key: put.kv.key.clone(), mod_revision: 20, ..KeyValue::default() },
    };
    write(&log, 20, std::slice::from_ref(&tombstone), &[]);
    log.hand_over();
    write(&log, 21, &[alive(21)], &[]);
    log.hand_over();
    log.died(&put.kv.key, put.revision, false);
    log.died(&put.kv.key, tombstone.revision, true);
    let live = |record: &Record| record.kv.value.len() == 4000;
    while log.compact_step(&live).expect("sound") {}
    let (records, _) = recover(&frames);
    let (has_put, has_tombstone) = (records.contains(&put), records.contains(&tombstone));
    assert!(has_tombstone || !has_put, "the put would rise again");
}

#[test]
fn nonsense_is_an_error() {
    for body in [&b"\x01\x01\x01\x09"[..], b"\x01\x01\x05", b"\xff\xff", b"\x01\x01\x01\x01\x00\x02\x00\x02\x01\x00\xff\xff\xff\xff\x0f"] {
        let frame = StateFrame { span: Default::default(), body: Bytes::from_static(body) };
        let error = Recovery::new().frame(FrameId(7), frame, &mut |_| {}).expect_err("nonsense");
        assert!(error.to_string().contains("state frame 7"), "{error}");
    }
}
