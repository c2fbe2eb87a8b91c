//! What looks at the store as a whole.

use super::Store;
use super::txn::successor;

/// Keys looked at per lock hold.
const CHUNK_KEYS: usize = 1000;

impl Store {
    /// Shows every live key that has a lease, in key order.
    pub fn leased(&self, visit: &mut dyn FnMut(&[u8], i64)) {
        let mut next = Some(Vec::new());
        while let Some(from) = next.take() {
            let index = self.index.read();
            for (passed, entry) in index.tree.iter_from(&from).enumerate() {
                if entry.live() && entry.item.lease() != 0 {
                    visit(entry.key(), entry.item.lease());
                }
                if passed + 1 == CHUNK_KEYS {
                    next = Some(successor(entry.key()));
                    break;
                }
            }
        }
    }
}
