//! A disk that forgets: replays what was recorded, and makes images of what may be found after a power cut.
//!
//! Data waits until its file is synced, names until their directory is. What waits may survive or not, in part and in any order: a disk
//! owes nothing but whole sectors.

use crate::record::Op;
use crate::rng::Rng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a disk writes as a whole.
const SECTOR: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Directory,
    File(usize),
}

/// A change of a name.
#[derive(Clone, Debug)]
enum Name {
    Add(PathBuf, Node),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Name {
    fn concerns(&self, directory: &Path) -> bool {
        let within = |path: &Path| path.parent() == Some(directory);
        match self {
            Self::Add(path, _) | Self::Remove(path) => within(path),
            Self::Rename(from, to) => within(from) || within(to),
        }
    }

    fn removes(&self, directory: &Path) -> bool {
        matches!(self, Self::Remove(path) if directory.starts_with(path))
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Arc<[u8]>),
    SetLen(u64),
}

type Names = BTreeMap<PathBuf, Node>;

/// What is on it for sure, and what waits.
#[derive(Clone, Default)]
pub struct Disk {
    /// As the process sees it.
    current: Names,
    durable: Names,
    names: Vec<Name>,
    /// Durable contents.
    files: Vec<Vec<u8>>,
    /// (file, change) in the order they were made.
    data: Vec<(usize, Change)>,
}

/// What becomes of that which waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing is lost: the process was killed.
    Nothing,
    /// All of it.
    Everything,
    /// Files have their length, but zeros for what was not synced.
    Zeros,
    /// The first so many changes survive, the last of them torn; names likewise.
    Tail,
    /// The last so many survive.
    Head,
    /// The last sectors of the last change: what was inserted last is lost, what came just before is there.
    End,
    /// Any of them, names in order.
    Some,
    /// Any sector of any of them, any name.
    Sectors,
}

/// All of them.
pub const LOSSES: [Loss; 9] = [
    Loss::Nothing,
    Loss::Everything,
    Loss::Zeros,
    Loss::Tail,
    Loss::Head,
    // Where compaction is cut between a copy and what it copies.
    Loss::End,
    Loss::End,
    Loss::Some,
    Loss::Sectors,
];

impl Disk {
    /// A disk that holds what a directory holds, durably.
    pub fn of(directory: &Path) -> Self {
        let mut disk = Self::default();
        let mut open = vec![PathBuf::new()];
        while let Some(below) = open.pop() {
            for entry in std::fs::read_dir(directory.join(&below)).expect("listable").flatten() {
                let path = below.join(entry.file_name());
                let node = if entry.path().is_dir() {
                    open.push(path.clone());
                    Node::Directory
                } else {
                    disk.files.push(std::fs::read(entry.path()).expect("readable"));
                    Node::File(disk.files.len() - 1)
                };
                disk.current.insert(path, node);
            }
        }
        disk.durable = disk.current.clone();
        disk
    }

    /// The next recorded operation.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Mark(_) => {}
            Op::Create(path) => {
                self.files.push(Vec::new());
                self.name(Name::Add(path.clone(), Node::File(self.files.len() - 1)));
            }
            Op::Mkdir(path) => self.name(Name::Add(path.clone(), Node::Directory)),
            Op::Rename(from, to) => self.name(Name::Rename(from.clone(), to.clone())),
            Op::Remove(path) => self.name(Name::Remove(path.clone())),
            Op::Write(path, at, bytes) => self.data.push((self.file(path), Change::Write(*at, bytes.clone()))),
            Op::SetLen(path, len) => self.data.push((self.file(path), Change::SetLen(*len))),
            Op::Sync(path) => {
                let synced = self.file(path);
                let files = &mut self.files;
                self.data.retain(|(file, change)| {
                    if *file == synced {
                        change.make(&mut files[*file], |_| true);
                    }
                    *file != synced
                });
            }
            Op::SyncDir(path) => {
                let durable = &mut self.durable;
                self.names.retain(|name| {
                    // What was there before under the same name goes first, or it would take with it what is made durable here.
                    let synced = name.concerns(path) || name.removes(path);
                    if synced {
                        make(name, durable);
                    }
                    !synced
                });
            }
        }
    }

    fn name(&mut self, name: Name) {
        make(&name, &mut self.current);
        self.names.push(name);
    }

    fn file(&self, path: &Path) -> usize {
        match self.current.get(path) {
            Some(Node::File(file)) => *file,
            other => panic!("{} is {other:?}, not a file", path.display()),
        }
    }

    /// Whether anything could be lost now.
    pub fn waits(&self) -> bool {
        !self.data.is_empty() || !self.names.is_empty()
    }

    /// Makes an image of what a cut leaves now.
    pub fn image(&self, loss: Loss, rng: &mut Rng, directory: &Path) {
        let mut names = self.durable.clone();
        let kept = self.kept_names(loss, rng);
        self.names.iter().zip(kept).filter(|(_, kept)| *kept).for_each(|(name, _)| make(name, &mut names));
        // A name may be durable whose directory is not.
        let lost = |path: &Path| path.ancestors().skip(1).any(|above| !above.as_os_str().is_empty() && !names.contains_key(above));
        let lost: Vec<PathBuf> = names.keys().filter(|path| lost(path)).cloned().collect();
        names.retain(|path, _| !lost.contains(path));
        let mut files: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        for node in names.values() {
            if let Node::File(file) = node {
                files.insert(*file, self.files[*file].clone());
            }
        }
        let split = rng.below(self.data.len() as u64 + 1) as usize;
        let torn = rng.below(1 << 20);
        for (at, (file, change)) in self.data.iter().enumerate() {
            let Some(content) = files.get_mut(file) else { continue };
            match loss {
                Loss::Nothing => change.make(content, |_| true),
                Loss::Everything => {}
                Loss::Zeros => change.lengthen(content),
                Loss::Tail if at < split => change.make(content, |_| true),
                Loss::Tail if at == split => change.make(content, |left| left > torn % change.sectors()),
                Loss::Head if at > split => change.make(content, |_| true),
                Loss::Head if at == split => change.make(content, |left| left < torn % change.sectors()),
                Loss::Tail | Loss::Head => {}
                Loss::End if at + 1 == self.data.len() => change.make(content, |left| left > torn % 4),
                Loss::End => change.make(content, |_| true),
                Loss::Some if rng.below(2) == 0 => change.make(content, |_| true),
                Loss::Some => {}
                Loss::Sectors => change.make(content, |_| rng.below(2) == 0),
            }
        }
        write(&names, &files, directory);
    }

    /// A journal keeps the order of names; only the worst disk does not.
    fn kept_names(&self, loss: Loss, rng: &mut Rng) -> Vec<bool> {
        let upto = rng.below(self.names.len() as u64 + 1) as usize;
        (0..self.names.len())
            .map(|at| match loss {
                Loss::Nothing => true,
                Loss::Everything => false,
                Loss::Sectors => rng.below(2) == 0,
                _ => at < upto,
            })
            .collect()
    }

    /// All that was done, as a directory: for comparing with the real one.
    pub fn finished(&self, directory: &Path) {
        self.image(Loss::Nothing, &mut Rng::new(0), directory);
    }
}

/// Names the change as far as the image has what it is about.
fn make(name: &Name, names: &mut Names) {
    match name {
        Name::Add(path, node) => {
            names.insert(path.clone(), *node);
        }
        Name::Rename(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
        // With what is below it, should that be there still.
        Name::Remove(path) => names.retain(|known, _| !known.starts_with(path)),
    }
}

impl Change {
    /// Makes those sectors of it that `keep` says; it is told how many come behind one.
    fn make(&self, content: &mut Vec<u8>, mut keep: impl FnMut(u64) -> bool) {
        match self {
            Self::SetLen(len) => {
                if keep(u64::MAX) {
                    content.resize(*len as usize, 0);
                }
            }
            Self::Write(at, bytes) => {
                let (begin, end) = (*at as usize, *at as usize + bytes.len());
                let mut from = begin;
                while from < end {
                    let upto = ((from / SECTOR + 1) * SECTOR).min(end);
                    if keep((end - upto).div_ceil(SECTOR) as u64) {
                        content.resize(content.len().max(upto), 0);
                        content[from..upto].copy_from_slice(&bytes[from - begin..upto - begin]);
                    }
                    from = upto;
                }
            }
        }
    }

    fn sectors(&self) -> u64 {
        match self {
            Self::SetLen(_) => 1,
            Self::Write(_, bytes) => bytes.len().div_ceil(SECTOR).max(1) as u64,
        }
    }

    fn lengthen(&self, content: &mut Vec<u8>) {
        let len = match self {
            Self::SetLen(len) => *len as usize,
            Self::Write(at, bytes) => content.len().max(*at as usize + bytes.len()),
        };
        content.resize(len, 0);
    }
}

/// Writes an image, with holes where there are only zeros.
fn write(names: &Names, files: &BTreeMap<usize, Vec<u8>>, directory: &Path) {
    use std::os::unix::fs::FileExt;
    std::fs::create_dir_all(directory).expect("creatable");
    for (path, node) in names {
        let path = directory.join(path);
        match node {
            Node::Directory => std::fs::create_dir_all(path).expect("creatable"),
            Node::File(file) => {
                let content = &files[file];
                let out = std::fs::File::create(path).expect("creatable");
                out.set_len(content.len() as u64).expect("room");
                for (at, block) in content.chunks(64 << 10).enumerate() {
                    if block.iter().any(|byte| *byte != 0) {
                        out.write_all_at(block, (at * (64 << 10)) as u64).expect("writable");
                    }
                }
            }
        }
    }
}
