//! The open frame: units not yet handed over, with an index of their records.

use super::recovery::is_image;
use super::unit::{Item, decode_item, encode_delta, encode_head, encode_record};
use crate::command::state::Delta;
use crate::engine::{Span, StateFrame};
use crate::types::{LogPosition, Record, Revision};
use bytes::Bytes;

/// Where a record lies in a buffer.
#[derive(Clone, Copy, Debug)]
struct Place {
    revision: Revision,
    offset: usize,
    len: usize,
}

/// What the directory wants to know of a frame handed over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub records: usize,
    pub dead: usize,
    pub last_delta: Option<u64>,
    pub image: Option<u64>,
}

/// A unit being written: its items, without the head that counts them.
#[derive(Default)]
struct Unit {
    position: LogPosition,
    body: Vec<u8>,
    items: u64,
    places: Vec<Place>,
    delta: bool,
    image: bool,
}

/// Ended units, and the one being written.
#[derive(Default)]
pub struct Open {
    body: Vec<u8>,
    places: Vec<Place>,
    span: Option<Span>,
    summary: Summary,
    unit: Unit,
    in_unit: bool,
    applied: Option<LogPosition>,
    /// Nothing is handed over any more.
    pub(super) retired: bool,
}

impl Open {
    /// Empty, after `applied`.
    pub fn new(applied: Option<LogPosition>) -> Self {
        Self { applied, ..Self::default() }
    }

    pub fn begin(&mut self, position: LogPosition) {
        debug_assert!(!self.in_unit, "the unit before has ended");
        self.unit.position = position;
        self.in_unit = true;
    }

    pub fn record(&mut self, record: &Record) {
        let unit = &mut self.unit;
        let offset = unit.body.len();
        encode_record(&mut unit.body, record);
        unit.places.push(Place { revision: record.revision, offset, len: unit.body.len() - offset });
        unit.items += 1;
    }

    pub fn delta(&mut self, delta: &Delta) {
        encode_delta(&mut self.unit.body, delta);
        self.unit.items += 1;
        self.unit.delta = true;
        self.unit.image |= is_image(delta);
    }

    /// The unit joins the ended ones.
    pub fn end(&mut self) {
        let unit = &mut self.unit;
        encode_head(&mut self.body, unit.position, unit.items);
        let shift = self.body.len();
        self.body.extend_from_slice(&unit.body);
        let span = self.span.get_or_insert(Span { first: unit.position, ..Span::default() });
        span.last = unit.position;
        if let (Some(first), Some(last)) = (unit.places.first(), unit.places.last()) {
            if span.first_revision == 0 {
                span.first_revision = first.revision.main;
            }
            span.last_revision = last.revision.main;
        }
        self.summary.records += unit.places.len();
        self.places.extend(unit.places.drain(..).map(|place| Place { offset: place.offset + shift, ..place }));
        self.applied = Some(unit.position);
        if std::mem::take(&mut unit.delta) {
            self.summary.last_delta = Some(unit.position.index);
        }
        if std::mem::take(&mut unit.image) {
            self.summary.image = Some(unit.position.index);
        }
        unit.body.clear();
        unit.items = 0;
        self.in_unit = false;
    }

    pub fn in_unit(&self) -> bool {
        self.in_unit
    }

    pub fn applied(&self) -> Option<LogPosition> {
        self.applied
    }

    /// Bytes of ended units.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// A record of it died.
    pub fn count_dead(&mut self) {
        self.summary.dead += 1;
    }

    /// The ended units as a frame; they stay readable until `clear`.
    pub fn take_frame(&mut self) -> Option<(StateFrame, Summary)> {
        let span = self.span?;
        Some((StateFrame { span, body: Bytes::from(self.body.as_slice().to_vec()) }, self.summary))
    }

    /// Empties what `take_frame` gave.
    pub fn clear(&mut self) {
        self.body.clear();
        if self.body.capacity() > 4 * super::FULL_BYTES {
            self.body = Vec::new();
        }
        self.places.clear();
        self.span = None;
        self.summary = Summary::default();
    }

    /// The record of a revision, in a unit ended or not.
    pub fn find(&self, revision: Revision) -> Option<Record> {
        let place = |places: &[Place]| places.binary_search_by_key(&revision, |place| place.revision).ok().map(|at| places[at]);
        if let Some(place) = place(&self.places) {
            return decode(&self.body, place);
        }
        decode(&self.unit.body, place(&self.unit.places)?)
    }

    /// Records of ended units with `revision.main >= main`, in order.
    pub fn from(&self, main: i64) -> impl Iterator<Item = Record> {
        let start = self.places.partition_point(|place| place.revision.main < main);
        self.places[start..].iter().filter_map(|place| decode(&self.body, *place))
    }
}

fn decode(body: &[u8], place: Place) -> Option<Record> {
    match decode_item(&mut Bytes::copy_from_slice(&body[place.offset..place.offset + place.len])) {
        Some(Item::Record(record)) => Some(record),
        _ => None,
    }
}
