//! A network of one's own: every member lives in a namespace, and the packets between them pass through this process, which loses, delays,
//! doubles and reorders them as told, for each pair and direction.
//!
//! Neither `tc netem` nor a packet filter is needed (not every kernel has them), and nothing is left behind: devices and namespaces vanish
//! with the process. It needs root, `/dev/net/tun` and `ip`.

use crate::fault::namespace::Namespace;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What happens to packets in one direction between two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// Nothing gets through.
    pub cut: bool,
    /// Of a thousand packets, so many are lost.
    pub lost_permille: u32,
    /// Of a thousand packets, so many come twice.
    pub doubled_permille: u32,
    /// How long each one takes.
    pub delay: Duration,
    /// Up to so much more, for each one anew: they overtake each other.
    pub jitter: Duration,
}

/// The network. Members count from 0; clients share one more place.
pub struct Network {
    spaces: Vec<Namespace>,
    shared: Arc<Shared>,
    carrier: Option<JoinHandle<()>>,
}

struct Shared {
    /// `links[from][to]`.
    links: Mutex<Vec<Vec<Link>>>,
    stop: AtomicBool,
    carried: AtomicU64,
    lost: AtomicU64,
}

impl Network {
    /// For `members` members and their clients; everything gets through. `seed` decides which packets are lost.
    pub fn new(members: usize, seed: u64) -> io::Result<Self> {
        let places = members + 1;
        let spaces = (0..places).map(|_| Namespace::new()).collect::<io::Result<Vec<_>>>()?;
        let devices = spaces.iter().enumerate().map(|(at, space)| space.device(last_byte(at))).collect::<io::Result<Vec<_>>>()?;
        let shared = Arc::new(Shared {
            links: Mutex::new(vec![vec![Link::default(); places]; places]),
            stop: AtomicBool::new(false),
            carried: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let carrier = Carrier { devices, shared: shared.clone(), random: StdRng::seed_from_u64(seed), late: BinaryHeap::new(), sent: 0 };
        let carrier = std::thread::Builder::new().name("network".into()).spawn(move || carrier.run())?;
        Ok(Self { spaces, shared, carrier: Some(carrier) })
    }

    /// A member's address.
    pub fn address(member: usize) -> String {
        format!("10.77.0.{}", last_byte(member))
    }

    /// Where a member lives; the number of members is the clients' place.
    pub fn space(&self, member: usize) -> &Namespace {
        &self.spaces[member]
    }

    /// Where clients live.
    pub fn clients(&self) -> &Namespace {
        self.spaces.last().expect("there is one")
    }

    /// Changes one direction.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.shared.links.lock().expect("no panic while held")[from][to] = link;
    }

    /// Changes both directions between two.
    pub fn set_both(&self, one: usize, other: usize, link: Link) {
        self.set(one, other, link);
        self.set(other, one, link);
    }

    /// Everything gets through again.
    pub fn heal(&self) {
        for row in self.shared.links.lock().expect("no panic while held").iter_mut() {
            row.fill(Link::default());
        }
    }

    /// Packets carried and lost so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.carried.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            let _ = carrier.join();
        }
    }
}

fn last_byte(place: usize) -> u8 {
    u8::try_from(place + 1).expect("few members")
}

/// A packet on its way: when it is due, in which order it was sent, where to, what.
type Late = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct Carrier {
    devices: Vec<File>,
    shared: Arc<Shared>,
    random: StdRng,
    late: BinaryHeap<Late>,
    sent: u64,
}

impl Carrier {
    fn run(mut self) {
        let mut packet = vec![0; 65536];
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.wait();
            for from in 0..self.devices.len() {
                // Not all of one at a time: the others' turn must come.
                for _ in 0..64 {
                    match (&self.devices[from]).read(&mut packet) {
                        Ok(length) if length > 0 => self.carry(from, &packet[..length]),
                        _ => break,
                    }
                }
            }
            self.deliver_late();
        }
    }

    /// Until a packet comes or one is due.
    #[allow(unsafe_code)]
    fn wait(&self) {
        let due = self.late.peek().map(|Reverse((due, ..))| due.saturating_duration_since(Instant::now()));
        let timeout = due.map_or(50, |due| i32::try_from(due.as_micros().div_ceil(1000)).unwrap_or(50).min(50));
        let mut polled: Vec<libc::pollfd> =
            self.devices.iter().map(|device| libc::pollfd { fd: device.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
        let count = libc::nfds_t::try_from(polled.len()).expect("few devices");
        // SAFETY: the array lives through the call and has that many elements.
        unsafe { libc::poll(polled.as_mut_ptr(), count, timeout) };
    }

    fn carry(&mut self, from: usize, packet: &[u8]) {
        let Some(to) = destination(packet).filter(|to| *to < self.devices.len()) else { return };
        let link = self.shared.links.lock().expect("no panic while held")[from][to];
        if link.cut || self.random.random_range(0..1000) < link.lost_permille {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.send(to, packet, link);
        if self.random.random_range(0..1000) < link.doubled_permille {
            self.send(to, packet, link);
        }
    }

    fn send(&mut self, to: usize, packet: &[u8], link: Link) {
        self.shared.carried.fetch_add(1, Ordering::Relaxed);
        let mut delay = link.delay;
        if !link.jitter.is_zero() {
            delay += link.jitter.mul_f64(self.random.random());
        }
        if delay.is_zero() {
            let _ = (&self.devices[to]).write(packet);
        } else {
            self.sent += 1;
            self.late.push(Reverse((Instant::now() + delay, self.sent, to, packet.to_vec())));
        }
    }

    fn deliver_late(&mut self) {
        let now = Instant::now();
        while self.late.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            if let Some(Reverse((_, _, to, packet))) = self.late.pop() {
                let _ = (&self.devices[to]).write(&packet);
            }
        }
    }
}

/// The place an IPv4 packet goes to.
fn destination(packet: &[u8]) -> Option<usize> {
    let address = packet.get(16..20).filter(|_| packet[0] >> 4 == 4)?;
    (address[..3] == [10, 77, 0]).then(|| usize::from(address[3]).checked_sub(1))?
}
