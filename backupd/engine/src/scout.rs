//! Looking ahead: lists directories and asks about every entry, in tree order, while the walk reads what was found before.
//!
//! One thread of its own; with no workers it runs on the caller's thread, event by event.

use crate::backup::{Part, PartKind};
use crate::chunker::Cut;
use crate::error::{Error, Result};
use crate::glob::Glob;
use crate::source::{SourceDir, SourceFile, SourceFs, SourceRoot, Stat, StatKind, Xattrs};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Directories nested deeper than this are not entered; the snapshot is then partial.
const DEPTH_MAX: usize = 4096;
/// Events handed over together, and how many of them may hold an open directory: together with the batches that wait,
/// this bounds the files that are open at once.
const BATCH_EVENTS: usize = 512;
const BATCH_DIRECTORIES: usize = 32;
const BATCHES_WAITING: usize = 3;

/// What the walk is told, in tree order: a part's or directory's entries by name, directories entered where they stand.
pub(crate) enum Event {
    Enter {
        name: Vec<u8>,
        stat: Stat,
        dir: Arc<dyn SourceDir>,
        xattrs: Xattrs,
        cut: Cut,
    },
    Leave,
    /// Anything but a directory.
    Entry {
        name: Vec<u8>,
        stat: Stat,
    },
    /// A part that is one file.
    File {
        name: Vec<u8>,
        stat: Stat,
        file: Box<dyn SourceFile>,
        cut: Cut,
    },
    /// An entry that cannot be looked at.
    Failed {
        name: Vec<u8>,
        error: io::Error,
    },
}

struct Frame {
    dir: Arc<dyn SourceDir>,
    /// What is still to come, last first.
    names: Vec<Vec<u8>>,
    path: Vec<u8>,
}

/// Produces the events of all parts.
struct Scout<'a> {
    fs: &'a dyn SourceFs,
    /// Last first.
    parts: Vec<&'a Part>,
    excludes: &'a Excludes,
    cut: Cut,
    stack: Vec<Frame>,
}

/// Names and paths that are left out.
pub(crate) struct Excludes {
    names: Vec<Vec<u8>>,
    paths: Vec<Vec<u8>>,
    patterns: Vec<Glob>,
}

impl Excludes {
    /// With a slash: a path from a part's name on; without: any entry of this name. With `*`, `?` or `[` in it, a text
    /// also stands for what fits it as a pattern.
    pub(crate) fn new(texts: &[String]) -> Self {
        let plain = texts.iter().map(|text| text.trim_matches('/').as_bytes().to_vec());
        let (paths, names): (Vec<_>, Vec<_>) = plain.partition(|text: &Vec<u8>| text.contains(&b'/'));
        let pattern = |text: &&Vec<u8>| text.iter().any(|byte| b"*?[".contains(byte));
        let patterns = names.iter().chain(&paths).filter(pattern).filter_map(|text| Glob::parse(text, false).ok());
        Self { patterns: patterns.collect(), names, paths }
    }

    fn covers(&self, path: &[u8], name: &[u8]) -> bool {
        self.names.iter().any(|exclude| exclude == name)
            || self.paths.iter().any(|exclude| {
                let above = exclude.strip_suffix(name).and_then(|above| above.strip_suffix(b"/"));
                above == Some(path)
            })
            || (!self.patterns.is_empty() && {
                let whole = [path, b"/", name].concat();
                self.patterns.iter().any(|pattern| pattern.fits(&whole))
            })
    }
}

impl Scout<'_> {
    fn next(&mut self) -> Result<Option<Event>> {
        loop {
            let depth = self.stack.len();
            let Some(frame) = self.stack.last_mut() else {
                let Some(part) = self.parts.pop() else { return Ok(None) };
                return self.part(part).map(Some);
            };
            let Some(name) = frame.names.pop() else {
                self.stack.pop();
                return Ok(Some(Event::Leave));
            };
            if self.excludes.covers(&frame.path, &name) {
                continue;
            }
            let found = frame.dir.stat_entry(&name).and_then(|stat| match stat.kind {
                StatKind::Directory if depth >= DEPTH_MAX => Err(io::ErrorKind::InvalidInput.into()),
                StatKind::Directory => Ok((stat, Some(frame.dir.open_dir(&name)?))),
                _ => Ok((stat, None)),
            });
            return Ok(Some(match found {
                Ok((stat, None)) => Event::Entry { name, stat },
                Ok((stat, Some(dir))) => {
                    let path = [frame.path.as_slice(), b"/", &name].concat();
                    match self.enter(Arc::from(dir), stat, name, path) {
                        Ok(event) => event,
                        Err((name, error)) => Event::Failed { name, error },
                    }
                }
                Err(error) => Event::Failed { name, error },
            }));
        }
    }

    fn enter(
        &mut self,
        dir: Arc<dyn SourceDir>,
        stat: Stat,
        name: Vec<u8>,
        path: Vec<u8>,
    ) -> std::result::Result<Event, (Vec<u8>, io::Error)> {
        match dir.names().and_then(|names| Ok((names, dir.xattrs()?))) {
            Ok((mut names, xattrs)) => {
                names.sort_unstable_by(|a, b| b.cmp(a));
                self.stack.push(Frame { dir: Arc::clone(&dir), names, path });
                Ok(Event::Enter { name, stat, dir, xattrs, cut: self.cut })
            }
            Err(error) => Err((name, error)),
        }
    }

    fn part(&mut self, part: &Part) -> Result<Event> {
        // A part's path is record content; its name is not, but is left out as well.
        let failed = |error: io::Error| Error::io("a part of the source cannot be opened", &error);
        self.cut = match part.kind {
            PartKind::Files => Cut::Content,
            PartKind::Pages { page_bytes } => Cut::Fixed(page_bytes as usize),
        };
        let name = part.name.as_bytes().to_vec();
        match self.fs.open(&part.path).map_err(failed)? {
            SourceRoot::Directory(dir) => {
                let stat = dir.stat().map_err(failed)?;
                let entered = self.enter(Arc::from(dir), stat, name.clone(), name);
                entered.map_err(|(_, error)| failed(error))
            }
            SourceRoot::File(file) => {
                let stat = file.stat().map_err(failed)?;
                Ok(Event::File { name, stat, file, cut: self.cut })
            }
        }
    }
}

/// Where the walk gets its events from.
pub(crate) enum Events<'a> {
    Here(Box<ScoutHere<'a>>),
    Thread { batches: Receiver<Result<Vec<Event>>>, batch: std::vec::IntoIter<Event> },
}

pub(crate) struct ScoutHere<'a>(Scout<'a>);

impl Events<'_> {
    pub(crate) fn next(&mut self) -> Result<Option<Event>> {
        match self {
            Self::Here(here) => here.0.next(),
            Self::Thread { batches, batch } => loop {
                if let Some(event) = batch.next() {
                    return Ok(Some(event));
                }
                match batches.recv() {
                    Ok(next) => *batch = next?.into_iter(),
                    Err(_) => return Ok(None),
                }
            },
        }
    }
}

/// Runs `walk` with the events of these parts.
pub(crate) fn scout<T>(
    fs: &dyn SourceFs,
    parts: &[Part],
    excludes: &Excludes,
    threaded: bool,
    walk: impl FnOnce(&mut Events<'_>) -> Result<T>,
) -> Result<T> {
    let mut ordered: Vec<&Part> = parts.iter().collect();
    ordered.sort_by(|a, b| b.name.cmp(&a.name));
    let scout = Scout { fs, parts: ordered, excludes, cut: Cut::Content, stack: Vec::new() };
    if !threaded {
        return walk(&mut Events::Here(Box::new(ScoutHere(scout))));
    }
    let (send, batches) = sync_channel(BATCHES_WAITING);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, scout) = (&stop, scout);
        scope.spawn(move || look_ahead(scout, &send, stop));
        let result = walk(&mut Events::Thread { batches, batch: Vec::new().into_iter() });
        stop.store(true, Ordering::Relaxed);
        result
    })
}

fn look_ahead(mut scout: Scout<'_>, send: &SyncSender<Result<Vec<Event>>>, stop: &AtomicBool) {
    loop {
        let (mut batch, mut directories) = (Vec::with_capacity(BATCH_EVENTS), 0);
        let mut ended = None;
        while batch.len() < BATCH_EVENTS && directories < BATCH_DIRECTORIES && ended.is_none() {
            match scout.next() {
                Ok(Some(event)) => {
                    directories += usize::from(matches!(event, Event::Enter { .. }));
                    batch.push(event);
                }
                Ok(None) => ended = Some(Ok(())),
                Err(error) => ended = Some(Err(error)),
            }
        }
        // The walk has gone: nobody wants to know more.
        if stop.load(Ordering::Relaxed) || send.send(Ok(batch)).is_err() {
            return;
        }
        match ended {
            None => {}
            Some(Ok(())) => return,
            Some(Err(error)) => {
                let _ = send.send(Err(error));
                return;
            }
        }
    }
}
