//! Linearizable reads: coalesced ReadIndex rounds. STUB with the agreed face.

use super::Error;

/// One round at a time serves all readers that arrived before it began.
pub struct Read {}

impl Read {
    /// Returns once this member's state includes everything that was committed anywhere when the call was made.
    pub async fn linearizable(&self) -> Result<(), Error> {
        todo!()
    }
}
