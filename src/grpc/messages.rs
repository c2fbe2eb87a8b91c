//! Messages in the bytes of a gRPC body, by the lengths they begin with.

/// Flag and length.
const HEAD_BYTES: usize = 5;

/// Follows one body.
#[derive(Debug, Default)]
pub struct Messages {
    head: [u8; HEAD_BYTES],
    /// How much of the head is known.
    known: usize,
    /// What is left of the message.
    left: usize,
}

impl Messages {
    /// How many more messages begin, now that these bytes are there, too: a message begins when its head is whole.
    pub fn begun(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while !data.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(data.len());
                self.left -= taken;
                data = &data[taken..];
                continue;
            }
            let taken = (HEAD_BYTES - self.known).min(data.len());
            self.head[self.known..self.known + taken].copy_from_slice(&data[..taken]);
            self.known += taken;
            data = &data[taken..];
            if self.known == HEAD_BYTES {
                let [_, length @ ..] = self.head;
                (self.known, self.left) = (0, u32::from_be_bytes(length) as usize);
                begun += 1;
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wherever_the_bytes_are_cut() {
        let body = [0, 0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9];
        for size in 1..=body.len() {
            let mut messages = Messages::default();
            let begun: u64 = body.chunks(size).map(|data| messages.begun(data)).sum();
            assert_eq!(begun, 3, "in pieces of {size}");
        }
    }
}
