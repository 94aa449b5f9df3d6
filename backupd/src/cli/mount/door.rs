//! The kernel's side: every question is handed over with the place for its answer, so that no thread waits for a store.

use fuser::{
    FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyXattr, Request,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use tokio::sync::mpsc;

/// What the kernel asks.
pub enum Question {
    LookUp { parent: u64, name: Vec<u8>, reply: ReplyEntry },
    Forget { ino: u64, count: u64 },
    Attributes { ino: u64, reply: ReplyAttr },
    Target { ino: u64, reply: ReplyData },
    OpenDirectory { ino: u64, reply: ReplyOpen },
    CloseDirectory { handle: u64 },
    Names { handle: u64, after: u64, reply: ReplyDirectory },
    Entries { handle: u64, after: u64, reply: ReplyDirectoryPlus },
    Bytes { ino: u64, offset: u64, len: u32, reply: ReplyData },
    Xattr { ino: u64, name: Vec<u8>, room: u32, reply: ReplyXattr },
    XattrNames { ino: u64, room: u32, reply: ReplyXattr },
}

pub struct Door(mpsc::Sender<Question>);

impl Door {
    pub fn new(questions: mpsc::Sender<Question>) -> Self {
        Self(questions)
    }

    /// When nobody answers any more, the dropped place for the answer tells the kernel so.
    fn ask(&self, question: Question) {
        let _ = self.0.blocking_send(question);
    }
}

impl Filesystem for Door {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Each is a matter of speed: a kernel without one does without it.
        for wish in [InitFlags::FUSE_DO_READDIRPLUS, InitFlags::FUSE_READDIRPLUS_AUTO, InitFlags::FUSE_PARALLEL_DIROPS]
        {
            let _ = config.add_capabilities(wish);
        }
        let _ = config.add_capabilities(InitFlags::FUSE_CACHE_SYMLINKS);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.ask(Question::LookUp { parent: parent.0, name: name.as_bytes().to_vec(), reply });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, count: u64) {
        self.ask(Question::Forget { ino: ino.0, count });
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.ask(Question::Attributes { ino: ino.0, reply });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.ask(Question::Target { ino: ino.0, reply });
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Nothing here ever changes: what the kernel has read once it may keep.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.ask(Question::Bytes { ino: ino.0, offset, len: size, reply });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.ask(Question::OpenDirectory { ino: ino.0, reply });
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.ask(Question::Names { handle: fh.0, after: offset, reply });
    }

    fn readdirplus(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.ask(Question::Entries { handle: fh.0, after: offset, reply });
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.ask(Question::CloseDirectory { handle: fh.0 });
        reply.ok();
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.ask(Question::Xattr { ino: ino.0, name: name.as_bytes().to_vec(), room: size, reply });
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.ask(Question::XattrNames { ino: ino.0, room: size, reply });
    }
}
